"""The command `parsample diffuse`: what it prints, what it writes, and how it refuses."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image, ImageSequence

from parsample.cli.diffuse import make_process
from tests.cli.test_main import invoke, words


# The second keeps a memory from iteration to iteration.
@pytest.mark.slow
@pytest.mark.parametrize("method", ["scaled_identity", pytest.param("anderson", marks=pytest.mark.grid)])
def test_a_picture_and_a_movie(tmp_path: Path, method: str) -> None:
    picture, movie = tmp_path / "digits.png", tmp_path / "digits.gif"
    options = f"--steps 12 --method {method} --samples 3 --seed 2 --label 4 --guidance 1".split()
    found = invoke("diffuse", "digits", *options, "-o", str(picture), "--movie", str(movie))
    assert found.exit_code == 0, found.output
    text = words(found.output)
    for expected in (
        "DDIM, 12 steps, LinearBetas",
        f"{method}, window 12",
        "yes: all 36 steps of 3 samples",
        "sequential evaluations 12 a sample",
        "total evaluations",
        "largest difference from the loop",
        "to compile; the loop",
    ):
        assert expected in text
    assert (imread(picture)[..., :3] < 0.5).any()
    with Image.open(movie) as film:
        seen = [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(film)]
    assert len(seen) > 6
    # Orange is what is not yet the loop's: much at the beginning, nothing at the end.
    orange = [((frame[..., 0] - frame[..., 2]) > 60).mean() for frame in (seen[0], seen[-1])]
    assert orange[0] > 0.1
    assert orange[1] == 0
    assert movie.stat().st_size < 3e6


@pytest.mark.slow
def test_the_loop_itself_and_what_auto_chooses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = invoke("diffuse", "--steps", "5", "--samples", "1", "--method", "sequential")
    assert found.exit_code == 0, found.output
    assert "the loop itself" in words(found.output)
    assert Path("digits.png").exists()
    found = invoke("diffuse", "--steps", "5", "--samples", "1")
    assert found.exit_code == 0, found.output
    text = words(found.output)
    assert ("'auto' took its images" in text) or ("faster than the loop" in text) or ("about as fast" in text)


def test_options_of_the_process() -> None:
    plain, _ = make_process("digits", "ddim", 10, None, 0.0)
    noisy, _ = make_process("digits", "ddim", 10, None, 0.0, {"eta": 0.5, "spacing": "trailing"})
    assert plain.visited == tuple(range(900, -1, -100))
    assert noisy.visited == tuple(range(999, 0, -100))
    assert (plain.options, noisy.options) == ((0.0,), (0.5,))


def test_options_reach_the_process_from_the_command_line(tmp_path: Path) -> None:
    options = (
        "--process edm --steps 4 --samples 1 --method sequential --option churn=20 --option spacing=linspace".split()
    )
    found = invoke("diffuse", *options, "-o", str(tmp_path / "digits.png"))
    assert found.exit_code == 0, found.output
    assert "EDM, 4 steps, Karras, churn 20, least_churned 0.05" in words(found.output)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["digit"], "model is 'digit', expected one of digits. Did you mean 'digits'?"),
        (["--process", "ddmp"], "process is 'ddmp', expected one of ddpm"),
        (["--steps", "1001"], "num_steps is 1001, but the schedule has 1000 training steps"),
        (["--option", "eta=1.5"], "eta is 1.5, expected a number in [0, 1]"),
        (["--option", "eta=much"], "eta is 'much', expected a number in [0, 1]"),
        (["--option", "eta"], "--option is 'eta', expected NAME=VALUE, such as eta=0.5"),
        (["--option", "etta=1"], "an option of DDIM is 'etta', expected one of eta, spacing. Did you mean 'eta'?"),
        (["--option", "condition=3"], "an option of DDIM is 'condition', expected one of eta, spacing"),
        (["--process", "ddpm", "--option", "eta=1"], "an option of DDPM is 'eta', expected one of spacing"),
        (["--option", "spacing=even"], "spacing is 'even', expected one of 'leading'"),
        (["--process", "edm", "--option", "churn=-1"], "churn is -1, expected a number in [0, inf]"),
        (["--process", "annealed_langevin", "--option", "repeats=2.5"], "repeats is 2.5, expected a whole number"),
        (["--label", "10"], "--label is 10, expected a digit from 0 to 9"),
        (["--guidance", "2"], "--guidance is 2, but there is no label to follow"),
        (["--tolerance", "0"], "tolerance is 0.0, expected a finite number above 0"),
        (["--window", "0"], "window is 0, expected a whole number of at least 1"),
        (["--method", "newtom"], "method is 'newtom'"),
        (["--movie", "movie.mp4"], "expected an animated picture; use .gif"),
        (
            ["--movie", "movie.gif", "--method", "sequential"],
            "method is 'sequential', which has none; expected scaled_id",
        ),
        (["-o", "nowhere/digits.png"], "there is no folder"),
    ],
)
def test_what_is_refused(options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = invoke("diffuse", *options, columns=300)
    assert found.exit_code == 2
    assert message in words(found.output)
    assert not list(tmp_path.iterdir())


def test_the_list_of_commands_has_it() -> None:
    assert "diffuse" in words(invoke("--help").output)
