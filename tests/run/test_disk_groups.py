"""The groups on request of a run with a store: made and written some draws at a time, the same as those in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import parsample as ps
from parsample.results import groups
from parsample.results.trace import as_datatree
from parsample.run import disk as store
from parsample.store.layout import Layout
from parsample.targets import NumPyroModel
from tests.stores import SETTINGS, check_same, shorten_segments, stop_at

REQUESTS = ("log_likelihood", "posterior_predictive", "prior")
RESPONSES = np.random.default_rng(2).normal(1.0, 1.0, 6).astype(np.float32)


def model(responses: Any) -> None:
    mean = numpyro.sample("mean", dist.Normal(0, 3))
    numpyro.deterministic("double", 2 * mean)
    with numpyro.plate("row", 6):
        numpyro.sample("responses", dist.Normal(mean, 1), obs=responses)


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_segments(monkeypatch)
    monkeypatch.setattr(groups, "ROWS", 128)


def sampled(**keywords: Any) -> Any:
    return ps.sample(model, RESPONSES, **{**SETTINGS, "groups": REQUESTS, **keywords})


@pytest.mark.slow
def test_they_are_made_of_a_few_draws_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sampled(num_samples=700, thin=2)
    seen: dict[str, list[int]] = {name: [] for name in (*REQUESTS, "read", "written")}
    read, write = store._Committed.__getitem__, Layout.write

    def spy(name: str, rows: Any) -> Any:
        usual = getattr(NumPyroModel, name)

        def call(*arguments: Any) -> Any:
            seen[name].append(rows(arguments[-1]))
            return usual(*arguments)

        return call

    for name in REQUESTS[:2]:
        monkeypatch.setattr(NumPyroModel, name, spy(name, lambda draws: draws["mean"].shape[1]))
    monkeypatch.setattr(NumPyroModel, "prior", spy("prior", lambda number: number))

    def reading(self: Any, name: str) -> Any:
        found = read(self, name)
        seen["read"].append(found.shape[1])
        return found

    def writing(self: Any, given: Any, first: int) -> int:
        end = write(self, given, first)
        if "prior" in given:
            seen["written"].append(end - first)
        return end

    monkeypatch.setattr(store._Committed, "__getitem__", reading)
    monkeypatch.setattr(Layout, "write", writing)
    found = sampled(num_samples=700, thin=2, store=tmp_path / "run.zarr")
    check_same(found, expected)
    for name in REQUESTS:
        # One draw is tried before anything is spent.
        assert seen[name] == [1, 128, 128, 94]
    assert max(seen["read"]) == max(seen["written"]) == 128
    assert len(list((tmp_path / "run.zarr/log_likelihood/responses/c/0").iterdir())) == 3


@pytest.mark.slow
def test_an_interrupt_and_more_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, calls = tmp_path / "run.zarr", 0
    usual = NumPyroModel.log_likelihood

    def stop(self: Any, draws: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return usual(self, draws)

    with monkeypatch.context() as patch:
        patch.setattr(NumPyroModel, "log_likelihood", stop)
        with pytest.raises(KeyboardInterrupt):
            sampled(store=path, num_samples=500)
    # What is half made does not count.
    assert {"posterior", "sample_stats"} == set(as_datatree(ps.load_trace(path)).children)
    check_same(ps.resume(path, model, RESPONSES, progress=False), sampled(num_samples=500))
    with pytest.raises(KeyboardInterrupt):
        ps.resume(path, model, RESPONSES, num_samples=700, progress=stop_at("sampling", 1))
    # They are of fewer draws than there are now.
    assert not {*REQUESTS, "prior_predictive"} & set(as_datatree(ps.load_trace(path)).children)
    check_same(ps.resume(path, model, RESPONSES, progress=False), sampled(num_samples=700))


@pytest.mark.slow
def test_draws_that_are_made_have_keys_of_their_own() -> None:
    trace = sampled(num_samples=300)
    rows = trace["prior"]["mean"].values[0]
    assert len(np.unique(rows)) == 300
    predicted = trace["posterior_predictive"]["responses"].values
    assert len(np.unique(predicted)) > 0.999 * predicted.size
