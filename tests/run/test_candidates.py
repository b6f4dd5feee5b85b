"""Ways to the draws side by side: a plan on a small target from end to end, here and for a device that is not there."""

import dataclasses
import math
from typing import Any

import pytest

import parsample as ps
from parsample.run.candidates import Candidate, Planned

FEW: dict[str, Any] = {"num_warmup": 160, "num_samples": 64, "num_chains": 2}


@pytest.mark.slow
def test_here_what_is_predicted_stands_beside_what_is_measured() -> None:
    found = ps.plan("log_gamma", "mala", **FEW)
    loop = found.candidates[0]
    assert (loop.method, loop.iterations, loop.gradients, found.device) == ("loop", 64, 64, "cpu")
    assert {row.method for row in found.candidates} == {"loop", "quasi_newton", "newton"}
    for row in found.candidates:
        assert row.measured > 0
        assert row.predicted > 0
        # One gradient a step, and in an iteration that where its steps begin.
        assert row.method == "loop" or row.gradients <= 2 * row.iterations <= 2 * 64
    assert "here, without compiling" in str(found)


@pytest.mark.slow
def test_for_a_device_that_is_not_there_nothing_is_called_measured() -> None:
    """The draws and iterations are those counted here; without accept/reject there is nothing to tune."""
    given: dict[str, Any] = {**FEW, "sampler": "ula", "step_size": 0.1}
    here, there = ps.plan("log_gamma", **given), ps.plan("log_gamma", **given, device="h100")
    assert not there.is_measured
    for one, other in zip(here.candidates, there.candidates, strict=True):
        assert (one.method, one.iterations, one.effective_draws) == (
            other.method,
            other.iterations,
            other.effective_draws,
        )
        assert math.isnan(other.measured)
        assert other.seconds == other.predicted
    assert "no second of this was measured on h100" in there.text()
    assert "predicted" in there.text()


@pytest.mark.slow
def test_for_an_accelerator_lifted_methods_are_laid_out_with_one_gradient_an_iteration() -> None:
    found = ps.plan("log_gamma", "hmc", **FEW, device="h100")
    names = {row.method for row in found.candidates}
    assert names == {"loop", "quasi_newton", "newton", "lifted_quasi_newton", "lifted_newton"}
    for row in found.candidates:
        if row.method.startswith("lifted"):
            assert row.gradients == row.iterations < 64
            assert row.predicted > 0


def test_the_best_has_most_effective_draws_a_second_and_a_loss_is_said() -> None:
    loop = Candidate("step size 1", "loop", 1, 100.0, 400.0, effective_draws=50.0, predicted=0.1)
    fast = Candidate("step size 0.5", "newton", 256, 8.0, 40.0, effective_draws=20.0, predicted=0.01)
    still = dataclasses.replace(fast, effective_draws=math.nan)
    found = Planned("banana", "h100", "made up", 100, 4, 100, (loop, fast, still))
    assert (loop.per_second, fast.per_second, still.per_second) == (500, 2000, 0)
    assert found.best is fast
    assert "* newton over 256 steps has most effective draws a second, 4 times the loop's." in found.text()
    assert [line[:3] for line in found.text().splitlines() if "newton  " in line] == ["* B", "  B"]
    slow = dataclasses.replace(fast, measured=0.2)
    measured = dataclasses.replace(found, candidates=(dataclasses.replace(loop, measured=0.01), slow))
    assert measured.best.method == "loop"
    assert "no parallel evaluation that was tried pays" in measured.text()


def test_bad_input_is_refused_before_warm_up() -> None:
    with pytest.raises(ValueError, match=r"device is 'h10', expected one of cpu, a100, h100, h200\. Did you"):
        ps.plan("banana", device="h10")
    with pytest.raises(ValueError, match="num_warmup is 0, expected a whole number of at least 1; the posterior's sca"):
        ps.plan("banana", num_warmup=0)
    with pytest.raises(ValueError, match="num_samples is 0, expected"):
        ps.plan("banana", num_samples=0)
