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
GOALS = {"first call": "<= 5 s", "import parsample, beyond import jax": "<= 0.15 s"}
PROGRAM = """
import json, time
marks, compiled = [(time.perf_counter(), 0)], []
mark = lambda: marks.append((time.perf_counter(), len(compiled)))
import jax
mark()
jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **_: compiled.append(name) if name.endswith("backend_compile_duration") else None
)
import parsample
mark()
parsample.sample
mark()
for _ in range(2):
    parsample.sample("eight_schools", num_warmup=1000, num_samples=1000, num_chains=4, progress=False)
    mark()
import numpy as np, numpyro, numpyro.distributions as dist
def model(sigma, y):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(sigma)):
        standardised = numpyro.sample("standardised", dist.Normal())
        numpyro.sample("y", dist.Normal(mu + tau * standardised, sigma), obs=y)
sigma, y = np.array([15.0, 10, 16, 11, 9, 11, 10, 18]), np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
mark()
for shift in range(2):
    parsample.sample(model, sigma, y + shift, num_warmup=1000, num_samples=1000, num_chains=4, progress=False)
    mark()
names = [
    "import jax", "import parsample, beyond import jax", "what sampling imports", "first call", "second call",
    "import numpyro", "the same as a NumPyro model", "that model with other data",
]
parts = zip(marks, marks[1:])
print(json.dumps(dict(zip(names, ([there - here for here, there in zip(*part)] for part in parts)))))
"""


def rows() -> Iterator[list[str]]:
    """Time fresh processes, and make a row of each part."""
    alone = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    found = []
    for _ in range(RUNS):
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=alone, check=True, capture_output=True, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    for name in found[0]:
        seconds, programs = [run[name][0] for run in found], {run[name][1] for run in found}
        cells = [f"{value:.2f}" for value in (statistics.median(seconds), min(seconds), max(seconds))]
        yield [name, *cells, " to ".join(map(str, sorted(programs))), GOALS.get(name, "")]


def main() -> None:
    write_rows(
        "first_call",
        "The first call in a fresh process, compile included",
        f"Eight schools, 4 chains of 1,000 warm-up steps and 1,000 draws, every default; {RUNS} fresh processes "
        "without a compilation cache, one after the other, seconds.",
        ("part", "median", "least", "most", "programs compiled", "goal"),
        rows(),
    )


if __name__ == "__main__":
    main()
