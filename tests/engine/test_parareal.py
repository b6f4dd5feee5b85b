"""Parareal: what a perfect coarse propagator does, segments of any length, and the work that is counted."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine import methods
from parsample.engine.evaluate import evaluate
from tests.engine import recursions
from tests.engine.recursions import STEPS, TIGHT, Problem, residuals, scan, tanh_step
from tests.tolerances import CONVERGED, SAME_COMPUTATION

FLOAT32 = TIGHT[np.dtype(np.float32)]


def exact(state: Any, inputs: Any) -> Any:
    """All steps of a segment by the transition itself."""
    return jax.lax.scan(lambda state, input: (tanh_step(state, input), None), state, inputs)[0]


def shrink(state: Any, inputs: Any) -> Any:
    """A coarse propagator that knows little: the state contracts, and the inputs push it."""
    return jnp.tanh(0.5 ** len(inputs) * state + inputs[-1])


@pytest.mark.parametrize("segment", [1, 4, 16])
def test_a_perfect_coarse_propagator_needs_one_iteration_and_one_to_verify(segment: int) -> None:
    problem = recursions.tanh_problem()
    solution = evaluate(*problem, method=methods.Parareal(exact, segment), **FLOAT32)
    assert solution.iterations == 2
    CONVERGED.check(solution.states, scan(*problem))


@pytest.mark.parametrize(
    ("segment", "window", "steps"),
    [(4, None, STEPS), (5, 7, STEPS), (16, 7, STEPS), (7, 7, STEPS), (16, None, 5), (1, None, 1), (100, None, STEPS)],
)
def test_the_chain_is_the_loops_whatever_the_lengths(segment: int, window: int | None, steps: int) -> None:
    problem = recursions.tanh_problem(steps=steps)
    for coarse in (None, shrink):
        method = methods.Parareal(coarse, segment)
        solution = evaluate(*problem, method=method, window=window, **FLOAT32)
        CONVERGED.check(solution.states, scan(*problem))
        true = residuals(problem.initial_state, solution.states, problem.inputs)
        np.testing.assert_allclose(solution.residual, true.max(1), rtol=0, atol=1e-6)
        # Every iteration runs whole segments, the padding of the last included.
        length = min(window or steps, steps)
        whole = -(-length // min(segment, length)) * min(segment, length)
        assert solution.evaluations == solution.iterations * whole
        assert solution.iterations <= -(-steps // min(segment, length)) + 1


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_segments_of_one_step_with_a_linear_coarse_step_are_the_ordinary_iteration(iterations: int) -> None:
    problem = recursions.tanh_problem()
    half = lambda state, inputs: 0.5 * state  # noqa: E731
    keywords: dict[str, Any] = {"max_iterations": iterations, "throw": False, "atol": 1e-6, "rtol": 0.0}
    one = evaluate(*problem, method=methods.Parareal(half, segment=1), **keywords)
    other = evaluate(*problem, method=methods.ScaledIdentity(0.5), **keywords)
    np.testing.assert_allclose(one.states, other.states, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("x64")
def test_an_iteration_by_hand() -> None:
    """x -> 0.5 x + 1, segments of 2 steps, and a coarse propagator x -> 0.2 x + 1."""
    problem = Problem(lambda state, input: 0.5 * state + input, jnp.zeros(()), jnp.ones(6))
    coarse = lambda state, inputs: 0.2 * state + 1.0  # noqa: E731
    solution = evaluate(*problem, method=methods.Parareal(coarse, 2), max_iterations=1, throw=False)
    # 1. Fine, from starts 0, 0, 0: 1, 1.5 in each segment. The first segment is exact, and so is the state after it.
    # 2. Ends: 1.5; then 1.5 + 0.2 * 1.5 = 1.8; then 1.5 + 0.2 * 1.8 = 1.86.
    # 3. Inside a segment the fine run is moved along with its start: 1 + 1.5, then 1 + 1.8.
    expected = [1.0, 1.5, 2.5, 1.8, 2.8, 1.86]
    first = int(solution.first_bad_step)
    assert first >= 1
    np.testing.assert_allclose(solution.states[first:], expected[first:], rtol=1e-12)


def test_without_a_surrogate_it_is_linearised_in_its_diagonal_at_the_start() -> None:
    """With a diagonal linear transition the default coarse propagator has the exact differences."""
    problem = Problem(lambda state, input: 0.8 * state + input, jnp.ones(2), jnp.ones((40, 2)))
    solution = evaluate(*problem, method=methods.Parareal(segment=8), atol=1e-5, rtol=0.0)
    assert solution.iterations == 2
    SAME_COMPUTATION.check(solution.states, scan(*problem))


@pytest.mark.parametrize("segment", [0, -3, True])
def test_a_segment_below_one_is_refused(segment: int) -> None:
    with pytest.raises(ValueError, match=rf"segment is {segment}, expected a whole number of steps of at least 1"):
        methods.Parareal(segment=segment)
