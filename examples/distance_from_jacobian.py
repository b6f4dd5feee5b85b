"""Iterations against the distance of A from the Jacobian J: as simple as possible, but no simpler.

    python examples/distance_from_jacobian.py --output distance_from_jacobian.png

Every method is a choice of matrices A[t], and the linear system that an iteration solves goes wrong by what A leaves
out of the Jacobian. Left: a recursion x' = tanh(W x + u) is solved with A = its Jacobian plus a perturbation of growing
size, of four structures. With the Jacobian itself the iteration is Newton's, small errors cost nothing, and the size of
the perturbation, its spectral norm, tells most of what larger ones cost. Not all: a single entry, which errors seldom
pass through, costs least. Right: the coupling between the coordinates is varied instead, and the methods take what they
take, diagonal, identity, nothing. Where the coupling is weak a diagonal is all that is needed. Picard and Jacobi are
equally far from J, and far apart in iterations: A has to be stable too, and the identity, which never forgets an error,
sums what it leaves out over all steps.

Source: the analysis of the rate by the distance of A from J is that of Gonzalez et al. 2025, "A unifying framework for
parallelizing sequential models with linear dynamical systems"; this experiment is made here. Ends in a figure and a
table.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
from jaxtyping import Array, Float
from rich.console import Console
from rich.table import Table

import parsample as ps
from parsample.engine.iteration import Linearised, Steps
from parsample.engine.matrices import Dense
from parsample.engine.methods.base import LinearMethod
from parsample.engine.transition import FlatTransition, as_transition, flatten

STRUCTURES = ("same direction", "fresh direction each step", "scaled Jacobian", "one entry")
METHODS: dict[str, Any] = {
    "newton": ps.methods.Newton(),
    "quasi_newton": ps.methods.QuasiNewton(estimator="exact"),
    "scaled_identity": ps.methods.ScaledIdentity(),
    "picard": ps.methods.Picard(),
    "jacobi": ps.methods.Jacobi(),
}


class Perturbed(LinearMethod):
    """A[t] = J[t] + E[t], with |E[t]| = size in spectral norm: a method of one class, made for this experiment."""

    projects: ClassVar[bool] = False

    size: Float[Array, ""]
    structure: str = eqx.field(static=True)

    def linearise(self, transition: FlatTransition, steps: Steps) -> Linearised:
        """Return the values and the perturbed Jacobians."""
        values, exact, details = ps.methods.Newton().linearise(transition, steps)
        assert isinstance(exact, Dense)
        count, dim = values.shape
        key = jax.random.key(7)
        match self.structure:
            case "same direction":
                direction = jnp.broadcast_to(jax.random.normal(key, (dim, dim)), (count, dim, dim))
            case "fresh direction each step":
                direction = jax.random.normal(key, (count, dim, dim))
            case "scaled Jacobian":
                direction = -exact.entries
            case _:
                direction = jnp.zeros((count, dim, dim)).at[:, 0, 1].set(1.0)
        norm = jnp.linalg.norm(direction, ord=2, axis=(1, 2), keepdims=True)
        return Linearised(values, Dense(exact.entries + self.size * direction / norm), details)


class Row(NamedTuple):
    """One run: which, how far A is from J in spectral norm (mean over the steps), and how it went."""

    panel: str
    name: str
    coupling: float
    distance: float
    iterations: int
    converged: bool
    residual: float
    difference: float


def recursion(dim: int, steps: int, coupling: float) -> tuple[Callable, Array, Array]:
    """Return x' = tanh(W x + u) with W = 0.7 I + coupling C, C of spectral norm 1 with zeros on its diagonal."""
    rng = np.random.default_rng(3)
    off = rng.normal(size=(dim, dim)) * (1 - np.eye(dim))
    matrix = jnp.asarray(0.7 * np.eye(dim) + coupling * off / np.linalg.norm(off, 2), jnp.float32)
    inputs = jnp.asarray(0.5 * rng.normal(size=(steps, dim)), jnp.float32)
    return lambda state, input: jnp.tanh(matrix @ state + input), jnp.ones(dim), inputs


def measure(method: Any, problem: tuple[Callable, Array, Array], cap: int) -> tuple[float, int, bool, float, float]:
    """Evaluate a recursion, and measure the distance of the method's matrices from the Jacobian along the solution."""
    transition, start, inputs = problem
    loop = ps.evaluate_sequential(transition, start, inputs)
    solution = ps.evaluate(transition, start, inputs, method=method, max_iterations=cap, throw=False)
    flat, _, _ = flatten(as_transition(transition), start, inputs)
    steps = Steps(jnp.concatenate([start[None], loop.states[:-1]]), inputs, None, jax.random.key(0))
    dense = lambda chosen: chosen.linearise(flat, steps).matrices.dense(start.size)  # noqa: E731
    left_out = dense(method) - dense(ps.methods.Newton())
    distance = float(jnp.linalg.norm(left_out, ord=2, axis=(1, 2)).mean())
    difference = float(np.max(np.abs(solution.states - loop.states)))
    return (distance, int(solution.iterations), bool(solution.converged), float(solution.residual.max()), difference)


def solve(dim: int, steps: int, sizes: list[float], couplings: list[float], cap: int) -> list[Row]:
    """Run both experiments."""
    rows = []
    coupling = 0.2
    problem = recursion(dim, steps, coupling)
    for structure in STRUCTURES:
        for size in sizes:
            found = measure(Perturbed(jnp.asarray(size), structure), problem, cap)
            rows.append(Row("perturbed", structure, coupling, *found))
    for coupling in couplings:
        problem = recursion(dim, steps, coupling)
        for name, method in METHODS.items():
            rows.append(Row("methods", name, coupling, *measure(method, problem, cap)))
    return rows


def draw(rows: list[Row], path: Path) -> None:
    """Plot the iterations against the distance, a panel for each experiment; open markers did not converge."""
    figure = matplotlib.figure.Figure(figsize=(11, 4.2), layout="constrained")
    for axes, panel in zip(figure.subplots(1, 2, sharey=True), ("perturbed", "methods"), strict=True):
        names = list(dict.fromkeys(row.name for row in rows if row.panel == panel))
        for k, name in enumerate(names):
            chosen = [row for row in rows if (row.panel, row.name) == (panel, name)]
            # Newton's distance is 0, which a logarithmic axis does not have.
            distances = [max(row.distance, 1e-3) for row in chosen]
            axes.loglog(
                distances, [row.iterations for row in chosen], "-" if panel == "perturbed" else ":", color=f"C{k}"
            )
            for distance, row in zip(distances, chosen, strict=True):
                face = f"C{k}" if row.converged else "white"
                axes.plot(distance, row.iterations, "o", ms=5, color=f"C{k}", markerfacecolor=face)
            axes.plot([], [], "o", color=f"C{k}", label=name)
        axes.set_xlabel("|A - J|, spectral norm, mean over the steps")
        axes.legend(frameon=False, fontsize=9, loc="upper left")
        axes.spines[["top", "right"]].set_visible(False)
    left, right = figure.axes
    left.set_ylabel("iterations (open: not converged)")
    left.set_title("A = J + a perturbation", loc="left", fontsize=11)
    right.set_title("methods, each at several couplings (Newton's 0 drawn at 0.001)", loc="left", fontsize=11)
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=8)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.6])
    parser.add_argument("--couplings", type=float, nargs="+", default=[0.01, 0.03, 0.1, 0.2, 0.3])
    parser.add_argument("--cap", type=int, default=300, help="most iterations")
    parser.add_argument("--output", type=Path, default=Path("distance_from_jacobian.png"))
    options = parser.parse_args(arguments)
    rows = solve(options.dim, options.steps, options.sizes, options.couplings, options.cap)
    columns = "A", "coupling", "|A - J|", "iterations", "largest residual", "difference from the loop"
    table = Table(*columns, box=None)
    for row in rows:
        iterations = f"{row.iterations}" if row.converged else f"{row.iterations}, not converged"
        numbers = f"{row.residual:.1g}", f"{row.difference:.1g}"
        table.add_row(row.name, f"{row.coupling:g}", f"{row.distance:.3g}", iterations, *numbers)
    Console(width=110).print(table)
    draw(rows, options.output)
    print(f"figure: {options.output}")


if __name__ == "__main__":
    main()
