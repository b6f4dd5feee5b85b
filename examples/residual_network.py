"""Depth as the sequence: a residual network of a thousand small blocks, evaluated in parallel over its depth.

    python examples/residual_network.py --output residual_network.png

Block t is x + h tanh(W_t x + b_t), with random weights as its input. The Jacobian is I + h diag(1 - tanh^2) W_t: near
the identity for a small h, where Picard, which needs no derivative, is as good as any; as h grows the methods part. The
network expands: its Jacobians have norms above 1, and Newton is far better without the projection that is its default,
in iterations and in accuracy. All blocks are accepted together (`Stopping(accept_early=0)`): a block that is accepted
before the ones after it hands on the error it is accepted with, and the network makes it grow; the rows "early" show
what that costs, in the difference from the loop. No method pays off where blocks are computed one after the other
anyway: what is counted is the depth that is left if each has a processor of its own.

Source: the view of depth as a sequence is that of Song et al. 2021, "Accelerating feedforward computation via parallel
nonlinear equation solving"; there trained DenseNets, here random weights, so that h can be varied. Ends in a figure
and a table.
"""

import argparse
import itertools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
from jaxtyping import Array, Float
from rich.console import Console
from rich.table import Table

import parsample as ps

NOT_PROJECTED = ps.Conditioning(projection=False)
TOGETHER, EARLY = ps.Stopping(accept_early=0.0), ps.Stopping(accept_early=1.0)
METHODS: dict[str, dict[str, Any]] = {
    "newton": {"method": "newton"},
    # The Jacobians of a network that expands have norms above 1, which a projection takes away.
    "newton, not projected": {"method": "newton", "conditioning": NOT_PROJECTED},
    "not projected, early": {"method": "newton", "conditioning": NOT_PROJECTED, "stopping": EARLY},
    "elk": {"method": "elk"},
    "quasi_newton": {"method": ps.methods.QuasiNewton(estimator="exact")},
    "picard": {"method": "picard"},
    "picard, early": {"method": "picard", "stopping": EARLY},
    "anderson of picard": {"method": "anderson"},
    "scaled_identity": {"method": "scaled_identity"},
    "jacobi": {"method": "jacobi"},
}
# Lines of variants, in the colour of the row before them.
STYLES = {"newton, not projected": "--", "not projected, early": ":", "picard, early": ":"}


class Row(NamedTuple):
    """What a method made of a network."""

    h: float
    method: str
    iterations: int
    converged: bool
    residual: float
    difference: float
    largest_state: float


def solve(blocks: int, dim: int, sizes: list[float], cap: int) -> list[Row]:
    """Evaluate networks whose blocks move the state by more and more, by every method."""
    keys = jax.random.split(jax.random.key(0), 3)
    weights = jax.random.normal(keys[0], (blocks, dim, dim)) / np.sqrt(dim), jax.random.normal(keys[1], (blocks, dim))
    start = jax.random.normal(keys[2], (dim,))
    rows = []
    for h in sizes:

        def block(state: Float[Array, " dim"], weights: tuple[Array, Array], h=h) -> Float[Array, " dim"]:
            matrix, bias = weights
            return state + h * jnp.tanh(matrix @ state + bias)

        loop = ps.evaluate_sequential(block, start, weights)
        for name, options in METHODS.items():
            given: dict[str, Any] = {
                "stopping": TOGETHER,
                "max_iterations": min(cap, blocks),
            } | options
            solution = ps.evaluate(block, start, weights, throw=False, **given)
            difference = float(np.max(np.abs(solution.states - loop.states)))
            verdict = int(solution.iterations), bool(solution.converged), float(solution.residual.max())
            rows.append(Row(h, name, *verdict, difference, float(np.max(np.abs(loop.states)))))
    return rows


def draw(rows: list[Row], path: Path, blocks: int) -> None:
    """Plot the iterations against h; open markers did not converge."""
    figure = matplotlib.figure.Figure(figsize=(8.5, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(blocks, ls=":", color="grey", lw=1.2)
    axes.text(min(row.h for row in rows), blocks * 1.08, "as many as blocks", color="grey", fontsize=9)
    colors = itertools.accumulate(name not in STYLES for name in METHODS)
    for name, number in zip(METHODS, colors, strict=True):
        chosen = [row for row in rows if row.method == name]
        color, style = f"C{number - 1}", STYLES.get(name, "-")
        axes.loglog([row.h for row in chosen], [row.iterations for row in chosen], lw=1.6, color=color, ls=style)
        for row in chosen:
            axes.plot(
                row.h, row.iterations, "o", ms=5, color=color, markerfacecolor=color if row.converged else "white"
            )
        axes.plot([], [], marker="o", ms=5, lw=1.6, color=color, ls=style, label=name)
    axes.set_xlabel("h, how much a block moves the state")
    axes.set_ylabel("iterations (open: not converged)")
    axes.set_ylim(top=2 * blocks)
    axes.set_title(f"A residual network of {blocks} blocks, in parallel over depth", loc="left", fontsize=11)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> Table:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=1000)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.001, 0.01, 0.03, 0.1, 0.3])
    parser.add_argument("--cap", type=int, default=300, help="most iterations")
    parser.add_argument("--output", type=Path, default=Path("residual_network.png"))
    options = parser.parse_args(arguments)
    rows = solve(options.blocks, options.dim, options.sizes, options.cap)
    columns = "h", "method", "iterations", "largest residual", "difference from the loop", "largest state"
    table = Table(*columns, box=None)
    for row in rows:
        iterations = f"{row.iterations}" if row.converged else f"{row.iterations}, not converged"
        numbers = f"{row.residual:.1g}", f"{row.difference:.1g}", f"{row.largest_state:.1f}"
        table.add_row(f"{row.h:g}", row.method, iterations, *numbers)
    Console(width=110).print(table)
    draw(rows, options.output, options.blocks)
    print(f"figure: {options.output}")
    return table


if __name__ == "__main__":
    main()
