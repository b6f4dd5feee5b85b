"""A random gated recurrent unit over a long sequence: iterations against its length, for several widths.

    python examples/gru.py --output gru.png

The weights are those of an untrained layer, the inputs standard normal. Newton's matrices are the Jacobians, those of
quasi-Newton their exact diagonals; both settle in a few iterations whatever the length. Picard takes the identity, far
from the Jacobian of a unit that forgets, and gains about a step an iteration. Jacobi, which takes 0, is nearer here.

Source: Gonzalez et al. 2025, "A unifying framework for parallelizing sequential models with linear dynamical systems",
figure 2, which times the methods on a GPU; here iterations are counted, at smaller sizes, and Picard is capped. The
memory is that of the compiled program for a batch of sequences. Ends in a figure and a table.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import matplotlib.figure
import numpy as np
from jaxtyping import Array, Float
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

import parsample as ps
from parsample.engine.memory import evaluation_bytes

METHODS: dict[str, Any] = {
    "newton": ps.methods.Newton(),
    "quasi_newton": ps.methods.QuasiNewton(estimator="exact"),
    "jacobi": ps.methods.Jacobi(),
    "picard": ps.methods.Picard(),
}


class Row(NamedTuple):
    """What a method made of a sequence."""

    dim: int
    steps: int
    method: str
    iterations: int
    converged: bool
    residual: float
    difference: float
    bytes: int


def solve(dims: list[int], lengths: list[int], cap: int, batch: int) -> list[Row]:
    """Run random units over sequences of several lengths, by every method."""
    rows = []
    for dim in dims:
        cell = eqx.nn.GRUCell(dim, dim, key=jax.random.key(dim))
        start = jax.random.normal(jax.random.key(1), (dim,))
        sequence = jax.random.normal(jax.random.key(2), (max(lengths), dim))

        def transition(state: Float[Array, " dim"], input: Float[Array, " dim"], cell=cell) -> Float[Array, " dim"]:
            return cell(input, state)

        for steps in lengths:
            loop = ps.evaluate_sequential(transition, start, sequence[:steps])
            for name, method in METHODS.items():
                options = {"method": method, "max_iterations": min(cap, steps)}
                solution = ps.evaluate(transition, start, sequence[:steps], throw=False, **options)
                difference = float(np.max(np.abs(solution.states - loop.states)))
                verdict = int(solution.iterations), bool(solution.converged), float(solution.residual.max())
                size = evaluation_bytes(transition, start, sequence[:steps], batch, **options)
                rows.append(Row(dim, steps, name, *verdict, difference, size))
    return rows


def draw(rows: list[Row], path: Path) -> None:
    """Plot the iterations against the length, a panel for each width; open markers did not converge."""
    dims = sorted({row.dim for row in rows})
    figure = matplotlib.figure.Figure(figsize=(3.2 * len(dims) + 1, 4), layout="constrained")
    panels = figure.subplots(1, len(dims), sharey=True, squeeze=False)[0]
    for axes, dim in zip(panels, dims, strict=True):
        lengths = sorted({row.steps for row in rows})
        axes.loglog(lengths, lengths, ":", color="grey", lw=1.2, label="as many as steps")
        for k, name in enumerate(METHODS):
            chosen = [row for row in rows if (row.dim, row.method) == (dim, name)]
            axes.loglog([row.steps for row in chosen], [row.iterations for row in chosen], lw=1.6, color=f"C{k}")
            for row in chosen:
                face = f"C{k}" if row.converged else "white"
                axes.plot(row.steps, row.iterations, "o", ms=5, color=f"C{k}", markerfacecolor=face)
            axes.plot([], [], "o-", ms=5, lw=1.6, color=f"C{k}", label=name)
        axes.set_title(f"D = {dim}", loc="left", fontsize=11)
        axes.set_xlabel("steps")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("iterations (open: not converged)")
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> Table:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 300, 1000, 3000])
    parser.add_argument("--cap", type=int, default=1000, help="most iterations")
    parser.add_argument("--batch", type=int, default=16, help="sequences whose memory is given; one is run")
    parser.add_argument("--output", type=Path, default=Path("gru.png"))
    options = parser.parse_args(arguments)
    rows = solve(options.dims, options.steps, options.cap, options.batch)
    header = "D", "steps", "method", "iterations", "largest residual", "difference from the loop"
    table = Table(*header, f"memory, batch of {options.batch}", box=None)
    for row in rows:
        iterations = f"{row.iterations}" if row.converged else f"{row.iterations}, not converged"
        numbers = f"{row.residual:.1g}", f"{row.difference:.1g}", decimal(row.bytes)
        table.add_row(f"{row.dim}", f"{row.steps}", row.method, iterations, *numbers)
    Console(width=110).print(table)
    draw(rows, options.output)
    print(f"figure: {options.output}")
    return table


if __name__ == "__main__":
    main()
