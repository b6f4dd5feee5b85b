"""Pictures of generated images, and a movie of denoising trajectories that settle."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from parsample.report.plots.canvas import GREY
from parsample.report.plots.trace_rank import check_figure_path
from parsample.results.trace import replacing

# What is within this share of the noise level from the loop's sample is taken for settled: nobody sees the rest.
CLOSE = 0.01
# Columns of a movie, steps of the trajectories; and frames in which what is left of the loop runs by.
COLUMNS, LAST_FRAMES = 8, 8
ORANGE = np.array([0.90, 0.62, 0.0])


class Settling(NamedTuple):
    """The trajectories of several samples before every iteration and after the last.

    Attributes:
        frames: shape (iterations + 1, samples, steps, height, width).
        loop: those of the sequential sampler, shape (samples, steps, height, width).
        levels: scale of a pixel at every step, sqrt(sigma^2 + alpha^2), for the shades of grey.
        scales: noise level of every step, for what is close.
    """

    frames: np.ndarray
    loop: np.ndarray
    levels: np.ndarray
    scales: np.ndarray


def plot_images(images: np.ndarray, path: Any, title: str = "") -> Path:
    """Write a grid of grey images, whose pixels go from -1 (white) to 1 (black).

    Args:
        images: shape (count, height, width).
        path: of the picture.
        title: above it.

    Returns:
        The path.

    Raises:
        ValueError: the path cannot be written, or ends in a format that matplotlib does not know.
    """
    from matplotlib.figure import Figure

    target = check_figure_path(path)
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    # A title needs room, however few the images.
    figure = Figure(
        figsize=(max(0.6 * columns, 2.4 if title else 0.0), 0.6 * rows + (0.35 if title else 0.0)), layout="constrained"
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image in zip(grid.flat, images, strict=False):
        axes.imshow(image, cmap="gray_r", vmin=-1, vmax=1)
    if title:
        figure.suptitle(title, fontsize=9, color=GREY)
    with replacing(target) as temporary:
        figure.savefig(temporary, dpi=150, format=target.suffix[1:] or "png")
    return target


def check_movie_path(path: Any) -> Path:
    """Return the path of a movie.

    Raises:
        ValueError: it cannot be written, or does not end in .gif.
    """
    from parsample.results.trace import check_writable

    target = check_writable(path)
    if target.suffix.lower() != ".gif":
        raise ValueError(f"path: '{path}' ends in '{target.suffix}', expected an animated picture; use .gif.")
    return target


def film_settling(settling: Settling, path: Any, title: str) -> Path:
    """Write a movie: on the left all steps at once, settling over the iterations; on the right the loop, step by step.

    A row is a sample, a column a step, from noise to the finished image. Orange is what is not yet what the loop makes.
    A frame is an iteration, which is a round but for Parareal; the loop makes one step in it. Once the left side has
    settled the loop runs by.

    Args:
        settling: the trajectories.
        path: of the movie, a GIF.
        title: above it.

    Returns:
        The path.

    Raises:
        ValueError: the path cannot be written, or does not end in .gif.
    """
    from matplotlib.animation import PillowWriter
    from matplotlib.figure import Figure

    target = check_movie_path(path)
    samples, steps = settling.loop.shape[:2]
    shown = np.unique(np.linspace(0, steps - 1, COLUMNS).round().astype(int))
    last = len(settling.frames) - 1
    rounds = [*range(last + 1), *np.unique(np.linspace(min(last, steps), steps, LAST_FRAMES).round().astype(int))[1:]]
    figure = Figure(figsize=(8.4, 0.5 * samples + 0.85))
    sides = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.1, top=1 - 0.55 / figure.get_figheight(), wspace=0.04)
    figure.suptitle(title, fontsize=10, x=0.012, ha="left")
    blank = np.ones_like(_tiles(settling.loop[:, shown], settling.levels[shown], None))
    artists = []
    for axes, words in zip(sides, ("all steps at once", "one step after the other"), strict=True):
        artists.append(axes.imshow(blank, vmin=0, vmax=1, interpolation="nearest"))
        axes.set(xticks=[], yticks=[], xlabel=f"step 1 to {steps}")
        axes.xaxis.label.set(fontsize=8.5, color=GREY)
        axes.spines[:].set_visible(False)
        axes.set_title(words, fontsize=9.5, loc="left")
    writer = PillowWriter(fps=2)
    with replacing(target) as temporary:
        # Matplotlib takes the format from the name.
        named = temporary.with_suffix(".gif")
        with writer.saving(figure, named, dpi=80):
            for number in [*rounds, *[rounds[-1]] * 4]:  # rest at the end
                now = min(number, last)
                error = np.sqrt(np.mean((settling.frames[now] - settling.loop) ** 2, (2, 3))) / settling.scales
                artists[0].set_data(
                    _tiles(settling.frames[now][:, shown], settling.levels[shown], error[:, shown] > CLOSE)
                )
                done = np.broadcast_to(shown < number, (samples, len(shown)))
                artists[1].set_data(_tiles(settling.loop[:, shown], settling.levels[shown], None, done))
                share = (error <= CLOSE).mean()
                sides[0].set_title(f"all steps at once: iteration {now}, {share:.0%} settled", fontsize=9.5, loc="left")
                sides[1].set_title(f"one after the other: step {number} of {steps}", fontsize=9.5, loc="left")
                writer.grab_frame()
        named.replace(temporary)
    return target


def _tiles(images: np.ndarray, levels: np.ndarray, orange: Any, done: Any = None) -> np.ndarray:
    """Return one RGB picture of images of shape (rows, columns, height, width), with gaps between them."""
    # Noise is wider than the finished image, which goes from -1 to 1.
    grey = np.clip(0.5 - 0.5 * images / levels[:, None, None], 0, 1)
    rgb = np.repeat(grey[..., None], 3, -1)
    if orange is not None:
        rgb = np.where(orange[..., None, None, None], 1 - (1 - ORANGE) * (1.25 - rgb), rgb)
    if done is not None:
        rgb = np.where(done[..., None, None, None], rgb, 0.93)
    rows, columns, height, width = images.shape
    framed = np.ones((rows, columns, height + 1, width + 1, 3))
    framed[:, :, :height, :width] = rgb
    return np.clip(framed.transpose(0, 2, 1, 3, 4).reshape(rows * (height + 1), columns * (width + 1), 3), 0, 1)
