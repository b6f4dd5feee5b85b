"""Predicted and observed rates: how the error falls from iteration to iteration, and where the prediction fails.

    python examples/rates.py --output rates.png

Near the solution an iteration maps the error e of the trajectory to the solution of a linear system with what A leaves
out of the Jacobian J as its input,

    e_new[t] = A[t] e_new[t-1] + (J[t] - A[t]) e[t-1],

with A and J along the solution. This map is nilpotent (its spectral radius is 0, as every method ends in at most T
iterations), so a rate is the mean factor of many applications to the error at hand, that of the first guess. The
recursion is a random network of leaky units, x' = (1 - h) x + h tanh(g W x + u), whose strength g takes it from near
linear to chaotic; the exponent is Lyapunov's, a step.

Where the network is contracting the prediction holds over many decades, also for Newton, whose matrices the driver
projects to norm 1. It fails where A is the Jacobian itself: without the projection the predicted factor is 0, and what
is observed is the square that the linearisation drops. And it fails where the first guess is far off and the network
near unstable or unstable: linearised errors grow by decades where the true ones are bounded. The mean factor still
agrees there, because the front of exact steps arrives about when the prediction says; no factor describes the way.

Source: the rate by A - J is that of Gonzalez et al. 2025, "A unifying framework for parallelizing sequential models
with linear dynamical systems", and the role of the Lyapunov exponent that of Gonzalez et al. 2025, "Predictability
enables parallelization of nonlinear state space models"; the experiment is made here. Ends in a figure and a table.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
from jaxtyping import Array, Float
from rich.console import Console
from rich.table import Table

import parsample as ps
from parsample.engine.iteration import Steps, shift
from parsample.engine.transition import as_transition, flatten

METHODS: dict[str, Any] = {
    "newton": ps.methods.Newton(),
    "newton, not projected": ps.methods.Newton(),
    "quasi_newton": ps.methods.QuasiNewton(estimator="exact"),
    "scaled_identity": ps.methods.ScaledIdentity(num_probes=32),
    "picard": ps.methods.Picard(),
    "jacobi": ps.methods.Jacobi(),
}
SMALL, LEAK = 1e-9, 0.2


class Network(eqx.Module):
    """Leaky units, coupled at random."""

    weights: Float[Array, "dim dim"]
    strength: Float[Array, ""]

    def __call__(self, state: Float[Array, " dim"], input: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Return the next state."""
        return (1 - LEAK) * state + LEAK * jnp.tanh(self.strength * self.weights @ state + input)


class Row(NamedTuple):
    """The errors of a method after each iteration, observed and predicted, the first guess first."""

    strength: float
    exponent: float
    method: str
    observed: np.ndarray
    predicted: np.ndarray
    residual: float


def factor(errors: np.ndarray) -> float:
    """Return the mean factor of an iteration until the error is small, or to the end."""
    small = np.flatnonzero(errors < SMALL)
    last = int(small[0]) if small.size else len(errors) - 1
    return float((errors[last] / errors[0]) ** (1 / last))


def is_projected(name: str) -> bool:
    """Say whether the matrices of a row of `METHODS` are projected to norm 1."""
    return not name.endswith("not projected")


def observe(
    network: Network, start: Array, inputs: Array, truth: Array, name: str, cap: int
) -> tuple[list[float], float]:
    """Iterate one at a time, each from the guess of the last, and return the errors and the residual at the end."""
    guess = jnp.broadcast_to(start, truth.shape)
    errors = [float(jnp.abs(guess - truth).max())]
    while len(errors) <= cap and errors[-1] >= SMALL:
        solution = ps.evaluate(
            network,
            start,
            inputs,
            method=METHODS[name],
            conditioning=ps.Conditioning(projection=is_projected(name)),
            guess=guess,
            max_iterations=1,
            atol=1e-12,
            rtol=0.0,
            throw=False,
        )
        guess = solution.states
        errors.append(float(jnp.abs(guess - truth).max()))
    return errors, float(solution.residual.max())


@eqx.filter_jit
def predict(network: Network, start: Array, inputs: Array, truth: Array, name: str, count: int) -> Array:
    """Apply the linearised map to the error of the first guess, and return the largest errors."""
    flat, _, _ = flatten(as_transition(network), start, inputs)
    # The driver's own key of a first iteration: the probes are the same.
    key = jax.random.fold_in(jax.random.key(0), 0)
    steps = Steps(shift(start, truth), inputs, None, key)
    matrices = ps.Conditioning(projection=is_projected(name)).apply(METHODS[name].linearise(flat, steps).matrices)
    exact = ps.methods.Newton().linearise(flat, steps).matrices
    nothing = jnp.zeros_like(start)

    def apply(error: Array, _: None) -> tuple[Array, Array]:
        before = shift(nothing, error)
        error = ps.solve_lds(matrices, exact.apply(before) - matrices.apply(before), nothing)
        return error, jnp.abs(error).max()

    first = start - truth
    return jnp.append(jnp.abs(first).max(), jax.lax.scan(apply, first, None, count)[1])


def lyapunov(network: Network, start: Array, inputs: Array, truth: Array) -> float:
    """Return the mean logarithm by which a step of the chain stretches a perturbation, per step."""

    def step(direction: Array, place: tuple[Array, Array]) -> tuple[Array, Array]:
        image = jax.jvp(lambda state: network(state, place[1]), (place[0],), (direction,))[1]
        length = jnp.linalg.norm(image)
        return image / length, jnp.log(length)

    direction = jnp.ones_like(start) / np.sqrt(start.size)
    return float(jax.lax.scan(step, direction, (shift(start, truth), inputs))[1].mean())


def solve(dim: int, steps: int, strengths: list[float], cap: int) -> list[Row]:
    """Observe and predict, for networks of several strengths and every method."""
    rng = np.random.default_rng(4)
    weights = jnp.asarray(rng.normal(size=(dim, dim)) / np.sqrt(dim))
    start, inputs = jnp.asarray(rng.normal(size=dim)), jnp.asarray(0.1 * rng.normal(size=(steps, dim)))
    rows = []
    for strength in strengths:
        network = Network(weights, jnp.asarray(strength))
        truth = ps.evaluate_sequential(network, start, inputs).states
        exponent = lyapunov(network, start, inputs, truth)
        for name in METHODS:
            observed, residual = observe(network, start, inputs, truth, name, cap)
            predicted = np.asarray(predict(network, start, inputs, truth, name, cap))
            rows.append(Row(strength, exponent, name, np.array(observed), predicted, residual))
    return rows


def draw(rows: list[Row], path: Path, cap: int) -> None:
    """Plot the errors, observed and predicted, against the iteration, a panel for each strength."""
    strengths = sorted({row.strength for row in rows})
    figure = matplotlib.figure.Figure(figsize=(3.3 * len(strengths) + 1.8, 4.2), layout="constrained")
    panels = figure.subplots(1, len(strengths), sharey=True, sharex=True, squeeze=False)[0]
    for axes, strength in zip(panels, strengths, strict=True):
        for k, name in enumerate(METHODS):
            (row,) = (row for row in rows if (row.strength, row.method) == (strength, name))
            axes.plot(row.observed, color=f"C{k}", lw=1.8)
            axes.plot(row.predicted, color=f"C{k}", lw=1.1, ls="--")
            axes.plot([], [], color=f"C{k}", label=name)
        axes.plot([], [], color="grey", lw=1.8, label="observed")
        axes.plot([], [], color="grey", lw=1.1, ls="--", label="predicted")
        axes.set_yscale("log")
        axes.set(ylim=(SMALL / 3, 1e6), xlim=(0, cap), xlabel="iteration")
        axes.set_title(f"g = {strength:g}, exponent {row.exponent:+.3f}", loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("largest error of the trajectory")
    panels[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.3, 0.9, 2.0, 4.0])
    parser.add_argument("--cap", type=int, default=100, help="most iterations")
    parser.add_argument("--output", type=Path, default=Path("rates.png"))
    options = parser.parse_args(arguments)
    with jax.enable_x64(True):  # float32 would leave four decades of the fall to be seen
        rows = solve(options.dim, options.steps, options.strengths, options.cap)
    columns = "g", "exponent", "method", "iterations", "observed factor", "predicted", "largest residual"
    table = Table(*columns, "difference from the loop", box=None)
    for row in rows:
        difference, count = row.observed[-1], len(row.observed) - 1
        iterations = f"{count}" if difference < SMALL else f"{count}, not converged"
        numbers = f"{factor(row.observed):.3f}", f"{factor(row.predicted):.3f}", f"{row.residual:.1g}"
        table.add_row(
            f"{row.strength:g}", f"{row.exponent:+.3f}", row.method, iterations, *numbers, f"{difference:.1g}"
        )
    Console(width=130).print(table)
    draw(rows, options.output, options.cap)
    print(f"figure: {options.output}")


if __name__ == "__main__":
    main()
