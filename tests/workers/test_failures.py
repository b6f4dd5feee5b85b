"""Workers: functions that misbehave, workers that die, and what cannot be run at all."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parsample.workers import dispatch, lanes, model
from parsample.workers.errors import NoWorker, SimulationError
from parsample.workers.memory import Memory
from parsample.workers.pool import Workers
from tests.workers.models import TEMPLATE, AtOnce, make_cubes, position, run, run_apart, workers_of


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
    monkeypatch.setattr(dispatch, "PAUSE", 0.05)
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


def test_what_was_rejected_is_not_tried_again_another_day(tmp_path: Path) -> None:
    for tries in (1, 0):
        with workers_of(Flaky(raises, 9), memory=Memory(tmp_path / "runs"), on_error="reject") as workers:
            assert run(workers, position(1)).logdensity[0] == -np.inf
            assert workers.counts.runs == tries
