"""A run in the background: the draws of a run that is waited for, whatever is asked of it on the way."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parsample as ps
from parsample.results.trace import as_datatree
from parsample.run import segments
from parsample.run.progress import Event

SETTINGS: dict[str, Any] = {"num_warmup": 60, "num_samples": 2_000, "num_chains": 2, "seed": 4, "compare": False}
SETTINGS |= {"method": "sequential"}


class Gate:
    """Heard at every event: holds the run at the first of a stage until it is opened."""

    def __init__(self, stage: str = "sampling"):
        self.stage, self.reached, self.opened = stage, threading.Event(), threading.Event()

    def __call__(self, event: Event) -> None:
        if event.stage == self.stage:
            self.reached.set()
            self.opened.wait(60)


def begin(gate: Any = False, **options: Any) -> ps.Running:
    return ps.sample("banana", progress=gate, blocking=False, **{**SETTINGS, **options})


@pytest.fixture(scope="module")
def whole() -> np.ndarray:
    return draws(ps.sample("banana", progress=False, **SETTINGS))


def draws(trace: Any) -> np.ndarray:
    return np.asarray(as_datatree(trace)["posterior"]["x"])


def test_the_draws_are_those_of_a_run_that_is_waited_for(whole: np.ndarray) -> None:
    run = begin()
    np.testing.assert_array_equal(draws(run.wait()), whole)
    assert not run.is_running
    assert run.progress is not None
    assert run.progress.done == 2_000
    np.testing.assert_array_equal(draws(run.trace), whole)
    np.testing.assert_array_equal(draws(run.look()), whole)
    np.testing.assert_array_equal(draws(run.stop()), whole)
    assert repr(run).startswith("<parsample run, over: sampling 2,000 of 2,000 steps")


@pytest.mark.parametrize("has_store", [False, True])
def test_looked_at_paused_and_gone_on_with(has_store: bool, whole: np.ndarray, tmp_path: Path) -> None:
    gate = Gate()
    run = begin(gate, **({"store": tmp_path / "run.zarr"} if has_store else {}))
    assert gate.reached.wait(300)
    run.pause()
    assert run.is_paused
    assert run.trace is None
    gate.opened.set()
    part = draws(run.look())
    np.testing.assert_array_equal(part, whole[:, : part.shape[1]])
    assert part.shape[1] == 1_024
    with pytest.raises(TimeoutError, match=r"the run is not over after 0.01 s and goes on; wait again, or stop\(\) it"):
        run.wait(0.01)
    assert run.progress is not None
    assert run.progress.done == 1_024
    run.resume()
    np.testing.assert_array_equal(draws(run.wait()), whole)


@pytest.mark.parametrize("has_store", [False, True])
def test_stopped(has_store: bool, whole: np.ndarray, tmp_path: Path) -> None:
    gate, store = Gate(), tmp_path / "run.zarr"
    run = begin(gate, **({"store": store} if has_store else {}))
    assert gate.reached.wait(300)
    run.pause()  # a paused run can be stopped
    threading.Timer(0.1, gate.opened.set).start()
    np.testing.assert_array_equal(draws(run.stop()), whole[:, :1_024])
    np.testing.assert_array_equal(draws(run.wait()), whole[:, :1_024])
    if has_store:
        np.testing.assert_array_equal(draws(ps.resume(store, progress=False)), whole)


def test_stopped_in_warm_up_there_are_no_draws() -> None:
    gate = Gate("warm-up")
    run = begin(gate)
    assert gate.reached.wait(300)
    assert run.look() is None
    threading.Timer(0.1, gate.opened.set).start()
    assert run.stop() is None


def test_bad_input_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="seed is -1"):
        begin(seed=-1)


def test_what_the_run_raises_is_raised_to_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise FloatingPointError("chain 0 left the finite numbers")

    monkeypatch.setattr(segments, "_check_finite", fail)
    run = begin()
    for ask in (run.wait, run.stop, run.look):
        with pytest.raises(FloatingPointError, match="chain 0 left"):
            ask()
    with pytest.raises(FloatingPointError, match="chain 0 left"):
        assert run.trace


def test_double_precision_of_the_caller_holds_there() -> None:
    import jax

    with jax.enable_x64(True):
        run = begin(num_samples=128)
    assert draws(run.wait()).dtype == np.float64
