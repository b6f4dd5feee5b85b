"""How a command ends: every exit code in a process of its own, and the draws, which are somewhere whatever happens."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import parsample as ps
from parsample.cli import exits
from tests.command_line import ROOT, invoke, words

# Of each case: what sampling does, the limit on the size of files and where standard output goes. All cases are
# children of one process, which has imported everything and made the trace.
SCRIPT = """
import json, os, resource, signal, sys
import numpy as np
import parsample as ps
from parsample.cli import main as cli
from parsample.results import trace as trace_module
from parsample.results.trace import build_trace
from parsample.run.interrupts import Interrupted
from tests.results.test_judgement import good

GOOD = good(draws=2000)
GOOD = GOOD._replace(posterior={"y": GOOD.posterior["y"]}).trace
BAD = good()
BAD = BAD._replace(posterior={"y": BAD.posterior["y"][:, :40]}, diverging=BAD.diverging[:, :40],
                   energy=BAD.energy[:, :40]).trace
ps.plots, ps.summarize(BAD)
usual = trace_module.save_trace


def with_trace(error):
    error.trace = GOOD
    return error


def act(name):
    def sample(*_, **__):
        if name == "bad input":
            raise ValueError("no")
        if name == "bug":
            raise IndexError("a bug")
        if name == "error with draws":
            raise with_trace(RuntimeError("the device is lost"))
        if name == "interrupted with draws":
            signal.raise_signal(signal.SIGINT)
        if name == "interrupted without draws":
            raise KeyboardInterrupt
        return BAD if name == "not good" else GOOD

    def sample_holding(*args, **kwargs):
        try:
            return sample(*args, **kwargs)
        except KeyboardInterrupt:
            if name == "interrupted without draws":
                raise
            raise Interrupted("interrupted after 2,000 steps", GOOD) from None

    def save(*args):
        if name.startswith("interrupted"):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return usual(*args)

    def draw(trace, path, **_):
        if name == "plot":
            raise OSError(28, "No space left on device")
        path.write_bytes(b"")

    ps.sample, ps.plot_trace_rank = sample_holding, draw
    import parsample.results.rescue as rescue
    rescue.save_trace = save


found = {}
for name, limit, output in json.loads(sys.argv[1]):
    os.makedirs(name)
    child = os.fork()
    if child == 0:
        os.chdir(name)
        os.environ["TMPDIR"] = os.getcwd()
        for number, path in ((1, output or "out"), (2, "err")):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), number)
        act(name)
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        sys.argv = ["parsample", "sample", "banana"]
        cli.main()
        os._exit(99)
    found[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
open("found.json", "w").write(json.dumps(found))
"""
# Case -> limit on files in bytes, standard output, the exit code, and the beginning of what is said of it.
CASES: dict[str, tuple[int, str, int, str]] = {
    "good": (0, "", exits.GOOD, ""),
    "not good": (0, "", exits.NOT_GOOD, ""),
    "bad input": (0, "", exits.BAD_INPUT, "parsample: no"),
    "plot": (0, "", exits.NOT_SHOWN, "parsample: the picture '"),
    "output": (0, "/dev/full", exits.NOT_SHOWN, "parsample: what there is to show cannot be written (No space left"),
    "size": (30_000, "", exits.ELSEWHERE, "parsample: the trace could not be saved in '"),
    "bug": (0, "", exits.FAILED, "Traceback (most recent call last)"),
    "error with draws": (0, "", exits.FAILED, "Traceback (most recent call last)"),
    "interrupted with draws": (0, "", exits.INTERRUPTED, "parsample: interrupted after 2,000 steps; the draws so far"),
    "interrupted without draws": (0, "", exits.INTERRUPTED, "parsample: interrupted"),
}
SAVED = ["good", "not good", "plot", "output", "error with draws", "interrupted with draws"]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ended")
    cases = [(name, limit, output) for name, (limit, output, _, _) in CASES.items()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "PYTHONWARNINGS": "ignore"}
    environment["XDG_CACHE_HOME"] = str(folder / "cache")
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(cases)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_exit_code_and_the_sentence(name: str, ended: Path) -> None:
    _, _, code, sentence = CASES[name]
    said = (ended / name / "err").read_text()
    assert json.loads((ended / "found.json").read_text())[name] == code, said
    assert said.startswith(sentence), said
    assert (said == "") == (sentence == "")


@pytest.mark.slow
@pytest.mark.parametrize("name", SAVED)
def test_the_draws_are_saved(name: str, ended: Path) -> None:
    trace: Any = ps.load_trace(ended / name / "runs" / "banana.nc")
    assert trace.posterior.sizes["draw"] == (40 if name == "not good" else 2_000)


@pytest.mark.slow
def test_what_is_no_file_of_its_size_is_in_pieces(ended: Path) -> None:
    [place] = (ended / "size" / "runs").glob("*.zarr")
    trace: Any = ps.load_trace(place)
    assert trace.posterior["y"].shape == (4, 2_000)
    assert str(place.name) in words((ended / "size" / "err").read_text()).replace(" ", "")


@pytest.mark.slow
def test_no_folder_is_left_where_nothing_was_drawn(ended: Path) -> None:
    for name in ("bad input", "bug", "interrupted without draws"):
        assert not (ended / name / "runs").exists()


def test_every_code_has_a_case_and_a_meaning_that_is_shown() -> None:
    assert {code for _, _, code, _ in CASES.values()} == set(exits.MEANINGS)
    shown, readme = words(invoke("--help").stdout), (ROOT / "README.md").read_text(encoding="utf-8")
    for code, meaning in exits.MEANINGS.items():
        assert f"{code} {meaning}" in shown
        assert f"| {code} | {meaning} |" in readme


def test_a_page_that_cannot_be_written_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def write(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ps, "load_trace", lambda _: None)
    monkeypatch.setattr(ps, "summarize", lambda _: None)
    monkeypatch.setattr(ps, "write_report", write)
    found = invoke("report", str(tmp_path / "run.nc"))
    assert found.exit_code == exits.NOT_SHOWN
    assert found.stderr == "parsample: the page cannot be written (No space left on device).\n"
