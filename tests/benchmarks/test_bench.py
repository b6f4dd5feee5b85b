"""The benchmark suite: every row runs, ours agree with the loop, and what the page says of the numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.bench import __main__ as bench
from benchmarks.bench import measure, opponents, report
from benchmarks.bench.cases import NAMES, ORDINARY
from benchmarks.bench.opponents import AUTO, LOOP, OPPONENTS, Outcome

# One posterior: everybody. The others: ours alone, in parallel where that takes seconds.
EVERYBODY = ("eight_schools",)
LARGE = ("hierarchical_500", "embeddings")
# Ten thousand numbers take minutes even of a few steps. Of the others one of every kind is enough, as a rule.
USUAL = (*EVERYBODY, "binomial_beetles", "lotka_volterra", "hierarchical_500")
TESTED = [
    name if name in USUAL else pytest.param(name, marks=pytest.mark.grid) for name in NAMES if name != "ten_thousand"
]


@pytest.mark.slow
@pytest.mark.parametrize("name", TESTED)
def test_every_row_runs_and_agrees_with_the_loop(
    name: str, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = [AUTO, LOOP] if name in LARGE else [AUTO, LOOP, "quasi-Newton"]
    asked = list(OPPONENTS) if name in EVERYBODY else ours
    code = bench.main(["--quick", "--data", str(shared_data), "--only", name, "--opponents", *asked])
    printed = capsys.readouterr().out
    assert code == 0, printed
    lines = [line.split(" | ") for line in printed.splitlines()]
    assert {cells[1] for cells in lines[:-1]} == {row for row in OPPONENTS if any(text in row for text in asked)}
    skipped = {cells[1]: cells[2] for cells in lines[:-1] if cells[2].startswith("skipped")}
    assert skipped.items() <= {"nutpie": "skipped: nutpie is not installed"}.items()


def chain(seed: int, shift: float = 0.0) -> Outcome:
    draws = np.random.default_rng(seed).normal(shift, 1.0, size=(4, 1000, 2))
    return opponents.outcome({"x": draws}, np.full((4, 1000), 8), np.zeros((4, 1000)))


def everybody(**calls: Any) -> dict[str, Any]:
    return {name: lambda case, size, call=call: call for name, call in calls.items()}


def broken(seed: int) -> Any:
    raise RuntimeError("it broke")


@pytest.mark.parametrize(
    ("auto", "fault"),
    [
        (lambda seed: lambda: chain(seed, 0.02), "0.02 standard deviations from the loop's chain"),
        (lambda seed: lambda: chain(seed, 0.1), "100.0% of its draws are not those of the loop's chain"),
        (broken, "RuntimeError: it broke"),
    ],
)
def test_a_row_that_fails_or_disagrees_is_told(
    auto: Any, fault: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = everybody(**{AUTO: auto, LOOP: lambda seed: lambda: chain(seed)})
    for module in (bench, measure):
        monkeypatch.setattr(module, "OPPONENTS", calls)
    assert bench.main(["--quick", "--only", "eight_schools"]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == f"eight_schools, {AUTO}: {fault}"
    assert any(line.startswith(f"eight_schools | {LOOP} | ") for line in printed)


def test_compiling_within_compiling_is_counted_once() -> None:
    compiling = measure.Compiling()
    for event, seconds in (
        ("/jax/core/compile/jaxpr_trace_duration", 2.0),
        ("/jax/core/compile/jaxpr_trace_duration", 5.0),  # of which the first was a part
        ("/jax/checkpoint/write", 7.0),
    ):
        compiling.hear(event, seconds)
    assert compiling.since(-np.inf) == pytest.approx(5.0)
    assert compiling.since(np.inf) == 0.0


def test_chains_in_step_wait_for_the_longest_trajectory() -> None:
    steps = np.array([[1, 3], [2, 1]])
    draws = {"x": np.zeros((2, 2))}
    assert opponents.outcome(draws, steps, 0).sequence == 2 + 3
    alone = opponents.outcome(draws, steps, 0, in_step=False)
    assert (alone.gradients, alone.sequence) == (7, 4)


def row(opponent: str, rate: float, good: bool = True) -> dict[str, Any]:
    first = {"seconds": 2.0, "ess": rate}
    numbers = {"ess": 1000.0, "seconds": 1000 / rate, "rate": rate, "rate_in_total": rate / 2, "r_hat": 1.0}
    numbers["rate_per_gradient"] = 1 / 32 if opponent == AUTO else 1 / 64
    counts = {"gradients": 32_000, "sequence": 8_000, "divergences": 0, "good": good}
    return {"opponent": opponent, "first": first, "runs": [first], **numbers, **counts}


def test_the_page_puts_losses_first_and_means_over_good_draws(tmp_path: Path) -> None:
    place = {"device": "a device", "versions": {"jax": "1"}, "date": "2026-01-01", "commit": "abc"}
    nuts, alone, nuts_blackjax = "NumPyro NUTS, vectorized", "NumPyro NUTS, a chain a core", "BlackJAX NUTS"
    tables = {
        "eight_schools": [row(AUTO, 800), row(LOOP, 1000), row(nuts, 100), row(alone, 200), row(nuts_blackjax, 1600)],
        "garch": [row(AUTO, 900), row(LOOP, 900), row(nuts, 100), row(nuts_blackjax, 1, good=False)],
        "blr": [row(AUTO, 400), {"opponent": nuts, "error": "ValueError: no"}, {"opponent": "nutpie", "skipped": "no"}],
    }
    for name, rows in tables.items():
        report.save(tmp_path, name, place, 10, rows)
    page = (tmp_path / "bench.md").read_text().splitlines()
    start = page.index("## Where auto loses")
    assert start < page.index("## How many times as fast auto is")
    assert page[start + 2 : start + 6] == [
        "- eight_schools, warm: 0.80 of ours, loop",
        "- eight_schools, warm: 0.50 of BlackJAX NUTS",
        "- eight_schools, compiling included: 0.50 of BlackJAX NUTS",
        "",
    ]
    # The best of NumPyro's: 4 and 9 times; BlackJAX's draws of GARCH are not good.
    assert "| best of NumPyro | 6.00 | 4.00 | 2 of 2 | 6.00 | 4.00 | 2.00 | 2.00 |" in page
    # First calls of ours share what they compile. A family of one is its member.
    assert "| ours, loop | 0.89 | 0.80 | 2 of 2 |  |  |  |  |" in page
    assert "| BlackJAX NUTS | 0.50 | 0.50 | 1 of 2 | 0.50 | 0.50 | 2.00 | 2.00 |" in page
    assert not any("best of ours" in line or "best of BlackJAX" in line for line in page)
    assert (tmp_path / "bench.png").stat().st_size > 10_000
    # A posterior that is measured again takes its own place.
    report.save(tmp_path, "eight_schools", place, 10, [row(AUTO, 2000), row(LOOP, 2000)])
    kept = json.loads((tmp_path / "bench.json").read_text())
    assert list(kept) == ["eight_schools", "garch", "blr"]
    assert len(kept["eight_schools"]["rows"]) == 2
    assert (tmp_path / "bench.md").read_text().splitlines()[start + 2] == "- none"


def test_draws_of_another_chain_are_counted_and_the_others_compared() -> None:
    loop = {"x": np.random.default_rng(0).normal(size=(4, 1000, 2)), "same": np.ones((4, 1000))}
    draws = {"x": loop["x"] + 0.001 * loop["x"].std(axis=(0, 1)), "same": loop["same"]}
    assert measure.apart(draws, loop) == (pytest.approx(0.001), 0.0)
    draws["x"][2, 900:] = 7.0
    draws["x"][3, 7, 1] = np.nan
    assert measure.apart(draws, loop) == (pytest.approx(0.001), 101 / 4000)


def test_of_many_numbers_some_are_judged_from_first_to_last() -> None:
    values = np.broadcast_to(np.arange(1000.0).reshape(50, 20), (4, 10, 50, 20))
    kept = measure.few(values)
    assert kept.shape == (4, 10, measure.MOST)
    assert (kept[0, 0, 0], kept[0, 0, -1]) == (0.0, 999.0)
    assert measure.few(values[..., :4]).shape == (4, 10, 50, 4)


@pytest.mark.slow
def test_large_models_have_the_sizes_they_are_there_for() -> None:
    from benchmarks.bench.cases import cases

    dims = {case.name: case.dim for case in cases(tuple(ORDINARY), None)}
    assert min(dims.values()) == dims["binomial_beetles"] == 2
    assert (dims["hierarchical_500"], dims["embeddings"], dims["ten_thousand"]) == (1005, 768, 10_000)
