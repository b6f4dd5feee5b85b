"""The other commands: help, tables, diagnosis, report, completion."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import parsample
from parsample.cli import main as cli
from parsample.results.trace import build_trace
from tests.command_line import ROOT, invoke, words

OPTIONS = ["--sampler", "--method", "--window", "--warmup", "--samples", "--chains", "--seed", "--step-size", "--atol"]
OPTIONS += ["--rtol", "--data", "--output", "--progress", "--no-progress", "--json", "--option", "--until", "--help"]
OPTIONS += ["--thin", "--store", "--settings"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            [],
            [
                "sample",
                "resume",
                "report",
                "diagnose",
                "plan",
                "targets",
                "samplers",
                "methods",
                "version",
                "--version",
                "--help",
            ],
        ),
        (
            ["sample"],
            [
                *OPTIONS,
                "16 on a CPU, 1,024 elsewhere",
                "what warm-up finds",
                "A name in parsample samplers.",
                "End before --samples when every variable",
                "Examples: parsample sample german",
                "Exit codes: see parsample",
            ],
        ),
        (["resume"], ["Go on with a run", "--output", "--samples", "Examples: parsample resume run.zarr", "--help"]),
        (["diagnose"], ["--sampler", "--steps", "Foresee how many iterations", "--help"]),
        (["plan"], ["--device", "--samples", "a100, h100 or h200", "Examples: parsample plan eight_schools", "--help"]),
        (
            ["report"],
            ["--output", "-o", "beside the trace", "Example: parsample report runs", "Exit codes: see parsample"],
        ),
        (["targets"], ["List the targets.", "--help"]),
        (["samplers"], ["List the samplers.", "--help"]),
        (["methods"], ["List the methods of evaluation.", "--help"]),
    ],
)
def test_help_reads_well_at_80_columns(arguments: list[str], expected: list[str]) -> None:
    for flag in ("--help", "-h"):
        found = invoke(*arguments, flag)
        assert found.exit_code == 0
        assert "…" not in found.stdout
        assert "[bold]" not in found.stdout
        assert max(map(len, found.stdout.splitlines())) <= 80
        for text in expected:
            assert text in words(found.stdout)


@pytest.mark.slow
def test_a_diagnosis() -> None:
    few = ["--warmup", "160", "--steps", "64"]
    found = invoke("diagnose", "multivariate_normal", *few, columns=100)
    assert found.exit_code == 0, found.output
    for expected in ("exponent", "quasi_newton", "picard", "newton"):
        assert expected in found.stdout
    refused = invoke("diagnose", "eight_school")
    assert (refused.exit_code, refused.stderr[:36]) == (2, "parsample: target is 'eight_school',")


@pytest.mark.slow
def test_a_plan_for_a_device_that_is_not_there() -> None:
    few = ["--warmup", "160", "--samples", "64", "--chains", "2", "--sampler", "ula", "--step-size", "0.1"]
    found = invoke("plan", "banana", *few, "--device", "h100", columns=100)
    assert found.exit_code == 0, found.output
    for expected in ("banana, 2 chains of 64 draws, on h100", "loop", "quasi_newton", "measured on h100"):
        assert expected in found.stdout
    refused = invoke("plan", "banana", "--device", "h10")
    assert (refused.exit_code, refused.stderr[:26]) == (2, "parsample: device is 'h10'")


def test_without_a_command_there_is_help() -> None:
    assert "Usage: " in invoke().output


def test_the_version() -> None:
    for word in ("--version", "version"):
        found = invoke(word)
        assert (found.exit_code, found.stdout) == (0, f"parsample {parsample.__version__}\n")


@pytest.mark.parametrize(
    ("name", "table"),
    [("targets", parsample.TARGETS), ("samplers", parsample.SAMPLERS), ("methods", parsample.METHODS)],
)
def test_the_tables_have_a_described_row_for_every_name(name: str, table: dict[str, type]) -> None:
    found = invoke(name, columns=160)
    assert found.exit_code == 0
    rows = {match[1]: match[2] for match in re.finditer(r"^ *(\w+) +(.*)$", found.stdout, re.MULTILINE)}
    for row, described in table.items():
        assert rows[row].rstrip() == (described.__doc__ or "").split("\n")[0].rstrip(".")
        assert len(rows[row]) > 10


def test_compiled_programs_are_kept_where_the_user_wants(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = ["JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]
    names += ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"]
    for name in names:
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cli._keep_compiled_programs()
    assert os.environ[names[0]] == str(tmp_path / "parsample" / "jax")
    monkeypatch.setenv(names[0], "mine")
    cli._keep_compiled_programs()
    assert os.environ[names[0]] == "mine"
    assert np.all([os.environ[name] == "0" for name in names[1:]])


def saved_draws(path: Path, draws: int) -> Path:
    values = np.random.default_rng(0).normal(size=(4, draws))
    return parsample.save_trace(build_trace({"posterior": {"x": values}}), path)


def test_a_report_is_written_and_the_exit_code_is_the_verdict(tmp_path: Path) -> None:
    good = saved_draws(tmp_path / "good.nc", 500)
    found = invoke("report", str(good), "-o", str(tmp_path / "page.html"))
    assert (found.exit_code, found.stdout.strip(), found.stderr) == (0, str(tmp_path / "page.html"), "")
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    few = saved_draws(tmp_path / "few.nc", 40)
    assert invoke("report", str(few)).exit_code == 1
    assert (tmp_path / "few.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.nc"], "path: there is no file 'nowhere.nc'"),
        (["text.nc"], "path: 'text.nc' is not a netCDF-4 file"),
        (["good.nc", "-o", "nowhere/page.html"], "path: there is no folder '.*nowhere' to put 'page.html' in"),
        (["three.nc"], "trace: got 3 draws a chain, expected at least 4 for a report"),
    ],
)
def test_a_report_that_cannot_be_written(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.nc").write_text("nothing")
    saved_draws(Path("good.nc"), 20)
    saved_draws(Path("three.nc"), 3)
    found = invoke("report", *arguments)
    assert found.exit_code == 2
    assert re.search(message, found.stderr), found.stderr
    assert list(tmp_path.glob("*.html")) == []


def completed(*words: str) -> list[str]:
    """What bash is told when the tabulator key is pressed after these words."""
    line = {"_PARSAMPLE_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    return CliRunner().invoke(cli.app, [], env=line, prog_name="parsample").stdout.split()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["parsample", "sample", "eight"], [name for name in parsample.TARGETS if name.startswith("eight")]),
        (["parsample", "diagnose", "gar"], ["garch"]),
        (["parsample", "sample", "garch", "--sampler", ""], list(parsample.SAMPLERS)),
        (["parsample", "sample", "garch", "--method", "quasi"], ["quasi_newton", "quasi_elk"]),
        (["parsample", "rep"], ["report"]),
    ],
)
def test_names_complete(words: list[str], names: list[str]) -> None:
    assert sorted(completed(*words)) == sorted(names)


def test_it_is_a_module_as_well() -> None:
    start = [sys.executable, "-m", "parsample", "--version"]
    found = subprocess.run(start, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout.split()) == (0, ["parsample", parsample.__version__])


def test_the_completion_of_a_shell_can_be_shown() -> None:
    shell = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    start = "import sys; from parsample.cli.main import app; sys.argv[0] = 'parsample'; app()"
    found = subprocess.run(
        [sys.executable, "-c", start, "--show-completion", "bash"],
        env={**os.environ, **shell},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "_PARSAMPLE_COMPLETE=complete_bash" in found.stdout
