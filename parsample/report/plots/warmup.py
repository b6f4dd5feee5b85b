"""Pictures of warm-up: the step size and the acceptance over its steps, with the places where its coordinates change.

Each `draw_*` draws on given axes and returns what is seen there in a sentence with numbers, the text alternative of the
report; each `plot_*` is the same from a trace, and returns the axes.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from parsample.report.plots.canvas import GREY, add_legend, axes_or_new, chain_colors, dress
from parsample.results.trace import Trace, as_datatree

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GROUP = "warmup_sample_stats"
REMEDY = "sample with keep_warmup=True"
MOST_STRETCHES = 40  # that acceptance is averaged over
MOST_TICKS = 6
HEIGHT = 0.8  # of the axes, for what is drawn; the legend is above it


class WarmupSteps(NamedTuple):
    """What the steps of warm-up were.

    Attributes:
        step_size: shape (chain, step).
        rates: of acceptance, shape (chain, step).
        divergences: of all chains; None where the sampler counts none.
        changes: the steps after which the covariance was estimated anew.
        aim: the mean acceptance that the step size is steered to; None where it is not known.
    """

    step_size: np.ndarray
    rates: np.ndarray
    divergences: int | None
    changes: tuple[int, ...]
    aim: float | None


def read_warmup(trace: Trace) -> WarmupSteps:
    """Read the group `warmup_sample_stats` of a trace.

    Raises:
        ValueError: the trace has none.
    """
    tree = as_datatree(trace)
    if GROUP not in tree.children or not {"step_size", "acceptance_rate"} <= set(tree[GROUP].data_vars):
        raise ValueError(f"trace: got no group '{GROUP}' with step sizes and acceptance, expected one; {REMEDY}.")
    rows = tree[GROUP].data_vars
    step_size, rates = (np.asarray(rows[name].values, np.float64) for name in ("step_size", "acceptance_rate"))
    divergences = int(rows["diverging"].values.sum()) if "diverging" in rows else None
    # Another's trace does not say where the coordinates change, nor what the acceptance was steered to.
    changes = tuple(json.loads(tree.attrs.get("warmup_changes", "[]")))
    return WarmupSteps(step_size, rates, divergences, changes, tree.attrs.get("warmup_aim"))


def plot_warmup_step_size(trace: Trace, ax: Axes | None = None) -> Axes:
    """Draw the step size over the steps of warm-up, on a logarithmic scale.

    Args:
        trace: with a group `warmup_sample_stats`, as `keep_warmup=True` of `parsample.sample` leaves one.
        ax: axes to draw on; None for new ones.

    Returns:
        The axes.

    Raises:
        ValueError: the trace has no such group.
    """
    found, ax = read_warmup(trace), axes_or_new(ax)
    draw_warmup_step_size(ax, found)
    return ax


def plot_warmup_acceptance(trace: Trace, ax: Axes | None = None) -> Axes:
    """Draw the acceptance rate over the steps of warm-up, averaged over stretches of it, a line a chain.

    Args, returns and raises as `plot_warmup_step_size`.
    """
    found, ax = read_warmup(trace), axes_or_new(ax)
    draw_warmup_acceptance(ax, found)
    return ax


def draw_warmup_step_size(ax: Axes, warmup: WarmupSteps) -> str:
    """Draw a line, or one a chain where they differ."""
    _mark(ax, warmup)
    chains = warmup.step_size
    is_shared = bool(np.all(chains == chains[:1]))
    rows, colors = (chains[:1], ["#000000"]) if is_shared else (chains, chain_colors(len(chains)))
    for row, color in zip(rows, colors, strict=True):
        ax.stairs(row, np.arange(row.size + 1), color=color, linewidth=1.3, baseline=None)
    ax.set_yscale("log")
    low, high = float(chains.min()), float(chains.max())
    bottom, top = low / 1.2, high * 1.2
    ax.set_ylim(bottom, bottom * (top / bottom) ** (1 / HEIGHT))
    ticks = _ticks(bottom, top) or [low]
    ax.set_yticks(ticks, [f"{tick:.3g}" for tick in ticks])
    ax.set_yticks([], minor=True)
    if warmup.changes:
        add_legend(ax, loc="upper right")
    dress(ax, xlabel="warm-up step", ylabel="step size")
    return (
        f"Step size over {chains.shape[1]:,} warm-up steps, {'shared by all' if is_shared else 'of each of'} "
        f"{len(chains)} chains: from {low:.2g} to {high:.2g}, in the end {np.median(chains[:, -1]):.2g}; "
        f"{_told(warmup)}."
    )


def draw_warmup_acceptance(ax: Axes, warmup: WarmupSteps) -> str:
    """Draw a line a chain, and the aim."""
    chains, steps = warmup.rates.shape
    edges = np.unique(np.linspace(0, steps, min(MOST_STRETCHES, steps) + 1).astype(int))
    means = np.add.reduceat(warmup.rates, edges[:-1], axis=1) / np.diff(edges)
    _mark(ax, warmup)
    for row, color in zip(means, chain_colors(chains), strict=True):
        ax.stairs(row, edges, color=color, linewidth=1.2, baseline=None)
    if warmup.aim is not None:
        ax.axhline(warmup.aim, color=GREY, linewidth=1.1, linestyle="--", label=f"aim {warmup.aim:.3g}")
    ax.set_ylim(0, 1 / HEIGHT)
    ax.set_yticks(np.linspace(0, 1, 6))
    if warmup.aim is not None or warmup.changes:
        add_legend(ax, loc="upper right", ncols=2)
    dress(ax, xlabel="warm-up step", ylabel="acceptance rate")
    last = warmup.rates[:, steps // 2 :].mean(1)
    aim = "" if warmup.aim is None else f" (aim {warmup.aim:.3g})"
    divergent = "" if warmup.divergences is None else f"; {warmup.divergences:,} steps are divergent"
    spread = f"between {last.min():.2f} and {last.max():.2f} from chain to chain"
    return (
        f"Acceptance over {steps:,} warm-up steps of {chains} chains: {warmup.rates.mean():.2f} on average{aim}, in "
        f"the second half {spread}{divergent}; {_told(warmup)}."
    )


def _mark(ax: Axes, warmup: WarmupSteps) -> None:
    """Draw a line at each change of coordinates, below what follows, and let the axis span warm-up."""
    from matplotlib.ticker import MaxNLocator

    for number, step in enumerate(warmup.changes):
        label = "covariance anew" if number == 0 else None
        ax.axvline(step, ymax=HEIGHT, color=GREY, linewidth=0.9, linestyle=":", label=label)
    ax.set_xlim(0, warmup.rates.shape[1])
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers of a logarithmic scale between two numbers, not too many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for parts in ((1, 2, 5), (1,)):
        found = [part * 10.0**decade for decade in decades for part in parts if low <= part * 10.0**decade <= high]
        if len(found) <= MOST_TICKS:
            return found
    return found[:: -(-len(found) // MOST_TICKS)]


def _told(warmup: WarmupSteps) -> str:
    if not warmup.changes:
        return "its segments are not known"
    return f"the covariance is estimated anew after the steps {', '.join(f'{step:,}' for step in warmup.changes)}"
