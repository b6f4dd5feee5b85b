"""BlackJAX's algorithms as chains: the same chain as BlackJAX's own steps, by the loop and in parallel."""

from collections.abc import Callable
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import parsample
from parsample.samplers import from_blackjax
from parsample.samplers.from_blackjax import Unknowns
from tests.tolerances import CONVERGED, SAME_COMPUTATION

STEPS = 64
TIGHT: dict[str, Any] = {"atol": 1e-10, "rtol": 1e-10}


def logdensity(x: Array) -> Array:
    return -0.5 * jnp.sum(x**2 / jnp.asarray([1.0, 4.0, 0.25])) - 0.05 * jnp.sum(x**4)


MASS = np.ones(3)


class Case(NamedTuple):
    make: Callable[[], Any]
    method: str
    others: int  # unknown arrays beside the position


# Of each kind of state: the position alone, and with something random beside it.
CASES = {
    "mala": Case(lambda: blackjax.mala(logdensity, 0.2), "quasi_newton", 0),
    "hmc": Case(lambda: blackjax.hmc(logdensity, 0.2, MASS, 4), "newton", 0),
    "nuts": Case(lambda: blackjax.nuts(logdensity, 0.4, MASS), "newton", 0),
    "ghmc": Case(lambda: blackjax.ghmc(logdensity, 0.2, MASS, 0.5, 0.3), "newton", 2),
    "mclmc": Case(lambda: blackjax.mclmc(logdensity, 1.0, 0.3), "newton", 1),
    "rmh": Case(lambda: blackjax.rmh(logdensity, lambda key, x: x + jax.random.normal(key, x.shape)), "picard", 0),
}
START = np.array([0.1, 0.2, -0.3])


@pytest.mark.parametrize(
    "case", [case if case in ("mala", "rmh") else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
@pytest.mark.usefixtures("x64")
def test_the_chain_is_blackjaxs(case: str) -> None:
    make, method, others = CASES[case]
    algorithm = make()
    chain = from_blackjax(algorithm)

    @jax.jit
    def three_ways() -> tuple[Any, Any, Any]:
        position = jnp.asarray(START)
        keys = chain.draw_inputs(jax.random.key(1), STEPS, position)
        state = chain.init(position, jax.random.key(2))
        start = chain.unknowns(state)

        def own(state: Any, key: Array) -> tuple[Any, Any]:
            state, _ = algorithm.step(key, state)
            return state, chain.unknowns(state)

        raw = jax.lax.scan(own, algorithm.init(position, jax.random.key(2)), keys)[1]
        loop = parsample.evaluate_sequential(chain.transition, start, keys)
        parallel = parsample.evaluate(chain.transition, start, keys, method=method, throw=False, **TIGHT)
        return raw, loop.states, parallel

    raw, loop, parallel = three_ways()
    jax.tree.map(SAME_COMPUTATION.check, loop, raw)
    assert len(jax.tree.leaves(loop)) == 1 + others
    assert isinstance(loop, Unknowns) == bool(others)
    positions = loop.position if others else loop
    assert len(np.unique(np.asarray(positions)[:, 0])) > STEPS // 4
    assert parallel.converged, parallel.explain()
    jax.tree.map(CONVERGED.check, parallel.states, loop)


def test_a_key_in_the_state_is_drawn_anew_from_the_key_of_the_step() -> None:
    algorithm = blackjax.dhmc(logdensity, 0.2, MASS.astype(np.float32))
    chain = from_blackjax(algorithm)
    position = jnp.asarray(START, jnp.float32)
    state = chain.init(position, jax.random.key(2))
    assert chain.unknowns(state).shape == (3,)
    step = jax.jit(chain.step)
    keys = chain.draw_inputs(jax.random.key(1), 20, position)
    taken = []
    for key in keys:
        after, info = step(state, key)
        # Whatever key the state holds, the step is that of the position and of its own key.
        other = state._replace(random_generator_arg=jax.random.key(99))
        np.testing.assert_array_equal(step(other, key)[0].position, after.position)
        taken.append(int(info.num_integration_steps))
        state = after
    assert len(set(taken)) > 3


def test_what_is_unknown_is_found_in_a_compiled_init() -> None:
    algorithm = blackjax.mclmc(logdensity, 1.0, 0.3)
    compiled = algorithm._replace(init=jax.jit(algorithm.init))
    # All of the results of a compiled part count as random: the log density and its gradient are unknown then, too.
    state = from_blackjax(compiled).init(jnp.asarray(START, jnp.float32), jax.random.key(0))
    assert len(from_blackjax(algorithm).unknowns(state).others) == 1
    assert len(from_blackjax(compiled).unknowns(state).others) == 3


def test_another_gate_is_refused() -> None:
    chain = from_blackjax(blackjax.mala(logdensity, 0.2))
    key = jax.random.key(0)
    with pytest.raises(
        ValueError, match=r"gate is 'straight_through', but BlackJAX's kernels keep .* use gate='frozen'"
    ):
        chain.transition.with_gate("straight_through")(jnp.zeros(3), key)


def test_what_is_no_algorithm_is_refused() -> None:
    with pytest.raises(ValueError, match=r"algorithm is a GenerateSamplingAPI without step, expected a sampling alg"):
        from_blackjax(blackjax.mala)


def test_a_state_without_a_position_is_refused() -> None:
    chain = from_blackjax(blackjax.orbital_hmc(logdensity, 0.3, MASS.astype(np.float32), 5))
    with pytest.raises(ValueError, match=r"has the state PeriodicOrbitalState with positions, .* expected one with a"):
        chain.init(jnp.zeros(3), jax.random.key(0))


@pytest.mark.parametrize("name", ["mala", "nuts"])
@pytest.mark.parametrize("integers", [np.array([1, 2]), jnp.asarray([True, False])])
def test_an_integer_leaf_is_named(name: str, integers: Any) -> None:
    def density(position: Any) -> Array:
        return -0.5 * jnp.sum(position["x"] ** 2) - jnp.sum(position["k"] ** 2.0)

    chain = from_blackjax(
        {"mala": blackjax.mala, "nuts": lambda f, h: blackjax.nuts(f, h, MASS.astype(np.float32))}[name](density, 0.2)
    )
    with pytest.raises(ValueError, match=r"position\['k'\] has dtype (int32|bool), expected floating .*; convert it"):
        chain.init({"x": jnp.zeros(1), "k": integers})


def test_integers_are_left_to_algorithms_without_a_gradient() -> None:
    def density(position: Array) -> Array:
        return -0.5 * jnp.sum(position.astype(float) ** 2)

    def propose(key: Array, position: Array) -> Array:
        return position + jax.random.randint(key, position.shape, -1, 2)

    chain = from_blackjax(blackjax.rmh(density, propose))
    state, _ = chain.step(chain.init(jnp.arange(2)), jax.random.key(0))
    assert state.position.dtype == jnp.int32
