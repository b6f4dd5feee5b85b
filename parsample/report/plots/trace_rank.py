"""The figure that shows how well the chains mixed: density, trace and ranks, drawn by ArviZ of either generation."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from parsample.report.plots.canvas import CHAIN_COLORS, GREY, chain_colors
from parsample.results.summary import Scalar, scalars, summarize
from parsample.results.trace import (
    SAMPLE_DIMS,
    Trace,
    arviz_generation,
    check_writable,
    import_arviz,
    posterior_dataset,
    replacing,
)

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas
    import xarray
    from matplotlib.axes import Axes

DPI = 110
ROW_HEIGHT, HEADER, FOOTER, WIDTH = 1.45, 0.4, 0.3, 12.0  # inches
COLUMN_WIDTHS = (1.0, 1.8, 1.2)
COLUMNS = ("dist", "trace", "rank")
LONGEST_LABEL = 90
FEWEST_DRAWS = 4
MOST_TRACE_DRAWS = 1000
FEWEST_RANKS, MOST_RANKS = 100, 1000
RANK_TEXT = ("rank among all draws (level: well mixed)", "relative rank (near the middle: mixed; black: not)")


class _Row(NamedTuple):
    scalar: Scalar
    ess_bulk: float
    r_hat: float


def plot_trace_rank(
    trace: Trace,
    path: str | os.PathLike[str] | None = None,
    max_variables: int = 8,
    summary: pandas.DataFrame | None = None,
) -> matplotlib.figure.Figure:
    """Draw density, trace and rank plot of a trace, one row a scalar variable, lowest bulk effective sample size first.

    Densities use every draw; traces show at most 1,000 evenly spaced draws a chain. ArviZ 0.x draws the ranks as
    bars, from every draw. ArviZ 1 draws their distribution less the uniform one, here from evenly spaced draws, about
    as many as are effective: its test of uniformity expects draws that are nearly independent, and its cost grows with
    their square.

    No global state of matplotlib is touched, and pyplot does not know the figure, so there is nothing to close.

    Args:
        trace: `arviz.InferenceData` or `xarray.DataTree` with a group `posterior`.
        path: where to save the figure; its ending chooses the format (`.png`, `.pdf`, `.svg`), without one it is PNG.
        max_variables: the most scalars to draw; the title says how many are left out.
        summary: of the trace, by `parsample.summarize`; None to work it out.

    Returns:
        The figure.

    Raises:
        ValueError: `max_variables` is below 1, the trace has no group `posterior`, fewer than four draws a chain or
            nothing but variables with draws that are not finite, or the path cannot be written or ends in a format
            that matplotlib does not know.
        OSError: the write failed, for example because the disk is full.

    Cost: about half a second a row.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if max_variables < 1:
        raise ValueError(f"max_variables: got {max_variables}, expected 1 or more; give the number of rows to draw.")
    target = None if path is None else check_figure_path(path)
    posterior = posterior_dataset(trace)
    if posterior.sizes["draw"] < FEWEST_DRAWS:
        raise ValueError(
            f"trace: got {posterior.sizes['draw']} draws a chain, expected at least {FEWEST_DRAWS} to draw a figure; "
            "take more draws."
        )
    rows, title = _choose_rows(posterior, summarize(trace) if summary is None else summary, max_variables)
    height = HEADER + FOOTER + ROW_HEIGHT * len(rows)
    figure = Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - HEADER / height)))
    axes = figure.subplots(len(rows), len(COLUMNS), squeeze=False, width_ratios=COLUMN_WIDTHS)
    colors = chain_colors(posterior.sizes["chain"])
    with warnings.catch_warnings():
        # ArviZ 0.x uses what newer matplotlib deprecates; both warn of densities of a single value.
        warnings.simplefilter("ignore")
        for row, row_axes in zip(rows, axes, strict=True):
            _draw_row(row, row_axes, posterior, colors)
            _dress_row(row, row_axes)
        _dress_figure(figure, axes, title, dict(zip(posterior["chain"].values.tolist(), colors, strict=True)))
        if target is not None:
            with replacing(target) as temporary:
                figure.savefig(temporary, dpi=DPI, format=target.suffix[1:] or "png")
    return figure


def check_figure_path(path: str | os.PathLike[str]) -> Path:
    """Make sure that a figure can be saved, before sampling.

    Args:
        path: where the figure will be saved.

    Returns:
        The path, with `~` expanded and links followed.

    Raises:
        ValueError: the path cannot be written, or ends in a format that matplotlib does not know.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    target = check_writable(path)
    formats = FigureCanvasBase.get_supported_filetypes()
    if target.suffix and target.suffix[1:].lower() not in formats:
        raise ValueError(
            f"path: '{path}' ends in '{target.suffix}', expected a format for figures ({', '.join(sorted(formats))}); "
            "use .png."
        )
    return target


def _choose_rows(posterior: xarray.Dataset, summary: pandas.DataFrame, most: int) -> tuple[list[_Row], str]:
    all_finite = posterior.map(np.isfinite).all(SAMPLE_DIMS)
    finite = np.concatenate([np.ravel(all_finite[name]) for name in posterior.data_vars])
    rows = [
        _Row(scalar, float(ess_bulk), float(r_hat))
        for scalar, ess_bulk, r_hat in zip(scalars(posterior), summary["ess_bulk"], summary["r_hat"], strict=True)
    ]
    drawable = sorted((row for row, good in zip(rows, finite, strict=True) if good), key=lambda row: row.ess_bulk)
    if not drawable:
        raise ValueError(
            "trace: every variable has draws that are not finite, expected one to draw; look at the draws."
        )
    chosen = drawable[:most]
    title = f"{len(chosen)} of {len(rows)} variables, lowest bulk ESS first"
    left_out = len(drawable) - len(chosen)
    notes = [f"{left_out} left out"] if left_out else []
    if len(drawable) < len(rows):
        notes.append(f"{len(rows) - len(drawable)} not finite")
    return chosen, f"{title} ({', '.join(notes)})" if notes else title


def _draw_row(row: _Row, axes: np.ndarray, posterior: xarray.Dataset, colors: list[str]) -> None:
    draws = posterior[row.scalar.variable].transpose(*SAMPLE_DIMS, ...)[(..., *row.scalar.position)]
    discrete = draws.dtype.kind in "biu"
    draws = draws.reset_coords(drop=True).astype(np.float64)
    ranked = draws
    if discrete:
        # Equal values have no order, and ArviZ would show an order of its own making: chance decides.
        ranked = draws + np.random.default_rng(0).uniform(-0.5, 0.5, draws.shape)
    # The name stays with us: ArviZ would set it in its own way, and matplotlib would take a $ in it for mathematics.
    draw = _draw_row_arviz0 if arviz_generation() == 0 else _draw_row_arviz1
    draw(axes, draws.to_dataset(name="x"), _ranked_draws(row, ranked), colors)
    if (np.ptp(draws.values, axis=1) == 0).all():
        _write_instead(axes[0], "no chain moves")
        _write_instead(axes[2], "no chain moves")
    elif draws.sizes["chain"] == 1:
        _write_instead(axes[2], "one chain: no other to rank it with")
    if discrete:
        _draw_frequencies(axes[0], draws.values, colors)


def _ranked_draws(row: _Row, draws: xarray.DataArray) -> xarray.Dataset | None:
    chains, length = draws.shape
    if chains == 1 or np.isnan(row.r_hat):
        return None
    if arviz_generation() > 0:
        most = int(np.clip(row.ess_bulk / chains, FEWEST_RANKS, MOST_RANKS))
        draws = draws[:, :: _stride(length, most)]
    return draws.to_dataset(name="x")


def _write_instead(axis: Axes, text: str) -> None:
    axis.clear()
    axis.set_xticks([])
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes)


def _draw_frequencies(axis: Axes, draws: np.ndarray, colors: list[str]) -> None:
    axis.clear()
    for values, color in zip(draws, colors, strict=True):
        levels, counts = np.unique(values, return_counts=True)
        axis.plot(levels, counts / values.size, color=color, linewidth=0.8, marker="o", markersize=3)
    axis.margins(y=0.1)
    axis.set_ylim(bottom=0)


def _draw_row_arviz0(axes: np.ndarray, data: xarray.Dataset, ranked: xarray.Dataset | None, colors: list[str]) -> None:
    arviz = import_arviz()
    arviz.plot_trace(
        data,
        kind="trace",
        axes=axes[np.newaxis, :2],
        compact=False,
        combined=False,
        divergences=None,
        chain_prop={"color": colors},
        plot_kwargs={"linewidth": 1.2},
        backend="matplotlib",
        show=False,
    )
    if ranked is None:
        return
    arviz.plot_rank(
        ranked,
        kind="bars" if len(colors) <= len(CHAIN_COLORS) else "vlines",
        ax=axes[2],
        colors=colors,
        labels=False,
        ref_line_kwargs={"linewidth": 0.8, "color": GREY},
        vlines_kwargs={"lw": 0},
        marker_vlines_kwargs={"marker": "o", "markersize": 2.5, "lw": 0},
        backend="matplotlib",
        show=False,
    )


def _draw_row_arviz1(axes: np.ndarray, data: xarray.Dataset, ranked: xarray.Dataset | None, colors: list[str]) -> None:
    import xarray

    arviz = import_arviz()
    # ArviZ wants three colours even of one chain.
    palette = colors * 3
    collection = arviz.PlotCollection(
        data.expand_dims(column=list(COLUMNS)),
        _plot_grid(axes),
        aes={"color": ["chain"], "overlay": ["chain"]},
        backend="matplotlib",
        color=palette,
    )
    arviz.plot_trace_dist(
        xarray.DataTree.from_dict({"posterior": data}),
        compact=False,
        combined=False,
        kind="kde",
        plot_collection=collection,
        color=palette,
    )
    if ranked is None:
        return
    collection.coords = {"column": "rank"}
    arviz.plot_rank(
        xarray.DataTree.from_dict({"posterior": ranked}), plot_collection=collection, visuals={"title": False}
    )


def _plot_grid(axes: np.ndarray) -> xarray.DataTree:
    """Tell ArviZ 1 to draw on these axes; left alone it makes a figure of its own, through pyplot."""
    import xarray

    cells = {"plot": axes, "row_index": np.zeros(len(axes), int), "col_index": np.arange(len(axes))}
    groups = {
        name: xarray.Dataset({"x": ("column", values)}, {"column": list(COLUMNS)}) for name, values in cells.items()
    }
    figure = xarray.Dataset({"figure": np.array(axes[0].figure, dtype=object)})
    return xarray.DataTree.from_dict({"/": figure, **groups})


def _stride(length: int, most: int) -> int:
    return -(-length // most)


def _dress_row(row: _Row, axes: np.ndarray) -> None:
    from matplotlib.ticker import MaxNLocator

    density, trace, rank = axes
    for line in trace.lines:
        x, y = line.get_data()
        stride = _stride(len(x), MOST_TRACE_DRAWS)
        line.set(xdata=x[::stride], ydata=y[::stride], linewidth=0.6, alpha=0.6)
    trace.margins(x=0)
    for axis in (density, rank):
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        if axis.has_data():
            axis.xaxis.set_major_locator(MaxNLocator(5))
    for axis in axes:
        axis.set(title="", xlabel="", ylabel="")
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
        for text in (axis.xaxis.offsetText, axis.yaxis.offsetText, *axis.texts):
            text.set(fontsize=8, color=GREY)
    label = row.scalar.label
    label = label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…"
    # Not a title: a long one would push the columns apart instead of running on over the trace.
    density.annotate(
        label,
        (0, 1),
        xytext=(0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=9.5,
        fontweight="bold",
        parse_math=False,
        in_layout=False,
    )
    r_hat = "" if np.isnan(row.r_hat) else ",  R-hat above 100" if row.r_hat > 100 else f",  R-hat {row.r_hat:.3f}"
    rank.set_title(f"bulk ESS {row.ess_bulk:,.0f}{r_hat}", loc="left", fontsize=9, color=GREY)


def _dress_figure(figure: matplotlib.figure.Figure, axes: np.ndarray, title: str, colors: dict[int | str, str]) -> None:
    from matplotlib.lines import Line2D

    for axis, text in zip(axes[-1], ("value, one density a chain", "draw", RANK_TEXT[arviz_generation()]), strict=True):
        axis.set_xlabel(text, fontsize=8.5, color=GREY)
    figure.text(0.006, 1 - 0.1 / figure.get_figheight(), title, va="top", fontsize=12)
    if len(colors) <= len(CHAIN_COLORS):
        handles = [Line2D([], [], color=color, linewidth=2, label=f"chain {chain}") for chain, color in colors.items()]
        figure.legend(handles=handles, loc="upper right", ncols=len(handles), fontsize=9, frameon=False)
