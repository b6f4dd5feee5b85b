"""A tolerance for each step, the root mean square, and matrices between the parts of a state."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine import methods
from parsample.engine.evaluate import evaluate, evaluate_sequential
from parsample.engine.rules import Stopping
from tests.engine import recursions
from tests.engine.recursions import STEPS, UNPROJECTED, scan
from tests.tolerances import CONVERGED


def test_every_step_has_its_own_tolerance() -> None:
    problem = recursions.tanh_problem()
    atol = np.where(np.arange(STEPS) < 12, 1e-5, 0.3).astype(np.float32)
    options: dict[str, Any] = {"method": "jacobi", "rtol": 0.0}
    each = evaluate(*problem, atol=atol, **options)
    assert each.converged
    assert (each.residual <= atol).all()
    assert each.residual[12:].max() > 1e-3
    strict = evaluate(*problem, atol=1e-5, window=7, **options)
    windowed = evaluate(*problem, atol=np.full(STEPS, 1e-5, np.float32), window=7, **options)
    np.testing.assert_array_equal(strict.states, windowed.states)


def test_the_root_mean_square() -> None:
    """One coordinate of four is far off: the largest number is beyond the tolerance, the mean square within."""

    def step(state: Any, input: Any) -> Any:
        return 0.5 * state + input

    inputs = jnp.zeros((2, 4))
    guess = jnp.asarray([[1.5, 0.5, 0.5, 0.5]] * 2) * jnp.asarray([[1.0], [0.5]])
    arguments: dict[str, Any] = {"atol": 0.8, "rtol": 0.0, "guess": guess, "method": methods.ScaledIdentity(0.5)}
    rms = evaluate(step, jnp.ones(4), inputs, stopping=Stopping(norm="rms"), **arguments)
    largest = evaluate(step, jnp.ones(4), inputs, stopping=Stopping(norm="max"), **arguments)
    assert (rms.iterations, largest.iterations) == (1, 2)
    assert rms.residual[0] == pytest.approx(1.0)


def hands_on(state: Any, input: Any) -> Any:
    """A recursion that hands errors on, undiminished on average, and is not linear."""
    return state + 0.05 * jnp.sin(3 * state) + 0.1 * input


HANDED_ON: Any = (hands_on, jnp.zeros(2), jax.random.normal(jax.random.key(3), (200, 2)))


@pytest.mark.parametrize("active_set", [False, 16])
def test_steps_accepted_together_leave_no_error_behind(active_set: bool | int) -> None:
    """What early steps are accepted with stays, and adds up; accepted with the last ones they have been mended."""
    loop = scan(*HANDED_ON)
    options: dict[str, Any] = {"atol": 1e-3, "rtol": 0.0, "method": "quasi_newton", "active_set": active_set}
    error = {}
    for share in (0.0, 0.01, 1.0):
        found = evaluate(*HANDED_ON, stopping=Stopping(accept_early=share), **options)
        assert found.converged
        assert found.residual.max() <= 1e-3
        error[share] = float(jnp.abs(found.states - loop).max())
    assert error[0.0] < 1e-3 < error[1.0]
    assert error[0.01] < 2e-3


def test_a_window_that_slides_lets_its_steps_go_early() -> None:
    loop = scan(*HANDED_ON)
    found = evaluate(*HANDED_ON, stopping=Stopping(accept_early=0.01), window=40, atol=1e-3, rtol=0.0)
    assert found.converged
    assert jnp.abs(found.states - loop).max() < 3e-3
    # At 0 a window goes on by steps that no iteration changes any more, and by the one that each makes exact.
    exact = evaluate(*HANDED_ON, stopping=Stopping(accept_early=0.0), window=40, atol=1e-3, rtol=0.0)
    assert found.iterations < exact.iterations < 100
    np.testing.assert_allclose(exact.states, loop, atol=1e-3)


def test_what_is_refused() -> None:
    problem = recursions.tanh_problem()
    with pytest.raises(ValueError, match=rf"atol has shape \(3,\), expected one number, or \({STEPS},\): one a step"):
        evaluate(*problem, atol=np.ones(3))
    with pytest.raises(ValueError, match=r"for states of 2 like parts, but the state has 3 numbers"):
        evaluate(
            *problem,
            method=methods.ScaledIdentity(np.zeros((STEPS, 2, 2))),
            conditioning=UNPROJECTED,
        )


def test_the_matrix_of_a_linear_recursion_in_parts_needs_one_iteration_and_one_to_verify() -> None:
    """x[t] = 0.9 x[t-1] - 0.5 x[t-2] + u, with (x[t], x[t-1]) as the state."""

    def step(state: Any, input: Any) -> Any:
        return 0.9 * state[0] - 0.5 * state[1] + input, state[0]

    inputs = jax.random.normal(jax.random.key(0), (40, 3))
    start = (jnp.ones(3), jnp.zeros(3))
    scale = np.broadcast_to(np.asarray([[0.9, -0.5], [1.0, 0.0]]), (40, 2, 2))
    solution = evaluate(
        step,
        start,
        inputs,
        method=methods.ScaledIdentity(scale),
        conditioning=UNPROJECTED,
        atol=1e-5,
    )
    assert solution.iterations == 2
    for found, expected in zip(solution.states, scan(step, start, inputs), strict=True):
        CONVERGED.check(found, expected)


HALVES = [jnp.bfloat16, jnp.float16]


def in_half(dtype: Any) -> Any:
    inputs = jax.random.normal(jax.random.key(4), (40, 3)).astype(dtype)
    return lambda state, input: jnp.tanh(0.5 * state + input), jnp.zeros(3, dtype), inputs


@pytest.mark.parametrize("dtype", HALVES)
def test_a_loop_in_half_precision_needs_no_tolerance(dtype: Any) -> None:
    loop = evaluate_sequential(*in_half(dtype))
    assert loop.converged
    assert loop.states.dtype == dtype
    np.testing.assert_array_equal(loop.states, scan(*in_half(dtype)))
    np.testing.assert_array_equal(evaluate_sequential(*in_half(dtype), atol=1e-9, rtol=0.0).states, loop.states)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("method", ["quasi_newton", "jacobi"])
def test_the_default_tolerance_is_within_reach_of_half_precision(dtype: Any, method: str) -> None:
    found, loop = evaluate(*in_half(dtype), method=method), scan(*in_half(dtype))
    assert found.converged
    states, loop = (np.asarray(rows, np.float32) for rows in (found.states, loop))
    tolerance = 1e-4 + max(1e-3, 4 * float(jnp.finfo(dtype).eps)) * np.abs(loop)
    assert (np.abs(states - loop) < 3 * tolerance).all()


def test_tolerances_out_of_reach_are_refused_in_half_precision() -> None:
    with pytest.raises(ValueError, match=r"atol is 0.0001 and rtol is 0.001, both below .* rounding error of bfloat16"):
        evaluate(*in_half(jnp.bfloat16), rtol=1e-3)
