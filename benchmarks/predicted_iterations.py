"""Iterations that `parsample.diagnose` foresees, against those that happen: every target with MALA and ULA.

    python -m benchmarks.predicted_iterations --data FOLDER

Each chain runs in the coordinates and, for MALA, near the step size that a short warm-up finds. Iterations do
not depend on the machine's speed.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import parsample as ps
from benchmarks.device import write_rows
from benchmarks.suite import targets
from parsample.warmup.adapt import adapt
from parsample.warmup.starts import starts

HEADER = ("target", "sampler", "exponent", "method", "linear", "foreseen", "happened", "ratio")
LIMIT = 256
# MALA steps by this share of what warm-up finds: chains that are worth evaluating in parallel.
SHARE = 0.25


def warmed_chain(
    target: ps.targets.Target, sampler_class: type[ps.samplers.Sampler], steps: int
) -> tuple[ps.samplers.Sampler, jax.Array, Any]:
    """Return a sampler as warm-up leaves it, a start and inputs, in the coordinates that warm-up finds."""
    keys = jax.random.split(jax.random.key(0), 2)
    found = adapt(target, sampler_class, starts(target, keys), keys, 800)
    share = SHARE if sampler_class.target_acceptance is not None else 1.0
    sampler = sampler_class(found.density, found.step_size * share)
    start = found.density.inverse(found.last[0])
    return sampler, start, sampler.draw_inputs(jax.random.key(1), steps, start)


def compare(target: ps.targets.Target, sampler_class: type[ps.samplers.Sampler], steps: int) -> list[list[Any]]:
    """Return one row a method: what is foreseen, what happens, and their ratio (empty where both give up)."""
    sampler, start, inputs = warmed_chain(target, sampler_class, steps)
    diagnosis = ps.diagnose(sampler.transition, start, inputs, window=steps, max_iterations=LIMIT)
    rows = []
    for row in diagnosis.forecasts:
        method: Any = row.method
        if method == "scaled_identity":
            method = ps.methods.ScaledIdentity(float(np.clip(diagnosis.scale, -1, 1)))
        solution = ps.evaluate(
            sampler.transition, start, inputs, method=method, max_iterations=LIMIT, throw=False
        )  # fmt: skip
        happened, finished = int(solution.iterations), bool(solution.converged)
        ratio = f"{row.iterations / happened:.2f}" if row.finished or finished else ""
        mark = lambda count, ok: f"{count}" if ok else f"> {count}"  # noqa: E731
        rows.append(
            [f"{diagnosis.exponent:.3f}", row.method, row.linear_iterations, mark(row.iterations, row.finished)]
        )
        rows[-1] += [mark(happened, finished), ratio]
    return rows


def compared(data: Path | None, steps: int) -> Iterator[list[Any]]:
    """Yield the rows, target by target; those whose data are not given are left out."""
    for name, target in targets(data):
        for sampler in (ps.samplers.ULA, ps.samplers.MALA):
            yield from ([name, sampler.__name__, *row] for row in compare(target, sampler, steps))
            # Programs are kept in memory maps, of which a process may have 65,530.
            jax.clear_caches()


def spread(rows: Sequence[Sequence[Any]]) -> str:
    """Return the note above the table: how the forecasts did, method by method."""
    ratios = {row[3]: [float(other[-1]) for other in rows if other[3] == row[3] and other[-1]] for row in rows}
    found = "; ".join(
        f"{method}: median {np.median(found):.2f}, from {min(found):.2f} to {max(found):.2f} ({len(found)} chains)"
        for method, found in ratios.items()
        if found
    )
    return (
        "Two chains are warmed up by 800 steps, and one is evaluated over the full window (atol 1e-4, rtol 1e-3, "
        f"float32); MALA at {SHARE} of the step size that warm-up finds. At most {LIMIT} iterations, foreseen or run. "
        f"`linear` is the forecast to first order. Foreseen / happened, chains where both give up left out: {found}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=512)
    parser.add_argument("--data", type=Path, help="folder of data that do not ship, for their rows")
    options = parser.parse_args()
    title = f"Iterations foreseen by `parsample.diagnose` and iterations that happened, {options.steps} steps"
    write_rows("predicted_iterations", title, spread, HEADER, compared(options.data, options.steps))


if __name__ == "__main__":
    main()
