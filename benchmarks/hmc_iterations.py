"""Iterations and evaluations of HMC's parallel evaluation: the banana and eight schools; and of its trajectories.

    python -m benchmarks.hmc_iterations --steps 1000 100000

All are counts, which do not depend on the machine's speed; wall times are not measured here. Every chain is checked
against the sequential loop: the largest difference, and accept decisions that differ.
"""

import argparse
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import parsample as ps
from benchmarks.chains import HEADER, SEEDS, measure
from benchmarks.device import write_rows, write_table
from parsample.engine.methods import BlockQuasiNewton, Newton, QuasiNewton
from parsample.samplers import HMC
from parsample.samplers.leapfrog import Leapfrog
from parsample.samplers.mass import Mass
from parsample.warmup.coordinates import Standardised, plain

# Beyond this many the row has made its point.
LARGEST_COUNT = 600
# Of those on eight schools, which take up to a second an iteration.
LARGEST_ON_EIGHT_SCHOOLS = 250

# The published configuration (Zoltowski et al. 2025, and the repository parallel-mcmc).
PUBLISHED: dict[str, Any] = {
    "method": Newton("straight_through"), "conditioning": ps.Conditioning(damping=0.55, clip=1.0, projection=False),
}  # fmt: skip
PUBLISHED_QUASI: dict[str, Any] = PUBLISHED | {"method": QuasiNewton("hutchinson", 1, "straight_through")}


def banana(steps: int) -> Iterator[list[Any]]:
    """HMC on the banana, step 0.5, 8 leapfrog steps, from draws of the target."""
    target = ps.targets.Banana()
    sampler = HMC(plain(target), 0.5, None, 8, step_size_jitter=0)

    def exact(seed: int) -> jax.Array:
        first, second = jax.random.normal(jax.random.split(jax.random.key(seed))[0], (2,))
        x = target.scale * first
        return jnp.stack([x, second + target.curvature * (x**2 - target.scale**2)])

    goal = {1_000: "<= 25", 100_000: "<= 80 (139 published)"}.get(steps, "")
    windows = [window for window in (64, 1024, 16_384) if window < steps]
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("Newton, frozen gate, projected", {"method": Newton()}, goal),
        ("the same, damping 0.1", {"method": Newton(), "conditioning": ps.Conditioning(damping=0.1)}, ""),
        ("the same, active set", {"method": Newton(), "active_set": max(1, steps // 64)}, "K <= 12"),
        *(("the same, active set", {"method": Newton(), "window": w, "active_set": w // 16}, "") for w in windows),
        ("quasi-Newton, frozen gate, exact diagonal", {"method": QuasiNewton("exact")}, ""),
        ("quasi-Newton, frozen gate, 1 probe", {"method": QuasiNewton("hutchinson")}, ""),
        ("published Newton: straight-through, damping 0.55, clip 1", PUBLISHED, ""),
        ("published quasi-Newton, 1 probe", PUBLISHED_QUASI, ""),
        ("Picard", {"method": "picard"}, ""),
    ]
    for name, options, wanted in cases:
        given = {"max_iterations": min(steps, LARGEST_COUNT), **options}
        row = measure(sampler, [exact(seed) for seed in SEEDS], steps, **given)
        yield ["banana, D=2", f"{steps:,}", name, options.get("window", "full"), *row, wanted]


def scaled_eight_schools() -> tuple[Standardised, list[jax.Array]]:
    """Return eight schools with the mean and the scales of its posterior, and draws of it; by a long chain of HMC."""
    density = plain(ps.targets.EightSchools())

    def draws(density: Standardised, step_size: float, seed: int) -> jax.Array:
        sampler, start = HMC(density, step_size, None, 8), jnp.zeros_like(density.center)
        inputs = sampler.draw_inputs(jax.random.key(seed), 20_000, start)
        return ps.evaluate_sequential(sampler.transition, start, inputs).states[4_000:]

    first = draws(density, 0.3, 100)
    scaled = Standardised(density.target, first.mean(0), first.std(0), density.unravel)
    return scaled, list(draws(scaled, 0.3, 101)[:: 16_000 // len(SEEDS)][: len(SEEDS)])


def eight_schools() -> Iterator[list[Any]]:
    """HMC on eight schools, not centred and scaled, where the step size and the length decide."""
    density, starts = scaled_eight_schools()
    for step_size, length, goal in [
        (0.15, 4, "28 / 22 in the prototype"),
        (0.15, 8, ""),
        (0.15, 10, "63 / 61 in the prototype"),
        (0.3, 4, "44 / 38 in the prototype"),
        (0.3, 8, "none in 200 in the prototype"),
        (0.3, 10, ""),
    ]:
        sampler = HMC(density, step_size, None, length, step_size_jitter=0)
        for name, method in [("diagonal", QuasiNewton("exact")), ("Newton", Newton())]:
            row = measure(sampler, starts, 1024, method=method, max_iterations=LARGEST_ON_EIGHT_SCHOOLS)
            yield ["eight schools, D=10", "1,024", f"{name}, step {step_size}, {length}", "full", *row, goal]


def logistic_at_mode(whitened: bool) -> tuple[Standardised, jax.Array, jax.Array]:
    """Return a logistic regression with 25 coefficients on 1,000 rows, its mode, and a root of its covariance there.

    In the coordinates of its coefficients, or in those where the Hessian at the mode is minus the identity.
    """
    rng = np.random.default_rng(0)
    features = rng.standard_normal((1000, 24)) @ np.linalg.cholesky(0.5 * np.eye(24) + 0.5)
    labels = rng.uniform(size=1000) < 1 / (1 + np.exp(-features @ rng.normal(scale=0.3, size=24)))
    density = plain(ps.targets.LogisticRegression(features, labels))
    mode = jnp.zeros_like(density.center)
    for _ in range(20):
        mode = mode - jnp.linalg.solve(jax.hessian(density)(mode), jax.grad(density)(mode))
    root = jnp.linalg.cholesky(jnp.linalg.inv(-jax.hessian(density)(mode)))
    if not whitened:
        return density, mode, root
    white = Standardised(density.target, mode, root, density.unravel)
    return white, jnp.zeros_like(mode), jnp.eye(mode.size)


def trajectories(density: Any, positions: jax.Array, step_size: float, length: int, method: Any, **options: Any) -> str:
    """Count the iterations of leapfrog trajectories from these positions: their median and largest number."""
    momenta = jax.random.normal(jax.random.key(1), positions.shape)

    @jax.jit
    @jax.vmap
    def count(position: jax.Array, momentum: jax.Array) -> tuple[jax.Array, jax.Array]:
        leapfrog = Leapfrog(density, Mass(), position, lambda x: x, jnp.asarray(step_size))
        phase = jnp.zeros_like(position), leapfrog.kick(momentum, jax.grad(density)(position), 0.5)
        given = {"conditioning": ps.Conditioning(projection=False), "atol": 2e-6, "rtol": 2e-6, **options}
        found = ps.evaluate(leapfrog, phase, jnp.arange(length), method=method, throw=False, **given)
        return found.iterations, found.converged

    iterations, converged = count(positions, momenta)
    return f"{int(np.median(iterations))}, {int(np.max(iterations))}{'' if converged.all() else ' (not converged)'}"


def leapfrog_rows() -> list[list[Any]]:
    """Leapfrog trajectories by each method: the banana, and a logistic regression in two coordinate systems."""
    normal = jax.random.normal(jax.random.key(0), (100, 25))
    target = ps.targets.Banana()
    bent = jnp.stack([10 * normal[:, 0], normal[:, 1] + 3 * (normal[:, 0] ** 2 - 1)], 1)
    cases = [("banana, D=2", plain(target), bent, 0.5, length) for length in (8, 64)]
    for name, whitened, step_size in [("logistic regression, D=25", False, 0.02), ("the same, whitened", True, 0.05)]:
        density, mode, root = logistic_at_mode(whitened)
        starts = mode + normal @ root.T
        cases += [(name, density, starts, size, length) for size, length in ((step_size, 64), (4 * step_size, 16))]
    # In the order of the header.
    methods: list[tuple[Any, dict[str, Any]]] = [
        (BlockQuasiNewton(), {}),
        (BlockQuasiNewton("exact"), {}),
        (BlockQuasiNewton("exact"), {"conditioning": ps.Conditioning(projection=True)}),
        (Newton(), {}),
        (QuasiNewton("exact"), {}),
        ("picard", {}),
        ("jacobi", {}),
    ]
    return [
        [
            name,
            size,
            length,
            *(trajectories(density, starts, size, length, method, **given) for method, given in methods),
        ]
        for name, density, starts, size, length in cases
    ]


LEAPFROG_HEADER = (
    "target", "step size", "leapfrog steps", "block quasi-Newton, 1 probe", "exact blocks", "exact blocks, projected",
    "Newton", "quasi-Newton, exact", "Picard", "Jacobi",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="*", default=[1000, 10_000, 100_000], help="of the banana's chains")
    arguments = parser.parse_args()
    write_table(
        "leapfrog_iterations",
        "Leapfrog trajectories in parallel: iterations until every leapfrog step is within tolerance",
        "Median and largest number over 100 trajectories, from draws of the target (for the logistic regression, of "
        "the Gaussian at its mode). Tolerance 2e-6, float32, not projected unless the column says so. The loop takes "
        "as many rounds as there are leapfrog steps. An iteration takes one gradient a step, and two JVPs with one "
        "probe, 2 D for exact blocks and for Newton's matrices.",
        LEAPFROG_HEADER,
        leapfrog_rows(),
    )
    write_rows(
        "hmc_iterations",
        "HMC: iterations and evaluations until every step is within tolerance",
        f"One chain for each of the seeds {', '.join(map(str, SEEDS))}, from a draw of the target; iterations are "
        "listed by seed, the one that verifies included. The banana: step 0.5, 8 leapfrog steps, no jitter. Tolerance "
        "atol 1e-4, rtol 1e-3, float32. Evaluations (trajectories) count every step of the window in every iteration, "
        f"with the active set those that were made. Rows end at {LARGEST_COUNT:,} iterations, on eight "
        f"schools at {LARGEST_ON_EIGHT_SCHOOLS}. The last columns but one "
        "compare with the sequential loop: where decisions differ, accept/reject hung on less than the tolerance.",
        HEADER,
        itertools.chain(eight_schools(), *map(banana, arguments.steps)),
    )


if __name__ == "__main__":
    main()
