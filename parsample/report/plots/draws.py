"""Pictures of the draws: traces, ranks, autocorrelation, pairs, energy and acceptance.

Each `draw_*` draws on given axes and returns what is seen there in a sentence with numbers, the text alternative of the
report; each `plot_*` is the same from a trace, and returns the axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsample.report.plots.canvas import GREY, add_legend, axes_or_new, chain_colors, dress
from parsample.results.summary import Scalar, scalars, summarize
from parsample.results.trace import Trace, as_datatree, posterior_dataset

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

MOST_POINTS = 400  # a chain, of a line or a cloud
BINS = 20
FEWEST_IN_BIN = 40  # draws of a chain: with fewer the ranks are noise
MOST_LAGS = 100
MOST_DIVERGENT = 100  # marked in a cloud


def plot_trace(trace: Trace, label: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the draws of one scalar in their order, a line a chain.

    Args:
        trace: with a group `posterior`.
        label: of the scalar, as `parsample.summarize` has it; None for the one with the fewest effective draws.
        ax: axes to draw on; None for new ones.

    Returns:
        The axes.

    Raises:
        ValueError: the trace has no such scalar.
    """
    ax, name = axes_or_new(ax), label or worst_labels(trace, 1)[0]
    draw_trace(ax, scalar_draws(trace, name))
    ax.set_title(name, fontsize=10, parse_math=False)
    return ax


def plot_rank(trace: Trace, label: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw how the ranks of each chain's draws among all draws are spread; level where the chains agree.

    Args, returns and raises as `plot_trace`.

    Source: Vehtari et al. 2021, section 5.
    """
    ax, name = axes_or_new(ax), label or worst_labels(trace, 1)[0]
    draw_rank(ax, scalar_draws(trace, name))
    ax.set_title(name, fontsize=10, parse_math=False)
    return ax


def plot_autocorrelation(trace: Trace, label: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the autocorrelation of each chain's draws of one scalar by lag.

    Args, returns and raises as `plot_trace`.
    """
    ax, name = axes_or_new(ax), label or worst_labels(trace, 1)[0]
    draw_autocorrelation(ax, scalar_draws(trace, name))
    ax.set_title(name, fontsize=10, parse_math=False)
    return ax


def plot_pair(trace: Trace, labels: tuple[str, str] | None = None, ax: Axes | None = None) -> Axes:
    """Draw one scalar against another, with divergent draws marked.

    Args:
        trace: with a group `posterior`.
        labels: of the two scalars; None for those with the fewest effective draws.
        ax: axes to draw on; None for new ones.

    Returns:
        The axes.

    Raises:
        ValueError: the trace has no such scalar, or only one.
    """
    chosen = labels or tuple(worst_labels(trace, 2))
    if len(chosen) != 2:
        raise ValueError(f"trace: got {len(chosen)} scalar whose draws move, expected two for a pair; use plot_trace.")
    ax = axes_or_new(ax)
    one, other = chosen
    draw_pair(ax, one, other, scalar_draws(trace, one), scalar_draws(trace, other), statistic(trace, "diverging"))
    return ax


def plot_energy(trace: Trace, ax: Axes | None = None) -> Axes:
    """Draw the energies of the draws and their changes from draw to draw.

    Args:
        trace: of a sampler with `energy` in `sample_stats`, as HMC.
        ax: axes to draw on; None for new ones.

    Raises:
        ValueError: the trace has no energy.

    Source: Betancourt 2016, *Diagnosing suboptimal cotangent disintegrations in Hamiltonian Monte Carlo*.
    """
    energy = statistic(trace, "energy")
    if energy is None:
        raise ValueError("trace: got no 'energy' in sample_stats, expected that of HMC, say; use plot_acceptance.")
    ax = axes_or_new(ax)
    draw_energy(ax, energy)
    return ax


def plot_acceptance(trace: Trace, ax: Axes | None = None) -> Axes:
    """Draw how the acceptance rates of the steps are spread, a line a chain.

    Args:
        trace: with `acceptance_rate` in `sample_stats`.
        ax: axes to draw on; None for new ones.

    Raises:
        ValueError: the trace has none.
    """
    rates = statistic(trace, "acceptance_rate")
    if rates is None:
        raise ValueError("trace: got no 'acceptance_rate' in sample_stats, expected a trace of parsample.sample.")
    ax = axes_or_new(ax)
    draw_acceptance(ax, rates)
    return ax


def worst_labels(trace: Trace, number: int, summary: pandas.DataFrame | None = None) -> list[str]:
    """Return the labels of the scalars with the fewest effective draws, of those whose draws are finite and move."""
    summary = summarize(trace) if summary is None else summary
    moving = summary[summary["ess_bulk"].notna() & np.isfinite(summary["mean"]) & (summary["sd"] > 0)]
    return [str(label) for label in moving.sort_values("ess_bulk", kind="stable").index[:number]]


def scalar_draws(trace: Trace, label: str) -> np.ndarray:
    """Return the draws of one scalar by its label, shape (chain, draw)."""
    posterior = posterior_dataset(trace)
    found: dict[str, Scalar] = {scalar.label: scalar for scalar in scalars(posterior)}
    if label not in found:
        raise ValueError(f"label is {label!r}, expected one of the trace: {', '.join(list(found)[:20])}.")
    scalar = found[label]
    values = posterior[scalar.variable].transpose("chain", "draw", ...)[(..., *scalar.position)]
    return np.asarray(values.values, np.float64)


def statistic(trace: Trace, name: str) -> np.ndarray | None:
    """Return a diagnostic of the steps, shape (chain, draw), or None where the trace has none."""
    tree = as_datatree(trace)
    if "sample_stats" not in tree.children or name not in tree["sample_stats"].data_vars:
        return None
    return np.asarray(tree["sample_stats"][name].values, np.float64)


def draw_trace(ax: Axes, draws: np.ndarray) -> str:
    """Draw a line a chain, of evenly spaced draws."""
    chains, length = draws.shape
    stride = -(-length // MOST_POINTS)
    for values, color in zip(draws, chain_colors(chains), strict=True):
        ax.plot(np.arange(length)[::stride], values[::stride], color=color, linewidth=0.7, alpha=0.75)
    ax.margins(x=0)
    dress(ax, xlabel="draw", ylabel="value")
    means = draws.mean(1)
    return (
        f"Trace of {chains} {'chains' if chains > 1 else 'chain'} over {length:,} draws: values from {draws.min():.3g} "
        f"to {draws.max():.3g}; the means of the chains lie between {means.min():.3g} and {means.max():.3g}, with a "
        f"standard deviation of {draws.std():.3g} over all draws."
    )


def draw_rank(ax: Axes, draws: np.ndarray) -> str:
    """Draw the share of each chain's ranks in equal bins, relative to an even share."""
    from scipy.stats import rankdata

    chains, length = draws.shape
    if chains == 1:
        ax.text(0.5, 0.5, "one chain: no other to rank it with", ha="center", va="center", transform=ax.transAxes)
        dress(ax, xticks=[], yticks=[])
        return "No rank plot: one chain has no other to be ranked with."
    ranks = (rankdata(draws) - 0.5).reshape(draws.shape) / draws.size
    bins = int(np.clip(length // FEWEST_IN_BIN, 4, BINS))
    edges = np.linspace(0, 1, bins + 1)
    shares = np.stack([np.histogram(row, edges)[0] for row in ranks]) * bins / length
    ax.axhline(1, color=GREY, linewidth=0.8, linestyle="--")
    for share, color in zip(shares, chain_colors(chains), strict=True):
        ax.stairs(share, edges, color=color, linewidth=1.4, baseline=None)
    ax.set_ylim(0, max(2.0, 1.08 * shares.max()))
    ax.margins(x=0)
    dress(ax, xlabel="rank among all draws", ylabel="share of a chain (even: 1)")
    return (
        f"Ranks of the draws of {chains} chains among all, in {bins} bins: the chains hold between {shares.min():.2f} "
        f"and {shares.max():.2f} times an even share (1 everywhere: perfectly mixed)."
    )


def draw_autocorrelation(ax: Axes, draws: np.ndarray) -> str:
    """Draw a line a chain."""
    chains, length = draws.shape
    lags = min(MOST_LAGS, length - 1)
    found = autocorrelation(draws)[:, : lags + 1]
    ax.axhline(0, color=GREY, linewidth=0.8, linestyle="--")
    for row, color in zip(found, chain_colors(chains), strict=True):
        ax.plot(np.arange(lags + 1), row, color=color, linewidth=1.3)
    ax.margins(x=0)
    ax.set_ylim(min(-0.25, np.nanmin(found)), 1)
    dress(ax, xlabel="lag, in draws", ylabel="autocorrelation")
    mean = found.mean(0)
    small = np.flatnonzero(mean < 0.1)
    fallen = f"falls below 0.1 at lag {small[0]}" if small.size else f"is {mean[-1]:.2f} still at lag {lags}"
    return f"Autocorrelation, mean of {chains} chains: {mean[min(1, lags)]:.2f} at lag 1; it {fallen}."


def autocorrelation(draws: np.ndarray) -> np.ndarray:
    """Return the autocorrelation of each row by lag, with the biased estimate of the covariance."""
    length = draws.shape[1]
    centred = draws - draws.mean(1, keepdims=True)
    spectrum = np.fft.rfft(centred, 2 * length)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, 2 * length)[:, :length]
    with np.errstate(invalid="ignore"):
        return covariance / covariance[:, :1]


def draw_pair(
    ax: Axes, name: str, other: str, draws: np.ndarray, others: np.ndarray, diverging: np.ndarray | None
) -> str:
    """Draw a cloud a chain, and a cross a divergent draw."""
    chains, length = draws.shape
    stride = -(-length * chains // (2 * MOST_POINTS))
    for x, y, color in zip(draws, others, chain_colors(chains), strict=True):
        ax.plot(x[::stride], y[::stride], "o", color=color, markersize=2.6, alpha=0.55, markeredgewidth=0)
    found = 0 if diverging is None else int(diverging.sum())
    if diverging is not None and found:
        marked = diverging > 0
        shown = slice(None, None, -(-found // MOST_DIVERGENT))
        ax.plot(
            draws[marked][shown],
            others[marked][shown],
            "x",
            color="black",
            markersize=5.5,
            markeredgewidth=1.3,
            label="divergent",
        )
        add_legend(ax)
    dress(ax)
    ax.set_xlabel(_short(name), parse_math=False)
    ax.set_ylabel(_short(other), parse_math=False)
    correlation = float(np.corrcoef(draws.ravel(), others.ravel())[0, 1])
    divergent = f"{found:,} draws are divergent" if found else "no draw is divergent"
    return f"{other} against {name}: correlation {correlation:.2f} over {draws.size:,} draws; {divergent}."


def _short(label: str) -> str:
    return label if len(label) <= 36 else label[:35] + "…"


def draw_energy(ax: Axes, energy: np.ndarray) -> str:
    """Draw the histograms of the energy, less its mean, and of its changes."""
    centred = (energy - energy.mean(1, keepdims=True)).ravel()
    changes = np.diff(energy, axis=1)
    fraction = (changes**2).mean(1) / energy.var(1)
    spread = np.quantile(np.abs(np.concatenate([centred, changes.ravel()])), 0.998)
    edges = np.linspace(-spread, spread, 51).tolist()
    ax.hist(centred, edges, density=True, histtype="step", color=chain_colors(1)[0], linewidth=1.4, label="energy")
    ax.hist(
        changes.ravel(),
        edges,
        density=True,
        histtype="step",
        color=chain_colors(2)[1],
        linewidth=1.4,
        label="its change",
    )
    add_legend(ax, loc="upper right")
    dress(ax, xlabel="energy less its mean, and its change", yticks=[])
    return (
        f"Energies of {energy.shape[0]} chains: standard deviation {energy.std():.3g}, their change from draw to draw "
        f"{changes.std():.3g}; the smallest Bayesian fraction of missing information is {fraction.min():.2f} "
        "(below 0.3 the chain explores its energies slowly)."
    )


def draw_acceptance(ax: Axes, rates: np.ndarray) -> str:
    """Draw the histogram of each chain's acceptance rates."""
    edges = np.linspace(0, 1, BINS + 1)
    for values, color in zip(rates, chain_colors(len(rates)), strict=True):
        share = np.histogram(np.clip(values, 0, 1), edges)[0] / values.size
        ax.stairs(share, edges, color=color, linewidth=1.4, baseline=None)
    ax.set_ylim(bottom=0)
    ax.margins(x=0)
    dress(ax, xlabel="acceptance rate of a step", ylabel="share of the steps")
    means = rates.mean(1)
    return (
        f"Acceptance rates of the steps of {len(rates)} chains: {rates.mean():.2f} on average, between "
        f"{means.min():.2f} and {means.max():.2f} from chain to chain."
    )
