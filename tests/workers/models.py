"""Functions and workers that the tests of workers share."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

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


class Cluster(Executor):
    """An executor whose one thread brings what returns, and answers how many cores there are, as Dask's does."""

    def __init__(self) -> None:
        self._client = self
        self._loop, self._worker = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self.asked, self.unanswered = 0, 0

    def submit(self, function: Callable, /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()

        def bring(done: Future) -> None:
            self._loop.submit(future.set_result, done.result())

        self._worker.submit(function, *args, **kwargs).add_done_callback(bring)
        return future

    def ncores(self) -> dict[str, int]:
        self.asked += 1
        try:
            return self._loop.submit(lambda: {"here": 1}).result(timeout=2)
        except TimeoutError:
            self.unanswered += 1
            raise
