"""Gibbs: a sweep of random walks by NumPy, conditional updates, and updates that do not keep to their block."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import parsample
from parsample.engine.methods import Newton
from parsample.engine.transition import GATES
from parsample.samplers import Gibbs
from parsample.samplers.gibbs import Conditional
from parsample.samplers.metropolis import MetropolisInput
from parsample.targets import EightSchoolsConjugate, ProbitRegression
from parsample.targets.ising import CRITICAL_TEMPERATURE, Ising
from parsample.warmup.coordinates import Standardised
from tests.samplers import textbook
from tests.samplers.densities import counted
from tests.tolerances import CONVERGED, SAME_COMPUTATION

STEP_SIZE = 0.9


# --- random walks


def sweep_by_numpy(x, noises, log_uniforms):
    """Move and judge coordinate after coordinate: the position, the probabilities and the decisions."""
    rates, decisions = [], []
    for i in range(len(x)):
        moved = x.copy()
        moved[i] += STEP_SIZE * noises[i]
        ratio = textbook.logdensity(moved) - textbook.logdensity(x)
        rates.append(np.exp(min(ratio, 0)))
        decisions.append(log_uniforms[i] < ratio)
        x = moved if decisions[-1] else x
    return x, rates, decisions


def random_steps(rng, number=60):
    positions, noises = rng.standard_normal((2, number, textbook.DIM))
    return positions, MetropolisInput(noises, np.log(rng.uniform(size=noises.shape)))


@pytest.mark.usefixtures("x64")
def test_a_step_is_the_textbooks(rng):
    gibbs = Gibbs(textbook.Quartic(), STEP_SIZE)
    positions, inputs = random_steps(rng)
    states, infos = jax.jit(jax.vmap(lambda x, input: gibbs.step(gibbs.init(x), input)))(positions, inputs)
    swept = [sweep_by_numpy(x, *input) for x, *input in zip(positions, *inputs, strict=True)]
    expected, rates, decisions = (np.array(part) for part in zip(*swept, strict=True))
    assert 0.2 < decisions.mean() < 0.8
    assert len(np.unique(decisions.sum(1))) == textbook.DIM + 1
    SAME_COMPUTATION.check(states.position, expected)
    SAME_COMPUTATION.check(states.logdensity, np.array([textbook.logdensity(x) for x in expected]))
    SAME_COMPUTATION.check(infos.acceptance_rate, rates.mean(1))
    np.testing.assert_array_equal(infos.is_accepted, decisions.any(1))


@pytest.mark.usefixtures("x64")
def test_the_frozen_derivative_is_the_identity(rng):
    gibbs = Gibbs(textbook.Quartic(), STEP_SIZE)
    positions, inputs = random_steps(rng)
    frozen, relaxed = (
        jax.jit(jax.vmap(jax.jacfwd(gibbs.transition.with_gate(gate))))(positions, inputs) for gate in GATES
    )
    np.testing.assert_array_equal(frozen, np.broadcast_to(np.eye(textbook.DIM), frozen.shape))
    assert np.abs(relaxed - frozen).max() > 0.1
    assert np.isfinite(relaxed).all()
    known = gibbs.transition.with_diagonal(positions[0], jax.tree.map(lambda leaf: leaf[0], inputs))
    assert known is not None
    np.testing.assert_array_equal(known[1], np.ones(textbook.DIM))


def test_a_sequential_step_costs_one_log_density_a_coordinate(rng_key):
    density, calls = counted(textbook.Quartic())
    gibbs = Gibbs(density, STEP_SIZE)
    start = jnp.zeros(textbook.DIM)
    solution = parsample.evaluate_sequential(gibbs.transition, start, gibbs.draw_inputs(rng_key, 20, start))
    jax.block_until_ready(solution.states)
    jax.effects_barrier()
    assert len(calls) == 1 + 20 * textbook.DIM


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf])
@pytest.mark.parametrize("gate", GATES)
def test_a_move_without_a_density_is_rejected(value, gate):
    gibbs = Gibbs(lambda x: jnp.where(x[0] < -0.5, value, -0.5 * x @ x), 1.0)
    # With numbers this small every move that has any chance is accepted.
    input = MetropolisInput(jnp.asarray([-10.0, 0.5]), jnp.asarray([-80.0, -80.0]))
    state, info = gibbs.step(gibbs.init(jnp.zeros(2)), input, gate)
    np.testing.assert_array_equal(state.position, [0, 0.5])
    SAME_COMPUTATION.check(info.acceptance_rate, np.float32(np.exp(-0.125) / 2))
    jacobian = jax.jacfwd(gibbs.transition.with_gate(gate))(jnp.zeros(2), input)
    assert np.isfinite(jacobian).all()


# --- conditional updates


CORRELATION = 0.8


def normal(rng_key, num_steps, dtype):
    return jax.random.normal(rng_key, (num_steps,), dtype)


def given_the_other(other):
    """The update of one of two correlated normal variables."""
    width = np.sqrt(1 - CORRELATION**2)
    return lambda position, noise: (CORRELATION * position[other] + width * noise).astype(noise.dtype)


PAIR = (Conditional("a", given_the_other("b"), normal), Conditional("b", given_the_other("a"), normal))


def pair(dtype=jnp.float32):
    return {"a": jnp.asarray(0.5, dtype), "b": jnp.asarray(-0.3, dtype)}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_sweep_is_by_hand_and_its_derivative_too(dtype, rng_key):
    gibbs = Gibbs(None, updates=PAIR)
    start = pair(dtype)
    inputs = gibbs.draw_inputs(rng_key, 200, start)
    states = parsample.evaluate_sequential(gibbs.transition, start, inputs).states
    (noise_a, noise_b), (_, b) = map(np.asarray, inputs), map(float, start.values())
    assert noise_a.dtype == dtype
    for i in range(3):
        a = CORRELATION * b + 0.6 * noise_a[i]
        b = CORRELATION * a + 0.6 * noise_b[i]
        np.testing.assert_allclose([states["a"][i], states["b"][i]], [a, b], rtol=1e-5)
    state, info = gibbs.step(gibbs.init(start), jax.tree.map(lambda leaf: leaf[0], inputs))
    assert np.isnan(state.logdensity)
    assert state.logdensity.dtype == dtype
    assert info.is_accepted
    assert info.acceptance_rate == 1
    jacobian = jax.jacfwd(
        lambda x: ravel_pytree(gibbs.transition(dict(zip("ab", x, strict=True)), (dtype(0), dtype(0))))[0]
    )
    np.testing.assert_allclose(jacobian(jnp.zeros(2, dtype)), [[0, CORRELATION], [0, CORRELATION**2]], rtol=1e-6)


def test_several_blocks_at_once_and_the_whole_position(rng_key):
    def both(position, noise):
        a = given_the_other("b")(position, noise[0])
        return a, given_the_other("a")({**position, "a": a}, noise[1])

    def whole(vector, noise):
        return jnp.stack(both({"a": vector[0], "b": vector[1]}, noise))

    def draw(rng_key, num_steps, dtype):
        return jax.random.normal(rng_key, (num_steps, 2), dtype)

    start = pair()
    at_once, flat = Gibbs(None, updates=[(("a", "b"), both, draw)]), Gibbs(None, updates=[(None, whole, draw)])
    (inputs,) = at_once.draw_inputs(rng_key, 20, start)
    one = parsample.evaluate_sequential(at_once.transition, start, (inputs,)).states
    two = parsample.evaluate_sequential(flat.transition, jnp.stack([*start.values()]), (inputs,)).states
    three = parsample.evaluate_sequential(Gibbs(None, updates=PAIR).transition, start, tuple(inputs.T)).states
    for name, column in zip("ab", two.T, strict=True):
        SAME_COMPUTATION.check(one[name], column)
        SAME_COMPUTATION.check(one[name], three[name])


def test_updates_come_with_the_log_density():
    class Density:
        conditional_updates = PAIR

        def __call__(self, position):
            return -position["a"]

    gibbs = Gibbs(Density())
    assert gibbs.updates == PAIR
    assert not gibbs.has_step_size
    assert Gibbs(Density().__call__).has_step_size
    assert float(gibbs.init(pair()).logdensity) == -0.5
    assert gibbs.surrogate() is None
    assert gibbs.with_diagonal(pair(), (0.0, 0.0)) is None


def in_place(position, noise):
    position["b"] = noise
    return noise


WRONG: dict[str, tuple[list[Any], str]] = {
    "returns the whole position": (
        [("a", lambda position, noise: {**position, "a": noise}, normal), PAIR[1]],
        r"the update of the block 'a' returned \{'a': 'float32\[\]', 'b': 'float32\[\]'\}, expected float32\[\], like "
        "that block; return the block and nothing else",
    ),
    "changes another block": (
        [("a", in_place, normal), PAIR[1]],
        "the update of the block 'a' changed the position that it was given, expected it to return its block",
    ),
    "another shape": (
        [("a", lambda position, noise: noise[None], normal), PAIR[1]],
        r"the update of the block 'a' returned float32\[1\], expected float32\[\]",
    ),
    "another dtype": (
        [("a", lambda position, noise: jnp.asarray(1), normal), PAIR[1]],
        r"the update of the block 'a' returned int32\[\], expected float32\[\]",
    ),
    "one value for two": (
        [(("a", "b"), lambda position, noise: noise, normal)],
        r"the update of the block \('a', 'b'\) returned float32\[\], expected \('float32\[\]', 'float32\[\]'\)",
    ),
    "an unknown block": ([*PAIR, ("aa", in_place, normal)], r"block is 'aa', expected one of a, b\. Did you mean 'a'"),
    "a block without an update": (
        [PAIR[0]],
        r"the entries \['b'\] of the position have no update, expected one for each; what is fixed belongs into",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_update_that_does_not_keep_to_its_block_is_refused(wrong, rng_key):
    updates, message = WRONG[wrong]
    gibbs = Gibbs(None, updates=updates)
    inputs = gibbs.draw_inputs(rng_key, 3, pair())
    with pytest.raises(ValueError, match=message):
        parsample.evaluate_sequential(gibbs.transition, pair(), inputs)


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ([], "updates is empty, expected one for each entry of the position"),
        ([PAIR[0], in_place], r"updates\[1\] is <function in_place .*>, expected Conditional\(block, update, draw\)"),
        (
            [("a", 1.0, normal)],
            r"updates\[0\] is \('a', 1\.0, .*, expected Conditional\(block, update, draw\) with two functions",
        ),
        (None, "logdensity_fn is None, expected a log density, or updates that need none"),
    ],
)
def test_updates_that_are_none_are_refused(updates, message):
    with pytest.raises(ValueError, match=message):
        Gibbs(None, updates=updates)


def test_a_block_of_a_position_without_names_is_refused():
    with pytest.raises(ValueError, match=r"block is 'a', but the position is a .*, expected a dict with that entry"):
        Gibbs(None, updates=PAIR).init(jnp.zeros(2))


def test_random_walks_move_no_integers():
    with pytest.raises(ValueError, match=r"the position is \{'n': 'int32\[\]'\}, expected floating-point arrays"):
        Gibbs(lambda position: 0.0).init({"n": jnp.asarray(1)})


# --- in parallel


@pytest.mark.slow
def test_eight_schools_in_parallel():
    target = EightSchoolsConjugate()
    gibbs = Gibbs(target.logdensity, updates=target.conditional_updates)
    start = target.initial_position(jax.random.key(0))
    # Beyond 1,820 steps at a time JAX 0.10 compiles Jacobians of this chain wrongly for CPUs, and Newton stalls there.
    inputs = gibbs.draw_inputs(jax.random.key(1), 1800, start)
    loop = parsample.evaluate_sequential(gibbs.transition, start, inputs)
    solution = parsample.evaluate(
        gibbs.transition,
        start,
        inputs,
        method="newton",
        conditioning=parsample.Conditioning(projection=False),
        throw=False,
    )
    assert solution.converged, solution.explain()
    assert int(solution.iterations) <= 16
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=0.05), solution.states, loop.states)


@pytest.mark.usefixtures("x64")
@pytest.mark.slow
def test_probit_in_parallel():
    target = ProbitRegression()
    gibbs = Gibbs(target.logdensity, updates=target.conditional_updates)
    start = target.initial_position(jax.random.key(0))
    inputs = gibbs.draw_inputs(jax.random.key(1), 300, start)
    loop = parsample.evaluate_sequential(gibbs.transition, start, inputs)
    solution = parsample.evaluate(gibbs.transition, start, inputs, method=Newton(), atol=1e-10, rtol=1e-10)
    assert int(solution.iterations) <= 10
    CONVERGED.check(solution.states["coefficients"], loop.states["coefficients"])


@pytest.mark.parametrize(("temperature", "most"), [(2 * CRITICAL_TEMPERATURE, 30), (CRITICAL_TEMPERATURE / 1.5, 300)])
@pytest.mark.parametrize("method", ["jacobi", "picard"])
def test_spins_in_parallel(method, temperature, most):
    ising = Ising(8, temperature)
    gibbs = Gibbs(ising)
    start = ising.initial_position(jax.random.key(0))
    inputs = gibbs.draw_inputs(jax.random.key(1), 300, start)
    loop = parsample.evaluate_sequential(gibbs.transition, start, inputs)
    solution = parsample.evaluate(gibbs.transition, start, inputs, method=method)
    for color in ("black", "white"):
        assert solution.states[color].dtype == jnp.int32
        np.testing.assert_array_equal(solution.states[color], loop.states[color])
    assert method == "picard" or int(solution.iterations) <= most


def test_spins_have_no_derivative():
    ising = Ising(4)
    start = ising.initial_position(jax.random.key(0))
    gibbs = Gibbs(ising)
    inputs = gibbs.draw_inputs(jax.random.key(1), 3, start)
    assert {leaf.dtype for leaf in jax.tree.leaves(inputs)} == {jnp.dtype("float32")}
    with pytest.raises(ValueError, match=r"initial_state\['black'\] has dtype int32, .*, because the method Newton"):
        parsample.evaluate(gibbs.transition, start, inputs, method="newton")


# --- in the coordinates of the front door


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_sweep_in_standardised_coordinates(rng):
    target = EightSchoolsConjugate()
    start = target.initial_position(jax.random.key(0))
    vector, unravel = ravel_pytree(start)
    root = jnp.asarray(np.tril(rng.normal(size=(18, 18))) / 9 + np.eye(18))
    density = Standardised(target, jnp.asarray(rng.normal(size=18)), root, unravel)
    here, there = Gibbs(density), Gibbs(target.logdensity, updates=target.conditional_updates)
    (inputs,) = here.draw_inputs(jax.random.key(1), 5, vector)
    assert not here.has_step_size
    z = density.inverse(vector)
    states = parsample.evaluate_sequential(here.transition, z, (inputs,)).states
    expected = parsample.evaluate_sequential(there.transition, start, inputs).states
    jax.tree.map(SAME_COMPUTATION.check, jax.vmap(density.position)(states), expected)
    assert float(here.init(z).logdensity) == pytest.approx(float(target.logdensity(start)))


@pytest.mark.slow
def test_the_front_door_looks_for_no_step_size():
    trace = parsample.sample(
        ProbitRegression(), "gibbs", num_warmup=80, num_samples=128, num_chains=2, progress=False, method="sequential"
    )
    stats = trace.sample_stats
    assert np.all(stats["step_size"] == 1)
    assert np.all(stats["acceptance_rate"] == 1)
    draws = np.asarray(trace.posterior["coefficients"])
    assert np.ptp(draws, axis=1).min() > 0.1
