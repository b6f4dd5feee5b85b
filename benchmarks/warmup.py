"""What warm-up gives without any tuning: every target of the package, and a normal distribution in 200 dimensions.

    python -m benchmarks.warmup --data FOLDER

Over several seeds: whether the draws are good, and those of the hard targets until they are.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import parsample as ps
from benchmarks.device import write_rows
from benchmarks.suite import targets
from parsample.results.judgement import judge
from parsample.results.trace import as_datatree
from parsample.targets.density import LogDensity

HEADER = (
    "target", "dim", "sampler", "draws", "good", "largest R-hat", "smallest ESS", "ESS / draw", "ESS / 1,000 gradients",
    "leapfrog steps", "step size", "acceptance", "wanted",
)  # fmt: skip
SEEDS = range(8)
CHAINS, DRAWS = 4, 5000
# What HMC also samples until it is good, with at most so many draws.
HARD, MOST = ("banana", "funnel", "eight_schools_centered", "lotka_volterra"), 500_000
UNTIL = {"ess": 400, "rhat": 1.01}
NORMAL = "normal, condition number 10,000"


def correlated_normal(dim: int = 200, condition: float = 1e4) -> ps.targets.Target:
    """Variances spread evenly, in logarithms, along directions that are no coordinates."""
    directions, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))
    precision = directions @ np.diag(np.logspace(-0.5, 0.5, dim) ** -np.log10(condition)) @ directions.T
    matrix = jnp.asarray(precision, jnp.float32)
    return LogDensity(lambda x: -0.5 * x @ matrix @ x, jnp.zeros(dim))


def run(
    target: ps.targets.Target, sampler: str | type[ps.samplers.Sampler], mass: str, until_good: bool, seed: int
) -> list[float]:
    """Return draws, whether they are good, R-hat, ESS, leapfrog steps, step size and acceptance, by the loop."""
    settings: dict[str, Any] = {"num_samples": DRAWS, "method": "sequential", "compare": False, "progress": False}
    if until_good:
        settings |= {"num_samples": MOST, "until": UNTIL}
    trace = ps.sample(target, sampler, mass=mass, seed=seed, **settings)
    stats: Any = as_datatree(trace)["sample_stats"]
    judgement = judge(trace)
    found = judgement.worst
    length = int(stats["n_steps"][0, 0]) if "n_steps" in stats else 1
    of_chain = [float(stats["step_size"][0, 0]), float(stats["acceptance_rate"].mean())]
    return [stats["lp"].shape[1], judgement.is_good, found.r_hat, found.ess_bulk, length, *of_chain]


def row(name: str, target: ps.targets.Target, sampler: str, mass: str = "auto", until_good: bool = False) -> list[Any]:
    """Return a row: 4 chains with every default, or until they are good, of every seed."""
    runs = np.array([run(target, sampler, mass, until_good, seed) for seed in SEEDS])
    draws, good, r_hat, ess, length, step_size, acceptance = runs.T
    dim = sum(np.size(leaf) for leaf in target.position_template().values()) if name != NORMAL else 200
    label = sampler + (", diagonal mass" if mass == "diagonal" else "") + (", until good" if until_good else "")
    least, most = int(draws.min()), int(draws.max())
    return [
        *(name, dim, label, f"{least:,}" if least == most else f"{least:,} to {most:,}"),
        *(f"{int(good.sum())} of {len(runs)}", f"{r_hat.max():.3f}", f"{ess.min():,.0f}"),
        f"{np.median(ess / draws / CHAINS):.4f}",
        f"{1000 * np.median(ess / draws / CHAINS / length):.3g}",
        *(f"{int(np.median(length))}", f"{np.median(step_size):.3g}", f"{np.median(acceptance):.2f}"),
        ps.SAMPLERS[sampler].target_acceptance,
    ]


def rows(data: Path | None) -> Iterator[list[Any]]:
    """Yield the rows, those of data that do not ship only where there is a folder."""
    for sampler in ("hmc", "mala"):
        for mass in ("auto", "diagonal"):
            yield row(NORMAL, correlated_normal(), sampler, mass)
    for name, target in targets(data):
        yield row(name, target, "hmc")
        if name in HARD:
            yield row(name, target, "hmc", until_good=True)
        yield row(name, target, "mala")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of data that do not ship, for their rows")
    write_rows(
        "warmup",
        f"Warm-up without tuning: {CHAINS} chains of 2,000 warm-up steps and {DRAWS:,} draws, every default, "
        f"{len(SEEDS)} seeds",
        "Good is what the verdict calls good: an R-hat below 1.01 and a bulk effective sample size (ESS) above 400 of "
        "the worst variable. Of R-hat and ESS the worst seed is shown, of the rest the median. HMC, the default, "
        "chooses its leapfrog steps in warm-up. Until good: `until=dict(ess=400, rhat=1.01)`, which draws as many as "
        f"it takes, at most {MOST:,}: for targets whose scale changes along the posterior, so that no one step size "
        "fits, and for Lotka and Volterra's, with a second mode in which a chain may begin. A ratio of draws and "
        "gradients does not count those of warm-up. The normal distribution with a diagonal mass matrix is there for "
        "comparison.",
        HEADER,
        rows(parser.parse_args().data),
    )


if __name__ == "__main__":
    main()
