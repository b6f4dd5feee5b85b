"""Models outside of JAX: how much sooner a chain is there than by the loop, for models that sleep and for a real one.

    python -m benchmarks.external [--only TEXT]

A sleeping model takes no core, so that two cores suffice for many workers (threads). Warm-up runs without sleeping; the
wall clock is that of the sampling phase alone, compiling included, of one chain. The loop's is measured too, on fewer
steps (`LOOP`), and scaled to as many.
"""

import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

import parsample as ps
from benchmarks.device import parse_only, write_rows
from parsample.results.trace import as_datatree
from parsample.workers.pool import Workers

# What a run takes, and what it takes in warm-up, which is not looked at.
SECONDS, BEFORE = 0.1, 0.003
STEPS, LOOP, WARMUP = 1024, 64, 1000
# Of a chain that so many workers are worth having for.
MANY_WORKERS, MANY_STEPS = 512, 8192
# Steps of the run by Dask, and how often it is made.
FEW, REPEATS = 192, 5
HEADER = ("case", "workers", "method", "steps", "runs", "rounds", "busy", "seconds", "loop's seconds", "times", "goal")


class Logistic:
    """Logistic regression on made-up data, by NumPy. It sleeps once it is told to."""

    def __init__(self, dim: int, rows: int = 500, has_gradient: bool = False):
        rng = np.random.default_rng(0)
        self.features = rng.normal(size=(rows, dim))
        odds = 1 / (1 + np.exp(-self.features @ rng.normal(size=dim) / 2))
        self.labels, self.has_gradient = (rng.uniform(size=rows) < odds).astype(float), has_gradient
        self.seconds = 0.0

    def __call__(self, position: dict[str, np.ndarray]) -> Any:
        if self.seconds:  # A sleep of no length, too, hands over to another thread.
            time.sleep(self.seconds)
        x = position["x"]
        scores = self.features @ x
        value = float(self.labels @ scores - np.logaddexp(0, scores).sum() - x @ x / 2)
        if not self.has_gradient:
            return value
        return value, {"x": self.features.T @ (self.labels - 1 / (1 + np.exp(-scores))) - x}


def sampled(target: Any, model: Any, steps: int, **options: Any) -> tuple[int, int, float, float]:
    """Sample a chain whose model sleeps from the end of warm-up on; return what follows from there.

    Runs, rounds, seconds, and the share of these that the workers were busy.
    """
    marks: list[tuple[int, int, float]] = []

    def watch(event: Any) -> None:
        counts = target.workers.counts
        if event.stage == "warm-up" and event.done == event.total:
            model.seconds = SECONDS
            marks.append((counts.runs, counts.rounds, counts.busy))

    model.seconds = BEFORE
    trace = ps.sample(target, num_warmup=WARMUP, num_samples=steps, num_chains=1, progress=watch, **options)
    counts, (runs, rounds, busy) = target.workers.counts, marks[-1]
    seconds = ps.read_verdict(trace).run_seconds
    return counts.runs - runs, counts.rounds - rounds, seconds, (counts.busy - busy) / (seconds * target.workers.size)


def asleep(
    name: str, dim: int, has_gradient: bool, workers: int, method: str, goal: str, loop: dict, steps: int = STEPS
) -> list[Any]:
    """Return the row of a sleeping model."""
    model = Logistic(dim, has_gradient=has_gradient)

    def target(size: int) -> Any:
        start = {"x": np.zeros(dim)}
        return ps.targets.External(model, start, executor="threads", workers=size, gradient=has_gradient or None)

    if name not in loop:
        loop[name] = sampled(target(1), model, LOOP, method="sequential")[2] / LOOP
    runs, rounds, seconds, busy = sampled(target(workers), model, steps, method=method)
    whole = loop[name] * steps
    return [name, workers, method, steps, runs, rounds, f"{busy:.0%}", f"{seconds:.1f}", f"{whole:.1f}",
            f"{whole / seconds:.1f}", goal]  # fmt: skip


# Calls of the equations that a solution takes at most: the first steps of a chain may go where it would take hours.
MOST = 100_000
TIMES = np.linspace(0, 20, 21)
TRUE = np.array([0.55, 0.028, 0.84, 0.026])


def populations(rates: np.ndarray) -> np.ndarray:
    """Hares and lynxes, by a solver that is told to be exact."""

    calls = itertools.count()

    def change(_: float, z: np.ndarray) -> list[float]:
        if next(calls) > MOST:
            raise OverflowError("these rates are absurd")
        return [z[0] * (rates[0] - rates[1] * z[1]), z[1] * (rates[3] * z[0] - rates[2])]

    return solve_ivp(
        change, (0, 20), [30.0, 4.0], method="LSODA", t_eval=TIMES, rtol=1e-12, atol=1e-12, max_step=0.01
    ).y


OBSERVED = populations(TRUE) * np.exp(0.1 * np.random.default_rng(1).normal(size=(2, len(TIMES))))


def predator(position: dict[str, np.ndarray]) -> float:
    """The log density of four rates, as logarithms about the true ones, given noisy counts."""
    try:
        with np.errstate(all="ignore"):
            found = populations(TRUE * np.exp(position["log_rates"]))
            misfit = (np.log(OBSERVED) - np.log(found)) / 0.1
    except (OverflowError, ValueError):  # ValueError is the solver's, where numbers have become infinite
        return -np.inf
    if not np.isfinite(misfit).all():
        return -np.inf
    return float(-0.5 * np.sum(misfit**2) - 0.5 * np.sum(position["log_rates"] ** 2))


def solver(goal: str) -> list[Any]:
    """Return the row of a real solver: all of the run, warm-up included, by the loop and by two processes."""

    def run(**options: Any) -> tuple[Any, Any, float]:
        target = ps.targets.External(predator, {"log_rates": np.zeros(4)}, workers=2)
        settings: dict[str, Any] = {"num_warmup": 160, "num_samples": 256, "num_chains": 1, "progress": False}
        trace = ps.sample(target, start={"log_rates": np.zeros(4)}, **settings, **options)
        return trace, target.workers.counts, ps.read_verdict(trace).run_seconds

    trace, counts, seconds = run()
    other, _, whole = run(method="sequential")
    one, two = (np.asarray(as_datatree(row)["posterior"]["log_rates"]) for row in (trace, other))
    verdict = ps.read_verdict(trace)
    busy = counts.busy / (counts.busy + counts.idle)
    words = "same draws" if np.array_equal(one, two) else f"differ by {np.abs(one - two).max():.1e}"
    return [f"Lotka-Volterra by scipy ({words})", 2, "processes", 256, "", verdict.iterations, f"{busy:.0%}",
            f"{seconds:.1f}", f"{whole:.1f}", f"{whole / seconds:.2f}", goal]  # fmt: skip


def overhead(goal: str) -> list[Any]:
    """Return the row of a model that returns at once: milliseconds that a round of 128 runs takes beside the model."""
    model = Logistic(20, rows=10)
    target = ps.targets.External(model, {"x": np.zeros(20)}, executor="threads", workers=128)
    trace = ps.sample(target, num_warmup=WARMUP, num_samples=4096, num_chains=1, progress=False)
    verdict, began = ps.read_verdict(trace), time.perf_counter()
    workers = Workers(model, {"x": np.zeros(20)}, executor="threads", workers=128)
    for round in range(20):
        rng = np.random.default_rng(round)
        workers.submit([{"x": row} for row in rng.normal(size=(128, 20))]).wait_all()
    alone = (time.perf_counter() - began) / 20
    each = verdict.run_seconds / max(verdict.iterations, 1)
    return ["a round, of a model that returns at once", 128, "surrogate", 4096, "", verdict.iterations, "",
            f"{1000 * each:.1f} ms a round ({1000 * alone:.1f} ms of it to send 128 runs)", "", "", goal]  # fmt: skip


def dask(goal: str) -> list[Any]:
    """Return the row of two Dask workers beside two processes of our own, a run of theirs in turns."""
    from distributed import Client, LocalCluster

    model = Logistic(20)
    model.seconds = SECONDS
    start, times, counts = {"x": np.zeros(20)}, {"dask": [], "processes": []}, {}  # type: ignore[var-annotated]
    options = {"n_workers": 2, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        client.wait_for_workers(2)
        for turn in range(REPEATS + 1):
            for name, found in times.items():
                executor = client.get_executor() if name == "dask" else "processes"
                target = ps.targets.External(model, start, executor=executor, workers=2)
                trace = ps.sample(
                    target, num_warmup=0, step_size=0.05, num_samples=FEW, num_chains=1, seed=turn, progress=False
                )
                if turn:  # The first compiles.
                    found.append(ps.read_verdict(trace).run_seconds)
                counts[name] = target.workers.counts
    seconds, ours = (statistics.median(found) for found in times.values())
    last = counts["dask"]
    busy, ratio = last.busy / (last.busy + last.idle), ours / seconds
    return [f"random walk, d = 20, by Dask; the loop's seconds are those of two processes, medians of {REPEATS}", 2,
            "surrogate", FEW, last.runs, last.rounds, f"{busy:.0%}", f"{seconds:.1f}", f"{ours:.1f}", f"{ratio:.2f}",
            goal]  # fmt: skip


def rows(only: str) -> Iterator[list[Any]]:
    """Make the rows, one after the other."""
    loop: dict[str, float] = {}
    walk, drift = "random walk, d = 20", "MALA with gradients, d = 25"
    cases: list[tuple[str, Callable[[], list[Any]]]] = []
    for workers, goal in ((8, "4"), (32, "8"), (128, "13")):
        for method in ("picard", "surrogate"):
            make = functools.partial(asleep, walk, 20, False, workers, method, goal, loop)
            cases.append((f"{walk} {workers} {method}", make))
    for workers, steps, goal in ((64, STEPS, "15"), (MANY_WORKERS, STEPS, "60"), (MANY_WORKERS, MANY_STEPS, "60")):
        make = functools.partial(asleep, drift, 25, True, workers, "surrogate", goal, loop, steps)
        cases.append((f"{drift} {workers} {steps}", make))
    cases += [("solver", functools.partial(solver, "1.6")), ("overhead", functools.partial(overhead, "10 ms"))]
    cases += [("dask", functools.partial(dask, "0.87"))]
    for name, case in cases:
        if only in name:
            yield case()


def main() -> None:
    only = parse_only("Models outside of JAX.")
    write_rows(
        "external",
        "Models outside of JAX: how much sooner a chain is there than by the loop",
        f"Logistic regression on 500 rows by NumPy, {SECONDS * 1000:.0f} ms a run by sleeping, on threads; one chain, "
        f"the sampling phase after {WARMUP:,} steps of warm-up, compiling included. The loop's seconds are those of "
        f"{LOOP} steps, scaled. 'picard' guesses nothing; 'surrogate', the default, foresees decisions by a polynomial "
        "that is fitted to the runs, of the second order, or with gradients of the third. Times: the loop's seconds "
        "over these. The solver is scipy's, in worker processes.",
        HEADER,
        rows(only),
        save=not only,
    )


if __name__ == "__main__":
    main()
