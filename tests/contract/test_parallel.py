"""Every method on every sampler on every target that `problems` enrols: the parallel chain is the chain of the loop.

Every method, sampler and target is in the rows that are always run; every sampler meets its methods and its targets
with `make test-all`, and every three meet with `make test-grid`. With as many iterations as the chain has steps this
holds for every row. A row that needs more than half as many gains fewer than two steps an iteration, and stands in
`KNOWN_NOT_CONVERGING`.
"""

from typing import NamedTuple

import jax
import numpy as np
import pytest

from parsample.engine.methods import METHODS
from parsample.engine.methods.base import innermost
from parsample.engine.solution import Solution
from parsample.targets import TARGETS
from tests.conftest import Compiled
from tests.contract import problems
from tests.contract.known import KNOWN_NOT_CONVERGING, KNOWN_OVERCLAIMING, NEAR_THE_LINE
from tests.contract.problems import STEPS, Problem
from tests.engine.recursions import KINDS
from tests.tolerances import CONVERGED

# Half the steps, and a little more. A row within the margin of it may stand in the table or not: rounding, which
# differs between versions and processors, moves its count by a few, and the random probes of a method by a tenth.
SLOW = STEPS // 2 + 4
MARGIN, MARGIN_OF_PROBES = 8, 24

ROWS = problems.rows()
PARAMETERS = [
    pytest.param(row, marks=getattr(pytest.mark, marker) if marker else ())
    for row, marker in problems.markers().items()
]


class Evaluated(NamedTuple):
    """A row, its chain, and what the method made of it."""

    row: tuple[str, str, str]
    problem: Problem
    solution: Solution
    is_accepted: np.ndarray


# Of the module, so that the tests of a row follow each other and the row is solved once.
@pytest.fixture(scope="module", params=PARAMETERS, ids="-".join)
def evaluated(request):
    method, sampler, target = request.param
    Compiled.forget_if_many()
    data = request.getfixturevalue("shared_data") if target in problems.ARGUMENTS else None
    with jax.enable_x64(True):
        problem = problems.problem(sampler, target, data)
        solution, is_accepted = problems.solve(method, problem.sampler, problem.start, problem.inputs)
    return Evaluated(request.param, problem, solution, np.asarray(is_accepted))


def expect(request, row, table):
    if row in table:
        strict = row not in NEAR_THE_LINE
        request.applymarker(pytest.mark.xfail(reason=table[row], strict=strict, raises=AssertionError))


def test_the_parallel_chain_is_that_of_the_loop(evaluated, request):
    expect(request, evaluated.row, KNOWN_OVERCLAIMING)
    solution, problem = evaluated.solution, evaluated.problem
    assert solution.converged, solution.explain()
    np.testing.assert_array_equal(evaluated.is_accepted, problem.is_accepted)
    jax.tree.map(CONVERGED.check, solution.states, problem.states)


def test_an_iteration_gains_two_steps(evaluated):
    if evaluated.row[0] == "sequential":
        assert int(evaluated.solution.iterations) == STEPS
        return
    iterations = int(evaluated.solution.iterations)
    margin = MARGIN_OF_PROBES if hasattr(innermost(METHODS[evaluated.row[0]]()), "num_probes") else MARGIN
    if evaluated.row in KNOWN_NOT_CONVERGING:
        assert iterations > SLOW - margin, "the row has become better than known: take it out of the table"
        pytest.xfail(KNOWN_NOT_CONVERGING[evaluated.row])
    assert iterations <= SLOW + margin


def test_the_known_rows_exist():
    assert set(problems.NOT_ENROLLED) < set(TARGETS)
    assert set(KNOWN_NOT_CONVERGING) <= set(ROWS)
    assert set(KNOWN_OVERCLAIMING) <= set(ROWS)


def test_every_name_is_always_run_and_what_a_sampler_meets_with_the_slow_tests():
    always = [row for row, marker in problems.markers().items() if marker is None]
    part = [row for row, marker in problems.markers().items() if marker != "grid"]
    assert {method for method, _, _ in always} == set(METHODS)
    assert {sampler for _, sampler, _ in always} == set(problems.PARALLEL)
    assert {target for _, _, target in always} == set(problems.ENROLLED)
    for one, other in ((0, 1), (1, 2)):
        assert {(row[one], row[other]) for row in part} == {(row[one], row[other]) for row in ROWS}
    assert len(always) < len(part) < len(ROWS)


@pytest.mark.parametrize(
    "method",
    [
        method if method in KINDS else pytest.param(method, marks=pytest.mark.slow)
        for method in METHODS
        if method != "sequential"
    ],
)
@pytest.mark.usefixtures("x64")
def test_a_sliding_window_does_not_change_the_chain(method):
    problem = problems.problem("mala", "multivariate_normal", None)
    solution, is_accepted = problems.solve(method, problem.sampler, problem.start, problem.inputs, 37)
    assert solution.converged, solution.explain()
    np.testing.assert_array_equal(is_accepted, problem.is_accepted)
    CONVERGED.check(solution.states, problem.states)
