"""Pictures of a parallel evaluation: residuals, the window's walk, evaluations a step, and the work it took.

Each `draw_*` draws on given axes and returns what is seen there in a sentence with numbers, the text alternative of the
report; each `plot_*` is the same from a trace, and returns the axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from parsample.report.plots.canvas import GREY, add_legend, axes_or_new, chain_colors, dress
from parsample.results.groups import EVALUATION
from parsample.results.trace import Trace, as_datatree
from parsample.results.verdict import Verdict, read_verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CELLS = 320  # of a heat map, along each side: about as many as a screen shows
SMALLEST = 1e-9  # posterior standard deviations; what is below, exact zeros too, has its colour
REMEDY = 'sample with groups=("evaluation",)'


class Walk(NamedTuple):
    """What the iterations of one chain's first segment saw.

    Attributes:
        first_step: of the window before each iteration.
        residual: shape (iterations, window), of step first_step + row; NaN where a step was not evaluated.
        atol: tolerance of the residual, in posterior standard deviations.
    """

    first_step: np.ndarray
    residual: np.ndarray
    atol: float

    @property
    def steps(self) -> int:
        """Steps of the segment, as far as they were evaluated."""
        return (
            int(np.max(np.where(np.isfinite(self.residual), self.first_step[:, None] + np.arange(self.window), -1))) + 1
        )

    @property
    def window(self) -> int:
        """Steps solved at a time."""
        return self.residual.shape[1]

    def counts(self) -> np.ndarray:
        """Return in how many iterations each step was evaluated."""
        steps = (self.first_step[:, None] + np.arange(self.window))[~np.isnan(self.residual)]
        return np.bincount(steps, minlength=self.steps)

    def image(self, first: int, last: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Return the residuals as (iteration, step), NaN where there are none, for the steps from `first` to `last`.

        Returns:
            The image, reduced to the largest residual of each cell where it is large, and the iterations it spans.
        """
        touched = np.flatnonzero((self.first_step < last) & (self.first_step + self.window > first))
        begin, end = int(touched[0]), int(touched[-1]) + 1
        rows, columns = min(end - begin, MOST_CELLS), min(last - first, MOST_CELLS)
        image = np.full((rows, columns), -np.inf)
        i = np.arange(begin, end)[:, None]
        step = self.first_step[begin:end, None] + np.arange(self.window)
        values = self.residual[begin:end]
        keep = ~np.isnan(values) & (step >= first) & (step < last)
        y = np.broadcast_to((i - begin) * rows // (end - begin), step.shape)[keep]
        x = ((step - first) * columns // (last - first))[keep]
        np.maximum.at(image, (y, x), values[keep])
        image[np.isneginf(image)] = np.nan
        return image, (begin, end)

    def slowest_stretch(self, windows: int = 6) -> tuple[int, int]:
        """Return the steps, a few windows of them, that were evaluated most often."""
        length = min(windows * self.window, self.steps)
        sums = np.convolve(self.counts(), np.ones(length), "valid")
        first = int(np.argmax(sums))
        return first, first + length


def read_walk(trace: Trace) -> Walk:
    """Read the group `evaluation` of a trace.

    Raises:
        ValueError: the trace has none.
    """
    tree = as_datatree(trace)
    if EVALUATION not in tree.children:
        raise ValueError(f"trace: got no group 'evaluation', expected one; {REMEDY}, and not by the sequential loop.")
    group = tree[EVALUATION]
    residual = np.asarray(group["window_residual"].values, np.float64)
    return Walk(np.asarray(group["window_first_step"].values, int), residual, float(tree.attrs["evaluation_atol"]))


def plot_residuals(trace: Trace, first_step: int = 0, last_step: int | None = None, ax: Axes | None = None) -> Axes:
    """Draw the residual of every step before every iteration as a heat map, step to the right, iteration downwards.

    Args:
        trace: with a group `evaluation`.
        first_step: of the steps to show.
        last_step: where they end; None for the end of the segment.
        ax: axes to draw on; None for new ones.

    Returns:
        The axes.

    Raises:
        ValueError: the trace has no such group, or there is no such step.
    """
    walk = read_walk(trace)
    last = walk.steps if last_step is None else last_step
    if not 0 <= first_step < last <= walk.steps:
        raise ValueError(
            f"first_step is {first_step} and last_step {last_step}, expected steps from 0 to {walk.steps} in order."
        )
    ax = axes_or_new(ax)
    draw_residuals(ax, walk, first_step, last)
    return ax


def plot_window(trace: Trace, ax: Axes | None = None) -> Axes:
    """Draw where the window stood before every iteration, and where the sequential loop would have been.

    Args, returns and raises as `plot_residuals`.
    """
    walk, ax = read_walk(trace), axes_or_new(ax)
    draw_window(ax, walk)
    return ax


def plot_evaluations(trace: Trace, ax: Axes | None = None) -> Axes:
    """Draw in how many iterations each step was evaluated; the sequential loop needs one evaluation.

    Args, returns and raises as `plot_residuals`.
    """
    walk, ax = read_walk(trace), axes_or_new(ax)
    draw_evaluations(ax, walk)
    return ax


def plot_work(trace: Trace, ax: Axes | None = None) -> Axes:
    """Draw what the parallel evaluation took relative to the sequential loop: evaluations, rounds, and wall time.

    Args:
        trace: that `parsample.sample` returned.
        ax: axes to draw on; None for new ones.

    Returns:
        The axes.

    Raises:
        ValueError: the trace holds no verdict.
    """
    verdict, ax = read_verdict(trace), axes_or_new(ax)
    draw_work(ax, verdict)
    return ax


def draw_residuals(ax: Axes, walk: Walk, first: int, last: int) -> str:
    """Draw the heat map of the steps from `first` to `last`."""
    from matplotlib.colors import LogNorm

    image, (begin, end) = walk.image(first, last)
    shown = np.where(np.isnan(image), np.nan, np.maximum(image, SMALLEST))
    finite = shown[np.isfinite(shown)]
    norm = LogNorm(max(SMALLEST, min(float(finite.min()), walk.atol)), max(float(finite.max()), 10 * walk.atol))
    extent = (first, last, end, begin)
    picture = ax.imshow(shown, aspect="auto", extent=extent, norm=norm, cmap="viridis", interpolation="nearest")
    bar = ax.figure.colorbar(picture, ax=ax, pad=0.02, aspect=14)
    bar.ax.tick_params(labelsize=8.5, which="major")
    bar.ax.minorticks_off()
    # Not powers of ten: their exponents are too small to be read on a telephone.
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    bar.set_label("residual, posterior sd", fontsize=9, color=GREY)
    bar.ax.axhline(walk.atol, color="white", linewidth=1.5)
    dress(ax, xlabel="step", ylabel="iteration")
    start = float(np.nanmedian(walk.residual[begin]))
    return (
        f"Residuals of the steps {first:,} to {last:,} over the iterations {begin:,} to {end:,}, in posterior standard "
        f"deviations: half of the first window above {start:.2g} before the first of these iterations, the largest "
        f"{finite.max():.2g}; a step is accepted at about {walk.atol:.1g}, the white line of the scale."
    )


def draw_window(ax: Axes, walk: Walk) -> str:
    """Draw the band of the window, and the loop's line."""
    iterations, steps = len(walk.first_step), walk.steps
    at = np.arange(iterations)
    end = np.minimum(walk.first_step + walk.window, steps)
    color = chain_colors(1)[0]
    ax.fill_between(at, walk.first_step, end, step="post", color=color, alpha=0.3, linewidth=0, label="window")
    ax.plot(at, walk.first_step, drawstyle="steps-post", color=color, linewidth=1.3)
    ax.plot([0, iterations], [0, min(iterations, steps)], color=GREY, linewidth=1, linestyle="--", label="loop")
    ax.set_xlim(0, max(iterations, 1))
    ax.set_ylim(0, steps)
    add_legend(ax, loc="upper left")
    dress(ax, xlabel="iteration", ylabel="step")
    told = f"The window of {walk.window:,} steps walks over {steps:,} steps in {iterations:,} iterations"
    moves = np.diff(walk.first_step)
    if not moves.size:
        return f"{told}; the loop takes one step at a time."
    return (
        f"{told}: {moves.mean():.1f} steps an iteration on average, {moves.min():,} at least and {moves.max():,} at "
        "most; the loop takes one."
    )


def draw_evaluations(ax: Axes, walk: Walk) -> str:
    """Draw the count by step, its mean, and the loop's one."""
    counts, color = walk.counts(), chain_colors(1)[0]
    ax.stairs(counts, np.arange(counts.size + 1), color=color, linewidth=0.9, baseline=None)
    ax.axhline(counts.mean(), color=chain_colors(2)[1], linewidth=1.6, label=f"mean {counts.mean():.1f}")
    ax.axhline(1, color=GREY, linewidth=1, linestyle="--", label="loop: 1")
    ax.set_xlim(0, counts.size)
    ax.set_ylim(0, 1.3 * counts.max())
    add_legend(ax, loc="upper right", ncols=2)
    dress(ax, xlabel="step", ylabel="evaluations")
    return (
        f"Evaluations of each of {counts.size:,} steps: {counts.mean():.1f} on average, {counts.min()} at least, "
        f"{counts.max()} at most (around step {int(np.argmax(counts)):,}); the loop needs 1."
    )


def draw_work(ax: Axes, verdict: Verdict) -> str:
    """Draw a bar for each kind of work, relative to the loop's."""
    ratios = {"evaluations": verdict.evaluations_per_step, "rounds in a row": verdict.iterations / verdict.steps}
    if verdict.compared_steps:
        ratios["wall time here"] = verdict.parallel_seconds / verdict.sequential_seconds
    values = np.asarray(list(ratios.values()))
    less, more = chain_colors(3)[2], chain_colors(2)[1]
    ax.barh(
        np.arange(values.size), values - 1, left=1, height=0.55, color=[less if value < 1 else more for value in values]
    )
    for row, value in enumerate(values):
        side: dict[str, Any] = {"ha": "left", "xytext": (4, 0)} if value >= 1 else {"ha": "right", "xytext": (-4, 0)}
        text = f"{value:.2g}" if value < 10 else f"{value:,.0f}"
        ax.annotate(text, (value, row), textcoords="offset points", va="center", fontsize=9.5, **side)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_minor_formatter(lambda *_: "")
    # Room for the numbers beside the bars.
    low, high = min(values.min(), 1), max(values.max(), 1)
    margin = 0.35 * max(np.log10(high / low), 0.5)
    ax.set_xlim(low / 10**margin, high * 10**margin)
    ax.axvline(1, color=GREY, linewidth=1, linestyle="--")
    ax.set_yticks(np.arange(values.size), list(ratios))
    ax.invert_yaxis()
    dress(ax, xlabel="times the sequential loop")
    told = ", ".join(f"{name} {value:.2g}" for name, value in ratios.items())
    return f"Work of the parallel evaluation, the sequential loop being 1: {told}. Below 1 is less than the loop."
