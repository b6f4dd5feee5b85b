"""Every method on every sampler on every target: the parallel chain is the sequential chain."""

from pathlib import Path

import numpy as np
import pytest

from parsample.engine.methods import METHODS
from parsample.samplers import SAMPLERS
from parsample.targets import TARGETS
from tests.contract.known import KNOWN_NOT_CONVERGING, KNOWN_OVERCLAIMING
from tests.contract.problems import ARGUMENTS, STEPS, problem, solve
from tests.tolerances import CONVERGED

# Two steps an iteration, and a little more: no row of the tables lies within two iterations of this.
SLOW = STEPS // 2 + 4

ROWS = [(method, sampler, target) for target in TARGETS for sampler in SAMPLERS for method in METHODS]


@pytest.fixture
def data(request: pytest.FixtureRequest) -> Path | None:
    """The folder of data, asked for only by the targets that need it; the others do not skip without it."""
    target = request.getfixturevalue("row")[2]
    return request.getfixturevalue("shared_data") if target in ARGUMENTS else None


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("row", ROWS, ids="-".join)
def test_it_is_the_chain_of_the_loop(row: tuple[str, str, str], data: Path | None, request) -> None:
    method, sampler, target = row
    given = problem(sampler, target, data)
    solution, is_accepted = solve(method, given.sampler, given.start, given.inputs)
    assert bool(solution.converged)
    assert int(solution.iterations) <= STEPS
    if row in KNOWN_OVERCLAIMING:
        request.applymarker(pytest.mark.xfail(strict=True, reason=KNOWN_OVERCLAIMING[row]))
    np.testing.assert_array_equal(np.asarray(is_accepted), given.is_accepted)
    CONVERGED.check(solution.states, given.states)
    if row in KNOWN_NOT_CONVERGING:
        request.applymarker(pytest.mark.xfail(strict=True, reason=KNOWN_NOT_CONVERGING[row]))
    if method != "sequential":
        assert int(solution.iterations) <= SLOW, "it gains fewer than two steps an iteration"


def test_the_tables_name_rows_that_exist() -> None:
    assert set(KNOWN_NOT_CONVERGING) | set(KNOWN_OVERCLAIMING) <= set(ROWS)
