"""What HMC's defaults are worth: the jitter of the step size, the acceptance it is tuned to, the time of a trajectory.

    python -m benchmarks.hmc_defaults

Effective draws a gradient of the loop, and divergent draws, with warm-up choosing the leapfrog steps.
"""

import functools
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

import parsample as ps
from benchmarks.device import write_rows
from benchmarks.suite import targets
from benchmarks.warmup import CHAINS, DRAWS
from parsample.results.trace import as_datatree
from parsample.samplers import HMC

SEEDS = range(4)


class Setting(NamedTuple):
    """A column."""

    jitter: float = HMC(lambda x: -x @ x).step_size_jitter
    acceptance: float = HMC.target_acceptance
    time: float = HMC.trajectory_time
    lengths: tuple[int, ...] = HMC.lengths

    @property
    def words(self) -> str:
        """The head of the column."""
        powers = ", powers of two" if self.lengths != HMC.lengths else ""
        return f"{self.jitter:g}, {self.acceptance:g}, {self.time:g}{powers}"


DEFAULT = Setting()
# One thing changed at a time, and last what the limit of many dimensions asks for with steps of very different sizes.
SETTINGS = (
    DEFAULT,
    *(Setting(jitter=jitter) for jitter in (0.2, 0.9)),
    *(Setting(acceptance=acceptance) for acceptance in (0.651, 0.9)),
    *(Setting(time=time) for time in (1.0, 1.5, 3.0, 4.0)),
    Setting(jitter=0.9, acceptance=0.651),
    Setting(lengths=(2, 4, 8, 16, 32, 64)),
)


@functools.cache
def with_trajectories(time: float, steps: tuple[int, ...]) -> type[HMC]:
    """Return HMC whose trajectories take this long, of leapfrog steps from these numbers."""

    class Timed(HMC):
        trajectory_time: ClassVar[float] = time
        lengths: ClassVar[tuple[int, ...]] = steps

    return Timed


def run(target: ps.targets.Target, setting: Setting, seed: int) -> tuple[float, float]:
    """Return effective draws of the worst variable in 1,000 gradients, those of warm-up not counted; divergent draws.

    The effective sample size is the smaller one of bulk and tail: where draws are spread about the mean more evenly
    than independent ones would be, the bulk's alone says little.
    """
    trace = ps.sample(
        target,
        with_trajectories(setting.time, setting.lengths),
        sampler_options={"step_size_jitter": setting.jitter},
        target_acceptance=setting.acceptance,
        num_samples=DRAWS,
        num_chains=CHAINS,
        seed=seed,
        method="sequential",
        compare=False,
        progress=False,
    )
    summary, stats = ps.summarize(trace), as_datatree(trace)["sample_stats"]
    gradients = int(stats["n_steps"].sum())
    return 1000 * float(summary[["ess_bulk", "ess_tail"]].min().min()) / gradients, int(stats["diverging"].sum())


def rows() -> Iterator[list[Any]]:
    """Yield a row for each target, and the geometric means against the default's."""
    found = []
    for name, target in targets():
        jax.clear_caches()
        columns = [np.median([run(target, row, seed) for seed in SEEDS], 0) for row in SETTINGS]
        found.append([worth for worth, _ in columns])
        yield [name, *(f"{worth:.3g}" + (f" ({divergent:,.0f})" if divergent else "") for worth, divergent in columns)]
    table = np.log(np.array(found))
    against = np.exp((table - table[:, [SETTINGS.index(DEFAULT)]]).mean(0))
    yield ["geometric mean, against the default's", *(f"{value:.2f}" for value in against)]


if __name__ == "__main__":
    write_rows(
        "hmc_defaults",
        f"HMC's defaults: effective draws in 1,000 gradients, {CHAINS} chains of {DRAWS:,} draws",
        "At the head of a column are the jitter of the step size, the acceptance that warm-up tunes it to, and the "
        "time of a trajectory in coordinates in which the posterior has unit scale; the default comes first. Warm-up "
        "chooses as many leapfrog steps as make a trajectory of that time, from 2, 3, 4, 6, 8, 12, ..., 64: so "
        "neighbouring times may have the same. The effective sample size is the smaller one of bulk and tail, of the "
        f"worst variable; in brackets are divergent draws of {CHAINS * DRAWS:,}, where there are any. Medians of "
        f"{len(SEEDS)} seeds.",
        ("target", *(row.words for row in SETTINGS)),
        rows(),
    )
