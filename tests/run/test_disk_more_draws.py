"""A store whose run is to have more draws than it was begun with goes on to those of one run of that length."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parsample as ps
from parsample.results.trace import as_datatree
from parsample.run import plan as sampling
from parsample.run import segments
from parsample.store import layout as store_layout
from tests.stores import SETTINGS, TARGET, check_same, interrupted, shorten_segments, stop_at

MORE = 1500


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_segments(monkeypatch)


@pytest.fixture(scope="module")
def longer() -> Any:
    """The run that had so many draws from the beginning."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "PIECE", 128)
        return as_datatree(ps.sample(TARGET, **{**SETTINGS, "num_samples": MORE}))


def radius(draw: dict[str, Any]) -> dict[str, Any]:
    return {"radius": (draw["x"] ** 2).sum()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "keywords",
    [{}, {"thin": 7, "transform": radius, "until": {"ess": 1e6}}, {"groups": ("evaluation",), "keep_warmup": True}],
    ids=["plain", "thin, transform and until", "further groups"],
)
def test_a_run_that_is_over_goes_on_to_more_draws(keywords: dict[str, Any], tmp_path: Path) -> None:
    settings, path = {**SETTINGS, **keywords}, tmp_path / "run.zarr"
    transform = keywords.get("transform")
    # The eighth segment holds four draws.
    ps.sample(TARGET, store=path, **settings)
    found = ps.resume(path, num_samples=MORE, transform=transform, progress=False)
    expected = ps.sample(TARGET, **{**settings, "num_samples": MORE})
    check_same(found, expected)
    assert ps.read_settings(path) == ps.read_settings(found) == ps.read_settings(expected)
    assert ps.read_verdict(found).steps == MORE
    for name in ("iterations", "evaluations_per_step", "largest_residual", "finished_sequentially"):
        assert getattr(ps.read_verdict(found), name) == getattr(ps.read_verdict(expected), name)
    assert (found.attrs["store_complete"], found.attrs["store_draws"]) == (1, MORE // settings.get("thin", 1))
    # Over is over.
    check_same(ps.resume(path, num_samples=MORE, transform=transform), expected)


@pytest.mark.parametrize(
    ("samples", "keywords"),
    # Warm-up's window is as long as a segment at most: here 128 and 160 steps, those of a part of warm-up.
    [
        pytest.param(100, {"window": 160, "num_warmup": 3200, "warmup_method": "quasi_newton"}, marks=pytest.mark.slow),
        (500, {}),
    ],
)
def test_it_goes_on_where_the_segments_have_another_length(
    samples: int, keywords: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "PIECE", 384)
    path, settings = tmp_path / "run.zarr", {**SETTINGS, **keywords}
    ps.sample(TARGET, store=path, **{**settings, "num_samples": samples})
    found = ps.resume(path, num_samples=900, progress=False)
    check_same(found, ps.sample(TARGET, **{**settings, "num_samples": 900}))


def test_a_run_that_was_interrupted_goes_on_to_another_number(longer: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    interrupted(path)
    for number in (MORE, 700):
        with pytest.raises(KeyboardInterrupt):
            ps.resume(path, num_samples=number, progress=stop_at("sampling", 1))
        assert ps.read_settings(path).num_samples == number
    with pytest.raises(
        ValueError, match=r"num_samples is 600, but the store '.*' holds 640 steps of each chain alread"
    ):
        ps.resume(path, num_samples=600)
    check_same(ps.resume(path, num_samples=MORE, progress=False), longer)


def test_an_interrupt_on_the_way_to_more_draws(longer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.zarr"
    ps.sample(TARGET, store=path, **SETTINGS)

    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(segments.Run, "segment", stop)
        with pytest.raises(KeyboardInterrupt):
            ps.resume(path, num_samples=MORE, progress=False)
    # Nothing was added, and nothing is lost.
    partial = ps.load_trace(path)
    assert (partial.attrs["store_complete"], partial.attrs["store_draws"]) == (0, 900)
    np.testing.assert_array_equal(partial.posterior["x"].values, longer["posterior"]["x"].values[:, :900])
    assert ps.read_verdict(partial).steps == 900
    with pytest.raises(KeyboardInterrupt):
        ps.resume(path, progress=stop_at("sampling", 200))
    assert ps.load_trace(path).attrs["store_draws"] == 896 + 256
    check_same(ps.resume(path, progress=False), longer)


CHILD = """
import os, signal, sys
from parsample import resume
from parsample.run import plan as sampling
from parsample.run import disk as store
from parsample.store import layout as store_layout
sampling.PIECE, store.COMMIT_EVERY, store_layout.CHUNK_BYTES = 128, 0.0, 3 * 128 * 2 * 2 * 4
commit, calls = store_layout.Layout.commit, 0

def killed(layout, attributes, run):
    # The draws of the segment that was run again, and those of the next, are written, and do not yet count.
    global calls
    calls += 1
    if calls == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    commit(layout, attributes, run)

store_layout.Layout.commit = killed
resume(sys.argv[1], num_samples=1500, progress=False)
"""


@pytest.mark.slow
def test_a_kill_on_the_way_to_more_draws(longer: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    ps.sample(TARGET, store=path, **SETTINGS)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", CHILD, str(path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert ps.load_trace(path).attrs["store_draws"] == 1024
    check_same(ps.resume(path, progress=False), longer)


def test_fewer_draws_or_another_model_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    ps.sample(TARGET, store=path, **SETTINGS)
    before = (path / "zarr.json").read_bytes()
    with pytest.raises(
        ValueError, match=r"num_samples is 899, but the store '.*run.zarr' holds 900 steps of each chai"
    ):
        ps.resume(path, num_samples=899)
    with pytest.raises(ValueError, match="num_samples is 0, expected a whole number"):
        ps.resume(path, num_samples=0)
    with pytest.raises(ValueError, match="another run: target is multivariate_normal there and banana here"):
        ps.resume(path, "banana", num_samples=MORE, progress=False)
    assert (path / "zarr.json").read_bytes() == before
    assert sorted(file.name for file in (path / store_layout.PRIVATE).glob("state-*")) == ["state-896.npz"]
