"""What the pictures share: colours, axes that pyplot does not know, and their dress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Distinct for colour-blind readers too (Okabe and Ito).
CHAIN_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
GREY = "#404040"
# Inches. On a screen's 96 points an inch this is about as wide as a telephone: text is as large there as elsewhere.
SIZE = (4.2, 2.9)


def chain_colors(number: int) -> list[str]:
    """Return a colour a chain."""
    if number <= len(CHAIN_COLORS):
        return list(CHAIN_COLORS[:number])
    import matplotlib
    from matplotlib.colors import to_hex

    return [to_hex(color) for color in matplotlib.colormaps["viridis"](np.linspace(0, 0.95, number))]


def axes_or_new(ax: Axes | None) -> Axes:
    """Return the axes, or those of a new figure, which pyplot does not know, so that there is nothing to close."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=SIZE, layout="constrained").subplots()


def dress(ax: Axes, **texts: Any) -> None:
    """Set the labels, and take away what no reader needs."""
    ax.set(**texts)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=9)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set(fontsize=9.5, color=GREY)


def add_legend(ax: Axes, **options: Any) -> None:
    """Add a legend without a frame, inside the axes where there is most room."""
    ax.legend(frameon=False, fontsize=9, handlelength=1.4, **options)
