"""What a run tells while it goes on: to a function, to a terminal, and to anything else."""

import io
import sys
import types
from typing import Any

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
    assert [event.done for event in warmup] == list(range(2, 161, 2))
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
    assert Event("warm-up", 0, 10, 0.0).line() == "warm-up 0 of 10 steps, 0 steps/s"


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
        f"sampling {done} of 100 steps, {25 * (100 - done) // 10} s left, 0 steps/s, acceptance 0.50"
        for done in (30, 60, 90)
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
