"""What ends a run on workers, and what it says."""

from pathlib import Path

NO_DIFFERENCE = (
    "no difference can be taken, since on both sides of some number the runs failed or are outside of the support; "
    "give shorter steps, such as gradient={'k': 1e-6}"
)


class SimulationError(RuntimeError):
    """A run that failed, as often as it was tried."""


class WorkerDied(RuntimeError):
    """A worker that ended in the middle of a run."""


class NoWorker(RuntimeError):
    """Nobody is there to run anything."""


def with_whereabouts(error: Exception, path: Path | None) -> Exception:
    """Return an error with a sentence on where finished runs are, unless it is a mistake of the function."""
    if not isinstance(error, SimulationError | NoWorker):
        return error
    kept = f"in '{path}'" if path is not None else "as long as this target is; with a store they are kept for good"
    error.args = (f"{error} Finished runs are kept {kept}.",)
    return error


class Mistake(ValueError):
    """A function that does not do what it has to, wherever it is called."""


def failed(where: str, why: str, attempts: int) -> SimulationError:
    """Return the error of a run that failed."""
    times = "" if attempts < 2 else f" (tried {attempts} times)"
    return SimulationError(
        f"a run failed{times} at {where}: {why.rstrip('. ')}. Mend that and go on; or give retries=2 to try "
        "again, or on_error='reject' for such positions to count as outside of the support."
    )


def too_long(timeout: float) -> str:
    """Say why a run failed that was given up."""
    return f"it took longer than timeout={timeout:g} seconds"


def all_hang(count: int, timeout: float) -> str:
    """Say that a process has too many runs that cannot be ended."""
    return (
        f"no worker is left: {count} runs in one process took longer than timeout={timeout:g} seconds, and cannot "
        f"be ended there. Leave executor out: worker processes of our own are ended and started anew; or give a "
        "longer timeout."
    )


def deserted(seconds: float) -> NoWorker:
    """Return the error of a cluster without workers."""
    return NoWorker(
        f"no worker is left: the cluster of this executor has had none for {seconds:g} seconds. Start workers, "
        "and go on."
    )


def is_random(where: str, first: float, second: float) -> Mistake:
    """Return the error of a function that returns another number at the same position."""
    return Mistake(
        f"simulate returned {first!r} and then {second!r} at the same position {where}: it depends on something "
        "hidden, such as a random state, a counter or a file that it changes. Make it a function of the position "
        "alone: take a fixed seed inside of it, and start every solve from the same point."
    )
