"""The command line: what it prints, what it writes, and how it refuses."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parsample
from parsample.results.trace import build_trace
from tests.command_line import MODEL, command, invoke, words
from tests.targets.builders import small_data, write_credit_file, write_json


@pytest.fixture
def never_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampling would be a failure."""
    monkeypatch.setattr(parsample, "sample", lambda *_, **__: pytest.fail("sampled"))


def test_a_run_from_its_start_to_its_files(tmp_path: Path) -> None:
    arguments = "sample multivariate_normal --samples 1500 --warmup 200 --chains 2 --seed 3".split()
    found = command(*arguments, "--output", "new/runs", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    # No terminal, no progress bar.
    assert found.stderr == ""
    text = words(found.stdout)
    for expected in (
        "variable",
        "R-hat",
        "method sequential",
        "converged exact: the sequential loop itself",
        "chosen the loop",
        "wall time",
    ):
        assert expected in text
    assert "…" not in found.stdout
    assert sorted(path.name for path in (tmp_path / "new" / "runs").iterdir()) == [
        "multivariate_normal.nc",
        "multivariate_normal.png",
    ]
    assert "new/runs/multivariate_normal.nc" in found.stdout.replace("\n", "").replace(" ", "")
    trace = parsample.load_trace(tmp_path / "new" / "runs" / "multivariate_normal.nc")
    assert trace.posterior["x"].shape == (2, 1500, 2)
    assert trace.posterior.attrs["seed"] == 3
    assert (tmp_path / "new" / "runs" / "multivariate_normal.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `parsample.sample` was asked for; it refuses."""
    seen: dict[str, Any] = {}

    def sample(target: Any, **keywords: Any) -> Any:
        seen.update(target=target, **keywords)
        raise ValueError("enough is known")

    monkeypatch.setattr(parsample, "sample", sample)
    return seen


def test_every_option_reaches_the_front_door(asked: dict[str, Any], tmp_path: Path) -> None:
    options = {"sampler": "ula", "method": "newton", "window": "7", "warmup": "11", "samples": "12", "chains": "3"}
    options |= {"seed": "5", "step-size": "0.25", "atol": "1e-3", "rtol": "1e-2", "output": str(tmp_path)}
    options |= {"thin": "2", "store": str(tmp_path / "run.zarr"), "start": "laplace", "mass": "diagonal"}
    options |= {"warmup-method": "picard", "tune": "rounds", "acceptance": "0.9"}
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    arguments += ["--until", "ess=400", "--until", "rhat=1.01"]
    arguments += ["--option", "n=4", "--option", "ladder=[1.0, 0.5]", "--option", "scheme=baoab"]
    found = invoke("sample", "banana", *arguments, "--no-progress")
    assert found.exit_code == 2
    assert found.stderr == "parsample: enough is known\n"
    assert type(asked.pop("target")).name == "banana"
    assert asked.pop("origin") == {"target": "banana"}
    assert asked == {
        "sampler": "ula",
        "sampler_options": {"n": 4, "ladder": [1.0, 0.5], "scheme": "baoab"},
        "method": "newton",
        "window": 7,
        "num_warmup": 11,
        "num_samples": 12,
        "num_chains": 3,
        "until": {"ess": 400, "rhat": 1.01},
        "seed": 5,
        "step_size": 0.25,
        "target_acceptance": 0.9,
        "start": "laplace",
        "mass": "diagonal",
        "warmup_method": "picard",
        "tune": "rounds",
        "atol": 1e-3,
        "rtol": 1e-2,
        "thin": 2,
        "store": tmp_path / "run.zarr",
        "groups": ("evaluation",),
        "progress": False,
    }


def test_a_start_is_read_from_a_file(asked: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "start.json"
    for text in ('{"x": [0.5, 1]}', '[{"x": [0.5, 1]}, {"x": [1, 2]}]'):
        file.write_text(text)
        invoke("sample", "banana", "--start", str(file), "--output", str(tmp_path))
        assert asked["start"] == json.loads(text)
    for text, sentence in (
        ("[0.5, 1]", "is [0.5, 1], expected a JSON object of values, such as"),
        ("{", "cannot be read from"),
        ("", "No such file"),
    ):
        file.write_text(text) if text else file.unlink()
        found = invoke("sample", "banana", "--start", str(file), "--output", str(tmp_path))
        assert found.exit_code == 2
        assert found.stderr.startswith("parsample: --start")
        assert sentence in found.stderr


def test_the_defaults_are_those_of_the_front_door(asked: dict[str, Any], tmp_path: Path) -> None:
    """What nobody gives is not passed, but for the pictures of the evaluation."""
    invoke("sample", "banana", "--output", str(tmp_path))
    assert set(asked) == {"target", "groups", "store", "origin", "progress"}
    assert (asked["groups"], asked["store"], asked["progress"]) == (("evaluation",), None, True)


def test_a_target_reads_its_data(asked: dict[str, Any], tmp_path: Path) -> None:
    file = write_credit_file(tmp_path / "credit")
    assert invoke("sample", "german_credit", "--data", str(file), "--output", str(tmp_path)).exit_code == 2
    assert asked["target"].signed_features.shape == (25, 60)
    file = write_json(tmp_path / "garch.json", small_data("garch"))
    assert invoke("sample", "garch", "--data", str(file), "--output", str(tmp_path)).exit_code == 2
    assert asked["target"].observed.shape == (30,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eight_school"], "target is 'eight_school', expected one of .*Did you mean 'eight_schools'"),
        (["german_credit"], "data is None, expected the path of the UCI file.*--data PATH"),
        (["german_credit", "--data", "nowhere.data"], "data is 'nowhere.data', which cannot be read"),
        (["garch"], "data is None, expected a mapping or a JSON file with the data of posteriordb's.*--data PATH"),
        (["garch", "--data", "nowhere.json"], "data is 'nowhere.json', which cannot be read"),
        (["banana", "--option", "alpha"], "--option is 'alpha', expected NAME=VALUE, such as num_integration_steps=4"),
        (["banana", "--data", "x"], "--data is x, but the target banana brings its own data; leave --data out"),
        (["banana", "--output", "file"], "--output is 'file', which is no folder and cannot become one"),
        (["banana", "--output", "file/below"], "--output is 'file/below', which is no folder and cannot become one"),
        (["banana", "--output", "taken"], "'taken/banana.nc' is a folder, expected a file"),
    ],
)
@pytest.mark.usefixtures("never_sampled")
def test_bad_input_is_refused_before_sampling(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    (tmp_path / "taken" / "banana.nc").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    found = invoke("sample", *arguments)
    assert found.exit_code == 2
    assert re.search(message, found.stderr), found.stderr
    assert found.stderr.startswith("parsample: ")
    assert len(found.stderr.splitlines()) == 1
    assert found.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window", "0"], "window is 0, expected a whole number of at least 1"),
        (["--samples", "-3"], "num_samples is -3, expected a whole number"),
        (["--samples", "0"], "num_samples is 0, expected a whole number"),
        (["--chains", "0"], "num_chains is 0, expected a whole number"),
        (["--warmup", "-1"], "num_warmup is -1, expected a whole number"),
        (["--seed", "-1"], "seed is -1, expected a whole number"),
        (["--step-size", "0"], "step_size is 0.0, expected one finite number above 0"),
        (["--atol", "nan"], "atol is nan, expected a finite number"),
        (["--atol", "0", "--rtol", "0"], "atol is 0.0 and rtol is 0.0, both below"),
        (["--sampler", "mal"], "sampler is 'mal', expected one of .*Did you mean 'mala'"),
        (["--method", "newtn"], "method is 'newtn', expected one of .*Did you mean 'newton'"),
    ],
)
def test_what_the_front_door_refuses_leaves_no_file(arguments: list[str], message: str, tmp_path: Path) -> None:
    found = invoke("sample", "banana", "--output", str(tmp_path / "runs"), *arguments)
    assert found.exit_code == 2
    assert re.search(message, found.stderr), found.stderr
    assert found.stderr.startswith("parsample: ")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_interrupt_leaves_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(parsample, "sample", interrupted)
    assert invoke("sample", "banana", "--output", str(tmp_path / "runs")).exit_code == 130
    assert not (tmp_path / "runs").exists()


def stop_in(stage: str, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Play Ctrl-C as soon as a stage has come so far."""
    usual = parsample.sample

    def stop(event: Any) -> None:
        if event.stage == stage and event.done >= after:
            raise KeyboardInterrupt

    monkeypatch.setattr(parsample, "sample", lambda *args, **keywords: usual(*args, **{**keywords, "progress": stop}))


SHORT = ["--samples", "1500", "--warmup", "80", "--chains", "2", "--method", "sequential"]


@pytest.mark.slow
def test_a_store_is_gone_on_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL)
    Path("data.json").write_text(json.dumps({"x": [1.0, 2.0, 3.0], "y": [2.0, 4.0, 6.5]}))
    arguments = ["sample", "model.py:line", "--data", "data.json", *SHORT]
    with monkeypatch.context() as patch:
        stop_in("sampling", 700, patch)
        found = invoke(*arguments, "--store", "run.zarr")
    assert found.exit_code == 130
    assert found.stderr.endswith("are in 'run.zarr'; go on with `parsample resume run.zarr` or parsample.resume.\n")
    assert not Path("runs").exists()
    refused = invoke(*arguments, "--store", "run.zarr")
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (2, 1)
    assert "which is there, of a run with these settings; go on with it by" in refused.stderr
    # From anywhere: the model and the data are found.
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    refused = invoke("resume", "../run.zarr", "--json")
    assert refused.exit_code == 2
    assert "a Python file, which would be run; if you trust it, say trust=True (`--trust`), or give" in refused.stderr
    resumed = invoke("resume", "../run.zarr", "--json", "--trust")
    assert resumed.exit_code in (0, 1), resumed.output
    assert json.loads(resumed.stdout)["saved"][0] == str(Path("../run.zarr"))
    # And the run again from its own settings, in a file this time.
    refused = invoke("sample", "--settings", "../run.zarr", "--json")
    assert refused.exit_code == 2
    assert "a Python file, which would be run; if you trust it, say trust=True (`--trust`), or give" in refused.stderr
    repeated = invoke("sample", str(tmp_path / "model.py:line"), "--settings", "../run.zarr", "--json")
    assert repeated.exit_code in (0, 1), repeated.output
    one, other = parsample.load_trace("../run.zarr"), parsample.load_trace("runs/line.nc")
    np.testing.assert_array_equal(one.posterior["slope"].values, other.posterior["slope"].values)
    again = ["--target", str(tmp_path / "model.py:line")]
    longer = invoke("resume", "../run.zarr", "--samples", "1600", "--json", *again)
    assert longer.exit_code in (0, 1), longer.output
    assert parsample.load_trace("../run.zarr").posterior.sizes["draw"] == 1600
    fewer = invoke("resume", "../run.zarr", "--samples", "1000", "--trust")
    assert (fewer.exit_code, fewer.stderr[:31]) == (2, "parsample: num_samples is 1000,")
    nowhere = invoke("resume", "nowhere.zarr")
    assert (nowhere.exit_code, nowhere.stderr[:60]) == (
        2,
        "parsample: store is 'nowhere.zarr', which is no store of a run; give"[:60],
    )


def test_options_take_precedence_over_settings(asked: dict[str, Any], tmp_path: Path) -> None:
    from parsample.results.trace import save_trace

    settings = parsample.Settings("banana", sampler="hmc", num_warmup=7, until={"ess": 9}, seed=3)
    trace = build_trace({"posterior": {"x": np.zeros((1, 2))}}, attrs={"settings": settings.to_json()})
    save_trace(trace, tmp_path / "run.nc")
    invoke(
        "sample", "--settings", str(tmp_path / "run.nc"), "--seed", "4", "--warmup", "2000", "--output", str(tmp_path)
    )
    assert type(asked["target"]).name == "banana"
    expected = {"sampler": "hmc", "num_warmup": 2000, "until": {"ess": 9}, "seed": 4, "num_chains": 4}
    assert {name: asked[name] for name in expected} == expected


def test_options_take_precedence_over_methods_of_settings(asked: dict[str, Any], tmp_path: Path) -> None:
    from parsample.results.trace import save_trace

    method = parsample.methods.QuasiNewton(estimator="hutchinson", num_probes=2)
    settings = parsample.Settings("banana", method=method, warmup_method=method)
    trace = build_trace({"posterior": {"x": np.zeros((1, 2))}}, attrs={"settings": settings.to_json()})
    save_trace(trace, tmp_path / "run.nc")
    invoke("sample", "--settings", str(tmp_path / "run.nc"), "--output", str(tmp_path), "--warmup-method", "newton")
    assert (asked["method"], asked["warmup_method"]) == (method, "newton")


@pytest.mark.parametrize(("stage", "after"), [("warm-up", 40), ("sampling", 700)])
def test_an_interrupt_saves_the_draws_so_far(
    stage: str, after: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    stop_in(stage, after, monkeypatch)
    found = invoke("sample", "multivariate_normal", *SHORT)
    assert found.exit_code == 130
    if stage == "warm-up":
        assert found.stderr == "parsample: interrupted before the first draws were there; nothing is saved.\n"
        assert not Path("runs").exists()
    else:
        assert found.stderr.startswith(
            "parsample: interrupted after 768 steps of each chain; the draws so far are saved"
        )
        assert parsample.load_trace("runs/multivariate_normal.nc").posterior["x"].shape == (2, 768, 2)


def test_an_interrupt_of_saving_waits_for_its_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from parsample.results import rescue

    usual = rescue.save_trace

    def save(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return usual(*arguments)

    monkeypatch.setattr(rescue, "save_trace", save)
    found = invoke("sample", "multivariate_normal", *SHORT, "--output", str(tmp_path / "runs"))
    assert found.exit_code == 130
    assert "interrupted; the trace is saved in" in found.stderr
    assert parsample.load_trace(tmp_path / "runs" / "multivariate_normal.nc").posterior["x"].shape == (2, 1500, 2)


def test_a_chain_that_diverges_is_an_error_that_leaves_no_file(tmp_path: Path) -> None:
    arguments = ["--sampler", "ula", "--step-size", "50", "--warmup", "0", "--samples", "50", "--method", "sequential"]
    found = invoke("sample", "multivariate_normal", *arguments, "--output", str(tmp_path / "runs"))
    assert found.exit_code == 5
    assert found.stderr.startswith("parsample: chain 0 left the finite numbers at step ")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("arguments", [["sample"], ["sample", "banana", "--samples", "many"], ["sampel"], ["--wrong"]])
def test_a_command_line_that_cannot_be_read(arguments: list[str]) -> None:
    found = invoke(*arguments)
    assert found.exit_code == 2
    assert "Usage: " in found.stderr


def test_bad_input_in_a_process_of_its_own(tmp_path: Path) -> None:
    found = command("sample", "eight_school", cwd=tmp_path)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("parsample: target is 'eight_school', ")
    assert "Traceback" not in found.stderr
    assert not (tmp_path / "runs").exists()


def test_an_r_hat_that_is_not_known_is_null(tmp_path: Path) -> None:
    arguments = "sample banana --json --samples 128 --warmup 100 --chains 1".split()
    found = invoke(*arguments, "--output", str(tmp_path))
    assert (found.exit_code, json.loads(found.stdout)["draws"]["r_hat"]) == (1, None)
