"""Iterations and evaluations of MALA's parallel evaluation: German credit and a mixture of four.

    python -m benchmarks.mala_iterations --data german.data-numeric

Both count exactly and do not depend on the machine's speed; wall times are not measured here. Every row is checked
against the sequential loop: largest difference, and accept decisions that differ.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import parsample as ps
from benchmarks.device import write_table
from parsample.coordinates import Standardised, plain
from parsample.engine.methods import Newton, QuasiNewton

SEEDS = (0, 1, 2)
HEADER = (
    "target", "steps", "method", "window", "iterations", "evaluations a step", "difference",
    "decisions that differ", "goal",
)  # fmt: skip

# The published configuration (Zoltowski et al. 2025, and the repository parallel-mcmc): Hutchinson's diagonal with the
# straight-through gate, its entries clipped to 1, over the full window.
PUBLISHED: dict[str, Any] = {
    "method": QuasiNewton("hutchinson", 2, "straight_through"),
    "projection": False,
    "clip": 1.0,
}


def eigenbasis_at_mode(target: ps.targets.Target) -> tuple[Standardised, jax.Array]:
    """Return the target in the eigenbasis of its Hessian at the mode (rotated, not scaled), and the mode in it."""
    density = plain(target)
    mode = jnp.zeros_like(density.center)
    for _ in range(20):
        mode = mode - jnp.linalg.solve(jax.hessian(density)(mode), jax.grad(density)(mode))
    basis = jnp.linalg.eigh(-jax.hessian(density)(mode))[1]
    return Standardised(target, density.center, basis, density.unravel), basis.T @ mode


def measure(density: Standardised, start: jax.Array, step_size: float, steps: int, **options: Any) -> list[Any]:
    """Evaluate one chain a seed, and compare each with the sequential loop."""
    sampler = ps.samplers.MALA(density, step_size)
    found = []

    @jax.jit
    def decisions(states: jax.Array, inputs: Any) -> jax.Array:
        before = jnp.concatenate([start[None], states[:-1]])
        return jax.vmap(sampler.transition.step)(before, inputs)[1].is_accepted

    for seed in SEEDS:
        inputs = sampler.draw_inputs(jax.random.key(seed), steps, start)
        loop = ps.evaluate_sequential(sampler.transition, start, inputs)
        parallel = ps.evaluate(sampler.transition, start, inputs, throw=False, **options)
        found.append(
            (
                int(parallel.iterations),
                int(parallel.evaluations) / steps,
                float(jnp.abs(parallel.states - loop.states).max()),
                int(jnp.sum(decisions(parallel.states, inputs) != decisions(loop.states, inputs))),
                bool(parallel.converged),
            )
        )
    iterations, work, difference, differ, converged = zip(*found, strict=True)
    return [
        " ".join(f"{n}{'' if ok else ' (not converged)'}" for n, ok in zip(iterations, converged, strict=True)),
        f"{np.mean(work):.1f}",
        f"{max(difference):.1g}",
        sum(differ),
    ]


def german_credit(path: Path) -> list[list[Any]]:
    """MALA on German credit in the eigenbasis of its mode, step 0.0015, from the mode."""
    density, mode = eigenbasis_at_mode(ps.targets.GermanCredit(path))
    tight = {"atol": 1e-5, "rtol": 1e-5}
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("frozen gate, analytic diagonal", {"method": QuasiNewton("analytic")}, "<= 17"),
        ("frozen gate, 1 probe", {"method": QuasiNewton("hutchinson", 1)}, "<= 17"),
        ("frozen gate, 2 probes", {"method": QuasiNewton("hutchinson", 2)}, "<= 17"),
        ("published: straight-through, 2 probes, clip 1", PUBLISHED, "22 published"),
        ("frozen gate, analytic diagonal", {"method": QuasiNewton("analytic"), "window": 64}, ""),
        ("the same, tolerance 1e-5", {"method": QuasiNewton("analytic"), "window": 64, **tight}, ""),
    ]
    rows = []
    for name, options, goal in cases:
        row = measure(density, mode, 0.0015, 4096, **options)
        rows.append(["German credit, D=25", 4096, name, options.get("window", "full"), *row, goal])
    return rows


def mixture_of_four(steps: int) -> list[list[Any]]:
    """MALA on the mixture of four round normal distributions, step 0.5, from a mode."""
    density = plain(ps.targets.GaussianMixture())
    start = ravel_pytree({"x": jnp.array([2.0, 2.0])})[0]
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("Newton, frozen gate, projected", {"method": Newton()}, "127 at 20,000"),
        ("Newton, frozen gate, projected", {"method": Newton(), "window": 256}, ""),
        ("quasi-Newton, frozen gate, 1 probe", {"method": QuasiNewton("hutchinson")}, ""),
        ("quasi-Newton, frozen gate, 1 probe", {"method": QuasiNewton("hutchinson"), "window": 256}, ""),
        ("published: straight-through, 2 probes, clip 1", PUBLISHED, "169 to 186 at 20,000"),
    ]
    rows = []
    for name, options, goal in cases:
        row = measure(density, start, 0.5, steps, **options)
        rows.append(["mixture of 4, D=2", f"{steps:,}", name, options.get("window", "full"), *row, goal])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the UCI file german.data-numeric; without it its rows are left out")
    parser.add_argument("--steps", type=int, nargs="*", default=[20_000], help="of the mixture's chains")
    arguments = parser.parse_args()
    rows = german_credit(arguments.data) if arguments.data else []
    for steps in arguments.steps:
        rows += mixture_of_four(steps)
    write_table(
        "mala_iterations",
        "MALA: iterations and evaluations until every step is within tolerance",
        f"One chain for each of the seeds {', '.join(map(str, SEEDS))}; iterations are listed by seed, the one that "
        "verifies included. Tolerance atol 1e-4, rtol 1e-3 unless the row says otherwise, float32. Evaluations count "
        "every step of the window in every iteration. The last columns but one compare with the sequential loop.",
        HEADER,
        rows,
    )


if __name__ == "__main__":
    main()
