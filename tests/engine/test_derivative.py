"""Derivatives through the fixed point equal those of a plain scan, whatever the method that found it."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, PyTree

from parsample.engine import derivative, methods
from parsample.engine.evaluate import evaluate
from parsample.samplers import MALA
from tests.engine.recursions import KINDS, WEIGHTS, map_trees, scan
from tests.engine.test_methods import Threshold
from tests.tolerances import SAME_COMPUTATION, Tolerance

# The states are solved to 1e-12 and a derivative is as exact as they are.
DERIVATIVE = Tolerance(float32=(1e-4, 1e-5), float64=(1e-8, 1e-9))
SHARP: dict[str, Any] = {"atol": 1e-12, "rtol": 1e-12}
STEPS = 17


class Module(eqx.Module):
    """A transition with parameters of its own, over a tree."""

    weights: Array
    shift: Array

    def __call__(self, state: PyTree, input: PyTree) -> PyTree:
        x = jnp.tanh(self.weights @ state["x"] + input["noise"] + self.shift * state["y"])
        return {"x": x, "y": jnp.sin(state["y"] + x.sum()) * jnp.where(input["flip"], 0.5, -0.5)}


def arguments(dtype: Any = np.float64) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    cast = lambda values: jnp.asarray(values, dtype)  # noqa: E731
    return {
        "module": Module(cast(WEIGHTS), cast([0.3, -0.2, 0.1])),
        "closed_over": cast(0.8),
        "initial_state": {"x": cast(rng.normal(size=3)), "y": cast(0.4)},
        "noise": cast(rng.normal(size=(STEPS, 3))),
    }


def loss_of(solve: Callable[..., PyTree]) -> Callable[[dict[str, Any]], Array]:
    """A loss of the states in everything they depend on; the inputs hold integers and booleans too."""

    def loss(given: dict[str, Any]) -> Array:
        def transition(state: PyTree, input: PyTree) -> PyTree:
            new = given["module"](state, input)
            return {"x": new["x"], "y": given["closed_over"] * new["y"] + 0.01 * input["count"]}

        inputs = {"noise": given["noise"], "flip": jnp.arange(STEPS) % 3 == 0, "count": jnp.arange(STEPS)}
        states = solve(transition, given["initial_state"], inputs)
        return jnp.sum(states["x"] ** 2 * jnp.arange(1, STEPS + 1)[:, None]) + jnp.sum(jnp.cos(states["y"]))

    return loss


def evaluated(**keywords: Any) -> Callable[..., PyTree]:
    return lambda *problem: evaluate(*problem, **{**SHARP, **keywords}).states


def tangent_like(given: PyTree) -> PyTree:
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), given)


CASES: dict[str, dict[str, Any]] = {
    **{method: {"method": method} for method in KINDS},
    "windows": {"method": "newton", "window": 5, "history": True, "throw": False},
}


@functools.cache
def expected_by_scan() -> tuple[Array, dict[str, Any]]:
    return jax.jit(jax.value_and_grad(loss_of(scan)))(arguments())


def check_gradient(**keywords: Any) -> None:
    value, gradient = jax.jit(jax.value_and_grad(loss_of(evaluated(**keywords))))(arguments())
    expected_value, expected_gradient = expected_by_scan()
    DERIVATIVE.check(value, expected_value)
    map_trees(DERIVATIVE.check, gradient, expected_gradient)
    assert all(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(gradient))


@pytest.fixture(params=["matrices", "loop"])
def carried_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The two ways to carry tangents: dense Jacobians for small states, one JVP a step for large ones."""
    if request.param == "loop":
        monkeypatch.setattr(derivative, "LARGEST_DENSE", 0)
    return request.param


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_that_of_a_plain_scan(case: str) -> None:
    check_gradient(**CASES[case])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_second_derivatives_are_those_of_a_plain_scan(carried_by: str) -> None:
    given, direction = arguments(), tangent_like(arguments())

    def curvature(solve: Callable[..., PyTree]) -> tuple[PyTree, PyTree]:
        gradient = jax.grad(loss_of(solve))
        return jax.jvp(gradient, (given,), (direction,))[1], jax.grad(
            lambda given: sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(gradient(given)))
        )(given)

    found = jax.jit(lambda: curvature(evaluated(method="newton", throw=False)))()
    expected = jax.jit(lambda: curvature(scan))()
    map_trees(DERIVATIVE.check, found, expected)
    assert all(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(expected))


@pytest.mark.usefixtures("x64")
def test_the_gradient_by_one_product_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derivative, "LARGEST_DENSE", 0)
    check_gradient(**CASES["windows"])


@pytest.mark.usefixtures("x64", "carried_by")
def test_the_forward_derivative_is_that_of_a_plain_scan() -> None:
    given, tangent = arguments(), tangent_like(arguments())
    solve = evaluated(**CASES["windows"])
    found = jax.jit(lambda *pair: jax.jvp(loss_of(solve), pair[:1], pair[1:]))(given, tangent)
    value, gradient = expected_by_scan()
    DERIVATIVE.check(found[0], value)
    DERIVATIVE.check(found[1], sum(map(jnp.vdot, jax.tree.leaves(gradient), jax.tree.leaves(tangent))))


@pytest.mark.slow
@pytest.mark.usefixtures("x64", "carried_by")
def test_the_derivative_passes_through_jit_and_vmap() -> None:
    one, other = arguments(), jax.tree.map(lambda leaf: 0.9 * leaf, arguments())
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), one, other)
    solve = evaluated(**CASES["windows"])
    gradient = jax.jit(jax.vmap(jax.grad(loss_of(solve))))(batch)
    of_the_sum = jax.jit(jax.grad(lambda batch: jax.vmap(loss_of(solve))(batch).sum()))(batch)
    map_trees(DERIVATIVE.check, gradient, jax.jit(jax.vmap(jax.grad(loss_of(scan))))(batch))
    map_trees(DERIVATIVE.check, of_the_sum, gradient)
    map_trees(DERIVATIVE.check, jax.tree.map(lambda leaf: leaf[0], gradient), expected_by_scan()[1])


def test_without_jit_and_in_single_precision() -> None:
    given = arguments(np.float32)
    solve = lambda *problem: evaluate(*problem, method="newton", atol=1e-6, rtol=1e-6).states  # noqa: E731
    map_trees(DERIVATIVE.check, jax.grad(loss_of(solve))(given), jax.grad(loss_of(scan))(given))


@pytest.mark.usefixtures("x64")
def test_the_error_of_the_states_is_the_error_of_the_derivative() -> None:
    """A loose tolerance makes the states wrong in the third digit; the derivative is no worse."""
    given = arguments()
    solve = lambda *problem: evaluate(*problem, method="newton", atol=1e-3, rtol=0.0).states  # noqa: E731
    near = lambda found, true: np.testing.assert_allclose(found, true, atol=0.05, rtol=0.05)  # noqa: E731
    map_trees(near, jax.jit(jax.grad(loss_of(solve)))(given), expected_by_scan()[1])


@pytest.mark.usefixtures("x64")
def test_a_state_of_more_dimensions_than_matrices_are_kept_for() -> None:
    dim = derivative.LARGEST_DENSE + 1
    noise = jnp.asarray(np.random.default_rng(0).normal(size=(5, dim)))

    def loss(scale: Array, solve: Callable[..., PyTree]) -> Array:
        step = lambda state, input: jnp.tanh(scale * jnp.roll(state, 1) + input)  # noqa: E731
        return jnp.sum(solve(step, jnp.ones(dim), noise) ** 2)

    scale = jnp.asarray(0.7)
    solve = evaluated(method="jacobi")
    DERIVATIVE.check(jax.grad(loss)(scale, solve), jax.grad(loss)(scale, scan))
    DERIVATIVE.check(jax.jvp(lambda scale: loss(scale, solve), (scale,), (1.0,))[1], jax.grad(loss)(scale, scan))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", [methods.Newton(gate="straight_through"), methods.QuasiNewton(), "sequential"])
def test_the_derivative_is_that_of_the_transition_whatever_the_gate_of_the_method(method: Any) -> None:
    noise = jnp.asarray(np.random.default_rng(0).normal(size=(12, 2)))

    def loss(initial_state: Array, solve: Callable[..., PyTree]) -> Array:
        return jnp.sum(solve(Threshold(), initial_state, noise) ** 2)

    initial_state = jnp.asarray([1.5, -2.0])
    gradient = jax.grad(loss)(initial_state, evaluated(method=method))
    SAME_COMPUTATION.check(gradient, jax.grad(loss)(initial_state, scan))


def compiled(steps: int, dim: int, gradient: bool, window: int = 8) -> Any:
    """A compiled evaluation by quasi-Newton, or its gradient in the inputs."""
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(dim, dim)) / dim, jnp.float32)

    def total(inputs: Array) -> Array:
        step = lambda state, input: jnp.tanh(weights @ state + input)  # noqa: E731
        return jnp.sum(evaluate(step, jnp.zeros(dim), inputs, window=window, throw=False).states)

    program = jax.grad(total) if gradient else total
    return jax.jit(program).lower(jax.ShapeDtypeStruct((steps, dim), jnp.float32)).compile()


def test_who_asks_for_no_derivative_pays_for_none() -> None:
    dim, short, long = 16, 256, 1024
    numbers = 4 * (long - short) * dim

    def growth(gradient: bool) -> tuple[float, float]:
        """How memory and work grow with the steps, in states and in products of matrix and vector, a step."""
        small, large = (compiled(steps, dim, gradient) for steps in (short, long))
        memory = large.memory_analysis().temp_size_in_bytes - small.memory_analysis().temp_size_in_bytes
        work = large.cost_analysis()["flops"] - small.cost_analysis()["flops"]
        return memory / numbers, work / (2 * dim**2 * (long - short))

    memory, work = growth(gradient=False)
    memory_gradient, work_gradient = growth(gradient=True)
    # The windows' loop counts once, however long the chain is; a Jacobian a step is 16 states and more of work.
    assert memory < 4
    assert work < 1
    # The measure is sound: it sees the Jacobians where they are. How XLA counts their work depends on its version.
    assert memory_gradient > dim
    assert work_gradient > 1


def test_the_loop_of_tangents_keeps_no_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = compiled(256, 16, gradient=True).memory_analysis().temp_size_in_bytes
    monkeypatch.setattr(derivative, "LARGEST_DENSE", 15)
    jax.clear_caches()  # what was traced with the other bound serves the same step
    assert compiled(256, 16, gradient=True).memory_analysis().temp_size_in_bytes < 0.5 * dense


@pytest.mark.parametrize("method", ["sequential", "newton"])
def test_what_is_not_finite_behind_the_gate_does_not_spoil_the_derivative(method: str) -> None:
    """A log density that is NaN outside its support: the gate rejects such proposals, in reverse mode too."""

    def draws(start: jax.Array, scale: jax.Array) -> jax.Array:
        sampler = MALA(lambda x: jnp.sum(jnp.log(x) - scale * x), 0.3)
        inputs = sampler.draw_inputs(jax.random.key(3), 40, start)
        return evaluate(sampler.transition, start, inputs, method=method, atol=1e-5, rtol=1e-5).states[-1].sum()

    point = jnp.asarray([0.5, 1.0]), jnp.asarray(1.2)
    sampler = MALA(lambda x: jnp.sum(jnp.log(x) - 1.2 * x), 0.3)
    states = evaluate(sampler.transition, point[0], sampler.draw_inputs(jax.random.key(3), 40, point[0])).states
    noise = sampler.draw_inputs(jax.random.key(3), 40, point[0]).noise
    before = jnp.concatenate([point[0][None], states[:-1]])
    proposals = before + 0.3 * (1 / before - 1.2) + jnp.sqrt(0.6) * noise
    assert bool((proposals < 0).any()), "no proposal left the support"
    backward = jax.jit(jax.grad(draws, argnums=(0, 1)))(*point)
    forward = jax.jit(jax.jacfwd(draws, argnums=(0, 1)))(*point)
    for one, other in zip(backward, forward, strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
