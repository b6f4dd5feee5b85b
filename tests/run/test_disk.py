"""Runs with a store: the draws are those of a run without one, whatever happens on the way."""

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import parsample as ps
from parsample.results.trace import as_datatree, build_trace, import_arviz
from parsample.run import checks
from parsample.run import checks as identity
from parsample.run import disk as store
from parsample.run import plan as sampling
from parsample.run.freeze import freeze, thaw
from parsample.run.interrupts import Interrupted, holding_interrupts
from parsample.run.open_store import open_store
from parsample.store import layout as store_layout
from parsample.targets import MultivariateNormal
from tests.stores import SETTINGS, TARGET, check_same, interrupted, shorten_segments, stop_at


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_segments(monkeypatch)


@pytest.fixture(scope="module")
def whole() -> Iterator[Any]:
    """The run without a store and without an interruption."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "PIECE", 128)
        yield as_datatree(ps.sample(TARGET, **SETTINGS))


@pytest.mark.slow
def test_a_store_holds_the_same_trace_as_xarray_and_arviz_read_it(whole: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    trace = ps.sample(TARGET, store=path, **SETTINGS)
    check_same(trace, whole)
    assert type(trace) is type(build_trace({"posterior": {"x": np.zeros((1, 2))}}))
    check_same(xarray.open_datatree(path, engine="zarr"), whole)
    assert as_datatree(trace)["posterior"].to_dataset().sizes["draw"] == 900
    # Three segments a chunk.
    assert len(list((path / "posterior" / "x" / "c" / "0").iterdir())) == 3
    alone = xarray.open_dataset(path, group="posterior", engine="zarr")
    assert (alone.sizes["draw"], alone.attrs["seed"]) == (900, 5)
    assert ps.read_verdict(trace).steps == 900
    assert import_arviz().summary(trace).shape[0] == 2
    assert (trace.attrs["store_complete"], trace.attrs["store_draws"]) == (1, 900)
    # Over is over.
    check_same(ps.resume(path), whole)
    ps.save_trace(trace, tmp_path / "run.nc")
    check_same(ps.load_trace(tmp_path / "run.nc"), whole)


CHILD = """
import os, signal, sys
import parsample as ps
from parsample.run import plan as sampling
from parsample.run import disk as store
from parsample.store import layout as store_layout
sampling.PIECE, store.COMMIT_EVERY, store_layout.CHUNK_BYTES = 128, 0.0, 3 * 128 * 2 * 2 * 4
path, how = sys.argv[1:]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def progress(event):
    if (how == "warm-up" and event.done >= 40) or (how == "sampling" and event.done >= 256):
        die()

commit, calls = store_layout.Layout.commit, 0

def killed(layout, attributes, run):
    # The rows of the segment are written, and do not yet count.
    global calls
    calls += 1
    if how == "commit" and calls == 3:
        die()
    commit(layout, attributes, run)

store_layout.Layout.commit = killed
if how == "warm-up":
    settings = dict(num_warmup=80, num_samples=900, num_chains=2, seed=5, method="quasi_newton")
    ps.sample("multivariate_normal", store=path, progress=progress, **settings)
ps.resume(path, progress=progress)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_goes_on_to_the_same_draws(whole: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    draws = []
    for how in ("warm-up", "sampling", "commit"):
        command = [sys.executable, "-c", CHILD, str(path), how]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        draws.append(store_layout.read_run(path).get("state"))
        if how == "warm-up":
            with pytest.raises(ValueError, match=r"holds no draws yet; go on with `parsample resume"):
                ps.load_trace(path)
    assert draws == [None, "state-256.npz", "state-512.npz"]
    # Written and not committed: rows of the third segment after the resume.
    assert np.load(path / ".parsample" / "state-640.npz")["leaf_0"].shape == (2, 2)
    partial = ps.load_trace(path)
    assert (partial.attrs["store_complete"], partial.attrs["store_draws"]) == (0, 512)
    np.testing.assert_array_equal(partial.posterior["x"].values, whole["posterior"]["x"].values[:, :512])
    check_same(ps.resume(path, progress=False), whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [3, 40, 77])
def test_a_full_disk_loses_nothing_that_was_committed(
    number: int, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, left = tmp_path / "run.zarr", number
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match=r"run.zarr' cannot be written \(No space left on device\); its first [\d,]+"):
            ps.sample(TARGET, store=path, **SETTINGS)
    check_same(ps.resume(path, progress=False), whole)


@pytest.mark.parametrize("stage", ["warm-up", "sampling"])
def test_an_interrupt_keeps_what_is_done(
    stage: str, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "COMMIT_EVERY", 1e9)
    path, steps = tmp_path / "run.zarr", {"warm-up": 40, "sampling": 512}[stage]
    stop = interrupted(path, stage, steps)
    assert isinstance(stop, Interrupted)
    done = steps if stage == "sampling" else 0
    assert stop.note.startswith(
        f"interrupted; {done} steps of each chain are in '{path}'; go on with `parsample resume"
    )
    # Without a store the draws come along.
    with pytest.raises(Interrupted) as caught:
        ps.sample(TARGET, **{**SETTINGS, "progress": stop_at(stage, steps)})
    if stage == "warm-up":
        assert caught.value.trace is None
    else:
        np.testing.assert_array_equal(caught.value.trace.posterior["x"].values, whole["posterior"]["x"].values[:, :512])
        assert ps.read_verdict(caught.value.trace).steps == 512
        check_same(ps.resume(path, progress=False), whole)


def test_an_interrupt_waits_for_the_end_of_what_is_short() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), holding_interrupts():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        reached = True
    assert reached


def test_memory_holds_no_more_than_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "COMMIT_EVERY", 1e9)
    held, add = [], store.Store.add

    def spy(self: Any, *arguments: Any) -> Any:
        found = add(self, *arguments)
        held.append(sum(map(store._length, self.pending.blocks)) if self.pending else 0)
        return found

    monkeypatch.setattr(store.Store, "add", spy)
    ps.sample(TARGET, store=tmp_path / "run.zarr", **SETTINGS)
    assert max(held) == 2 * 128
    assert len(held) == 8


def test_thinning_and_a_transform(whole: Any, tmp_path: Path) -> None:
    def transform(draw: dict[str, Any]) -> dict[str, Any]:
        return {"radius": jnp.sqrt(jnp.sum(draw["x"] ** 2)), "x": draw["x"][:1]}

    settings = {**SETTINGS, "thin": 7, "transform": transform}
    found: Any = as_datatree(ps.sample(TARGET, **settings))
    x = whole["posterior"]["x"].values[:, 6::7]
    np.testing.assert_array_equal(found["posterior"]["x"].values, x[..., :1])
    np.testing.assert_allclose(found["posterior"]["radius"].values, np.sqrt((x**2).sum(-1)), rtol=1e-6)
    np.testing.assert_array_equal(found["sample_stats"]["lp"].values, whole["sample_stats"]["lp"].values[:, 6::7])
    assert found["posterior"]["x"].sizes["draw"] == 900 // 7
    assert ps.read_verdict(found).steps == 900
    path = tmp_path / "run.zarr"
    interrupted(path, thin=7, transform=transform)
    with pytest.raises(ValueError, match=r"transform is not given, but .* the function .*transform, which no file"):
        ps.resume(path)
    check_same(ps.resume(path, transform=transform, progress=False), found)


def test_it_ends_when_it_is_good_across_a_resume(tmp_path: Path) -> None:
    until = {"ess": 500}
    expected = as_datatree(ps.sample(TARGET, until=until, **SETTINGS))
    assert 256 < expected["posterior"].sizes["draw"] < 900
    # The second ends where the draws are good, and nobody has looked at them yet.
    for steps in (128, expected["posterior"].sizes["draw"]):
        path = tmp_path / f"{steps}.zarr"
        interrupted(path, steps=steps, until=until)
        found = ps.resume(path, progress=False)
        check_same(found, expected)
        assert found.attrs["until_met"] == 1


def other_normal() -> MultivariateNormal:
    return MultivariateNormal(mean=jnp.array([0.0, 1.0]), covariance=jnp.eye(2))


def test_a_store_is_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.zarr"
    interrupted(path)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.stem != "lock"}
    with pytest.raises(
        ValueError, match=r"which is there, of a run with these settings; go on with it by parsample.res"
    ):
        ps.sample(TARGET, store=path, **SETTINGS)
    with pytest.raises(ValueError, match=r"which is there, of a run whose seed is 5, not 6; go on"):
        ps.sample(TARGET, store=path, **{**SETTINGS, "seed": 6})
    with pytest.raises(ValueError, match=r"seed is 6, but the store .* was begun with seed 5"):
        ps.resume(path, seed=6)
    with pytest.raises(ValueError, match=r"sampler is 'mala', but the store .* was begun with 'hmc'"):
        ps.resume(path, sampler="mala")
    with pytest.raises(ValueError, match=r"begun with another run: log densities at the starts are \[.*\] there and"):
        ps.resume(path, other_normal(), progress=False)
    with pytest.raises(
        ValueError, match=r"another run: target is multivariate_normal there and banana here; resume it"
    ):
        ps.resume(path, "banana", progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(checks, "__version__", "9.9")
        with pytest.raises(ValueError, match=r"another run: version is .* and 9.9 here"):
            ps.resume(path, progress=False)
    with open_store(path, ps.read_settings(path), is_new=False):
        with pytest.raises(ValueError, match=rf"which process {os.getpid()} on .* since 20.* is writing to; wait"):
            ps.resume(path, progress=False)
    after = {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.stem != "lock"}
    assert after == before


def test_places_that_cannot_be_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("kept")
    for name, message in (
        ("file", "which is there and is no store of a run; give another name"),
        ("no/run.zarr", "but there is no folder '.*no'; make it first"),
    ):
        with pytest.raises(ValueError, match=message):
            ps.sample(TARGET, store=tmp_path / name, **SETTINGS)
    with pytest.raises(ValueError, match="which is no store of a run; give what was store="):
        ps.resume(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is no Zarr store"):
        ps.load_trace(tmp_path / "empty")

    usual = os.open

    def refuse(path: Any, *arguments: Any, **keywords: Any) -> int:
        if str(path).endswith("lock"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return usual(path, *arguments, **keywords)

    # Root, who often runs tests, may write everywhere: the system's answer is played.
    monkeypatch.setattr(store.os, "open", refuse)
    with pytest.raises(ValueError, match=r"cannot be written \(Permission denied\); give a place where"):
        ps.sample(TARGET, store=tmp_path / "run.zarr", **SETTINGS)
    assert sorted(os.listdir(tmp_path)) == ["empty", "file"]


def test_a_log_density_is_passed_again(tmp_path: Path) -> None:
    def density(x: Any) -> Any:
        return -0.5 * jnp.sum(x**2)

    path, start = tmp_path / "run.zarr", jnp.zeros(2)
    keywords = {**SETTINGS, "progress": stop_at("warm-up", 10)}
    with pytest.raises(KeyboardInterrupt):
        ps.sample(density, initial_position=start, store=path, **keywords)
    with pytest.raises(ValueError, match=r"target is not given, but .* is of 'log_density', which cannot be made from"):
        ps.resume(path)
    assert ps.resume(path, density, initial_position=start, progress=False).posterior["x"].shape == (2, 900, 2)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"thin": 0}, "thin is 0, expected a whole number"),
        ({"thin": 901}, "thin is 901, expected at most num_samples, which is 900"),
        ({"transform": lambda draw: draw["x"]}, r"transform returned a .*, expected a dict of arrays by name"),
        ({"transform": lambda draw: draw["y"]}, r"transform cannot be applied to a draw, which has x: KeyError: 'y'"),
    ],
)
def test_what_cannot_be_kept(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ps.sample(TARGET, **{**SETTINGS, **keywords})


def test_more_chains_than_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(identity, "_host_bytes", lambda: 2**20)
    with pytest.raises(ValueError, match=r"num_chains is 1000, which takes at least \d+ MiB with 900 draws each, but"):
        ps.sample(TARGET, **{**SETTINGS, "num_chains": 1000})
    many = {**SETTINGS, "num_chains": 2, "num_samples": 10**6}
    with pytest.raises(
        ValueError, match=r"has 1 MiB left; no chains would fit, and more with fewer draws, thin= or st"
    ):
        ps.sample(TARGET, **many)
    with pytest.raises(ValueError, match=r"and more with fewer draws, thin=, store= or a smaller window\."):
        ps.sample(TARGET, **many, window="all")
    # Newton's matrices count: two of 2 x 2 numbers for each of the steps that are solved at once.
    whole = {**SETTINGS, "num_chains": 1, "num_samples": 120_000, "window": "all", "store": tmp_path / "long.zarr"}
    needed = []
    for method in ("quasi_newton", "newton"):
        with pytest.raises(ValueError, match=r"chains would fit, and more with a smaller window\.") as caught:
            ps.sample(TARGET, **{**whole, "method": method})
        needed.append(int(re.findall(r"at least (\d+) MiB", str(caught.value))[0]))
    assert 3 <= needed[1] - needed[0] <= 4
    path = tmp_path / "run.zarr"
    with pytest.raises(KeyboardInterrupt):
        ps.sample(TARGET, store=path, **{**many, "progress": stop_at("warm-up", 1)})


def test_values_of_other_packages_are_not_written_and_not_made() -> None:
    with pytest.raises(TypeError, match="value is a function, which cannot be written down"):
        freeze(lambda: 0, {})
    for foreign in ({"@class": "system", "fields": {}}, {"@class": "os.system", "fields": {}}, {"@given": "target"}):
        with pytest.raises(ValueError, match=r"it holds '.*', which this version does not know"):
            thaw(foreign, {})
    arrays: dict[str, np.ndarray] = {}
    value = {"a": (1, 2.5, None), "b": [np.arange(3), "text"]}
    assert str(thaw(freeze(value, arrays), arrays)) == str(value)
