"""What a run tells while it goes on: to a function, to a terminal, and to anything else."""

import io
import sys
import types
from typing import Any

import numpy as np
import pytest
import rich.console

import parsample as ps
from parsample.results.trace import as_datatree
from parsample.run import progress
from parsample.run.progress import Event, reporting


def test_a_function_hears_of_every_segment() -> None:
    heard: list[Event] = []
    settings: dict[str, Any] = {"num_warmup": 160, "num_samples": 1500, "num_chains": 2, "compare": False}
    trace = as_datatree(ps.sample("banana", "hmc", progress=heard.append, **settings))
    warmup = [event for event in heard if event.stage == "warm-up"]
    sampling = [event for event in heard if event.stage == "sampling"]
    # In parts of one unit, an eightieth, or of four.
    assert set(np.diff([0, *(event.done for event in warmup)])) == {2, 8}
    assert warmup[-1].done == 160
    # Two segments of whole blocks of 128 steps, the second cut at the last draw.
    assert [(event.done, event.total) for event in sampling] == [(768, 1500), (1500, 1500)]
    assert [event.seconds for event in sampling] == sorted(event.seconds for event in sampling)
    last = sampling[-1]
    assert last.divergences == int(trace["sample_stats"]["diverging"].sum())
    assert last.acceptance_rate is not None
    assert 0 < last.acceptance_rate <= 1
    assert last.iterations is not None
    assert last.evaluations_per_step is not None
    assert last.evaluations_per_step >= 1


def test_an_event_in_words() -> None:
    event = Event("sampling", 2_000, 8_000, 4.0, 0.5712, 3, 6.93, 41)
    assert event.steps_per_second == 500
    assert event.seconds_left == 12
    assert event.note() == "500 steps/s, acceptance 0.57, 3 divergences, 6.9 evaluations a step"
    assert event._replace(step_size=0.123).note() == (
        "500 steps/s, acceptance 0.57, 3 divergences, step size 0.12, 6.9 evaluations a step"
    )
    assert event.line() == f"sampling 2,000 of 8,000 steps, 12 s left, {event.note()}"
    assert Event("warm-up", 0, 10, 0.0).line() == "warm-up 0 of 10 steps"
    assert Event("warm-up", 0, 10, 9.0, model_runs=7).line() == "warm-up 0 of 10 steps, 7 runs"


@pytest.mark.parametrize(
    ("done", "seconds", "words"),
    [
        (50, 3.0, "3 s left, 17 steps/s"),
        (50, 119.0, "119 s left, 25 steps/min"),
        (50, 150.0, "2.5 min left, 20 steps/min"),
        (4, 450.0, "3.0 h left, 32 steps/h"),
        (1, 1e7, "275000.0 h left, 0.00036 steps/h"),
    ],
)
def test_a_slow_run_is_told_in_hours(done: int, seconds: float, words: str) -> None:
    event = Event("sampling", done, 100, seconds, model_runs=1234, model_seconds=2.06)
    assert event.line() == f"sampling {done} of 100 steps, {words}, 1,234 runs of 2.1 s"


def test_facts_hold_until_they_are_told_anew() -> None:
    heard: list[Event] = []
    with reporting(heard.append, 10, 10) as report:
        report(None, 0, model_runs=3)
        report("warm-up", 10)
        report(None, 0, model_runs=5)
        report("sampling", 4, acceptance_rate=0.25)
        report(None, 0, model_runs=8)
    found = [(event.stage, event.done, event.acceptance_rate, event.model_runs) for event in heard]
    assert found == [
        ("warm-up", 0, None, 3),
        ("warm-up", 10, None, 3),
        ("sampling", 0, None, 5),
        ("sampling", 4, 0.25, 5),
        ("sampling", 4, 0.25, 8),
    ]


def test_where_nothing_is_sampled_no_sampling_is_told_of() -> None:
    heard: list[Event] = []
    with reporting(heard.append, 10, 0) as report:
        report("warm-up", 10)
        report(None, 0, model_runs=8)
    assert [event.stage for event in heard] == ["warm-up", "warm-up"]


def printed(monkeypatch: pytest.MonkeyPatch, is_terminal: bool, events: int, seconds: float) -> str:
    """What is printed of a run in which as many seconds pass between events."""
    file, now = io.StringIO(), [0.0]
    real = rich.console.Console
    make = lambda **_: real(file=file, force_terminal=is_terminal, width=160)  # noqa: E731
    monkeypatch.setattr(rich.console, "Console", make)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    with reporting(True, 10, 10 * events) as report:
        report("warm-up", 10)
        for _ in range(events):
            now[0] += seconds
            report("sampling", 10, acceptance_rate=0.5)
    return file.getvalue()


def test_without_a_terminal_there_is_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, False, 10, 25.0).splitlines()
    assert lines == [
        f"sampling {done} of 100 steps, {left} left, 24 steps/min, acceptance 0.50"
        for done, left in ((30, "2.9 min"), (60, "100 s"), (90, "25 s"))
    ]


def test_a_short_run_is_quiet_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed(monkeypatch, False, 10, 5.0) == ""


def test_a_terminal_shows_both_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = printed(monkeypatch, True, 4, 1.0)
    assert "warm-up" in shown
    assert "40/40" in shown
    assert "acceptance 0.50" in shown


def test_a_notebook_shows_both_bars_in_its_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, picture: Any) -> None:
            shown.append(picture._repr_mimebundle_([], [])["text/html"])

    class ZMQInteractiveShell:
        """As Jupyter's kernel calls its shell."""

    def display(picture: Any, display_id: bool) -> Handle:
        assert display_id
        Handle().update(picture)
        return Handle()

    ipython = types.SimpleNamespace(get_ipython=ZMQInteractiveShell, display=types.SimpleNamespace(display=display))
    assert not progress.in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    assert progress.in_notebook()
    with reporting(True, 10, 40) as report:
        report("warm-up", 10)
        report("sampling", 40, acceptance_rate=0.5, divergences=7, step_size=0.25)
    assert "0/40" in shown[0]
    for words in ("warm-up", "10/10", "40/40", "acceptance 0.50, 7", "0.25"):
        assert words in shown[-1]
    # The browser is not sent every step.
    assert len(shown) < 4


def test_silence() -> None:
    with reporting(False, 1, 1) as report:
        report("sampling", 1)
