"""The trade: step size and trajectory length against effective draws for the gradients that wait for each other.

    python -m benchmarks.trade

Every setting is a pilot run from where warm-up ended: the loop's chain, and the same chain by Newton's method over its
whole window. All are counts, which do not depend on the machine's speed.
"""

from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import NullLocator

import parsample as ps
from benchmarks.device import RESULTS, write_rows
from parsample.run.plan import check_job
from parsample.run.settings import Settings
from parsample.run.stages import warm_up
from parsample.warmup import tuning

TARGETS, CHAINS, STEPS = ("eight_schools", "log_gamma"), 4, 1024
SHARES, LENGTHS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18), (8, 4, 2, 1)
HEADER = (
    "target", "leapfrog steps", "step size", "acceptance", "effective draws of 1,000", "iterations",
    "exponent", "loop: effective draws of 1,000 gradients", "in parallel: of 1,000 in sequence",
)  # fmt: skip


def rows() -> Iterator[list[Any]]:
    """Yield a row for every target and setting."""
    for name in TARGETS:
        target = ps.TARGETS[name]()
        settings = Settings(name, method="newton", window=STEPS, num_samples=STEPS, num_chains=CHAINS)
        job = check_job(target, settings)
        adaptation = warm_up(job, lambda steps: None)
        for length in LENGTHS:
            make = job.make.chosen({**job.make.sampler_options, "num_integration_steps": length})
            for share in SHARES:
                found = tuning.pilot(make, adaptation, share * adaptation.step_size, job.keys.tuning, job.plan)
                loop, parallel = 1000 * found.per_gradient * CHAINS, 1000 * found.per_round * CHAINS
                yield [
                    name, length, f"{found.step_size:.3g}", f"{found.acceptance_rate:.2f}",
                    f"{1000 * found.ess_per_draw:.0f}", found.iterations, f"{found.exponent:.2f}", f"{loop:.0f}",
                    f"{parallel:.0f}",
                ]  # fmt: skip


def draw_figure(table: list[list[Any]]) -> None:
    """Draw the trade of each target, and save the figure beside the table."""
    figure, axes = plt.subplots(1, len(TARGETS), figsize=(9.5, 4.4), layout="constrained", sharey=True)
    colours = plt.get_cmap("viridis")(np.linspace(0.05, 0.85, len(LENGTHS)))
    for axis, name in zip(axes, TARGETS, strict=True):
        for length, colour in zip(LENGTHS, colours, strict=True):
            chosen = [row for row in table if row[:2] == [name, length]]
            sizes, loop, parallel = (np.array([float(row[place]) for row in chosen]) for place in (2, 7, 8))
            axis.plot(sizes, parallel, "o-", color=colour, ms=4, label=f"{length} leapfrog step{'s' * (length > 1)}")
            axis.plot(sizes, loop, ":", color=colour)
        axis.set(title=name.replace("_", " "), xscale="log", yscale="log", xlabel="step size, standardised coordinates")
        axis.set_xticks([0.06, 0.1, 0.2, 0.3, 0.4], ["0.06", "0.1", "0.2", "0.3", "0.4"])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("effective draws for\n1,000 gradients in sequence")
    axes[0].plot([], [], ":", color="grey", label="dotted: the loop")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(RESULTS / "trade.png", dpi=150)


if __name__ == "__main__":
    table: list[list[Any]] = []

    def kept() -> Iterator[list[Any]]:
        """Yield the rows, and keep them for the figure."""
        for row in rows():
            table.append(row)
            yield row

    write_rows(
        "trade",
        "Step size against effective draws for gradients that wait for each other",
        f"HMC on {CHAINS} chains of {STEPS:,} steps from where warm-up ended. In parallel an iteration of Newton's "
        "method takes the gradients of a trajectory and one in sequence, however many steps there are. Effective draws "
        "are of the worst coordinate, of all chains. Exponent: the largest Lyapunov exponent, for each step.",
        HEADER,
        kept(),
    )
    draw_figure(table)
