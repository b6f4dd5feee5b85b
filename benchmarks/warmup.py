"""What warm-up gives without any tuning: every target of the package, and a normal distribution in 200 dimensions.

    python -m benchmarks.warmup --data FOLDER

Acceptance near the sampler's target, R-hat, and the effective draws of what is sampled after it.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import parsample as ps
from benchmarks.device import write_table
from benchmarks.predicted_iterations import DATA
from parsample.diagnostics import summarize, worst
from parsample.targets.density import LogDensity
from parsample.trace import as_datatree

HEADER = ("target", "dim", "sampler", "mass", "step size", "acceptance", "wanted", "R-hat", "ESS / draw", "seconds")
DRAWS = 5000
NORMAL = "normal, condition number 10,000"
# These are sampled by conditional updates, which warm-up has nothing to tell.
LEFT_OUT = ("ising",)


def correlated_normal(dim: int = 200, condition: float = 1e4) -> ps.targets.Target:
    """Variances spread evenly, in logarithms, along directions that are no coordinates."""
    directions, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))
    precision = directions @ np.diag(np.logspace(-0.5, 0.5, dim) ** -np.log10(condition)) @ directions.T
    matrix = jnp.asarray(precision, jnp.float32)
    return LogDensity(lambda x: -0.5 * x @ matrix @ x, jnp.zeros(dim))


def measure(name: str, target: ps.targets.Target, sampler: str, mass: str) -> list[Any]:
    """Return a row: 4 chains with every default, by the loop."""
    began = time.perf_counter()
    settings: dict[str, Any] = {"num_samples": DRAWS, "method": "sequential", "compare": False, "progress": False}
    trace = ps.sample(target, sampler, mass=mass, **settings)
    seconds = time.perf_counter() - began
    stats: Any = as_datatree(trace)["sample_stats"]
    found = worst(summarize(trace))
    dim = sum(np.size(leaf) for leaf in target.position_template().values()) if name != NORMAL else 200
    rate, wanted = float(stats["acceptance_rate"].mean()), ps.SAMPLERS[sampler].target_acceptance
    row = [name, dim, sampler, mass, f"{float(stats['step_size'][0, 0]):.3g}", f"{rate:.2f}", wanted]
    return [*row, f"{found.r_hat:.3f}", f"{found.ess_bulk / (4 * DRAWS):.4f}", f"{seconds:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of data that do not ship, for their rows")
    options = parser.parse_args()
    cases = [(NORMAL, correlated_normal(), mass) for mass in ("auto", "diagonal")]
    for name, target_class in ps.TARGETS.items():
        if name in LEFT_OUT or (name in DATA and options.data is None):
            continue
        cases.append((name, target_class(data=options.data / DATA[name]) if name in DATA else target_class(), "auto"))
    rows = []
    for case in cases:
        for sampler in ("mala", "hmc"):
            rows.append(measure(*case[:2], sampler, case[2]))
            print(*rows[-1], flush=True)
    write_table(
        "warmup",
        f"Warm-up without tuning: 4 chains of 2,000 warm-up steps and {DRAWS:,} draws, every default",
        "R-hat and the bulk effective sample size are of the worst variable; seconds include compiling. "
        "HMC has 8 leapfrog steps, its default, and a jittered step size.",
        HEADER,
        rows,
    )


if __name__ == "__main__":
    main()
