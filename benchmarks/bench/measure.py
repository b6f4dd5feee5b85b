"""Runs in turns, timed without compiling, and what their draws are worth by the same code for all."""

import functools
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import parsample as ps
from benchmarks.bench.cases import Case
from benchmarks.bench.opponents import AUTO, LOOP, OPPONENTS, Outcome, Run, Size, Skip
from parsample.results.judgement import GOOD_ESS, GOOD_RHAT
from parsample.results.summary import worst
from parsample.results.trace import build_trace

Row = dict[str, Any]
# Warm runs of an opponent on a target, and seconds that they may take: it is repeated as often as fits, once at least.
REPEATS, BUDGET = 9, 8.0
# Of a variable with more numbers than this so many are judged, evenly spaced: ArviZ takes 20 ms each.
MOST = 200
# A draw that is so many standard deviations from the loop's is one of another chain.
PARTED = 0.05
# Those that evaluate one chain: what they draw from a seed is to be the same.
SAME_CHAIN = (AUTO, LOOP, "ours, quasi-Newton, window 16", "ours, Newton, window 64")


class Compiling:
    """When JAX was compiling, as it reports: tracing, lowering, and the compiler itself."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.spans: list[tuple[float, float]] = []

    def hear(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith("/jax/core/compile/"):
            end = time.perf_counter()
            # Tracing a function reports those that it calls first: what lies within is counted once.
            while self.spans and self.spans[-1][0] >= end - duration_secs:
                self.spans.pop()
            self.spans.append((end - duration_secs, end))

    def since(self, start: float) -> float:
        """Return the seconds of compiling since then."""
        return sum(end - begin for begin, end in self.spans if begin >= start)


class Meter:
    """Times calls, and takes out what they compile."""

    def __init__(self) -> None:
        """Listen to JAX."""
        self.compiling = Compiling()
        jax.monitoring.register_event_duration_secs_listener(self.compiling.hear)

    def time(self, run: Run, seed: int) -> tuple[float, float, Outcome]:
        """Return the seconds of a call, those of them that went into compiling, and the outcome."""
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            finish = run(seed)
        seconds = time.perf_counter() - start
        return seconds, self.compiling.since(start), finish()


def judged(found: Outcome) -> Row:
    """Return what the draws of a run are worth, and their `summary`."""
    finite = all(np.isfinite(value).all() for value in found.draws.values())
    summary = ps.summarize(build_trace({"posterior": {name: few(value) for name, value in found.draws.items()}}))
    least = worst(summary)
    effective = min(least.ess_bulk, least.ess_tail)
    good = finite and least.r_hat < GOOD_RHAT and effective > GOOD_ESS
    row = {"ess": float(effective) if finite else 0.0, "r_hat": float(least.r_hat), "good": bool(good)}
    counts = {name: getattr(found, name) for name in ("gradients", "sequence", "divergences")}
    return {**row, **counts, "summary": summary}


def few(values: np.ndarray) -> np.ndarray:
    """Return the numbers of a variable that are judged; leading axes (chain, draw)."""
    flat = values.reshape(*values.shape[:2], -1)
    return values if flat.shape[2] <= MOST else flat[..., np.linspace(0, flat.shape[2] - 1, MOST).astype(int)]


def standard_errors(one: Any, other: Any) -> float:
    """Return the largest difference of two summaries' means, in combined Monte Carlo standard errors."""
    error = np.hypot(one["mcse_mean"], other["mcse_mean"].reindex(one.index))
    apart = np.abs(one["mean"] - other["mean"].reindex(one.index)) / error.where(error > 0)
    return float(apart.max())


def apart(draws: Mapping[str, np.ndarray], loop: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Compare a chain with the loop's.

    Returns:
        The largest difference in the loop's standard deviations, and the share of draws that it leaves out: those of
        which it is beyond `PARTED`, since an accept decision that hangs on rounding makes another chain.
    """
    sds = {name: value.std(axis=(0, 1)) for name, value in loop.items()}
    found = np.zeros(next(iter(loop.values())).shape[:2])
    for name, value in loop.items():
        away = np.abs(draws[name] - value) / np.where(sds[name] > 0, sds[name], 1.0)
        found = np.maximum(found, away.reshape(*found.shape, -1).max(-1))
    has_parted = ~(found < PARTED)
    return float(found[~has_parted].max(initial=0.0)), float(has_parted.mean())


class Bench:
    """Everybody on one posterior.

    Args:
        case: the posterior.
        size: of a run.
        names: of the opponents.
        meter: that times.
    """

    def __init__(self, case: Case, size: Size, names: Sequence[str], meter: Meter):
        """Prepare the calls; who cannot be called has a row that says why."""
        self.meter = meter
        self.rows: dict[str, Row] = {name: {"opponent": name, "runs": []} for name in names}
        self.runs: dict[str, Run] = {}
        for name in names:
            run = self._guarded(name, functools.partial(OPPONENTS[name], case, size))
            self.runs |= {} if run is None else {name: run}

    def measure(self, repeats: int, budget: float = BUDGET) -> list[Row]:
        """Call everybody once, compiling included, then in turns; return the rows."""
        draws: dict[str, Mapping[str, np.ndarray]] = {}
        summaries: dict[str, Any] = {}
        left = {}
        for name in list(self.runs):
            found = self._call(name, 0)
            if found is not None:
                outcome, first = found
                self.rows[name] |= {"first": first, **outcome.more}
                left[name] = int(np.clip(budget / (first["seconds"] - first["compiling"]), 1, repeats))
                draws |= {name: outcome.draws} if name in SAME_CHAIN else {}
        for repeat in range(1, repeats + 1):
            for name in [name for name, count in left.items() if count >= repeat and name in self.runs]:
                found = self._call(name, repeat)
                if found is not None:
                    self.rows[name]["runs"].append(found[1])
                    summaries[name] = found[1].pop("summary")
        for name in draws if LOOP in draws else ():
            self.rows[name] |= dict(zip(("difference", "parted"), apart(draws[name], draws[LOOP]), strict=True))
        for name in summaries if LOOP in summaries else ():
            self.rows[name]["z"] = standard_errors(summaries[name], summaries[LOOP])
        return [self._with_medians(row) for row in self.rows.values()]

    def _call(self, name: str, seed: int) -> tuple[Outcome, Row] | None:
        def call() -> tuple[Outcome, Row]:
            seconds, compiling, found = self.meter.time(self.runs[name], seed)
            return found, {"seconds": seconds, "compiling": compiling, **judged(found)}

        found = self._guarded(name, call)
        if found is not None and seed == 0:
            found[1].pop("summary")
        return found

    def _guarded(self, name: str, call: Callable[[], Any]) -> Any:
        """Call, and make a row of an error, so that the others go on."""
        try:
            return call()
        except Skip as reason:
            self.rows[name]["skipped"] = str(reason)
        except Exception as error:
            self.rows[name]["error"] = f"{type(error).__name__}: {error}"[:500]
        self.runs.pop(name, None)
        return None

    @staticmethod
    def _with_medians(row: Row) -> Row:
        """Add what the table is made of: medians of the warm runs, and the first call as a user waits for it."""
        if not row["runs"]:
            return row
        median = {
            name: statistics.median(run[name] for run in row["runs"])
            for name in ("ess", "gradients", "sequence", "divergences", "r_hat")
        }
        seconds = [run["seconds"] - run["compiling"] for run in row["runs"]]
        rates = [run["ess"] / time for run, time in zip(row["runs"], seconds, strict=True)]
        return row | {
            **median,
            "seconds": statistics.median(seconds),
            "rate": statistics.median(rates),
            "rate_in_total": row["first"]["ess"] / row["first"]["seconds"],
            "rate_per_gradient": statistics.median(run["ess"] / run["gradients"] for run in row["runs"]),
            "good": statistics.median(run["good"] for run in row["runs"]) > 0.5,
        }
