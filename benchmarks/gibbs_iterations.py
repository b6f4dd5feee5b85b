"""Iterations of Gibbs sampling's parallel evaluation: eight schools, probit regression, and Ising spins.

    python -m benchmarks.gibbs_iterations

Counts do not depend on the machine's speed; wall times are not measured here. Every row is checked against the
sequential loop.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import parsample as ps
from benchmarks.device import write_table
from parsample.engine.methods import QuasiNewton
from parsample.samplers import Gibbs
from parsample.targets.ising import CRITICAL_TEMPERATURE, Ising
from parsample.warmup.coordinates import Standardised

SEEDS = (0, 1, 2)
HEADER = (
    "target", "steps", "coordinates", "method", "iterations", "evaluations a step", "steps gained an iteration",
    "difference", "goal",
)  # fmt: skip
CAP = 400
LOGARITHMS = ("log_sigma", "log_tau")


def measure(chains: Sequence[tuple[Callable, Any, Any]], **options: Any) -> list[Any]:
    """Evaluate each chain (transition, start, inputs), and compare it with the loop."""
    found = []
    for transition, start, inputs in chains:
        steps = jax.tree.leaves(inputs)[0].shape[0]
        loop = ps.evaluate_sequential(transition, start, inputs).states
        solution = ps.evaluate(transition, start, inputs, throw=False, **options)
        # A real number x differs by |x - y| / (1 + |y|): variances are in the thousands.
        apart = jax.tree.map(lambda x, y: float(jnp.max(jnp.abs(x - y) / (1 + jnp.abs(y)))), solution.states, loop)
        found.append(
            (
                int(solution.iterations),
                bool(solution.converged),
                int(solution.evaluations) / steps,
                max(jax.tree.leaves(apart)),
                (steps if solution.converged else int(solution.first_bad_step)) / int(solution.iterations),
            )
        )
    iterations, converged, work, difference, gained = zip(*found, strict=True)
    return [
        " ".join(f"{n}{'' if ok else ' (not converged)'}" for n, ok in zip(iterations, converged, strict=True)),
        f"{np.mean(work):.1f}",
        f"{np.mean(gained):.3g}",
        f"{max(difference):.1g}" if all(converged) else "",
    ]


def own_coordinates(target: Any, steps: int) -> list[tuple]:
    """Return a chain a seed in the target's coordinates, which hold logarithms of scales."""
    gibbs = Gibbs(target.logdensity, updates=target.conditional_updates)
    chains = []
    for seed in SEEDS:
        start = target.initial_position(jax.random.key(seed))
        chains.append((gibbs.transition, start, gibbs.draw_inputs(jax.random.key(100 + seed), steps, start)))
    return chains


def variances(chains: list[tuple]) -> list[tuple]:
    """Return the same chains with variances in place of logarithms, as published."""

    def outside(position: Any) -> Any:
        return {name: jnp.exp(2 * x) if name in LOGARITHMS else x for name, x in position.items()}

    def inside(position: Any) -> Any:
        return {name: jnp.log(x) / 2 if name in LOGARITHMS else x for name, x in position.items()}

    transition, _, _ = chains[0]
    step = lambda state, input: outside(transition(inside(state), input))  # noqa: E731
    return [(step, outside(start), inputs) for _, start, inputs in chains]


def standardised(target: Any, chains: list[tuple]) -> list[tuple]:
    """Return the same chains in coordinates where the posterior has unit covariance, as the front door has them."""
    transition, start, inputs = chains[0]
    states = ps.evaluate_sequential(transition, start, inputs).states
    draws = np.asarray(jax.vmap(lambda state: ravel_pytree(state)[0])(states), np.float64)
    root = jnp.asarray(np.linalg.cholesky(np.cov(draws.T)), jnp.float32)
    density = Standardised(target, jnp.asarray(draws.mean(0), jnp.float32), root, ravel_pytree(start)[1])
    gibbs = Gibbs(density)
    return [(gibbs.transition, density.inverse(ravel_pytree(start)[0]), (inputs,)) for _, start, inputs in chains]


METHODS: list[tuple[str, dict[str, Any]]] = [
    ("Jacobi", {"method": "jacobi"}),
    ("Picard", {"method": "picard"}),
    ("quasi-Newton, exact diagonal", {"method": QuasiNewton("exact")}),
    ("Newton, projected", {"method": "newton"}),
    ("Newton", {"method": "newton", "conditioning": ps.Conditioning(projection=False)}),
]


def continuous(name: str, target: Any, steps: int, goal: str) -> list[list[Any]]:
    own = own_coordinates(target, steps)
    coordinates = {"own": own, "standardised": standardised(target, own)}
    if name.startswith("eight"):
        coordinates = {"variances, as published": variances(own), "own: log scales": own} | coordinates
        del coordinates["own"]
    rows = []
    for label, chains in coordinates.items():
        for method, options in METHODS:
            wanted = goal if method == "Newton" else ""
            row = measure(chains, max_iterations=CAP, **options)
            rows.append([name, f"{steps:,}", label, method, *row, wanted])
    return rows


def spins(size: int, steps: int) -> list[list[Any]]:
    rows = []
    for share in (0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 4.0):
        ising = Ising(size, share * CRITICAL_TEMPERATURE)
        gibbs = Gibbs(ising)
        chains = []
        for seed in SEEDS:
            start = ising.initial_position(jax.random.key(seed))
            chains.append((gibbs.transition, start, gibbs.draw_inputs(jax.random.key(100 + seed), steps, start)))
        for method in ("jacobi", "picard", "secant"):
            row = measure(chains, method=method)
            rows.append([f"Ising {size} x {size}", f"{steps:,}", f"T = {share:g} critical", method, *row, ""])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000, help="of the continuous chains")
    parser.add_argument("--spin-steps", type=int, default=1000)
    parser.add_argument("--size", type=int, default=16, help="sites a side of the lattice")
    arguments = parser.parse_args()
    rows = continuous("eight schools, D=18", ps.targets.EightSchoolsConjugate(), arguments.steps, "<= 40")
    rows += continuous("probit, D=4", ps.targets.ProbitRegression(), arguments.steps, "")
    rows += spins(arguments.size, arguments.spin_steps)
    write_table(
        "gibbs_iterations",
        "Gibbs: iterations and evaluations until every step is within tolerance",
        f"One chain for each of the seeds {', '.join(map(str, SEEDS))}; iterations are listed by seed, the one that "
        f"verifies included, {CAP} at most for the continuous chains. Full window, atol 1e-4, rtol 1e-3, float32; "
        "spins are exact. The difference from the sequential loop is that of the worst number x, |x - y| / (1 + |y|).",
        HEADER,
        rows,
    )


if __name__ == "__main__":
    main()
