"""How long the first call takes in a fresh process, compile included: what a user waits for.

    python -m benchmarks.first_call

Eight schools, 4 chains of 1,000 warm-up steps and 1,000 draws, every default; nothing is kept from process to process.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.device import write_rows

RUNS = 5
GOALS = {"first call": "<= 8 s", "import parsample, beyond import jax": "<= 0.15 s"}
PROGRAM = """
import json, time
marks = [time.perf_counter()]
import jax
marks.append(time.perf_counter())
import parsample
marks.append(time.perf_counter())
parsample.sample
marks.append(time.perf_counter())
for _ in range(2):
    parsample.sample("eight_schools", num_warmup=1000, num_samples=1000, num_chains=4, progress=False)
    marks.append(time.perf_counter())
import numpy as np, numpyro, numpyro.distributions as dist
def model(sigma, y):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(sigma)):
        standardised = numpyro.sample("standardised", dist.Normal())
        numpyro.sample("y", dist.Normal(mu + tau * standardised, sigma), obs=y)
sigma, y = np.array([15.0, 10, 16, 11, 9, 11, 10, 18]), np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
marks.append(time.perf_counter())
for shift in range(2):
    parsample.sample(model, sigma, y + shift, num_warmup=1000, num_samples=1000, num_chains=4, progress=False)
    marks.append(time.perf_counter())
names = [
    "import jax", "import parsample, beyond import jax", "what sampling imports", "first call", "second call",
    "import numpyro", "the same as a NumPyro model", "that model with other data",
]
print(json.dumps(dict(zip(names, (b - a for a, b in zip(marks, marks[1:]))))))
"""


def rows() -> Iterator[list[str]]:
    """Time fresh processes, and make a row of each part."""
    alone = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    found = []
    for _ in range(RUNS):
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=alone, check=True, capture_output=True, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    for name in found[0]:
        seconds = [run[name] for run in found]
        cells = [f"{value:.2f}" for value in (statistics.median(seconds), min(seconds), max(seconds))]
        yield [name, *cells, GOALS.get(name, "")]


def main() -> None:
    write_rows(
        "first_call",
        "The first call in a fresh process, compile included",
        f"Eight schools, 4 chains of 1,000 warm-up steps and 1,000 draws, every default; {RUNS} fresh processes "
        "without a compilation cache, one after the other, seconds.",
        ("part", "median", "least", "most", "goal"),
        rows(),
    )


if __name__ == "__main__":
    main()
