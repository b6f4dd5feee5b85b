"""Integers in the state: exact under every method that takes no derivative, refused by the others."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import parsample
from parsample.engine import methods
from parsample.engine.methods import METHODS
from tests.covering import each_once
from tests.engine.recursions import scan

STEPS = 30
WITHOUT_DERIVATIVE: dict[str, Any] = {
    "jacobi": "jacobi",
    "picard": "picard",
    "secant": "secant",
    "anderson": "anderson",
    "scaled identity, given": methods.ScaledIdentity(0.5),
    "parareal, coarse given": methods.Parareal(lambda state, inputs: state, 4),
}


def mixed_step(state: dict[str, Array], input: Array) -> dict[str, Array]:
    """Real, whole and truth values that all depend on each other, and forget their past slowly."""
    real, whole, truth = state["real"], state["whole"], state["truth"]
    moved = jnp.where(input > 0.5, 3 * whole[::-1] + truth, whole) + (real > 0).astype(whole.dtype) + 1
    return {"real": 0.5 * real + input - 0.1 * whole.sum(), "whole": moved % 97, "truth": truth ^ (real > input)}


def mixed_start() -> dict[str, Array]:
    return {"real": jnp.asarray(0.3), "whole": jnp.asarray([2, 50]), "truth": jnp.asarray(True)}


def inputs(seed: int = 0) -> Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=STEPS), jnp.float32)


@pytest.mark.parametrize(("window", "method"), each_once([None, 7], ["sequential", *WITHOUT_DERIVATIVE]))
def test_integers_are_exact(method: str, window: int | None) -> None:
    expected = scan(mixed_step, mixed_start(), inputs())
    assert len(np.unique(expected["whole"])) > 20
    chosen = WITHOUT_DERIVATIVE.get(method, method)
    # A relative tolerance under which 90 and 95 would be the same, were they no integers.
    solution = parsample.evaluate(
        mixed_step, mixed_start(), inputs(), method=chosen, window=window, atol=1e-6, rtol=0.1, throw=False
    )
    assert solution.converged, solution.explain()
    for name in ("whole", "truth"):
        assert solution.states[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(solution.states[name], expected[name])
    np.testing.assert_allclose(solution.states["real"], expected["real"], rtol=0.5, atol=0.1)


@pytest.mark.usefixtures("x64")
def test_a_state_of_integers_alone() -> None:
    step = lambda state, input: (5 * state + input) % 1_000_003  # noqa: E731
    start, drawn = jnp.asarray([1, 2], jnp.int64), jnp.asarray(np.random.default_rng(0).integers(0, 100, (STEPS, 2)))
    solution = parsample.evaluate(step, start, drawn, method="picard")
    assert solution.states.dtype == jnp.int64
    np.testing.assert_array_equal(solution.states, scan(step, start, drawn))


def test_integers_may_be_guessed() -> None:
    expected = scan(mixed_step, mixed_start(), inputs())
    solution = parsample.evaluate(mixed_step, mixed_start(), inputs(), method="jacobi", guess=expected)
    assert int(solution.iterations) == 1
    np.testing.assert_array_equal(solution.states["whole"], expected["whole"])


@pytest.mark.parametrize("method", ["sequential", "jacobi"])
def test_integers_that_floating_point_numbers_cannot_hold_are_no_result(method: str) -> None:
    double = lambda state, input: 2 * state + 1  # noqa: E731
    solution = parsample.evaluate(double, jnp.asarray(0), jnp.arange(STEPS), method=method, throw=False)
    assert not solution.converged
    # After t + 1 steps the state is 2^(t + 1) - 1, and single precision holds every integer below 2^24.
    assert int(solution.first_bad_step) == 24
    np.testing.assert_array_equal(solution.states[:24], 2 ** np.arange(1, 25) - 1)


def test_what_integers_become_follows_the_precision_of_the_moment() -> None:
    start, drawn = np.asarray(0, np.int32), np.arange(STEPS, dtype=np.int32)
    double = lambda state, input: 2 * state + 1  # noqa: E731
    in_single = parsample.evaluate(double, start, drawn, method="jacobi", throw=False)
    with jax.enable_x64(True):
        in_double = parsample.evaluate(double, start, drawn, method="jacobi")
    assert int(in_single.first_bad_step) == 24
    np.testing.assert_array_equal(in_double.states, 2 ** np.arange(1, STEPS + 1) - 1)


def test_a_program_is_found_again() -> None:
    traces = []

    def step(state: Array, input: Array) -> Array:
        traces.append(1)
        return state + 1

    for _ in range(2):
        traces.clear()
        parsample.evaluate(step, jnp.asarray(0), jnp.arange(3), method="jacobi")
    assert not traces


def test_real_numbers_beside_integers_can_be_differentiated() -> None:
    def end(scale: Array) -> Array:
        step = lambda state, input: (scale * state[0] + state[1], state[1] + 1)  # noqa: E731
        return parsample.evaluate(step, (jnp.ones(()), jnp.asarray(0)), jnp.arange(3), method="jacobi").states[0][-1]

    # 1 -> s -> s^2 + 1 -> s^3 + s + 2
    value, derivative = jax.value_and_grad(end)(jnp.asarray(0.5))
    np.testing.assert_allclose([value, derivative], [2.625, 1.75], rtol=1e-6)


# --- who takes a derivative


@jax.custom_jvp
def not_differentiable(state: Array, input: Array) -> Array:
    """A function that says so if anyone differentiates it."""
    return jnp.tanh(state) + input


@not_differentiable.defjvp
def _refuse(primals: Any, tangents: Any) -> Any:
    raise ArithmeticError("differentiated")


@pytest.mark.parametrize("name", [*METHODS, *WITHOUT_DERIVATIVE])
def test_who_takes_a_derivative_says_so(name: str) -> None:
    method = methods.find(WITHOUT_DERIVATIVE.get(name, name))

    def run() -> Any:
        return parsample.evaluate(not_differentiable, jnp.zeros(2), jnp.ones((4, 2)), method=method)

    if method.needs_derivative:
        with pytest.raises(ArithmeticError, match="differentiated"):
            run()
        with pytest.raises(
            ValueError,
            match=rf"initial_state\['truth'\] has dtype bool, expected floating point, because the method "
            rf"{type(method).__name__} takes derivatives; convert it, for example with jnp.asarray\(value, float\), or "
            r"use a method that takes none: anderson, jacobi, picard, secant, sequential\.",
        ):
            parsample.evaluate(mixed_step, mixed_start(), inputs(), method=method)
    else:
        assert run().converged


@pytest.mark.parametrize("function", [parsample.diagnose, parsample.lyapunov_exponent])
def test_what_else_takes_derivatives_refuses_integers(function: Any) -> None:
    with pytest.raises(ValueError, match=rf"has dtype bool, .* because {function.__name__} takes derivatives"):
        function(mixed_step, mixed_start(), inputs())


def test_auto_tries_a_method_with_derivatives() -> None:
    with pytest.raises(ValueError, match="because the method QuasiNewton takes derivatives"):
        parsample.evaluate(mixed_step, mixed_start(), inputs(), method="auto")
