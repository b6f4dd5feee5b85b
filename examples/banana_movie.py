"""A movie: the draws of a MALA chain on the banana, all at once, settling over the iterations.

    python examples/banana_movie.py --output banana.gif --draws 100000 --step-size 0.2

The first frame is the guess, every step at the start of the chain; each frame after it is an iteration over all steps.
A draw is blue once it is, to 0.001, the one that the sequential loop makes, and orange before; on the right is their
share. With the default step the chain soon forgets where it was, and Newton settles it in a few dozen iterations. A
step of 1 mixes better but does not settle within the cap of 300 iterations, and of 100,000 draws with the default step
a tenth is still wrong then; with a step of 0.2, as above, they settle.

Source: the setting, a long chain on the banana solved over its whole length, is that of the HMC experiment of Zoltowski
et al. 2025, "Parallelizing MCMC across the sequence length"; here the sampler is MALA, in few dimensions and with
Newton. Ends in a movie and a table.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.animation
import matplotlib.figure
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.console import Console
from rich.table import Table

import parsample as ps

POINTS = 10_000  # drawn in a frame, so that the file stays small
CLOSE, TIGHT = 1e-3, 1e-9  # in the units of the state
COLORS = {True: "#2b6cb0", False: "#e07b39"}


class Frame(NamedTuple):
    """The chain before or after an iteration: states, which of them are those of the loop, the largest residual."""

    states: np.ndarray
    settled: np.ndarray
    residual: float


def settle(draws: int, step_size: float, method: str, most: int) -> tuple[list[Frame], np.ndarray]:
    """Return the chain after every iteration, and that of the sequential loop."""
    mala = ps.samplers.MALA(ps.targets.Banana().logdensity, step_size)
    start: Any = {"x": jnp.zeros(2)}
    inputs = mala.draw_inputs(jax.random.key(0), draws, start)
    loop = np.asarray(ps.evaluate_sequential(mala.transition, start, inputs).states["x"])
    guess, frames = {"x": jnp.zeros((draws, 2))}, []
    residual = float("nan")
    for _ in range(most + 1):
        states = np.asarray(guess["x"])
        frames.append(Frame(states, np.abs(states - loop).max(1) <= CLOSE, residual))
        if frames[-1].settled.all() or len(frames) > most:
            break
        # One iteration from the last guess: compiled once, as only the guess is another. The tolerance is far below
        # CLOSE, because what an iteration accepts is not corrected by the next.
        options: dict[str, Any] = {"method": method, "max_iterations": 1, "atol": TIGHT, "rtol": 0.0, "throw": False}
        solution = ps.evaluate(mala.transition, start, inputs, guess=guess, **options)
        guess, residual = solution.states, float(solution.residual.max())
    return frames, loop


def chosen(count: int, most: int) -> list[int]:
    """Return the frames of the movie: all, or where there are more, dense at the beginning, with the last."""
    if count <= most:
        return list(range(count))
    return sorted({round((count - 1) * (k / (most - 1)) ** 1.5) for k in range(most)})


def film(frames: list[Frame], loop: np.ndarray, path: Path, title: str, most: int) -> None:
    """Write the movie."""
    figure = matplotlib.figure.Figure(figsize=(7.6, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    plane, curve = figure.subplots(1, 2, width_ratios=(1.5, 1))
    draws, low, high = len(loop), loop.min(0), loop.max(0)
    margin = 0.06 * (high - low)
    plane.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    plane.set(xlabel="x[0]", ylabel="x[1]")
    rows = np.unique(np.linspace(0, draws - 1, min(draws, POINTS)).astype(int))
    points = {done: plane.plot([], [], ".", ms=1.6, color=COLORS[done])[0] for done in (False, True)}
    caption = plane.set_title(title, loc="left", fontsize=10)
    shares = np.array([frame.settled.mean() for frame in frames])
    curve.plot(100 * shares, color="lightgrey", lw=1.4)
    (line,) = curve.plot([], [], color=COLORS[True], lw=1.8)
    curve.set(
        xlabel="iteration", ylabel="% of the draws that are those of the loop", xlim=(0, len(frames) - 1), ylim=(0, 103)
    )
    for axes in (plane, curve):
        axes.spines[["top", "right"]].set_visible(False)
    writer = matplotlib.animation.PillowWriter(fps=5)
    with writer.saving(figure, path, dpi=90):
        numbers = chosen(len(frames), most)
        for number in [*numbers, *[numbers[-1]] * 8]:  # rest at the end
            states, settled, _ = frames[number]
            for done, artist in points.items():
                there = rows[settled[rows] == done]
                artist.set_data(states[there, 0], states[there, 1])
            line.set_data(np.arange(number + 1), 100 * shares[: number + 1])
            caption.set_text(f"{title}: iteration {number}")
            writer.grab_frame()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--step-size", type=float, default=0.5)
    parser.add_argument("--method", choices=sorted(set(ps.METHODS) - {"sequential"}), default="newton")
    parser.add_argument("--most-iterations", type=int, default=300)
    parser.add_argument("--frames", type=int, default=48, help="of the movie, at most")
    parser.add_argument("--output", type=Path, default=Path("banana.gif"))
    options = parser.parse_args(arguments)
    with jax.enable_x64(True):
        frames, loop = settle(options.draws, options.step_size, options.method, options.most_iterations)
    table = Table("iteration", "draws settled", "largest residual", box=None)
    for number in chosen(len(frames), 12):
        table.add_row(f"{number}", f"{frames[number].settled.sum()}", f"{frames[number].residual:.1g}")
    Console(width=110).print(table)
    difference = np.abs(loop - frames[-1].states).max()
    verdict = "all draws settled" if frames[-1].settled.all() else "NOT all draws settled"
    print(f"{verdict} after {len(frames) - 1} iterations; largest difference from the loop {difference:.1g}")
    film(frames, loop, options.output, f"{options.draws:,} draws of MALA", options.frames)
    print(f"movie: {options.output}, {options.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
