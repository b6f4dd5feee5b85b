"""Every method, with every window, on one chain: the trajectory of the loop, its residual, and where it goes wrong.

These tests share their programs, so they stand in one file. Beside those of derivatives they are what CI repeats of the
engine on the newest Python, with the newest JAX.
"""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsample.engine.evaluate import evaluate, evaluate_sequential
from parsample.engine.solution import Solution, Status
from tests.covering import covering, each_once
from tests.engine import recursions
from tests.engine.recursions import (
    ALL_METHODS,
    ITERATIVE_KINDS,
    KINDS,
    SHARP,
    STEPS,
    WINDOWS,
    Problem,
    check_solved,
    map_trees,
    residuals,
    scan,
    with_nan_at,
)
from tests.tolerances import CONVERGED, SAME_COMPUTATION

# A window of the length of the chain, a longer one and None are the same program, which is compiled once. Always run:
# every method with a window, those that differ in kind without one too, and every problem with and without. (Without a
# window every method is in the contract.)
TABLE = list(itertools.product(recursions.PROBLEMS, ALL_METHODS, (None, 7)))
TABLE += [("tanh", method, window) for method in KINDS for window in WINDOWS if window not in (None, 7)]
ALWAYS: list[tuple[str, str, int | None]] = [("tanh", method, 7) for method in ALL_METHODS]
ALWAYS += [("tanh", method, None) for method in KINDS]
ALWAYS += [("tanh", "newton", window) for window in WINDOWS]
CASES = [
    pytest.param(*row, marks=() if row in chosen else pytest.mark.grid)
    for chosen in [{*ALWAYS, *covering(TABLE, ALWAYS, columns=((0, 2),))}]
    for row in TABLE
]
# What rounding adds to a residual of states of size 1 in float32.
ROUNDING = 1e-6
LOOSE: dict[str, Any] = {"atol": 1e-2, "rtol": 1e-2}
# Two iterations of Parareal are enough for the whole chain.
UNFINISHED = [method for method in ITERATIVE_KINDS if method != "parareal"]


@pytest.mark.parametrize(("name", "method", "window"), CASES)
def test_every_method_and_window_equals_the_loop(name: str, method: str, window: int | None) -> None:
    problem = recursions.PROBLEMS[name]()
    solution = evaluate(*problem, method=method, window=window, **SHARP)
    check_solved(solution, problem)
    length = STEPS if window is None else min(window, STEPS)
    if method == "sequential":
        assert solution.iterations == solution.evaluations == STEPS
    else:
        # Parareal fills its last segment of 16 steps.
        rows = length if method != "parareal" or length <= 16 else -(-length // 16) * 16
        assert solution.evaluations == solution.iterations * rows


@pytest.mark.slow
@given(st.sampled_from(ITERATIVE_KINDS), st.sampled_from([None, 1, 7]), st.integers(0, 10_000))
def test_the_answer_depends_on_neither_window_nor_seed(method: str, window: int | None, seed: int) -> None:
    problem = recursions.tanh_problem(seed=seed)
    check_solved(evaluate(*problem, method=method, window=window, **SHARP), problem)


@pytest.mark.parametrize(("method", "name"), each_once(ITERATIVE_KINDS, ["tanh", "tree"]))
def test_a_window_of_one_step_is_the_loop(name: str, method: str) -> None:
    problem = recursions.PROBLEMS[name]()
    solution = evaluate(*problem, method=method, window=1)
    assert solution.iterations == solution.evaluations == STEPS
    # Not bit for bit: a batch of one and a single step are different programs, and round differently on some versions.
    map_trees(SAME_COMPUTATION.check, solution.states, evaluate_sequential(*problem).states)
    np.testing.assert_array_equal(solution.residual, np.zeros(STEPS))


def recomputed(problem: Problem, solution: Solution) -> np.ndarray:
    return residuals(problem.initial_state, solution.states, problem.inputs)


def bound(solution: Solution) -> np.ndarray:
    return LOOSE["atol"] + LOOSE["rtol"] * np.abs(np.asarray(solution.states, np.float64))


@pytest.mark.parametrize(
    ("method", "window"),
    [(name, 7) for name in ALL_METHODS] + each_once(KINDS, [None, 1]),
)
def test_the_residual_is_that_of_the_returned_states(method: str, window: int | None) -> None:
    problem = recursions.tanh_problem()
    solution = evaluate(*problem, method=method, window=window, **LOOSE)
    true = recomputed(problem, solution)
    np.testing.assert_allclose(solution.residual, true.max(1), rtol=0, atol=ROUNDING)
    assert bool(solution.converged)
    assert np.all(true <= bound(solution) + ROUNDING)
    if method in ("newton", "jacobi") and window is None:
        assert np.max(true) > 10 * ROUNDING, "the tolerance is loose, so something must be left to judge"


@pytest.mark.parametrize("window", [None, 1, 7])
@pytest.mark.parametrize("method", KINDS)
@pytest.mark.parametrize("bad", [0, 6, 7, STEPS - 1])
def test_nan_is_found_where_the_chain_meets_it(method: str, window: int | None, bad: int) -> None:
    problem = with_nan_at(bad)
    solution = evaluate(*problem, method=method, window=window, throw=False)
    assert solution.status == Status.NOT_FINITE
    assert not bool(solution.converged)
    assert solution.first_bad_step == bad
    assert np.isnan(solution.residual[bad])
    assert not np.isfinite(solution.states[bad]).any()
    CONVERGED.check(solution.states[:bad], scan(*problem)[:bad])
    assert f"the state after {bad + 1} of {STEPS} steps is not finite" in solution.explain()


@pytest.mark.parametrize(("window", "method"), each_once([None, 7], ITERATIVE_KINDS))
def test_after_i_iterations_the_first_i_states_are_right(method: str, window: int | None) -> None:
    problem = recursions.tanh_problem()
    expected = scan(*problem)
    for iterations in (2, 9):
        solution = evaluate(*problem, method=method, window=window, max_iterations=iterations, throw=False)
        CONVERGED.check(solution.states[:iterations], expected[:iterations])
        assert solution.first_bad_step == -1 or solution.first_bad_step >= iterations
        assert solution.iterations <= iterations


@pytest.mark.parametrize(("window", "method"), each_once([None, 7], UNFINISHED))
def test_the_residual_of_an_unfinished_trajectory_is_its_own(method: str, window: int | None) -> None:
    problem = recursions.tanh_problem()
    solution = evaluate(*problem, method=method, window=window, max_iterations=2, throw=False, **LOOSE)
    assert not bool(solution.converged)
    assert solution.status == Status.MAX_ITERATIONS
    assert solution.iterations == 2
    assert solution.evaluations == 2 * (window or STEPS) + STEPS
    true = recomputed(problem, solution)
    np.testing.assert_allclose(solution.residual, true.max(1), rtol=0, atol=ROUNDING)
    bad = int(solution.first_bad_step)
    assert 2 <= bad < STEPS
    within = np.all(true <= bound(solution) + ROUNDING, 1)
    assert within[:bad].all()
    assert not within.all()
