"""The summary: ArviZ's numbers, under ArviZ's names, the same under both generations."""

import os
import subprocess

import numpy as np
import pandas
import pytest

from parsample.results.summary import COLUMNS, scalars, summarize, worst
from parsample.results.trace import (
    arviz_generation,
    as_datatree,
    build_trace,
    import_arviz,
    posterior_dataset,
    save_trace,
)

CHAINS, DRAWS = 4, 200


@pytest.fixture
def trace(rng):
    return build_trace(
        {
            "posterior": {
                "mu": rng.normal(3, 2, size=(CHAINS, DRAWS)),
                "theta": rng.normal(size=(CHAINS, DRAWS, 3)),
                "cells": rng.normal(size=(CHAINS, DRAWS, 2, 2)),
                "count": rng.poisson(3, size=(CHAINS, DRAWS)),
            },
            "sample_stats": {"lp": rng.normal(size=(CHAINS, DRAWS))},
            "warmup_posterior": {"mu": rng.normal(size=(CHAINS, DRAWS))},
        },
        dims={"theta": ("school",), "cells": ("row", "column")},
        coords={"school": ["Choate", "Deerfield", "Mt. Hermon"], "row": ["a", "b"], "column": [0.5, 2]},
    )


def test_labels_are_those_of_arviz_and_one_row_is_one_scalar(trace):
    summary = summarize(trace)
    assert list(summary.index) == list(import_arviz().summary(trace).index)
    assert list(summary.index)[:4] == ["mu", "theta[Choate]", "theta[Deerfield]", "theta[Mt. Hermon]"]
    assert "cells[b, 0.5]" in summary.index
    assert tuple(summary.columns) == COLUMNS
    assert set(summary.dtypes) == {np.dtype(np.float64)}


def test_numbers_are_those_of_arviz(trace):
    arviz = import_arviz()
    if arviz_generation() == 0:
        quantiles = {"q5": lambda draws: np.percentile(draws, 5), "q95": lambda draws: np.percentile(draws, 95)}
        theirs = arviz.summary(trace, round_to="none", stat_funcs=quantiles)
    else:
        theirs = arviz.summary(trace, round_to="none", ci_prob=0.9, ci_kind="eti")
        theirs = theirs.rename(columns={"eti90_lb": "q5", "eti90_ub": "q95"})
    ours = summarize(trace)
    # ArviZ 1 takes its tail ESS at other quantiles by default; the one here belongs to q5 and q95 in both.
    tail = arviz.ess(posterior_dataset(trace), method="tail", prob=(0.05, 0.95))
    assert ours.loc["theta[Choate]", "ess_tail"] == tail["theta"].sel(school="Choate").item()
    for column in set(COLUMNS) - {"ess_tail"}:
        np.testing.assert_allclose(ours[column], theirs[column].astype(float), rtol=1e-5, atol=1e-7, err_msg=column)


def test_every_row_belongs_to_its_own_draws(trace):
    summary, posterior = summarize(trace), posterior_dataset(trace)
    for scalar in scalars(posterior):
        draws = posterior[scalar.variable][(..., *scalar.position)].values.astype(np.float64)
        assert summary.loc[scalar.label, "mean"] == pytest.approx(draws.mean())
        assert summary.loc[scalar.label, "sd"] == pytest.approx(draws.std(ddof=1))
        assert summary.loc[scalar.label, "q5"] == pytest.approx(np.quantile(draws, 0.05))
        assert summary.loc[scalar.label, "q95"] == pytest.approx(np.quantile(draws, 0.95))


def test_independent_draws_look_independent_and_a_lost_chain_lost(rng):
    good = rng.normal(size=(CHAINS, 1000))
    lost = good + np.array([0, 0, 0, 3])[:, None]
    summary = summarize(build_trace({"posterior": {"good": good, "lost": lost}}))
    assert summary.loc["good", "r_hat"] < 1.01
    assert summary.loc["good", "ess_bulk"] > 3000
    assert summary.loc["lost", "r_hat"] > 1.3
    assert summary.loc["lost", "ess_bulk"] < 50
    assert worst(summary)[:3:2] == (summary.loc["lost", "r_hat"], summary.loc["lost", "ess_bulk"])


def test_single_precision_loses_nothing_on_a_large_mean(rng):
    draws = (1000 + rng.normal(size=(CHAINS, 5000))).astype(np.float32)
    single = summarize(build_trace({"posterior": {"x": draws}}))
    double = summarize(build_trace({"posterior": {"x": draws.astype(np.float64)}}))
    pandas.testing.assert_frame_equal(single, double, check_exact=True)


def test_both_containers_give_the_same_table(trace):
    pandas.testing.assert_frame_equal(summarize(trace), summarize(as_datatree(trace)), check_exact=True)


def odd_trace(rng, chains=CHAINS, draws=DRAWS):
    broken = rng.normal(size=(chains, draws))
    broken[-1, -1] = np.nan
    return build_trace(
        {"posterior": {"x": rng.normal(size=(chains, draws)), "fixed": np.ones((chains, draws)), "broken": broken}}
    )


def test_what_has_no_diagnostic_is_nan_and_says_nothing(rng, capfd):
    summary = summarize(odd_trace(rng))
    assert summary["r_hat"].isna().tolist() == [False, True, True]
    assert summary.loc["fixed", "mean"] == 1
    assert summary.loc["fixed", "sd"] == 0
    assert np.isnan(summary.loc["broken", "ess_bulk"])
    for chains, draws in ((1, DRAWS), (CHAINS, 3), (1, 1)):
        assert summarize(odd_trace(rng, chains, draws))["r_hat"].isna().all()
    assert capfd.readouterr().err == ""


def test_arviz_is_heard_on_request(rng):
    with pytest.warns(RuntimeWarning, match="invalid value"):
        summarize(odd_trace(rng), warn=True)


def test_silence_ends_with_the_call(rng):
    summarize(odd_trace(rng))
    with pytest.warns(RuntimeWarning, match="invalid value"):
        import_arviz().rhat(posterior_dataset(odd_trace(rng)))
    assert getattr(import_arviz(), "_log", None) is None or not import_arviz()._log.filters


def test_worst_names_the_rows(trace):
    summary = summarize(trace)
    found = worst(summary)
    assert found.r_hat == summary["r_hat"].max() == summary.loc[found.r_hat_variable, "r_hat"]
    assert found.ess_bulk == summary["ess_bulk"].min() == summary.loc[found.ess_bulk_variable, "ess_bulk"]
    assert found.ess_tail == summary["ess_tail"].min() == summary.loc[found.ess_tail_variable, "ess_tail"]
    assert found.undefined == ()


def test_worst_passes_over_what_has_no_r_hat_and_says_so(rng):
    found = worst(summarize(odd_trace(rng)))
    assert found.r_hat_variable == found.ess_bulk_variable == found.ess_tail_variable == "x"
    assert found.undefined == ("fixed", "broken")


def test_worst_of_one_chain_still_has_sample_sizes(rng):
    found = worst(summarize(odd_trace(rng, chains=1)))
    assert np.isnan(found.r_hat)
    assert found.r_hat_variable is None
    assert found.ess_bulk > 10
    assert found.ess_bulk_variable in ("x", "fixed")
    assert found.undefined == ("x", "fixed", "broken")
    nothing = worst(summarize(odd_trace(rng, draws=3)))
    assert np.isnan(nothing.ess_bulk)
    assert nothing.ess_bulk_variable is None


def test_a_trace_without_draws_is_named():
    with pytest.raises(ValueError, match="expected a group 'posterior'"):
        summarize(build_trace({"sample_stats": {"lp": np.zeros((2, 5))}}))


OTHER_SIDE = """
import sys, warnings
warnings.simplefilter("error")
from parsample.results.summary import summarize
from parsample.results.trace import load_trace
summarize(load_trace(sys.argv[1])).to_json(sys.argv[2], orient="split", double_precision=15)
"""


def test_the_other_generation_gives_the_same_table(trace, repository, tmp_path):
    other = os.environ.get("PARSAMPLE_OTHER_PYTHON")
    if not other:
        pytest.skip("set PARSAMPLE_OTHER_PYTHON to an interpreter that has the other generation of ArviZ")
    table = tmp_path / "summary.json"
    command = [other, "-c", OTHER_SIDE, str(save_trace(trace, tmp_path / "trace.nc")), str(table)]
    environment = os.environ | {"PYTHONPATH": str(repository)}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    theirs = pandas.read_json(table, orient="split")
    pandas.testing.assert_frame_equal(summarize(trace), theirs, rtol=1e-9)
