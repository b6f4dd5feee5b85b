"""The selection for accelerators: it runs anywhere on little, ends in time, and asks for a device where needed."""

import subprocess
import sys
from typing import Any

import pytest

from benchmarks import gpu

pytestmark = pytest.mark.slow


def test_the_same_chain_by_the_loop_and_in_parallel() -> None:
    loop, newton = (dict(zip(gpu.HEADER, row, strict=True)) for row in gpu.rows(None, 60.0, "mixture", quick=True))
    assert (loop["method"], newton["method"]) == ("loop", "Newton")
    assert 1 < newton["iterations"] < 100
    assert float(newton["difference from the loop"]) < 0.01
    assert all(float(row["predicted, s"]) > 0 for row in (loop, newton))


def test_what_does_not_fit_into_the_time_is_named() -> None:
    rows: list[Any] = list(gpu.rows(None, -1.0, "mixture", quick=True))
    assert [row[4] for row in rows] == 2 * ["left out: no time"]
    assert {len(row) for row in rows} == {len(gpu.HEADER)}


def test_every_problem_can_be_made() -> None:
    made = [next(problem()) for problem in gpu.programs(None, quick=True)]
    assert [program.method for program in made] == len(made) * ["loop"]
    assert len({program.what for program in made}) == len(made) == 8


def test_the_scans_solve_the_same_system() -> None:
    rows: list[Any] = [
        dict(zip(gpu.HEADER, row, strict=True)) for row in gpu.rows(None, 60.0, "system, dense", quick=True)
    ]
    assert [row["method"] for row in rows] == ["loop", "associative", "blocked", "pallas"]
    assert all(float(row["difference from the loop"]) < 1e-5 for row in rows)


def test_without_an_accelerator_it_says_what_to_do() -> None:
    found = subprocess.run([sys.executable, "-m", "benchmarks.gpu"], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "JAX has no accelerator here; --quick runs the same programs on little" in found.stderr
