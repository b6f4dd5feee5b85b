"""A model that the command line reads from a file, with its data."""

import json
import re
from pathlib import Path

import pytest

import parsample
from tests.command_line import MODEL, invoke

FEW = ["--samples", "128", "--warmup", "100", "--chains", "2"]


def test_a_model_file_and_a_verdict_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL)
    Path("data.json").write_text(json.dumps({"x": [1.0, 2.0, 3.0], "y": [2.0, 4.0, 6.5]}))
    found = invoke("sample", "model.py:line", "--data", "data.json", "--json", *FEW)
    # 256 draws cannot have an effective sample size of 400: sampled and saved, but not good.
    assert found.exit_code == 1
    told = json.loads(found.stdout)
    assert told["good"] is False
    assert told["draws"]["good"] is False
    assert told["evaluation"]["converged"] is True
    # Least squares, shrunk a little by the prior: x y / (x x + 1 / 100).
    assert abs(told["summary"]["slope"]["mean"] - 29.5 / 14.01) < 0.2
    trace = parsample.load_trace(told["saved"][0])
    assert trace.observed_data["y"].shape == (3,)
    assert trace.constant_data["x"].shape == (3,)


@pytest.mark.parametrize(
    ("target", "data", "message"),
    [
        ("nowhere.py:line", None, "target is 'nowhere.py:line', but there is no file 'nowhere.py'; give FILE.py:NAME"),
        ("model.py:lines", None, "target is 'model.py:lines', but 'model.py' has no 'lines'; it has line."),
        ("broken.py:line", None, "target's file 'broken.py' cannot be run: NameError: name 'nothing' is not defined"),
        ("text.txt:line", None, "target's file 'text.txt' is no Python file"),
        ("model.py:line", None, "target line cannot be run as a NumPyro model with the arguments given .*missing 1"),
        ("model.py:line", "nowhere.json", "--data is 'nowhere.json', which cannot be read .*; give a JSON file"),
        ("model.py:line", "model.py", "--data is 'model.py', which is no JSON"),
        ("model.py:line", "list.json", "--data is 'list.json', which holds a list, expected an object"),
        ("model.py:line", "ragged.json", "--data has rows of different lengths in 'x', expected a rectangular list"),
        ("model.py:line", "words.json", "--data has 'x' with dtype <U1, expected numbers"),
    ],
)
def test_a_model_file_that_cannot_be_used(
    target: str, data: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parsample, "sample", lambda *_, **__: pytest.fail("sampled"))
    Path("model.py").write_text(MODEL)
    Path("broken.py").write_text("nothing")
    Path("text.txt").write_text("nothing")
    Path("list.json").write_text("[1]")
    Path("ragged.json").write_text('{"x": [[1], [1, 2]]}')
    Path("words.json").write_text('{"x": ["a"]}')
    found = invoke("sample", target, *(["--data", data] if data else []))
    assert found.exit_code == 2
    assert re.search(message, found.stderr), found.stderr
    assert not Path("runs").exists()
