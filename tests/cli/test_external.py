"""The command line of models outside of JAX."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parsample
from tests.command_line import command, invoke, words

MODEL = """
import numpy as np
import numpyro
import numpyro.distributions as dist
import beside

retries = 1

def prior():
    numpyro.sample("k", dist.Normal(0, 1).expand([2]).to_event(1))

def simulate(position, center=0.0):
    return beside.halve(-float(((position["k"] - center) ** 2).sum()))

def likelihood(output):
    return -0.5 * ((output - 1.0) ** 2).sum()

number = 3
"""
FEW = ["--warmup", "100", "--samples", "100", "--chains", "2", "--seed", "0", "--json", "--no-progress"]


def make_folder(folder: Path) -> Path:
    (folder / "model.py").write_text(MODEL)
    (folder / "beside.py").write_text("def halve(number):\n    return number / 2\n")
    (folder / "data.json").write_text(json.dumps({"center": [2.0, -2.0]}))
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(make_folder(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("beside", None)


def target_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """The target that a command makes; nothing is sampled."""
    found = []

    def take(target: Any, **options: Any) -> None:
        found.append(target)
        raise ValueError("enough")

    monkeypatch.setattr(parsample, "sample", take)
    ended = invoke("sample", *arguments)
    assert words(ended.output) == "parsample: enough"
    return found[0]


def run(target: Any, position: dict) -> float:
    found = target.workers.submit([position])
    found.wait_all()
    target.workers.close()
    return float(found.logdensity[0])


@pytest.mark.slow
def test_a_function_of_a_file_is_run_by_processes_and_resumed(tmp_path: Path) -> None:
    given = ["model.py:simulate", "--external", "--workers", "2", "--data", "data.json"]
    first = command("sample", *given, *FEW, "--store", "run.zarr", cwd=make_folder(tmp_path))
    assert first.returncode in (0, 1), first.stderr
    # The product of two normal densities.
    draws = parsample.load_trace(tmp_path / "run.zarr").posterior["k"]
    np.testing.assert_allclose(draws.mean(("chain", "draw")), [1.0, -1.0], atol=0.4)
    more = ["resume", "run.zarr", "--samples", "150", "--json", "--no-progress"]
    without = command(*more, cwd=tmp_path)
    assert without.returncode == 2
    assert "the store 'run.zarr' is of 'external_simulate', which cannot be made from its name" in words(without.stderr)
    found = command(*more, "--target", *given, cwd=tmp_path)
    assert found.returncode in (0, 1), found.stderr
    again = parsample.load_trace(tmp_path / "run.zarr").posterior["k"]
    assert again.shape == (2, 150, 2)
    np.testing.assert_array_equal(again[:, :100], draws)


def test_what_a_file_holds_goes_to_the_target(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (folder / "model.py").open("a") as file:
        file.write("gradient = 'finite_differences'\nworkers = 7\n")
    target = target_of(monkeypatch, "model.py:simulate", "--external")
    assert target.has_gradient
    assert target.workers.size == 7
    assert run(target, {"k": np.asarray([1.0, 2.0])}) == -2.5
    with (folder / "model.py").open("a") as file:
        file.write("import parsample as ps\n")
        file.write("made = ps.targets.External(simulate, prior=prior, executor='threads', workers=3)\n")
    assert target_of(monkeypatch, "model.py:made", "--external").workers.size == 3


def test_help_shows_the_flags() -> None:
    for name in ("sample", "resume"):
        text = words(invoke(name, "--help").stdout)
        assert "Models outside of JAX" in text
        for flag in ("--external", "--workers", "--umbridge", "--dask"):
            assert flag in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["model.py:simulate", "--workers", "2"], "--workers is 2, but only a model outside of JAX has workers; add"),
        (["eight_schools", "--dask", "tcp://x"], "--dask is tcp://x, but only a model outside of JAX has workers"),
        (["other.py:simulate", "--external"], "there is no file 'other.py'; give FILE.py:NAME, such as model.py:sim"),
        (["eight_schools", "--external"], "there is no file ''; give FILE.py:NAME"),
        (["model.py:solve", "--external"], "has no function 'solve'; it has prior, simulate, likelihood"),
        (["model.py:number", "--external"], "has no function 'number'"),
        (["model.py:simulate", "--external", "--workers", "0"], "workers is 0, expected how many runs"),
        (["model.py:likelihood", "--umbridge", "http://127.0.0.1:1", "--dask", "x"], "leave one of them out"),
    ],
)
def test_bad_input_is_one_sentence(folder: Path, arguments: list[str], text: str) -> None:
    found = invoke("sample", *arguments)
    assert found.exit_code == 2
    assert text in words(found.output)
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(("flag", "name"), [("--umbridge", "umbridge"), ("--dask", "distributed")])
def test_what_is_not_installed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, flag: str, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    found = invoke("sample", "model.py:simulate", "--external", flag, "http://127.0.0.1:1")
    assert found.exit_code == 2
    assert f"not installed; install parsample[{flag[2:]}]" in words(found.output)


def test_a_model_behind_umbridge(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("umbridge", reason="the package umbridge is not installed: --umbridge was not tried")
    from tests.targets.test_umbridge import SERVER, free_port, wait_for

    process = subprocess.Popen([sys.executable, "-c", SERVER, str(port := free_port())], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, process)
        target = target_of(monkeypatch, "posterior", "--umbridge", url, "--umbridge", url, "--workers", "3")
        assert target.workers.size == 3
        assert run(target, {"input": np.asarray([1.0, 2.0, 0.0])}) == -2.5
        with (folder / "model.py").open("a") as file:
            file.write("model_name = 'forward'\n")
        wrong = invoke("sample", "model.py:likelihood", "--umbridge", url)
        assert wrong.exit_code == 2
        assert "likelihood cannot be traced for a list of vectors of [2, 1]" in words(wrong.output)
    finally:
        process.kill()
        process.wait()


@pytest.mark.filterwarnings("default")
def test_a_dask_cluster(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed: --dask was not tried")
    options = {"n_workers": 2, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": ":0"}
    with distributed.LocalCluster(**options, local_directory=str(folder)) as cluster:
        target = target_of(monkeypatch, "model.py:simulate", "--external", "--dask", cluster.scheduler_address)
        assert target.workers.size == 2
        # `beside` is no module of the workers: it goes with the function.
        assert run(target, {"k": np.asarray([1.0, 2.0])}) == -2.5
    monkeypatch.setattr("parsample.targets.external_file.PATIENCE", 1.0)
    none = invoke("sample", "model.py:simulate", "--external", "--dask", "tcp://127.0.0.1:1")
    assert none.exit_code == 2
    assert "--dask is 'tcp://127.0.0.1:1', where no scheduler answers" in words(none.output)
