"""Parareal: what a perfect coarse propagator does, segments of any length, and the work that is counted."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine import methods
from parsample.engine.evaluate import evaluate
from parsample.engine.rules import Stopping
from parsample.engine.solution import Solution
from tests.covering import each_once
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


def checked(method: methods.Parareal, window: int | None, steps: int) -> Solution:
    """Evaluate a chain, and compare it with the loop's, its residual and its evaluations with what they should be."""
    problem = recursions.tanh_problem(steps=steps)
    solution = evaluate(*problem, method=method, window=window, **FLOAT32)
    CONVERGED.check(solution.states, scan(*problem))
    true = residuals(problem.initial_state, solution.states, problem.inputs)
    np.testing.assert_allclose(solution.residual, true.max(1), rtol=0, atol=1e-6)
    # Every iteration runs whole segments, the padding of the last included; with FCF it runs them twice.
    length = min(window or steps, steps)
    whole = -(-length // min(method.segment, length)) * min(method.segment, length)
    assert solution.evaluations == solution.iterations * whole * (2 if method.relaxation == "FCF" else 1)
    return solution


LENGTHS = [
    (4, None, STEPS),
    (5, 7, STEPS),
    (16, 7, STEPS),
    (7, 7, STEPS),
    (16, None, 5),
    (1, None, 1),
    (100, None, STEPS),
]


@pytest.mark.parametrize(("coarse", "lengths"), each_once([None, shrink], LENGTHS))
def test_the_chain_is_the_loops_whatever_the_lengths(coarse: Any, lengths: tuple[int, int | None, int]) -> None:
    segment, window, steps = lengths
    solution = checked(methods.Parareal(coarse, segment), window, steps)
    assert solution.iterations <= -(-steps // min(segment, window or steps, steps)) + 1


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
    with pytest.raises(
        ValueError, match=rf"segment is {segment}, expected a whole number of at least 1; it is how many steps are run"
    ):
        methods.Parareal(segment=segment)


MGRIT = [(3, "F"), (2, "FCF"), (3, "FCF"), (4, "FCF")]


@pytest.mark.parametrize(
    ("cycle", "lengths"), each_once(MGRIT, [(16, None, 5), (1, None, 1), (2, 7, STEPS), (3, None, STEPS)])
)
def test_more_levels_and_fcf_give_the_chain_of_the_loop(
    cycle: tuple[int, str], lengths: tuple[int, int | None, int]
) -> None:
    (levels, relaxation), (segment, window, steps) = cycle, lengths
    for coarse in (None, shrink):
        checked(methods.Parareal(coarse, segment, levels, relaxation), window, steps)


@pytest.mark.parametrize("levels", [2, 3])
@pytest.mark.parametrize(("relaxation", "gain"), [("F", 1), ("FCF", 2)])
def test_an_iteration_is_exact_for_one_segment_more_and_with_fcf_for_two(
    levels: int, relaxation: str, gain: int
) -> None:
    """Whatever the coarse propagator: here one that is far off."""
    problem = recursions.tanh_problem(steps=48)
    coarse = lambda state, inputs: jnp.cos(3 * state) + len(inputs)  # noqa: E731
    true = scan(*problem)
    for iterations in (1, 3):
        method = methods.Parareal(coarse, 4, levels, relaxation)
        solution = evaluate(
            *problem,
            method=method,
            max_iterations=iterations,
            throw=False,
            stopping=Stopping(accept_early=0.0),
            **FLOAT32,
        )
        exact = 4 * gain * iterations
        SAME_COMPUTATION.check(solution.states[:exact], true[:exact])


def relax(state: Any, input: Any) -> Any:
    """A step of a stiffish ODE with a forcing: it contracts slowly."""
    return state + 0.02 * (jnp.sin(input) - state - 0.3 * state**3)


def one_step(state: Any, inputs: Any) -> Any:
    """All steps of a segment as one, implicit in the linear part so that any length is stable."""
    size = 0.02 * inputs.shape[0]
    return (state + size * (jnp.sin(inputs.mean(0)) - 0.3 * state**3 / (1 + state**2))) / (1 + size)


@pytest.mark.usefixtures("x64")
def test_three_levels_take_fewer_steps_in_sequence_than_two() -> None:
    """An ODE of 1,024 steps in segments of 8: two levels wait for 8 + 128 steps an iteration, three for 2 x 8 + 16."""
    problem = Problem(relax, jnp.ones(2), 3 * jnp.asarray(np.linspace(0, 6, 2048).reshape(1024, 2)))
    depth = {}
    for levels, relaxation, wait in ((2, "F", 8 + 128), (3, "F", 8 + 8 + 16), (3, "FCF", 2 * (8 + 8) + 16)):
        solution = evaluate(*problem, method=methods.Parareal(one_step, 8, levels, relaxation), atol=1e-9, rtol=0.0)
        CONVERGED.check(solution.states, scan(*problem))
        depth[levels, relaxation] = int(solution.iterations) * wait
    # 13 iterations, 28 and 14: a V-cycle loses what FCF gives back.
    assert depth[3, "FCF"] < 0.8 * depth[3, "F"] < 0.5 * depth[2, "F"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 1}, "levels is 1, expected a whole number of at least 2; 2 is Parareal"),
        ({"levels": True}, "levels is True, expected a whole number"),
        ({"relaxation": "C"}, "relaxation is 'C', expected 'F' or 'FCF'"),
    ],
)
def test_levels_and_relaxation_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.Parareal(**options)
