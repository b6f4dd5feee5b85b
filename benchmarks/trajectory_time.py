"""How long a trajectory of HMC should be, in the coordinates that warm-up finds.

    python -m benchmarks.trajectory_time

Effective draws a gradient of the loop with warm-up choosing the leapfrog steps for several trajectory times.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

import parsample as ps
from benchmarks.device import write_rows
from benchmarks.suite import targets
from benchmarks.warmup import CHAINS, DRAWS, run
from parsample.samplers import HMC

TIMES = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
SEEDS = range(4)


def with_time(time: float) -> type[HMC]:
    """Return HMC whose trajectories take this long."""

    class Timed(HMC):
        trajectory_time: ClassVar[float] = time

    return Timed


def per_gradient(target: ps.targets.Target, sampler: type[HMC], seed: int) -> float:
    """Return effective draws of the worst variable in 1,000 gradients, those of warm-up not counted."""
    draws, _, _, ess, length, *_ = run(target, sampler, "auto", False, seed)
    return 1000 * ess / (CHAINS * draws * length)


def rows() -> Iterator[list[Any]]:
    """Yield a row for each target, and the geometric means against the default's time."""
    samplers = [with_time(time) for time in TIMES]
    found = []
    for name, target in targets():
        found.append([np.median([per_gradient(target, sampler, seed) for seed in SEEDS]) for sampler in samplers])
        yield [name, *(f"{value:.3g}" for value in found[-1])]
    table = np.log(np.array(found))
    against = np.exp((table - table[:, [TIMES.index(HMC.trajectory_time)]]).mean(0))
    yield ["geometric mean, against the default's", *(f"{value:.2f}" for value in against)]


if __name__ == "__main__":
    write_rows(
        "trajectory_time",
        f"HMC's trajectory time: effective draws in 1,000 gradients, {CHAINS} chains of {DRAWS:,} draws",
        "Warm-up chooses as many leapfrog steps as make a trajectory of the time at the head of the column, from 2, 4, "
        "8, 16, 32 and 64: so neighbouring columns may have the same. Time is in coordinates in which the "
        "posterior has unit scale. The bulk effective sample size is that of the worst variable, the median of "
        f"{len(SEEDS)} seeds. Step sizes are jittered by 0.9: single trajectories take 0.1 to 1.9 times that.",
        ("target", *(f"{time:g}" for time in TIMES)),
        rows(),
    )
