"""When a run is good enough to end: against the summary of its trace, and in the front door."""

from typing import Any

import numpy as np
import pytest

import parsample as ps
from parsample.results.judgement import judge_arrays
from parsample.results.summary import bulk_ess, smallest_ess
from parsample.results.trace import as_datatree, build_trace
from parsample.run.until import check_until

SETTINGS: dict[str, Any] = {"num_warmup": 300, "compare": False, "progress": False}


def walk(rng: np.random.Generator, memory: float, shape: tuple[int, ...]) -> np.ndarray:
    """Autoregressive draws, shape (chain, draw, ...)."""
    draws = rng.normal(size=shape)
    for t in range(1, shape[1]):
        draws[:, t] += memory * draws[:, t - 1]
    return draws


def test_the_statistics_are_those_of_the_summary(rng: np.random.Generator) -> None:
    draws = {"x": walk(rng, 0.9, (4, 500, 2)), "y": walk(rng, 0.2, (4, 500)), "still": np.ones((4, 500))}
    summary = ps.summarize(build_trace({"posterior": draws})).drop("still")
    smallest = summary[["ess_bulk", "ess_tail"]].min()
    np.testing.assert_allclose(list(bulk_ess(draws)), summary["ess_bulk"], rtol=1e-6)
    np.testing.assert_allclose(smallest_ess(draws), smallest.min(), rtol=1e-6)
    found = judge_arrays(draws).worst
    assert found.r_hat == summary["r_hat"].max()
    assert (found.ess_bulk, found.ess_tail) == (summary["ess_bulk"].min(), summary["ess_tail"].min())
    assert found.r_hat_variable == summary["r_hat"].idxmax()


def test_when_it_is_met(rng: np.random.Generator) -> None:
    halves = [{"x": walk(rng, 0.5, (2, 200))}, {"x": walk(rng, 0.5, (2, 200))}]
    whole = {"x": np.concatenate([half["x"] for half in halves], 1)}
    worst = judge_arrays(whole).worst
    ess, rhat = min(worst.ess_bulk, worst.ess_tail), worst.r_hat
    assert check_until({"ess": ess - 1, "rhat": rhat + 1e-6}, 2).is_met(halves, 0.0)
    assert not check_until({"ess": ess + 1, "rhat": rhat + 1e-6}, 2).is_met(halves, 0.0)
    apart = [{"x": half["x"] + np.array([[0.0], [5.0]])} for half in halves]
    assert not check_until({"rhat": 1.01}, 2).is_met(apart, 0.0)
    assert not check_until({"seconds": 3}, 2).is_met(halves, 2.9)
    assert check_until({"seconds": 3}, 2).is_met(halves, 3.1)
    assert not check_until(None, 2).is_given


def test_what_is_not_known_is_not_good() -> None:
    draws = np.random.default_rng(0).normal(size=(2, 200))
    draws[0, 0] = np.nan
    assert not check_until({"ess": 1, "rhat": 100}, 2).is_met([{"x": draws, "still": np.ones((2, 200))}], 0.0)
    assert not check_until({"ess": 1}, 2).is_met([{"x": np.random.default_rng(0).normal(size=(2, 20))}], 0.0)


def test_a_run_ends_when_it_is_good_and_is_the_beginning_of_the_long_one() -> None:
    short = as_datatree(
        ps.sample("multivariate_normal", num_samples=5000, until={"ess": 300, "rhat": 1.05}, **SETTINGS)
    )
    assert short.attrs["until_met"] == 1
    draws = np.asarray(short["posterior"]["x"])
    assert draws.shape[1] == 1024
    assert ps.read_verdict(short).steps == 1024
    whole = as_datatree(ps.sample("multivariate_normal", num_samples=2048, **SETTINGS))
    np.testing.assert_array_equal(draws, np.asarray(whole["posterior"]["x"])[:, :1024])
    assert "until_met" not in whole.attrs


def test_a_run_that_never_is_good_ends_with_its_last_draw() -> None:
    trace = as_datatree(ps.sample("multivariate_normal", num_samples=256, until={"ess": 1e6}, **SETTINGS))
    assert trace.attrs["until_met"] == 0
    assert trace["posterior"]["x"].sizes["draw"] == 256


@pytest.mark.parametrize(
    ("until", "chains", "message"),
    [
        ({"es": 400}, 4, "a name in until is 'es', expected one of ess, rhat, seconds.*Did you mean 'ess'"),
        ({"ess": 0}, 4, "until has ess = 0, expected a finite number above 0"),
        ({"rhat": 1}, 4, "until has rhat = 1, expected a finite number above 1"),
        ({"seconds": "3"}, 4, "until has seconds = '3', expected a finite number above 0"),
        ({"rhat": 1.01}, 1, "until asks for rhat, but num_chains is 1, expected at least 2"),
    ],
)
def test_conditions_that_cannot_be(until: Any, chains: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_until(until, chains)
