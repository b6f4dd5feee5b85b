"""What the tolerance that follows the rounding noise saves, and what it costs: iterations, and how near the loop is.

Run as `python -m benchmarks.tolerance --data FOLDER`. Every target of the package that is quick enough is warmed up,
with HMC at the setting that mixes best, and 256 steps of two chains are evaluated at once by Newton's method: with a
tolerance of 1e-6, as it was before, and with that by the noise.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import parsample as ps
from benchmarks.device import write_rows
from benchmarks.suite import targets
from parsample.engine import methods
from parsample.run.plan import check_job
from parsample.run.segments import Run
from parsample.run.settings import Settings
from parsample.run.sink import Memory
from parsample.run.stages import carry_out

STEPS, CHAINS = 256, 2
FIXED = 1e-6
# An ODE for every step takes too long here.
SLOW = ("lotka_volterra",)
HEADER = (
    "target", "numbers", "noise", "tolerance", "iterations at 1e-6", "iterations",
    "difference at 1e-6", "difference", "decisions that differ at 1e-6", "decisions that differ",
)  # fmt: skip
NOTE = (
    f"Newton's method over {STEPS} steps of {CHAINS} chains at once, HMC as warm-up leaves it, single precision. "
    "Iterations are those of the slowest chain, steps that the loop finished counted as one each; the largest "
    "difference is that from the sequential loop, in posterior standard deviations, with the accept decisions that "
    "fall otherwise, over all steps and chains. Where chains magnify a difference, neither tolerance keeps them "
    "together. By `python -m benchmarks.tolerance --data FOLDER`."
)


def measure(name: str, target: ps.targets.Target) -> tuple[object, ...]:
    """Return the row of a target."""
    settings = Settings(name, num_samples=STEPS, num_chains=CHAINS, method="newton", window=STEPS, max_iterations=STEPS)
    job, memory = check_job(target, settings), Memory(wants_draws=False)
    carry_out(job, memory, progress=False)
    assert memory.outcome is not None
    found = memory.outcome.adaptation
    with jax.default_matmul_precision("highest"):
        run = Run(memory.outcome.job.make, found, job.keys.chain)
        chosen = run.within_reach(job.plan)
        loop = run.segment(job.plan._replace(method=methods.Sequential(), atol=0.0, rtol=0.0), run.first, 0)[0]
        cells = []
        for plan in (job.plan._replace(atol=FIXED, rtol=FIXED), chosen):
            solved = run.segment(plan, run.first, 0)[0]
            pairs = zip(jax.tree.leaves(solved.states), jax.tree.leaves(loop.states), strict=True)
            apart = max(float(jnp.abs(one - other).max()) for one, other in pairs)
            decisions = jnp.sum(solved.details.info["is_accepted"] != loop.details.info["is_accepted"])
            cells.append((int(np.max(solved.iterations + solved.finished)), f"{apart:.1e}", int(decisions)))
    both = [cell for pair in zip(*cells, strict=True) for cell in pair]
    return name, run.positions.shape[1], f"{chosen.noise:.1e}", f"{chosen.atol:.1e}", *both


def rows(data: Path | None, only: str) -> Iterator[tuple[object, ...]]:
    """Yield the row of every target."""
    for name, target in targets(data):
        if only in name and name not in SLOW:
            yield measure(name, target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", metavar="FOLDER", type=Path, help="the data that do not ship; else without them")
    parser.add_argument("--only", metavar="TEXT", default="", help="targets with this in their name; saves nothing")
    given = parser.parse_args()
    write_rows(
        "tolerance", "The tolerance by the rounding noise", NOTE, HEADER, rows(given.data, given.only), not given.only
    )
