"""Langevin dynamics in a mixture of anisotropic Gaussians: iterations against the step size.

    python examples/anisotropic_mixture.py --output anisotropic_mixture.png

A step of unadjusted Langevin (ULA) is x + h grad log p(x) + sqrt(2 h) noise, so its Jacobian is I + h H, with H the
Hessian of the log density. What counts is h T |H|: where it is small the Jacobians are the identity as far as a chain
of T steps can tell, and Picard, which takes the identity and needs no derivative, is the method of choice. Near 1e-5
the scaled identity and quasi-Newton need fewer iterations, each with a Jacobian-vector product beside the gradient; a
decade or two further on none of the three is good, because the coupling between coordinates is what they leave out.
Newton needs two all along: in these dimensions a chain stays in its component, where the density is nearly Gaussian
and the transition nearly linear. It pays with matrices of D x D.

Source: Gonzalez et al. 2025, "A unifying framework for parallelizing sequential models with linear dynamical systems",
figure 3: step 1e-5, D from 32 to 256, 1,000 to 30,000 steps, batches of 16, stopped at a merit of 5e-4, seconds and
memory on a GPU. Here one chain is run, with the driver's tolerance on every step, and the step size is varied as well;
the memory is that of the compiled program for a batch, and where it is too much for one chain nothing is run. Ends in
a figure and a table.
"""

import argparse
import itertools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib.figure
import numpy as np
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

import parsample as ps
from parsample.engine.memory import evaluation_bytes

METHODS: dict[str, Any] = {
    "newton": ps.methods.Newton(),
    "quasi_newton": ps.methods.QuasiNewton(),
    "scaled_identity": ps.methods.ScaledIdentity(),
    "picard": ps.methods.Picard(),
    "jacobi": ps.methods.Jacobi(),
}


class Row(NamedTuple):
    """What a method made of a chain; None where it was not run."""

    dim: int
    steps: int
    step_size: float
    method: str
    bytes: int
    iterations: int | None = None
    converged: bool = False
    residual: float = 0.0
    difference: float = 0.0


def solve(target: Any, steps: int, step_size: float, options: argparse.Namespace, sizes: dict) -> list[Row]:
    """Evaluate a chain by every method; `sizes` keeps the memory, which the step size does not change."""
    rows: list[Row] = []
    start = {"x": target.means[0]}
    ula = ps.samplers.ULA(target.logdensity, step_size)
    inputs = ula.draw_inputs(jax.random.key(1), steps, start)
    loop = ps.evaluate_sequential(ula.transition, start, inputs, throw=False)
    dim = start["x"].size
    if not bool(loop.converged):
        print(f"D = {dim}, step size {step_size:g}: the chain itself is not stable, and left out")
        return rows
    for name, method in METHODS.items():
        # Newton without its projection, which is a singular value decomposition of D x D at every step. At these step
        # sizes it is not needed.
        chosen = {"method": method, "max_iterations": min(options.cap, steps)}
        chosen |= {"conditioning": ps.Conditioning(projection=False)} if name == "newton" else {}
        if (dim, steps, name) not in sizes:
            sizes[dim, steps, name] = evaluation_bytes(ula.transition, start, inputs, options.batch, **chosen)
        row = Row(dim, steps, step_size, name, sizes[dim, steps, name])
        if row.bytes > options.batch * options.largest_bytes:
            rows.append(row)
            continue
        solution = ps.evaluate(ula.transition, start, inputs, throw=False, **chosen)
        rows.append(
            row._replace(
                iterations=int(solution.iterations),
                converged=bool(solution.converged),
                residual=float(solution.residual.max()),
                difference=float(np.max(np.abs(solution.states["x"] - loop.states["x"]))),
            )
        )
    return rows


def draw(rows: list[Row], path: Path, steps: int) -> None:
    """Plot the iterations against the step size, a panel for each dimension; open markers did not converge."""
    rows = [row for row in rows if row.steps == steps and row.iterations is not None]
    dims = sorted({row.dim for row in rows})
    figure = matplotlib.figure.Figure(figsize=(4.2 * len(dims) + 2.2, 4), layout="constrained")
    panels = figure.subplots(1, len(dims), sharey=True, squeeze=False)[0]
    for axes, dim in zip(panels, dims, strict=True):
        for k, name in enumerate(METHODS):
            chosen = [row for row in rows if (row.dim, row.method) == (dim, name)]
            axes.loglog([row.step_size for row in chosen], [row.iterations for row in chosen], lw=1.6, color=f"C{k}")
            for row in chosen:
                face = f"C{k}" if row.converged else "white"
                axes.plot(row.step_size, row.iterations, "o", ms=5, color=f"C{k}", markerfacecolor=face)
            if any(row.method == name for row in rows):
                axes.plot([], [], "o-", ms=5, lw=1.6, color=f"C{k}", label=name)
        axes.set_title(f"ULA, D = {dim}, {steps} steps", loc="left", fontsize=11)
        axes.set_xlabel("step size")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("iterations (open: not converged)")
    panels[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> Table:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, nargs="+", default=[32], help="the paper's are 32 to 256")
    parser.add_argument("--components", type=int, default=3)
    parser.add_argument("--steps", type=int, nargs="+", default=[1000], help="the figure shows the first")
    parser.add_argument("--step-sizes", type=float, nargs="+", default=[1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3])
    parser.add_argument("--cap", type=int, default=200, help="most iterations")
    parser.add_argument("--batch", type=int, default=16, help="chains whose memory is given; one is run")
    parser.add_argument("--largest-bytes", type=int, default=5 * 10**9, help="for one chain; above it nothing is run")
    parser.add_argument("--output", type=Path, default=Path("anisotropic_mixture.png"))
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    sizes: dict[tuple[int, int, str], int] = {}
    for dim in options.dims:
        target = ps.targets.GaussianMixture.anisotropic(jax.random.key(dim), options.components, dim)
        for steps, step_size in itertools.product(options.steps, options.step_sizes):
            rows += solve(target, steps, step_size, options, sizes)
            print(f"D = {dim}, {steps} steps, step size {step_size:g} done", flush=True)
    header = "D", "steps", "step size", "method", "iterations", "largest residual", "difference from the loop"
    table = Table(*header, f"memory, batch of {options.batch}", box=None)
    for row in rows:
        where = f"{row.dim}", f"{row.steps}", f"{row.step_size:g}", row.method
        if row.iterations is None:
            table.add_row(*where, "not run", "", "", decimal(row.bytes))
            continue
        iterations = f"{row.iterations}" if row.converged else f"{row.iterations}, not converged"
        table.add_row(*where, iterations, f"{row.residual:.1g}", f"{row.difference:.1g}", decimal(row.bytes))
    Console(width=130).print(table)
    worst = max((row.residual for row in rows if row.converged), default=0.0)
    print(f"largest residual of what converged {worst:.1g}")
    draw(rows, options.output, options.steps[0])
    print(f"figure: {options.output}")
    return table


if __name__ == "__main__":
    main()
