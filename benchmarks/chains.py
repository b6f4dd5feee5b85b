"""Chains evaluated in parallel and by the loop: what both benchmarks of iterations count, and how."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

import parsample as ps
from parsample.engine.methods import QuasiNewton
from parsample.warmup.coordinates import Standardised, StandardNormal, plain

SEEDS = (0, 1, 2, 3, 23)
HEADER = (
    "target", "steps", "method", "window", "iterations", "worst", "mean", "evaluations a step", "difference",
    "decisions that differ", "goal",
)  # fmt: skip

# The published configuration (Zoltowski et al. 2025, and the repository parallel-mcmc): Hutchinson's diagonal with the
# straight-through gate, its entries clipped to 1, over the full window.
PUBLISHED: dict[str, Any] = {
    "method": QuasiNewton("hutchinson", 2, "straight_through"),
    "conditioning": ps.Conditioning(projection=False, clip=1.0),
}


def eigenbasis_at_mode(target: ps.targets.Target) -> tuple[Standardised, jax.Array]:
    """Return the target in the eigenbasis of its Hessian at the mode (rotated, not scaled), and the mode in it."""
    density = plain(target)
    mode = jnp.zeros_like(density.center)
    for _ in range(20):
        mode = mode - jnp.linalg.solve(jax.hessian(density)(mode), jax.grad(density)(mode))
    basis = jnp.linalg.eigh(-jax.hessian(density)(mode))[1]
    return Standardised(target, density.center, basis, density.unravel), basis.T @ mode


def standardised_at_mode(target: ps.targets.Target) -> Standardised:
    """Return the target in coordinates in which its mode is 0 and its Hessian there the identity."""
    density = plain(target)
    start = jax.flatten_util.ravel_pytree(target.initial_position(jax.random.key(0)))[0]
    gaussian = ps.laplace(density, start)
    root = jnp.linalg.cholesky(jnp.linalg.inv(gaussian.precision))
    return dataclasses.replace(density, center=gaussian.mean, root=root, surrogate=StandardNormal())


def measure(
    sampler: ps.samplers.Sampler, start: Any, steps: int, seeds: Sequence[int] = SEEDS, **options: Any
) -> list[Any]:
    """Evaluate one chain a seed, compare each with the sequential loop, and return the cells of a row.

    The chains start at one position, or each at its own of a list. A seed is split in two: the first key is for what a
    start is drawn by, the second for the inputs.
    """
    found = []

    @jax.jit
    def decisions(start: jax.Array, states: jax.Array, inputs: Any) -> jax.Array:
        before = jnp.concatenate([start[None], states[:-1]])
        return jax.vmap(sampler.transition.step)(before, inputs)[1].is_accepted

    starts = start if isinstance(start, list) else [start] * len(seeds)
    for seed, start in zip(seeds, starts, strict=True):
        inputs = sampler.draw_inputs(jax.random.split(jax.random.key(seed))[1], steps, start)
        loop = ps.evaluate_sequential(sampler.transition, start, inputs)
        parallel = ps.evaluate(sampler.transition, start, inputs, throw=False, **options)
        found.append(
            (
                int(parallel.iterations),
                int(parallel.evaluations) / steps,
                float(jnp.abs(parallel.states - loop.states).max()),
                int(jnp.sum(decisions(start, parallel.states, inputs) != decisions(start, loop.states, inputs))),
                bool(parallel.converged),
            )
        )
    iterations, work, difference, differ, converged = zip(*found, strict=True)
    return [
        " ".join(f"{n}{'' if ok else ' (not converged)'}" for n, ok in zip(iterations, converged, strict=True)),
        max(iterations),
        f"{np.mean(iterations):.0f}",
        f"{np.mean(work):.1f}",
        f"{max(difference):.1g}",
        sum(differ),
    ]
