"""The command `parsample diffuse`: what it prints, what it writes, and how it refuses."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image, ImageSequence

from tests.test_cli import invoke, words


def test_a_picture_and_a_movie(tmp_path: Path) -> None:
    picture, movie = tmp_path / "digits.png", tmp_path / "digits.gif"
    options = "--steps 12 --method scaled_identity --samples 3 --seed 2 --label 4 --guidance 1".split()
    found = invoke("diffuse", "digits", *options, "-o", str(picture), "--movie", str(movie))
    assert found.exit_code == 0, found.output
    text = words(found.output)
    for expected in (
        "DDIM, 12 steps, LinearBetas",
        "scaled_identity, window 12",
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["digit"], "model is 'digit', expected one of digits. Did you mean 'digits'?"),
        (["--process", "ddmp"], "process is 'ddmp', expected one of ddpm"),
        (["--steps", "1001"], "num_steps is 1001, but the schedule has 1000 training steps"),
        (["--label", "10"], "--label is 10, expected a digit from 0 to 9"),
        (["--guidance", "2"], "--guidance is 2, but there is no label to follow"),
        (["--tolerance", "0"], "tolerance is 0.0, expected a finite number above 0"),
        (["--window", "0"], "window is 0, expected a whole number of at least 1"),
        (["--method", "newtom"], "method is 'newtom'"),
        (["--movie", "movie.mp4"], "expected an animated picture; use .gif"),
        (["--movie", "movie.gif", "--method", "anderson"], "--movie is for methods without a memory"),
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
