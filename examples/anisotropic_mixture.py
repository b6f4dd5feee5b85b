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
memory on a GPU. Here one chain, the driver's tolerance on every step, and iterations, with the step size varied as
well. Ends in a figure and a table.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib.figure
import numpy as np
from rich.console import Console
from rich.table import Table

import parsample as ps

METHODS: dict[str, Any] = {
    "newton": ps.methods.Newton(),
    "quasi_newton": ps.methods.QuasiNewton(),
    "scaled_identity": ps.methods.ScaledIdentity(),
    "picard": ps.methods.Picard(),
    "jacobi": ps.methods.Jacobi(),
}


class Row(NamedTuple):
    """What a method made of a chain."""

    dim: int
    step_size: float
    method: str
    iterations: int
    converged: bool
    residual: float
    difference: float


def solve(dims: list[int], components: int, steps: int, step_sizes: list[float], cap: int) -> list[Row]:
    """Evaluate chains of several dimensions and step sizes by every method."""
    rows = []
    for dim in dims:
        target = ps.targets.GaussianMixture.anisotropic(jax.random.key(dim), components, dim)
        start = {"x": target.means[0]}
        for step_size in step_sizes:
            ula = ps.samplers.ULA(target.logdensity, step_size)
            inputs = ula.draw_inputs(jax.random.key(1), steps, start)
            loop = ps.evaluate_sequential(ula.transition, start, inputs, throw=False)
            if not bool(loop.converged):
                print(f"D = {dim}, step size {step_size:g}: the chain itself is not stable, and left out")
                continue
            for name, method in METHODS.items():
                if name == "newton" and dim > 64:
                    continue  # a singular value decomposition of D x D at every step, for the projection
                options = {"method": method, "max_iterations": min(cap, steps), "throw": False}
                solution = ps.evaluate(ula.transition, start, inputs, **options)
                difference = float(np.max(np.abs(solution.states["x"] - loop.states["x"])))
                verdict = int(solution.iterations), bool(solution.converged), float(solution.residual.max())
                rows.append(Row(dim, step_size, name, *verdict, difference))
    return rows


def draw(rows: list[Row], path: Path, steps: int) -> None:
    """Plot the iterations against the step size, a panel for each dimension; open markers did not converge."""
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
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--step-sizes", type=float, nargs="+", default=[1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3])
    parser.add_argument("--cap", type=int, default=200, help="most iterations")
    parser.add_argument("--output", type=Path, default=Path("anisotropic_mixture.png"))
    options = parser.parse_args(arguments)
    rows = solve(options.dims, options.components, options.steps, options.step_sizes, options.cap)
    table = Table("D", "step size", "method", "iterations", "largest residual", "difference from the loop", box=None)
    for row in rows:
        iterations = f"{row.iterations}" if row.converged else f"{row.iterations}, not converged"
        numbers = f"{row.residual:.1g}", f"{row.difference:.1g}"
        table.add_row(f"{row.dim}", f"{row.step_size:g}", row.method, iterations, *numbers)
    Console(width=110).print(table)
    draw(rows, options.output, options.steps)
    print(f"figure: {options.output}")
    return table


if __name__ == "__main__":
    main()
