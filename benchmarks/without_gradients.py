"""A random walk on models that have no gradient, beside the same one whose warm-up had gradients.

python -m benchmarks.without_gradients [--data FOLDER] [--only NAME ...]
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

import parsample as ps
from benchmarks.device import write_rows
from parsample.targets.base import Target
from parsample.targets.external import External
from parsample.warmup.descent import descend_outside
from parsample.warmup.starts import starts

SEEDS, WARMUP, DRAWS, CHAINS = 5, 800, 1000, 4
# A normal distribution by dimension and condition number; targets; and those of posteriordb, by file.
NORMALS = ((6, 100.0), (20, 100.0), (6, 1e6))
OURS = ("eight_schools", "banana", "breast_cancer")
POSTERIORS = {
    "kidscore_interaction": "kidiq-kidscore_interaction",
    "blr": "sblrc-blr",
    "garch": "garch-garch11",
    "gp_regression": "gp_pois_regr-gp_regr",
}
HEADER = (
    "model",
    "dimensions",
    "effective draws without gradients",
    "with gradients in warm-up",
    "ratio",
    "largest R-hat without, with",
    "share of model runs on the way down",
)
NOTE = (
    f"sampler='rwm', {CHAINS} chains of {WARMUP} + {DRAWS} steps from around 0, medians over {SEEDS} seeds of the "
    "smallest bulk effective sample size and the largest R-hat. Without gradients the model is "
    "`parsample.targets.External`, a function that returns a number; with gradients it is in JAX, and MALA finds the "
    "coordinates. The last column is of the runs that steps of the chains and the way down need."
)


def models(data: Path | None) -> Iterator[tuple[str, int, Callable[[Array], Array]]]:
    """Name the log densities of flat positions."""
    for dim, condition in NORMALS:
        yield f"normal, condition {condition:,.0f}", dim, _normal(dim, condition)
    found = {name: ps.TARGETS[name]() for name in OURS}
    if data is not None:
        found |= {name: ps.TARGETS[name](data / "posteriors" / f"{file}.json") for name, file in POSTERIORS.items()}
    for name, target in found.items():
        yield name, ravel_pytree(target.position_template())[0].size, _flat(target)


def _flat(target: Target) -> Callable[[Array], Array]:
    unravel = ravel_pytree(target.position_template())[1]
    return lambda x: target.logdensity(unravel(x))


def _normal(dim: int, condition: float) -> Callable[[Array], Array]:
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))[0]
    half = turn / np.geomspace(1, np.sqrt(condition), dim)
    return lambda x: -0.5 * jnp.sum((x @ half) ** 2)


def _outside(logdensity: Callable[[Array], Array], dim: int) -> External:
    """Return the model as a function of NumPy arrays, of as many positions at once as a round has."""
    batch = jax.jit(jax.vmap(logdensity))

    def simulate(position: dict[str, np.ndarray]) -> np.ndarray:
        x = position["x"]
        padded = np.zeros((1 << (len(x) - 1).bit_length(), dim))
        padded[: len(x)] = x
        values = np.asarray(batch(padded), float)[: len(x)]
        return np.where(np.isnan(values), -np.inf, values)

    return External(simulate, {"x": np.zeros(dim)}, vectorized=True, workers=32)


def _row(name: str, dim: int, logdensity: Callable[[Array], Array]) -> list[Any]:
    options: dict[str, Any] = {"num_warmup": WARMUP, "num_samples": DRAWS, "num_chains": CHAINS, "progress": False}
    found: dict[str, list[tuple[float, float]]] = {"without": [], "with": []}
    ways = []
    for seed in range(SEEDS):
        target = _outside(logdensity, dim)
        found["without"].append(_quality(ps.sample(target, seed=seed, **options)))
        inside = ps.sample(
            logdensity, initial_position=jnp.zeros(dim), sampler="rwm", method="sequential", seed=seed, **options
        )
        found["with"].append(_quality(inside))
        ways.append(_share_of_way(logdensity, dim, seed))
        # A process may hold 65,530 pieces of memory, and each target has programs of its own.
        jax.clear_caches()
    without, beside = ([statistics.median(column) for column in zip(*rows, strict=True)] for rows in found.values())
    ratio, rhats = f"{without[0] / beside[0]:.2f}", f"{without[1]:.3f}, {beside[1]:.3f}"
    return [name, dim, f"{without[0]:.0f}", f"{beside[0]:.0f}", ratio, rhats, f"{statistics.median(ways):.0%}"]


def _quality(trace: Any) -> tuple[float, float]:
    table = ps.summarize(trace)
    return float(table["ess_bulk"].min()), float(table["r_hat"].max())


def _share_of_way(logdensity: Callable[[Array], Array], dim: int, seed: int) -> float:
    """Return the runs of the way down as a share of these and one a step."""
    target = _outside(logdensity, dim)
    descend_outside(target, starts(target, jax.random.split(jax.random.key(seed), CHAINS)))
    runs = target.workers.counts.runs
    return runs / (runs + CHAINS * (WARMUP + DRAWS))


def main() -> None:
    """Make the rows that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="with posteriors/*.json of posteriordb")
    parser.add_argument("--only", nargs="+", help="models whose names begin so")
    options = parser.parse_args()
    wanted = tuple(options.only or [""])
    rows = (_row(*model) for model in models(options.data) if model[0].startswith(wanted))
    write_rows("without_gradients", "A random walk on models that have no gradient", NOTE, HEADER, rows)


if __name__ == "__main__":
    main()
