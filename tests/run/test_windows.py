"""Windows longer than the pieces in which rows are handed over: solved at once, seen piece by piece, resumed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parsample as ps
from parsample.run import segments
from parsample.run.counts import Tally
from parsample.run.progress import Event
from parsample.samplers.chains import Plan
from tests.command_line import invoke
from tests.stores import SETTINGS, TARGET, check_same, interrupted, shorten_segments, stop_at
from tests.tolerances import CONVERGED

# Eight pieces of 128 steps; segments of three, of which the last runs beyond the end.
LONG: dict[str, Any] = {"window": 300}


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_segments(monkeypatch)


@pytest.fixture(scope="module")
def loop() -> Any:
    return ps.sample(TARGET, **{**SETTINGS, "method": "sequential"})


def sampled(**options: Any) -> Any:
    return ps.sample(TARGET, **{**SETTINGS, **options})


@pytest.mark.parametrize(
    ("window", "solved", "steps"),
    [
        (16, 16, 128),
        pytest.param(128, 128, 128, marks=pytest.mark.slow),
        pytest.param(300, 300, 384, marks=pytest.mark.slow),
        ("all", 1024, 1024),
    ],
)
def test_a_window_is_as_long_as_it_is_asked_for_and_the_chain_the_same(
    window: Any, solved: int, steps: int, loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    solved_at_once: list[Plan] = []
    segment, events = segments.Run.segment, list[Event]()

    def spy(run: segments.Run, plan: Plan, *rest: Any) -> Any:
        solved_at_once.append(plan)
        return segment(run, plan, *rest)

    monkeypatch.setattr(segments.Run, "segment", spy)
    found = sampled(window=window, compare=False, progress=events.append)
    assert [(plan.window, plan.steps) for plan in solved_at_once] == [(solved, steps)] * -(-900 // steps)
    np.testing.assert_allclose(found.posterior["x"].values, loop.posterior["x"].values, **CONVERGED(np.float32))
    verdict = ps.read_verdict(found)
    assert (verdict.window, verdict.steps, verdict.converged) == (solved, 900, True)
    assert [event.done for event in events if event.stage == "sampling"] == [*range(128, 900, 128), 900]


def test_a_long_window_takes_fewer_iterations() -> None:
    few, many = (ps.read_verdict(sampled(window=window, compare=False)).iterations for window in ("all", 16))
    assert few < many / 4


@pytest.mark.parametrize("until", [{"ess": 300}, {"seconds": 1e-9}])
def test_a_run_that_ends_early_has_as_many_draws_with_every_window(until: dict[str, Any]) -> None:
    short, long = (sampled(until=until, window=window, compare=False) for window in (16, "all"))
    draws = long.posterior["x"].values
    assert draws.shape == short.posterior["x"].shape
    assert draws.shape[1] % 128 == 0
    assert draws.shape[1] < 900
    assert ps.read_verdict(long).steps == draws.shape[1]


KEYWORDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "thin": {"thin": 7, "groups": ("evaluation",)},
    "all": {"window": "all"},
}
FIRST = ((1, "thin"), (257, "all"), (700, "plain"))


@pytest.mark.parametrize(
    ("steps", "keywords"),
    [
        pytest.param(
            steps, KEYWORDS[name], marks=() if (steps, name) in FIRST else pytest.mark.slow, id=f"{steps}-{name}"
        )
        for steps in (1, 257, 700)
        for name in KEYWORDS
    ],
)
def test_a_run_that_was_stopped_within_a_segment_goes_on_to_the_bit(
    steps: int, keywords: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**LONG, **keywords}
    interrupted(tmp_path / "run.zarr", steps=steps, **settings)
    stopped = ps.load_trace(tmp_path / "run.zarr").attrs["store_draws"]
    # What was handed over is there, though its segment had not come to its end.
    assert stopped == -(-steps // 128) * 128 // settings.get("thin", 1)
    found, expected = ps.resume(tmp_path / "run.zarr", progress=False), sampled(**settings)
    check_same(found, expected)
    same = ("iterations", "evaluations_per_step", "largest_residual", "finished_sequentially", "compared_steps", "atol")
    for name in same:
        assert getattr(ps.read_verdict(found), name) == getattr(ps.read_verdict(expected), name)


@pytest.mark.slow
def test_a_run_that_is_over_goes_on_to_more_draws_within_its_last_segment(tmp_path: Path) -> None:
    sampled(store=tmp_path / "run.zarr", **LONG)
    with pytest.raises(KeyboardInterrupt):
        ps.resume(tmp_path / "run.zarr", num_samples=1500, progress=stop_at("sampling", 1))
    # The piece that held four draws is full.
    assert ps.load_trace(tmp_path / "run.zarr").attrs["store_draws"] == 1024
    found = ps.resume(tmp_path / "run.zarr", progress=False)
    check_same(found, sampled(num_samples=1500, **LONG))


@pytest.mark.slow
def test_what_the_loop_finishes_is_counted_piece_by_piece(tmp_path: Path) -> None:
    given: dict[str, Any] = {**LONG, "method": "jacobi", "max_iterations": 3, "compare": False}
    verdict = ps.read_verdict(sampled(**given))
    # Jacobi gains a step an iteration, and what a rejection leaves where it was: of two segments about 381 steps are
    # left, of the third's 132 draws 129.
    expected = 2 * (381 + 381 + 129)
    assert expected - 20 < verdict.finished_sequentially <= expected
    interrupted(tmp_path / "run.zarr", steps=300, **given)
    found = ps.read_verdict(ps.resume(tmp_path / "run.zarr", progress=False))
    assert found.finished_sequentially == verdict.finished_sequentially


@pytest.mark.slow
def test_a_store_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """It counted whole segments, beyond the last draw too, and had no tolerances beside those of its settings."""
    path, given = tmp_path / "run.zarr", {"atol": 1e-6, "rtol": 1e-6}
    sampled(store=path, **given)
    file = path / "zarr.json"
    whole = json.loads(file.read_text())
    run = json.loads(whole["attributes"]["parsample_run"])
    tally = {key: value for key, value in json.loads(run["tally"]).items() if key not in ("atol", "rtol", "noise")}
    run |= {"tally": json.dumps({**tally, "done": 1024}), "whole": json.dumps({**tally, "done": 896})}
    whole["attributes"]["parsample_run"] = json.dumps(run)
    file.write_text(json.dumps(whole))
    assert Tally.from_json(run["tally"]).done == 1024
    check_same(ps.resume(path, num_samples=1500, progress=False), sampled(num_samples=1500, **given))


@pytest.mark.slow
def test_the_command_line_takes_the_whole_chain(tmp_path: Path) -> None:
    given = ["--warmup", "80", "--samples", "300", "--chains", "2", "--output", str(tmp_path)]
    for window, solved in (("all", 384), ("200", 200)):
        done = invoke("sample", TARGET, *given, "--window", window, "--method", "quasi_newton")
        assert done.exit_code in (0, 1), done.output
        assert f"window {solved}" in done.output
    refused = invoke("sample", TARGET, *given, "--window", "1.5")
    assert refused.exit_code == 2
    assert "window is '1.5', expected a whole number of steps, or 'all'" in refused.output
