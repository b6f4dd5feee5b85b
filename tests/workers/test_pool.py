"""Workers: every position once, whatever the executor, and how they end."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parsample.workers import dispatch
from parsample.workers.errors import SimulationError
from parsample.workers.memory import Memory
from tests.workers.models import AtOnce, Cluster, make_cubes, position, run, workers_of


@pytest.mark.parametrize("kind", ["processes", "threads", "at once", "of the standard library"])
def test_every_executor_gives_what_the_function_gives(kind: str, spawned: Executor) -> None:
    executor = {"at once": AtOnce(), "of the standard library": spawned}.get(kind, kind)
    points = [(number / 7, number / 3, -1.0) for number in range(9)]
    with workers_of(make_cubes(), executor=executor) as workers:
        found = run(workers, *(position(*point) for point in points))
        np.testing.assert_array_equal(found.logdensity, [make_cubes()(position(*point)) for point in points])
        assert found.done.all()
        assert found.gradient is None
        assert (workers.counts.runs, workers.counts.rounds, workers.counts.repeated) == (9, 1, 0)


def test_what_the_function_is_given_are_arrays_of_the_form_of_the_position() -> None:
    template = {"k": np.zeros(()), "n": np.zeros(2, int), "r": np.zeros((1, 3), np.float32)}
    seen: list[tuple] = []

    def look(position: dict) -> float:
        seen.extend((name, type(leaf), leaf.dtype, leaf.shape) for name, leaf in position.items())
        return 0.0

    with workers_of(look, template) as workers:
        given: dict[str, Any] = {"k": 3, "n": [1, 2], "r": np.ones((1, 3))}
        run(workers, given)
    assert seen == [(name, np.ndarray, leaf.dtype, leaf.shape) for name, leaf in template.items()]


def test_equal_positions_are_one_run() -> None:
    log: list[float] = []
    with workers_of(make_cubes(log)) as workers:
        found = run(workers, position(1), position(2), position(1))
        np.testing.assert_array_equal(found.logdensity, [-1, -4, -1])
        again = workers.submit([position(2)])
        assert again.done.all()
        assert again.logdensity[0] == -4
        assert sorted(log) == [1, 2]
        assert (workers.counts.runs, workers.counts.repeated, workers.counts.rounds) == (2, 2, 1)


def test_a_position_on_its_way_is_waited_for_and_not_run_again() -> None:
    gate, log = threading.Event(), []

    def slow(position: dict) -> float:
        log.append(float(position["k"]))
        gate.wait()
        return float(position["k"])

    with workers_of(slow) as workers:
        first, second = workers.submit([position(1)]), workers.submit([position(1), position(2)])
        assert not first.done.any()
        gate.set()
        second.wait_all()
        np.testing.assert_array_equal(second.logdensity, [1, 2])
        assert first.logdensity[0] == 1
        assert sorted(log) == [1, 2]


def test_wait_returns_with_what_is_there() -> None:
    gates = {number: threading.Event() for number in (1, 2)}

    def gated(position: dict) -> float:
        gates[int(position["k"])].wait()
        return 0.0

    with workers_of(gated) as workers:
        found = workers.submit([position(1), position(2)])
        gates[2].set()
        while not found.done.any():
            workers.wait()
        np.testing.assert_array_equal(found.done, [False, True])
        assert np.isnan(found.logdensity[0])
        workers.wait(0.01)
        assert not found.done[0]
        gates[1].set()
        found.wait_all()


def test_what_has_not_begun_is_called_off_unless_somebody_else_waits_for_it() -> None:
    gate, begun, log = threading.Event(), threading.Event(), []

    def gated(position: dict) -> float:
        log.append(float(position["k"]))
        begun.set()
        gate.wait()
        return 0.0

    with workers_of(gated, workers=1) as workers:
        found = workers.submit([position(number) for number in range(4)])
        other = workers.submit([position(2)])
        assert begun.wait(60)
        gone = found.cancel(np.array([True, True, True, False]))
        np.testing.assert_array_equal(gone, [False, True, True, False])
        gate.set()
        other.wait_all()
        while not found.done[3]:
            workers.wait()
        assert log == [0, 2, 3]
        np.testing.assert_array_equal(found.done, [True, False, False, True])
        assert workers.counts.cancelled == 1


def test_the_gradient_comes_by_name() -> None:
    def both(position: dict) -> tuple[float, dict]:
        return -(float(position["k"]) ** 2), {"r": [1.0, 2.0], "k": -2 * position["k"]}

    with workers_of(both, gradient=True) as workers:
        assert workers.has_gradient
        found = run(workers, position(3), position(4), want_gradient=True)
        np.testing.assert_array_equal(found.gradient["k"], [-6, -8])
        np.testing.assert_array_equal(found.gradient["r"], [[1, 2], [1, 2]])
        again = workers.submit([position(3)], True)
        assert again.gradient is not None
        np.testing.assert_array_equal(again.gradient["k"], [-6])
        np.testing.assert_array_equal(again.gradient["r"], [[1, 2]])


@pytest.mark.parametrize("gradient", ["finite_differences", {"k": 1e-3, "r": [1e-3, 1e-4]}])
def test_finite_differences_are_runs_of_the_same_round(gradient: Any) -> None:
    with workers_of(make_cubes(), gradient=gradient) as workers:
        found = run(workers, position(3, 1, -2), want_gradient=True)
        np.testing.assert_allclose(found.gradient["k"], [-6], rtol=1e-7)
        np.testing.assert_allclose(found.gradient["r"], [[-3, -12]], rtol=1e-6)
        assert (workers.counts.runs, workers.counts.rounds) == (7, 1)
        run(workers, position(3, 1, -2), want_gradient=False)
        assert workers.counts.runs == 7


def test_a_difference_at_the_edge_of_the_support_is_taken_from_one_side() -> None:
    def half(position: dict) -> float:
        return -3 * float(position["k"]) if position["k"] >= 0 else -math.inf

    def point(position: dict) -> float:
        return 0.0 if position["k"] == 0 else -math.inf

    with workers_of(half, {"k": np.zeros(())}, gradient="finite_differences") as workers:
        found = run(workers, {"k": np.asarray(0.0)}, {"k": np.asarray(-1.0)}, want_gradient=True)
        np.testing.assert_allclose(found.gradient["k"], [-3, 0], rtol=1e-7)
        np.testing.assert_array_equal(found.logdensity, [0, -np.inf])
    with (
        workers_of(point, {"k": np.zeros(())}, gradient="finite_differences") as workers,
        pytest.raises(
            SimulationError, match=r"no difference can be taken, since on both sides .* outside of the support"
        ),
    ):
        run(workers, {"k": np.asarray(0.0)}, want_gradient=True)


def test_a_vectorized_function_is_called_once_with_all() -> None:
    shapes: list[tuple] = []
    together = threading.Barrier(1)

    def batch(position: dict) -> tuple[np.ndarray, dict]:
        shapes.append(position["r"].shape)
        together.wait()
        return -(position["k"] ** 2), {name: leaf + 1 for name, leaf in position.items()}

    with workers_of(batch, executor=None, workers=None, vectorized=True, gradient=True) as workers:
        assert workers.size == 128
        found = run(workers, *(position(number) for number in range(5)), want_gradient=True)
        np.testing.assert_array_equal(found.logdensity, [0, -1, -4, -9, -16])
        np.testing.assert_array_equal(found.gradient["k"], [1, 2, 3, 4, 5])
        assert found.gradient["r"].shape == (5, 2)
        assert shapes == [(5, 2)]
    shapes.clear()
    together = threading.Barrier(2)  # so that both are under way
    with (
        ThreadPoolExecutor(2) as executor,
        workers_of(batch, executor=executor, workers=8, vectorized=True, gradient=True) as workers,
    ):
        run(workers, *(position(number) for number in range(6)), want_gradient=True)
        assert shapes == [(3, 2), (3, 2)]


def test_a_batch_that_fails_is_tried_one_by_one() -> None:
    def fussy(position: dict) -> np.ndarray:
        if (position["k"] == 2).any():
            raise ZeroDivisionError("two")
        return position["k"]

    with workers_of(fussy, executor=None, vectorized=True, workers=8, on_error="reject") as workers:
        found = run(workers, *(position(number) for number in range(4)))
        np.testing.assert_array_equal(found.logdensity, [0, 1, -np.inf, 3])
        assert workers.counts.rejected == 1
        assert workers.counts.failures == 2


def test_what_a_model_prints_does_not_disturb_it(capfd: pytest.CaptureFixture[str]) -> None:
    def talkative(position: dict) -> float:
        print("iteration 1")
        os.system("echo from a program")
        return 0.0

    with workers_of(talkative, executor="processes", workers=1) as workers:
        assert run(workers, position(1)).logdensity[0] == 0
    streams = capfd.readouterr()
    assert streams.out == ""
    assert "from a program" in streams.err


def test_a_killed_run_takes_up_where_it_was(tmp_path: Path) -> None:
    log: list[float] = []
    with workers_of(make_cubes(log), memory=Memory(tmp_path / "runs")) as workers:
        run(workers, position(1), position(2))
    with workers_of(make_cubes(log), memory=Memory(tmp_path / "runs")) as workers:
        found = run(workers, position(2), position(3), position(1))
        np.testing.assert_array_equal(found.logdensity, [-4, -9, -1])
        run(workers, position(4))
        assert workers.counts.checks == 0
    assert sorted(log) == [1, 2, 3, 4]


@pytest.mark.parametrize("end", ["", "raise KeyboardInterrupt", "workers.close()"])
def test_a_program_ends_though_runs_do_not(end: str) -> None:
    program = """
import os, time
import numpy as np
from parsample.workers.pool import Workers

def simulate(position):
    if position["k"] == 1:
        time.sleep(6000)
    return float(os.getpid())

workers = Workers(simulate, {"k": np.zeros(())}, executor="processes", workers=2)
found = workers.submit([{"k": np.asarray(number)} for number in (1.0, 0.0)])
while not found.done.any():
    workers.wait()
"""
    # The streams are those of the worker processes too: they have to end for this to return.
    found = subprocess.run([sys.executable, "-c", program + end], check=False, capture_output=True, text=True)
    assert ("KeyboardInterrupt" in found.stderr) == ("raise" in end)
    assert "parsample" not in found.stderr


def test_a_process_that_ends_while_it_has_nothing_to_do_is_started_anew() -> None:
    def where(position: dict) -> tuple[float, dict]:
        return 0.0, {"k": os.getpid(), "r": [0.0, 0.0]}

    with workers_of(where, executor="processes", workers=1, gradient=True) as workers:
        process = int(run(workers, position(1), want_gradient=True).gradient["k"][0])
        os.kill(process, signal.SIGKILL)
        # It has ended once it can be waited for, and is left for its parent to do so.
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        assert run(workers, position(2), want_gradient=True).gradient["k"][0] != process
        assert workers.counts.failures == 0


def test_processes_end_with_a_program_that_is_killed() -> None:
    program = """
import os, signal
import numpy as np
from parsample.workers.pool import Workers

workers = Workers(lambda position: float(os.getpid()), {"k": np.zeros(())}, executor="processes", workers=1)
found = workers.submit([{"k": np.asarray(0.0)}])
found.wait_all()
print(int(found.logdensity[0]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    found = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert found.returncode == -signal.SIGKILL
    # The streams are those of the process too: they have ended, and so has it, without a word.
    assert found.stderr == ""
    assert int(found.stdout) > 0


def test_what_was_run_before_goes_into_a_memory_that_comes_later(tmp_path: Path) -> None:
    with workers_of(make_cubes()) as workers:
        run(workers, position(1))
        workers.remember(Memory(tmp_path / "runs"))
        run(workers, position(2))
    memory = Memory(tmp_path / "runs")
    log: list[float] = []
    with workers_of(make_cubes(log), memory=memory) as workers:
        run(workers, position(1), position(2))
    assert log == []


def test_closing_ends_processes_and_they_come_back() -> None:
    def sleeps(position: dict) -> float:
        if position["k"] == 1:
            time.sleep(600)
        return float(position["k"])

    with workers_of(sleeps, executor="processes") as workers:
        found = workers.submit([position(1), position(2)])
        while not found.done[1]:
            workers.wait()
        workers.close()
        assert run(workers, position(3)).logdensity[0] == 3
        assert workers.counts.failures == 0


def test_an_interrupt_calls_off_what_has_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, log = threading.Event(), []

    def gated(position: dict) -> float:
        log.append(float(position["k"]))
        gate.wait()
        return 0.0

    with workers_of(gated, workers=1) as workers:
        found = workers.submit([position(number) for number in range(3)])

        def interrupt(*args: Any) -> bool:
            raise KeyboardInterrupt

        monkeypatch.setattr(workers._changed, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            found.wait_all()
        assert workers.counts.cancelled == 2
        gate.set()
        workers.close(wait=True)
        assert log == [0]
        assert found.done[0]


def test_a_cluster_is_asked_for_workers_while_it_brings_what_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    def sleeps(position: dict) -> float:
        time.sleep(0.02)
        return float(position["k"])

    monkeypatch.setattr(dispatch, "PAUSE", 0.001)
    cluster = Cluster()
    with workers_of(sleeps, executor=cluster, workers=1) as workers:
        found = run(workers, *(position(number) for number in range(20)))
    np.testing.assert_array_equal(found.logdensity, range(20))
    assert cluster.asked > 10
    assert cluster.unanswered == 0


def test_time_that_lanes_are_busy_is_that_of_the_function() -> None:
    def sleeps(position: dict) -> float:
        time.sleep(0.05)
        return 0.0

    with workers_of(sleeps) as workers:
        run(workers, *(position(number) for number in range(3)))
        counts = workers.counts
        assert counts.busy >= 0.15
        assert counts.elapsed >= 0.1
        assert counts.idle == pytest.approx(2 * counts.elapsed - counts.busy)


def test_a_function_that_gets_slow_is_not_handed_many_positions_for_long() -> None:
    """Quick ones come many a lane; what they took in all says nothing of those to come."""
    seconds, by_thread = 0.0, dict[int, int]()

    def simulate(given: dict) -> float:
        if seconds:
            time.sleep(seconds)
        by_thread[threading.get_ident()] = by_thread.get(threading.get_ident(), 0) + 1
        return 0.0

    with workers_of(simulate, executor="threads", workers=8) as workers:
        run(workers, *(position(number) for number in range(3000)))
        seconds = 0.01
        run(workers, *(position(number) for number in range(3000, 3030)))
        assert max(by_thread.values()) > 64
        by_thread.clear()
        run(workers, *(position(number) for number in range(3030, 3038)))
        assert workers.counts.seconds is not None
        assert workers.counts.seconds < dispatch.QUICK
    assert max(by_thread.values()) < 4
