"""Workers: every position once, whatever the executor, and what comes of functions that misbehave."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parsample.workers import lanes, model, pool
from parsample.workers.errors import NoWorker, SimulationError
from parsample.workers.memory import Memory
from parsample.workers.pool import Workers

TEMPLATE = {"k": np.zeros(()), "r": np.zeros(2)}


def position(k: float, *r: float) -> dict[str, np.ndarray]:
    return {"k": np.asarray(k), "r": np.asarray(r or (0.0, 0.0))}


@contextmanager
def workers_of(simulate: Callable, template: dict[str, Any] = TEMPLATE, **options: Any) -> Iterator[Workers]:
    found = Workers(simulate, template, **{"executor": "threads", "workers": 2, **options})
    try:
        yield found
    finally:
        found.close()


def run(workers: Workers, *positions: dict[str, np.ndarray], want_gradient: bool = False) -> Any:
    found = workers.submit(positions, want_gradient)
    found.wait_all()
    return found


def run_apart(workers: Workers, numbers: Iterable[float]) -> None:
    for number in numbers:
        run(workers, position(number))


def make_cubes(log: list | None = None) -> Callable:
    """A log density, written so that it is sent by value: these tests are no module of a worker."""

    def cubes(position: dict) -> float:
        if log is not None:
            log.append(float(position["k"]))
        return -(float(position["k"]) ** 2) - float((position["r"] ** 3).sum())

    return cubes


class AtOnce(Executor):
    """An executor that runs what it is given before it returns."""

    _max_workers = 3

    def submit(self, function: Callable, /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture(scope="module")
def spawned() -> Iterator[Executor]:
    import multiprocessing

    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


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


class Flaky:
    """Fails as often as it is told, in threads."""

    def __init__(self, how: Callable[[], float], times: int):
        self.how, self.times, self.calls = how, times, 0

    def __call__(self, position: dict) -> float:
        self.calls += 1
        return self.how() if position["k"] == 1 and self.calls <= self.times else float(position["k"])


def raises() -> float:
    raise ZeroDivisionError("no root.")


FAILURES: dict[str, tuple[Callable[[], float], str]] = {
    "raises": (raises, "simulate raised ZeroDivisionError: no root"),
    "exits": (lambda: os.sys.exit(3), "simulate raised SystemExit: 3"),  # type: ignore[attr-defined]
    "nan": (lambda: math.nan, "simulate returned nan"),
    "inf": (lambda: math.inf, "simulate returned inf"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_tried_again_then_ends_the_run_or_is_rejected(name: str) -> None:
    how, text = FAILURES[name]
    with workers_of(Flaky(how, 2), retries=2) as workers:
        assert run(workers, position(1)).logdensity[0] == 1
        assert (workers.counts.runs, workers.counts.failures) == (3, 2)
        assert workers.counts.example is not None
        assert workers.counts.example[0]["k"] == 1
        assert text in workers.counts.example[1]
    with workers_of(Flaky(how, 9), retries=1, on_error="reject") as workers:
        found = run(workers, position(1), position(2))
        np.testing.assert_array_equal(found.logdensity, [-np.inf, 2])
        assert (workers.counts.runs, workers.counts.failures, workers.counts.rejected) == (3, 2, 1)
        assert run(workers, position(1)).logdensity[0] == -np.inf
        assert workers.counts.runs == 3
    with workers_of(Flaky(how, 9), retries=1) as workers:
        where = r"\{'k': 1.0, 'r': \[0. 0.\]\}"
        match = rf"a run failed \(tried 2 times\) at {where}: {text}[^.]*\. Mend that"
        with pytest.raises(SimulationError, match=match):
            run(workers, position(1))
    with workers_of(Flaky(how, 1)) as workers:
        with pytest.raises(SimulationError, match=rf"a run failed at .*{text}.*give retries=2.*on_error='reject'"):
            run(workers, position(1))
        # Once it is mended the same workers go on.
        assert run(workers, position(1)).logdensity[0] == 1


def test_the_error_says_where_finished_runs_are(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    for memory, text in ((None, "as long as this target is; with a store"), (Memory(path), f"in '{path}'")):
        with (
            workers_of(Flaky(raises, 1), memory=memory) as workers,
            pytest.raises(SimulationError, match=rf"support\. Finished runs are kept {text}"),
        ):
            run(workers, position(1))


def test_the_error_shows_where_the_function_failed() -> None:
    with workers_of(Flaky(raises, 1)) as workers, pytest.raises(SimulationError) as caught:
        run(workers, position(1))
    assert "in raises" in "\n".join(caught.value.__notes__)


def test_a_failure_that_may_not_matter_ends_nothing_until_it_does() -> None:
    with workers_of(Flaky(raises, 9)) as workers:
        found = workers.submit([position(0), position(1)], certain=np.array([True, False]))
        found.wait_all()
        np.testing.assert_array_equal(found.failed, [False, True])
        np.testing.assert_array_equal(found.logdensity, [0, np.nan])
        again = workers.submit([position(1)], certain=np.array([False]))
        assert again.failed[0]
        assert workers.counts.runs == 2
        with pytest.raises(SimulationError, match="no root"):
            workers.submit([position(1)])


def test_a_worker_that_dies_is_replaced() -> None:
    def deadly(position: dict) -> float:
        if position["k"] == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if position["k"] == 2:
            os._exit(7)
        return float(position["k"])

    with workers_of(deadly, executor="processes", on_error="reject") as workers:
        found = run(workers, *(position(number) for number in range(5)))
        np.testing.assert_array_equal(found.logdensity, [0, -np.inf, -np.inf, 3, 4])
    for number, text in ((1, "killed by SIGKILL"), (2, "exit status 7")):
        with (
            workers_of(deadly, executor="processes", workers=1) as workers,
            pytest.raises(SimulationError, match=text),
        ):
            run(workers, position(number))


def test_a_process_that_hangs_is_ended_and_nobody_else_notices() -> None:
    def hangs(position: dict) -> float:
        if position["k"] == 1:
            time.sleep(600)
        return float(position["k"])

    with workers_of(hangs, executor="processes", timeout=0.3, on_error="reject") as workers:
        found = run(workers, *(position(number) for number in range(4)))
        np.testing.assert_array_equal(found.logdensity, [0, -np.inf, 2, 3])
        assert (workers.counts.failures, workers.counts.runs) == (1, 4)
        assert workers.counts.example is not None
        assert "longer than timeout=0.3 seconds" in workers.counts.example[1]


def test_threads_that_hang_are_left_behind_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "MOST_LEFT", 3)
    gate = threading.Event()

    def hangs(position: dict) -> float:
        if position["k"] > 0:
            gate.wait()
        return float(position["k"])

    with workers_of(hangs, timeout=0.1, on_error="reject") as workers:
        found = run(workers, *(position(number) for number in (-1, 1, 2, -3)))
        np.testing.assert_array_equal(found.logdensity, [-1, -np.inf, -np.inf, -3])
        assert (workers.counts.failures, workers.counts.busy >= 0.2) == (2, True)
        assert workers.counts.example is not None
        assert "longer than timeout=0.1 seconds" in workers.counts.example[1]
        try:
            text = r"no worker is left: 3 runs in one process .* timeout=0.1 seconds, and cannot be ended there"
            with pytest.raises(ValueError, match=text):
                run_apart(workers, [3, -4])
        finally:
            gate.set()


def test_an_answer_that_comes_after_the_workers_were_closed_is_kept() -> None:
    gate, begun, calls = threading.Event(), threading.Event(), []

    def late(position: dict) -> float:
        calls.append(1)
        begun.set()
        gate.wait()
        return float(position["k"])

    with ThreadPoolExecutor(1) as executor:
        workers = Workers(late, TEMPLATE, executor=executor)
        workers.submit([position(1)])
        assert begun.wait(60)
        workers.close()
        gate.set()
    assert run(workers, position(1)).logdensity[0] == 1
    assert len(calls) == 1


def test_an_executor_that_is_shut_down_is_noticed() -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with (
        workers_of(make_cubes(), executor=executor) as workers,
        pytest.raises(NoWorker, match=r"takes no more runs .*shut down.* Keep it open"),
    ):
        run(workers, position(1))


def test_an_executor_whose_workers_die_is_no_worker(spawned: Executor) -> None:
    import multiprocessing

    def deadly(position: dict) -> float:
        os._exit(7)

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        workers = Workers(deadly, TEMPLATE, executor=executor, retries=1)
        with pytest.raises(NoWorker, match=r"takes no more runs \(BrokenProcessPool.*its workers died"):
            run(workers, position(1))


def with_argument(change: Callable) -> Callable:
    def simulate(position: dict) -> float:
        change(position)
        return 0.0

    return simulate


class Deserted(Executor):
    """A cluster that takes runs, and has no worker for them; as Dask's, it has a client."""

    class _client:
        ncores = dict

    def submit(self, function: Callable, /, *args: Any, **kwargs: Any) -> Future:
        return Future()


def test_a_cluster_without_workers_is_waited_for_and_then_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"Deserted that has no worker; wait for them .* or give workers=8"):
        Workers(make_cubes(), TEMPLATE, executor=Deserted())
    monkeypatch.setattr(lanes, "ALONE", 0.1)
    monkeypatch.setattr(pool, "PAUSE", 0.05)
    with (
        workers_of(make_cubes(), executor=Deserted()) as workers,
        pytest.raises(NoWorker, match=r"no worker is left: the cluster .* none for 0.1 seconds.* Start workers"),
    ):
        run(workers, position(1))


MISTAKES: dict[str, tuple[Callable, str]] = {
    "vector": (
        lambda position: np.zeros(3),
        r"an array of shape \(3,\), expected one number.*np.sum\(terms\)",
    ),
    "one in a vector": (lambda position: [0.0], r"an array of shape \(1,\), expected one number"),
    "complex": (lambda position: 1j, "a complex, 1j, expected real numbers; return its real part"),
    "string": (lambda position: "-3.2", "a str, '-3.2', expected real numbers"),
    "bool": (lambda position: True, "a bool, True, expected real numbers"),
    "None": (lambda position: None, r"None, expected real numbers; is a return statement missing\?"),
    "ragged": (lambda position: [[0.0], [0.0, 1.0]], r"a list, \[\[0.0\], \[0.0, 1.0\]\], expected numbers"),
    "gradient unasked": (lambda position: (0.0, {}), "2 things, expected the log density alone; with gradient=True"),
    "changes": (with_argument(lambda p: p["r"].__iadd__(1)), r"changed its argument: 'r' .*position\['r'\].copy"),
    "replaces": (with_argument(lambda p: p.update(k=np.ones(()))), "changed its argument: 'k'"),
    "removes": (with_argument(lambda p: p.pop("k")), "changed its argument: 'k'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_the_run_whatever_is_said_of_failures(name: str) -> None:
    simulate, text = MISTAKES[name]
    with (
        workers_of(simulate, on_error="reject", retries=3) as workers,
        pytest.raises(ValueError, match=f"simulate (returned )?{text}"),
    ):
        run(workers, position(1))
    assert workers.counts.runs == 1


GRADIENT_MISTAKES: dict[str, tuple[Any, str]] = {
    "none": (0.0, "a float, 0.0, expected two things with gradient=True"),
    "not a dict": ((0.0, [0.0]), r"the gradient a list, \[0.0\], expected a dict with the position's \['k', 'r'\]"),
    "names": ((0.0, {"k": 0.0}), r"the gradient \['k'\], expected a dict"),
    "shape": ((0.0, {"k": 0.0, "r": 0.0}), r"for 'r' a gradient of shape \(\), expected \(2,\)"),
    "kind": ((0.0, {"k": "x", "r": 0.0}), "for 'k' the gradient a str, 'x', expected real"),
}


@pytest.mark.parametrize("name", GRADIENT_MISTAKES)
def test_a_gradient_is_checked(name: str) -> None:
    returned, text = GRADIENT_MISTAKES[name]
    with (
        workers_of(lambda position: returned, gradient=True) as workers,
        pytest.raises(ValueError, match=f"simulate returned {text}"),
    ):
        run(workers, position(1), want_gradient=True)


def test_a_gradient_that_is_not_finite_is_a_failure() -> None:
    simulate = lambda position: (0.0, {"k": math.nan, "r": np.zeros(2)})  # noqa: E731
    with (
        workers_of(simulate, gradient=True) as workers,
        pytest.raises(SimulationError, match="gradient for 'k' that is not finite"),
    ):
        run(workers, position(1), want_gradient=True)


def test_a_vectorized_function_that_returns_one_number_is_told() -> None:
    with (
        workers_of(lambda position: 0.0, executor=None, vectorized=True) as workers,
        pytest.raises(ValueError, match=r"shape \(\), expected one of shape \(2,\), a log density for every position"),
    ):
        run(workers, position(1), position(2))


def test_hidden_randomness_is_noticed_and_the_noise_of_a_solver_is_not() -> None:
    numbers = np.random.default_rng(0)

    def noisy(scale: float) -> Callable:
        return lambda position: -3.0 + scale * numbers.normal()

    with workers_of(noisy(1.0)) as workers:
        run(workers, position(1))
        with pytest.raises(ValueError, match=r"returned -\S+ and then -\S+ at the same position .*'k': 1.0.* hidden"):
            run_apart(workers, range(2, 5))
    with workers_of(noisy(1e-9)) as workers:
        run_apart(workers, range(5))
        workers.close(wait=True)
        assert (workers.counts.runs, workers.counts.checks) == (5, 1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"simulate": 3}, "simulate is a int, expected a function from a position"),
        ({"simulate": lambda: 0.0}, r"simulate does not take a position alone \(too many positional arguments\)"),
        ({"simulate": lambda position, data: 0.0}, "missing a required argument: 'data'.*functools.partial"),
        ({"template": {}}, "the position is empty"),
        ({"template": {"k": np.zeros(2, complex)}}, "the position has 'k' of dtype complex128, expected real"),
        ({"gradient": "autodiff"}, "gradient is 'autodiff', expected True where .* 'finite_differences'"),
        ({"gradient": {"z": 1.0}}, r"gradient has a step for 'z', expected names of the position: \['k', 'r'\]"),
        ({"gradient": {"k": 0.0}}, "gradient's step for 'k' is 0.0, expected a positive number"),
        ({"gradient": {"r": np.ones(3)}}, r"gradient's step for 'r' has shape \(3,\), expected a number or .*\(2,\)"),
        ({"gradient": True, "template": {"n": np.zeros(2, int)}}, "gradient is True, but 'n' holds whole numbers"),
        ({"executor": "cluster"}, "executor is 'cluster', expected 'processes', 'threads'"),
        ({"executor": object()}, r"executor is a object, expected .* client.get_executor\(\)"),
        ({"executor": Executor(), "workers": None}, "executor is a Executor that does not say .* give workers=8, say"),
        ({"workers": 0}, "workers is 0, expected how many runs are made at a time"),
        ({"workers": True}, "workers is True, expected"),
        ({"timeout": 0}, "timeout is 0, expected the seconds"),
        ({"timeout": math.inf}, "timeout is inf, expected the seconds"),
        ({"retries": -1}, "retries is -1, expected how often"),
        ({"on_error": "ignore"}, "on_error is 'ignore', expected 'raise' or 'reject'"),
        ({"simulate": threading.Lock().__enter__, "executor": None}, r"simulate does not take|cannot be sent"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(options: dict[str, Any], text: str) -> None:
    given = {"simulate": make_cubes(), "template": TEMPLATE, "executor": "threads", "workers": 2, **options}
    with pytest.raises(ValueError, match=text):
        Workers(given.pop("simulate"), given.pop("template"), **given)


@pytest.mark.parametrize("executor", [None, "processes", AtOnce()], ids=["default", "processes", "an executor"])
def test_a_function_that_cannot_be_sent_is_refused_and_told_what_to_do(executor: Any) -> None:
    lock = threading.Lock()

    def locked(position: dict) -> float:
        with lock:
            return 0.0

    text = r"simulate cannot be sent .*lock.* Open it inside of the function, or give executor='threads'"
    with pytest.raises(ValueError, match=text):
        Workers(locked, TEMPLATE, executor=executor)
    with workers_of(locked, executor="threads") as workers:
        assert run(workers, position(1)).done.all()


def test_a_module_that_a_worker_does_not_have_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("def simulate(position):\n    return 0.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here  # type: ignore[import-not-found]

    (tmp_path / "only_here.py").unlink()
    with (
        workers_of(only_here.simulate, executor="processes") as workers,
        pytest.raises(NoWorker, match=r"cannot load simulate \(ModuleNotFoundError: No module named 'only_here'\)"),
    ):
        run(workers, position(1))


def test_a_gradient_that_there_is_none_of_is_refused() -> None:
    with workers_of(make_cubes()) as workers, pytest.raises(ValueError, match="want_gradient is True, and the model"):
        workers.submit([position(1)], True)


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


def test_what_was_rejected_is_not_tried_again_another_day(tmp_path: Path) -> None:
    for tries in (1, 0):
        with workers_of(Flaky(raises, 9), memory=Memory(tmp_path / "runs"), on_error="reject") as workers:
            assert run(workers, position(1)).logdensity[0] == -np.inf
            assert workers.counts.runs == tries


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
