"""Where runs are made: worker processes of our own, or anybody's `concurrent.futures.Executor`."""

import atexit
import contextlib
import dataclasses
import functools
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import cloudpickle

from parsample.workers import errors
from parsample.workers.child import PROGRAM, receive, send
from parsample.workers.errors import NoWorker, WorkerDied
from parsample.workers.model import Answer, Model, Position, cores

# Positions that a vectorized function is given at a time, where nobody says.
BATCH = 128
# Libraries of linear algebra take all cores each, unless they are told; workers that share the cores would wait for
# each other.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Seconds that runs wait for a cluster that has no worker at the moment.
ALONE = 300.0
# What an executor may be.
KINDS = "'processes', 'threads', a concurrent.futures.Executor, or None for processes"


@runtime_checkable
class Lanes(Protocol):
    """As many runs at a time as there are lanes.

    Attributes:
        size: how many.
    """

    size: int

    def submit(self, positions: list[Position], begun: Callable[[], None]) -> "Future[list[Answer]]":
        """Run the model, in one lane; at most `size` at a time. `begun` is called when it begins.

        Raises:
            NoWorker: there is none, and there will be none.
        """
        ...

    def release(self, future: "Future[list[Answer]]") -> None:
        """Take back the lane of a run that is over."""
        ...

    def stop(self, future: "Future[list[Answer]]") -> None:
        """End a run that has begun, if that can be done."""
        ...

    def check(self) -> None:
        """Look whether anybody is there, while runs are waited for.

        Raises:
            NoWorker: nobody has been for long.
        """
        ...

    def close(self, wait: bool) -> None:
        """Let go of the workers; those of our own are ended, after what they are at where `wait` says so."""
        ...


class ProcessLanes:
    """Worker processes of our own: one that dies or hangs is started anew, and the others do not notice."""

    def __init__(self, model: Model, size: int):
        """Pack the model; a process starts when it has something to do."""
        self.size = size
        self._idle = [_Child(pack(model), size) for _ in range(size)]
        self._children = list(self._idle)
        self._busy: dict[Future[list[Answer]], _Child] = {}
        self._lock = threading.Lock()
        # A program that ends does not wait for its runs; nor do they go on without it.
        atexit.register(self._kill)

    def submit(self, positions: list[Position], begun: Callable[[], None]) -> "Future[list[Answer]]":
        """Run the model in a process that has nothing to do."""
        with self._lock:
            child = self._idle.pop()
            future: Future[list[Answer]] = Future()
            self._busy[future] = child
        # A thread that does nothing but wait, and is not waited for when the program ends.
        threading.Thread(target=_settle, args=(future, child.run, positions, begun), daemon=True).start()
        return future

    def release(self, future: "Future[list[Answer]]") -> None:
        """Take a process back whose run is over."""
        with self._lock:
            self._idle.append(self._busy.pop(future))

    def stop(self, future: "Future[list[Answer]]") -> None:
        """Kill the process."""
        with self._lock:
            child = self._busy.get(future)
        if child is not None:
            child.kill()

    def check(self) -> None:
        """Do nothing: processes that end are started anew."""

    def close(self, wait: bool) -> None:
        """End the processes."""
        atexit.unregister(self._kill)
        with self._lock:
            busy = list(self._busy)
        try:
            if wait:
                futures.wait(busy)
        finally:
            self._kill()
            futures.wait(busy)
            for child in self._children:
                child.end()

    def _kill(self) -> None:
        for child in self._children:
            child.kill()


def _settle(future: Future, function: Callable, *arguments: Any) -> None:
    """Let a future have what a function returns or raises."""
    try:
        future.set_result(function(*arguments))
    except BaseException as error:
        future.set_exception(error)


class _Child:
    """One worker process, which is started where it is needed."""

    def __init__(self, packed: bytes, siblings: int):
        self._packed, self._siblings = packed, siblings
        self._process: subprocess.Popen[bytes] | None = None
        self._is_new, self._is_killed = True, False

    def run(self, positions: list[Position], begun: Callable[[], None]) -> list[Answer]:
        if self._process is not None and (self._is_killed or self._process.poll() is not None):
            self.end()
        if self._process is None:
            self._process, self._is_new, self._is_killed = self._spawn(), True, False
        process = self._process
        try:
            if self._is_new:
                self._greet(process)
            begun()
            send(process.stdin, cloudpickle.dumps(positions))  # type: ignore[arg-type]
            return cloudpickle.loads(receive(process.stdout))  # type: ignore[arg-type]
        except (EOFError, OSError) as error:
            code = self.end()
            ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
            raise WorkerDied(f"the worker process that ran it {ended}") from error

    def _spawn(self) -> "subprocess.Popen[bytes]":
        share = str(max(1, cores() // self._siblings))
        environment = {**dict.fromkeys(THREADS, share), **os.environ}
        # In a session of its own: Ctrl-C is for the process that people see, and what a model starts ends with it.
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )

    def _greet(self, process: "subprocess.Popen[bytes]") -> None:
        """Hand over the model."""
        self._is_new = False
        send(process.stdin, self._packed)  # type: ignore[arg-type]
        complaint = receive(process.stdout).decode()  # type: ignore[arg-type]
        if complaint:
            self.end()
            raise NoWorker(
                f"a worker process cannot load simulate ({complaint}); what it imports must be importable there: put "
                "that in a module beside your script, or give executor='threads'."
            )

    def kill(self) -> None:
        """End the process, and what it has started; from any thread."""
        self._is_killed = True
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                if hasattr(os, "killpg"):
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()

    def end(self) -> int:
        """Let go of a process that has ended, or is about to, and return its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        with contextlib.suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]
        process.stdout.close()  # type: ignore[union-attr]
        return process.wait()


class ExecutorLanes:
    """Somebody's executor, or threads of our own. A run that has begun there cannot be ended from here."""

    def __init__(self, model: Model, executor: Executor, size: int, *, owned: bool = False):
        """Pack the model, unless it stays in this process."""
        self.size, self._executor, self._owned = size, executor, owned
        self._alone_since = time.monotonic()
        if is_here(executor):
            self._function: Callable[[list[Position]], list[Answer]] = model
        else:
            packed = pack(model)
            self._function = functools.partial(run_packed, hashlib.sha256(packed).digest(), packed)

    def submit(self, positions: list[Position], begun: Callable[[], None]) -> "Future[list[Answer]]":
        """Hand over to the executor."""
        try:
            future = self._executor.submit(self._function, positions)
        except Exception as error:
            raise NoWorker(
                f"the executor takes no more runs ({type(error).__name__}: {error}): it was shut down, or its workers "
                "died. Keep it open until parsample.sample has returned; without executor=, parsample starts worker "
                "processes of its own, and starts them anew when they die."
            ) from error
        begun()
        return future

    def release(self, future: "Future[list[Answer]]") -> None:
        """Do nothing: the executor knows."""

    def stop(self, future: "Future[list[Answer]]") -> None:
        """Do nothing: the model leaves a call behind itself."""

    def check(self) -> None:
        """Look whether a cluster has workers: without any it would take runs, and never return."""
        now = time.monotonic()
        if _count_cores(self._executor) != 0:
            self._alone_since = now
        elif now - self._alone_since >= ALONE:
            raise errors.deserted(ALONE)

    def close(self, wait: bool) -> None:
        """Let the executor be, unless it is ours."""
        if self._owned:
            self._executor.shutdown(wait=wait)


_models: dict[bytes, Any] = {}


def run_packed(digest: bytes, packed: bytes, positions: list[Position]) -> list[Answer]:
    """Run a packed model, on somebody's worker, which unpacks it once."""
    if digest not in _models:
        try:
            _models[digest] = cloudpickle.loads(packed)
        except Exception as error:
            text = (
                f"a worker cannot load simulate ({type(error).__name__}: {error}); install there what it imports, in "
                "the same versions as here."
            )
            return [Answer(float("nan"), mistake=text)] * len(positions)
    return _models[digest](positions)


def pack(model: Model) -> bytes:
    """Return a model as bytes, whether its function stands in a module, a script or a notebook.

    Raises:
        ValueError: it holds something that cannot be sent.
    """
    try:
        return cloudpickle.dumps(model)
    except Exception as error:
        raise ValueError(
            f"simulate cannot be sent to another process ({type(error).__name__}: {error}): it holds something that "
            "lives in this one alone, such as an open file, a connection or a lock. Open it inside of the function, or "
            "give executor='threads'."
        ) from error


def make_lanes(model: Model, executor: Executor | str | None, size: int, timeout: float | None) -> Lanes:
    """Return the lanes of an executor, which stop a run that takes too long, or leave it behind where they cannot."""
    if executor in (None, "processes"):
        return ProcessLanes(model, size)
    model = dataclasses.replace(model, timeout=timeout)
    if executor == "threads":
        threads = ThreadPoolExecutor(size, thread_name_prefix="parsample-worker")
        return ExecutorLanes(model, threads, size, owned=True)
    assert isinstance(executor, Executor)
    return ExecutorLanes(model, executor, size)


def is_here(executor: Any) -> bool:
    """Whether an executor runs in this process, so that nothing has to be sent."""
    return executor == "threads" or isinstance(executor, ThreadPoolExecutor)


def check_executor(executor: Any) -> None:
    """Refuse what is no executor.

    Raises:
        ValueError: it is none.
    """
    if executor not in (None, "processes", "threads") and not isinstance(executor, Executor):
        given = repr(executor) if isinstance(executor, str) else f"a {type(executor).__name__}"
        raise ValueError(f"executor is {given}, expected {KINDS}; that of a Dask client is client.get_executor().")


def count_workers(executor: Any) -> int:
    """Return how many runs an executor makes at a time.

    Raises:
        ValueError: it has none, or does not say.
    """
    if isinstance(executor, str | None):
        return cores()
    found = _count_cores(executor)
    for name in ("num_workers", "_max_workers"):  # of mpi4py; of the standard library
        found = getattr(executor, name, None) if found is None else found
    if isinstance(found, int) and found > 0:
        return found
    raise ValueError(
        f"executor is a {type(executor).__name__} "
        + (
            "that has no worker; wait for them (client.wait_for_workers(8)), or "
            if found == 0
            else "that does not say how many runs it makes at a time; "
        )
        + "give workers=8, say."
    )


def _count_cores(executor: Any) -> int | None:
    """Return how many cores a Dask cluster has at the moment, None for another executor."""
    client = getattr(executor, "_client", None)
    if client is None:
        return None
    try:
        return sum(client.ncores().values())
    except Exception:  # A client that was closed says so in several ways.
        return 0


def count_lanes(executor: Any, workers: int | None, vectorized: bool) -> tuple[int, int]:
    """Return how many calls are under way at a time, and how many runs are."""
    if vectorized:
        lanes = 1 if executor == "threads" else count_workers(executor)
        size = workers or BATCH * lanes
        return min(lanes, size), size
    size = workers or count_workers(executor)
    return size, size
