"""Every MCMC kernel of BlackJAX as a chain with fixed inputs: which are worth evaluating in parallel, and which cannot.

    python -m benchmarks.blackjax_kernels

Iterations are exact and do not depend on the machine's speed. Every parallel chain is compared with the loop, and the
loop with BlackJAX's own step on the same keys.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

import parsample as ps
from benchmarks.device import write_table

DIM, STEPS = 3, 256
SCALES = (1.0, 2.0, 0.5)
METHODS = ("picard", "quasi_newton", "newton")


def loglikelihood(x: Array) -> Array:
    """Return a quartic: what the kernels with a Gaussian prior of their own are given."""
    return -0.05 * jnp.sum(x**4)


def logdensity(x: Array) -> Array:
    """Return the log density of a Gaussian with scales of its own in each coordinate, times the quartic."""
    return -0.5 * jnp.sum((x / jnp.asarray(SCALES)) ** 2) + loglikelihood(x)


MASS = np.ones(DIM, np.float32)
NORMAL = blackjax.mcmc.random_walk.normal(0.5 * jnp.ones(DIM))
KERNELS: dict[str, Callable[[], Any]] = {
    "mala": lambda: blackjax.mala(logdensity, 0.3),
    "hmc": lambda: blackjax.hmc(logdensity, 0.3, MASS, 5),
    "mhmc": lambda: blackjax.mhmc(logdensity, 0.3, MASS, 5),
    "dhmc": lambda: blackjax.dhmc(logdensity, 0.3, MASS),
    "dmhmc": lambda: blackjax.dmhmc(logdensity, 0.3, MASS),
    "rmhmc": lambda: blackjax.rmhmc(logdensity, 0.3, MASS, 5),
    "nuts": lambda: blackjax.nuts(logdensity, 0.3, MASS),
    "gist_step_size": lambda: blackjax.gist_step_size(logdensity, MASS, 0.3),
    "gist_trajectory_length": lambda: blackjax.gist_trajectory_length(logdensity, MASS, 0.3),
    "ghmc": lambda: blackjax.ghmc(logdensity, 0.3, MASS, 0.5, 0.3),
    "mclmc": lambda: blackjax.mclmc(logdensity, 1.0, 0.3),
    "adjusted_mclmc": lambda: blackjax.adjusted_mclmc(logdensity, 0.3, num_integration_steps=5),
    "adjusted_mclmc_dynamic": lambda: blackjax.adjusted_mclmc_dynamic(logdensity, 0.3),
    "barker": lambda: blackjax.barker(logdensity, 0.5),
    "additive_step_random_walk": lambda: blackjax.additive_step_random_walk(logdensity, NORMAL),
    "rmh": lambda: blackjax.rmh(logdensity, lambda key, x: x + 0.5 * jax.random.normal(key, x.shape)),
    "irmh": lambda: blackjax.irmh(logdensity, lambda key: 1.2 * jax.random.normal(key, (DIM,))),
    "mgrad_gaussian": lambda: blackjax.mgrad_gaussian(loglikelihood, covariance=jnp.eye(DIM), step_size=1.0),
    "slice_sampling": lambda: blackjax.slice_sampling(logdensity),
    "coordinate_slice": lambda: blackjax.coordinate_slice(logdensity),
    "elliptical_slice": lambda: blackjax.elliptical_slice(loglikelihood, mean=jnp.zeros(DIM), cov=jnp.eye(DIM)),
    "orbital_hmc": lambda: blackjax.orbital_hmc(logdensity, 0.3, MASS, 5),
}
# Why not, or what is to be known; the rest is measured.
SEQUENTIAL_ONLY = {
    "elliptical_slice": "its loop shrinks a bracket without bound, and never ends at a guess of density 0; "
    "`parsample.samplers.EllipticalSlice` has a fixed number of brackets",
}
REMARKS = {
    "nuts": "the tree's shape is a discrete function of the position, so an iteration gains few steps; in a batch "
    "every step waits for the deepest tree",
    "ghmc": "a rejection turns the momentum round, and the slice variable carries over: hard to foresee",
    "barker": "with decisions held fixed its Jacobian is I: Newton is Picard",
    "additive_step_random_walk": "with decisions held fixed its Jacobian is I: Newton is Picard",
    "rmh": "as additive_step_random_walk, for this proposal",
    "slice_sampling": "brackets hang on comparisons: with them held fixed the Jacobian is I",
    "coordinate_slice": "as slice_sampling, a coordinate at a time",
    "dhmc": "the number of steps is drawn from the step's key, not from a key in the state: the same law, other draws",
    "dmhmc": "as dhmc",
    "adjusted_mclmc_dynamic": "as dhmc",
}


@functools.cache
def position() -> Array:
    return jnp.asarray([0.1, 0.2, -0.3])


def distance(one: PyTree, other: PyTree) -> float:
    return max(float(jnp.abs(a - b).max()) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def measure(name: str) -> list[Any]:
    """Return the row of a kernel."""
    algorithm = KERNELS[name]()
    try:
        chain = ps.samplers.from_blackjax(algorithm)
        start = chain.unknowns(chain.init(position(), jax.random.key(2)))
    except ValueError as error:
        return [name, "no", "", "", "", "", "", str(error).split(", expected")[0]]
    keys = chain.draw_inputs(jax.random.key(1), STEPS, position())
    loop = ps.evaluate_sequential(chain.transition, start, keys)

    def own(state: Any, key: Array) -> tuple[Any, PyTree]:
        state, _ = algorithm.step(key, state)
        return state, chain.unknowns(state)

    state = algorithm.init(position(), jax.random.key(2))
    raw = distance(jax.lax.scan(own, state, keys)[1], loop.states)
    row = [name, "", len(jax.tree.leaves(start)), f"{raw:.1g}"]
    if name in SEQUENTIAL_ONLY:
        return [row[0], "sequentially only", *row[2:], "", "", "", SEQUENTIAL_ONLY[name]]
    counts, worst = [], 0.0
    for method in METHODS:
        found = ps.evaluate(chain.transition, start, keys, method=method, throw=False)
        counts.append(int(found.iterations))
        worst = max(worst, distance(found.states, loop.states))
    row[1] = "yes" if min(counts) <= STEPS // 4 else "yes, with little gain"
    return [*row, *counts, f"{REMARKS.get(name, '')} (largest difference {worst:.1g})".strip()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(KERNELS), choices=list(KERNELS))
    rows = [measure(name) for name in parser.parse_args().only]
    write_table(
        "blackjax_kernels",
        f"BlackJAX's MCMC kernels in parallel over the chain, {STEPS} steps",
        f"A density in {DIM} dimensions, not Gaussian; full window, atol 1e-4, rtol 1e-3, float32. `unknown` counts "
        "the arrays that the engine solves for; `against BlackJAX` is the largest difference of our loop from "
        "BlackJAX's own steps with the same keys. A kernel is worth it in parallel when a method needs at most a "
        "quarter as many iterations as there are steps. " + f"blackjax {blackjax.__version__}.",
        ("kernel", "in parallel", "unknown", "against BlackJAX", *METHODS, "remarks"),
        rows,
    )


if __name__ == "__main__":
    main()
