"""The sentences that explain a solution, and the errors that carry them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine.evaluate import evaluate
from parsample.engine.solution import ConvergenceError, Solution, Status, add_counts, raise_unless_converged
from tests.engine.recursions import tanh_problem


def solution_of(
    status: list[Status], iterations: list[int], first_bad_step: list[int], residual: list[list[float]]
) -> Solution:
    """A batch of chains, or one chain where there is one status."""
    squeeze = (lambda values: values[0]) if len(status) == 1 else (lambda values: values)
    return Solution(
        states=jnp.asarray(squeeze(residual))[..., None],
        converged=jnp.asarray(squeeze([one is Status.CONVERGED for one in status])),
        status=jnp.asarray(squeeze([int(one) for one in status])),
        iterations=jnp.asarray(squeeze(iterations)),
        evaluations=jnp.asarray(squeeze(iterations)) * 3,
        residual=jnp.asarray(squeeze(residual)),
        first_bad_step=jnp.asarray(squeeze(first_bad_step)),
        converged_steps=jnp.asarray(squeeze(residual)) < 1e-3,
        finished=jnp.zeros_like(jnp.asarray(squeeze(iterations))),
    )


CONVERGED = solution_of([Status.CONVERGED], [4], [-1], [[0.0, 2e-5, 1e-6]])
UNFINISHED = solution_of([Status.MAX_ITERATIONS], [2], [1], [[0.0, 0.25, 0.5]])
SPOILT = solution_of([Status.NOT_FINITE], [2], [2], [[0.0, 0.0, np.nan]])
APPROXIMATE = solution_of([Status.APPROXIMATE], [4], [1], [[0.0, 0.5, 0.25]])
BATCH = solution_of(
    [Status.CONVERGED, Status.NOT_FINITE, Status.MAX_ITERATIONS],
    [4, 2, 5],
    [-1, 0, 2],
    [[0.0, 0.0, 0.0], [np.nan, 0.0, 0.0], [0.0, 0.0, 1.5]],
)


def test_counts_stay_at_the_largest_integer() -> None:
    largest = 2**31 - 1
    counts = jnp.asarray([0, 5, largest - 10, largest - 10, largest])
    more = jnp.asarray([7, largest, 10, 11, 100_000])
    np.testing.assert_array_equal(add_counts(counts, more), [7, largest, largest, largest, largest])


@pytest.mark.parametrize(
    ("solution", "sentence"),
    [
        (CONVERGED, "all 3 steps converged in 4 iterations; largest residual 2e-05."),
        (UNFINISHED, "1 of 3 steps converged in 2 iterations; the residual of step 1 is 0.25. Raise max_iterations"),
        (SPOILT, "the state after 3 of 3 steps is not finite. The sequential loop meets the same value"),
        (APPROXIMATE, "2 of 3 steps are not within tolerance after 4 iterations; the largest residual is 0.5. That is"),
        (BATCH, "Chain 1: the state after 1 of 3 steps is not finite. "),
    ],
    ids=["converged", "unfinished", "spoilt", "approximate", "batch"],
)
def test_a_solution_explains_itself(solution: Solution, sentence: str) -> None:
    assert solution.explain().startswith(sentence)


@pytest.mark.parametrize("status", Status)
def test_every_status_has_a_remedy(status: Status) -> None:
    assert status.remedy.endswith(".")


def test_a_failure_names_its_remedy() -> None:
    for solution in (UNFINISHED, SPOILT):
        assert solution.explain().endswith(Status(int(solution.status)).remedy)


@pytest.mark.parametrize("solution", [UNFINISHED, SPOILT, BATCH], ids=["unfinished", "spoilt", "batch"])
def test_the_error_holds_the_solution_and_its_explanation(solution: Solution) -> None:
    with pytest.raises(ConvergenceError) as caught:
        raise_unless_converged(solution)
    assert caught.value.solution is solution
    assert str(caught.value) == solution.explain()


@pytest.mark.parametrize("solution", [CONVERGED, APPROXIMATE], ids=["converged", "approximate"])
def test_what_was_asked_for_is_returned_as_it_is(solution: Solution) -> None:
    assert raise_unless_converged(solution) is solution


def test_statuses_go_from_the_best_to_the_worst() -> None:
    """A batch is explained by its worst chain."""
    assert sorted(Status) == [Status.CONVERGED, Status.APPROXIMATE, Status.MAX_ITERATIONS, Status.NOT_FINITE]


def test_a_solution_passes_through_transformations() -> None:
    solution = jax.jit(lambda: evaluate(*tanh_problem(), history=True))()
    assert isinstance(solution, Solution)
    assert solution.explain().startswith("all 23 steps converged in")
    again = jax.tree.map(lambda leaf: leaf, solution)
    assert again.explain() == solution.explain()
