"""What warm-up gives without any tuning: every target of the package, and a normal distribution in 200 dimensions.

    python -m benchmarks.warmup --data FOLDER

Acceptance near the sampler's target, R-hat, and the effective draws of what is sampled after it.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import parsample as ps
from benchmarks.device import write_rows
from benchmarks.predicted_iterations import DATA
from parsample.diagnostics import summarize, worst
from parsample.targets.density import LogDensity
from parsample.trace import as_datatree

HEADER = (
    "target", "dim", "sampler", "mass", "step size", "acceptance", "wanted", "draws", "R-hat", "ESS / draw", "seconds",
)  # fmt: skip
DRAWS = 5000
# What HMC also samples until it is good, in trajectories of so many leapfrog steps, and with at most so many draws.
HARD, LONG, MOST = ("banana", "funnel", "eight_schools_centered"), 32, 200_000
UNTIL = {"ess": 400, "rhat": 1.01}
NORMAL = "normal, condition number 10,000"
# These are sampled by conditional updates, which warm-up has nothing to tell.
LEFT_OUT = ("ising",)


def correlated_normal(dim: int = 200, condition: float = 1e4) -> ps.targets.Target:
    """Variances spread evenly, in logarithms, along directions that are no coordinates."""
    directions, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))
    precision = directions @ np.diag(np.logspace(-0.5, 0.5, dim) ** -np.log10(condition)) @ directions.T
    matrix = jnp.asarray(precision, jnp.float32)
    return LogDensity(lambda x: -0.5 * x @ matrix @ x, jnp.zeros(dim))


def measure(name: str, target: ps.targets.Target, sampler: str, mass: str, until_good: bool = False) -> list[Any]:
    """Return a row: 4 chains with every default, or until they are good with long trajectories, by the loop."""
    began = time.perf_counter()
    settings: dict[str, Any] = {"num_samples": DRAWS, "method": "sequential", "compare": False, "progress": False}
    if until_good:
        settings |= {"num_samples": MOST, "until": UNTIL, "sampler_options": {"num_integration_steps": LONG}}
    trace = ps.sample(target, sampler, mass=mass, **settings)
    seconds = time.perf_counter() - began
    stats: Any = as_datatree(trace)["sample_stats"]
    found = worst(summarize(trace))
    dim = sum(np.size(leaf) for leaf in target.position_template().values()) if name != NORMAL else 200
    rate, wanted = float(stats["acceptance_rate"].mean()), ps.SAMPLERS[sampler].target_acceptance
    label = f"{sampler}, {LONG} leapfrog steps, until good" if until_good else sampler
    draws = stats["step_size"].shape[1]
    row = [name, dim, label, mass, f"{float(stats['step_size'][0, 0]):.3g}", f"{rate:.2f}", wanted]
    return [*row, f"{draws:,}", f"{found.r_hat:.3f}", f"{found.ess_bulk / (4 * draws):.4f}", f"{seconds:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of data that do not ship, for their rows")
    options = parser.parse_args()
    cases = [(NORMAL, correlated_normal(), mass) for mass in ("auto", "diagonal")]
    for name, target_class in ps.TARGETS.items():
        if name in LEFT_OUT or (name in DATA and options.data is None):
            continue
        cases.append((name, target_class(data=options.data / DATA[name]) if name in DATA else target_class(), "auto"))

    def rows() -> Iterator[list[Any]]:
        for name, target, mass in cases:
            yield measure(name, target, "mala", mass)
            yield measure(name, target, "hmc", mass)
            if name in HARD:
                yield measure(name, target, "hmc", mass, until_good=True)

    write_rows(
        "warmup",
        f"Warm-up without tuning: 4 chains of 2,000 warm-up steps and {DRAWS:,} draws, every default",
        "R-hat and the bulk effective sample size are of the worst variable; seconds include compiling, on a machine "
        "that did other work at the time, and compare nothing. HMC has 8 leapfrog steps, its default, and a step size "
        "that is drawn for each trajectory. What stays bad: the banana, the funnel, the centred and the conjugate "
        "eight schools by MALA, and the funnel and the centred eight schools by HMC, whose necks no one step size "
        "fits: the verdict says so, and another parametrisation mends it (eight_schools is the centred one, "
        "non-centred). Until good: `until=dict(ess=400, rhat=1.01)` with longer "
        "trajectories draws as many as it takes. The normal distribution with a diagonal mass "
        "matrix is there for comparison.",
        HEADER,
        rows(),
    )


if __name__ == "__main__":
    main()
