"""What compiling small loops whole saves on a CPU: the default call with XLA's limit and with ours.

    python -m benchmarks.small_loops --data FOLDER

Every process samples all posteriors, with one of the limits; nothing is kept from process to process.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

import parsample as ps
from benchmarks.bench.cases import cases
from benchmarks.device import write_rows
from parsample import _xla

NAMES = (
    *("eight_schools", "breast_cancer", "german_credit", "blr", "kidscore_interaction", "autoregressive"),
    *("garch", "gp_regression", "stochastic_volatility", "lotka_volterra", "sir"),
)
LIMITS, RUNS, WARM = (1024, _xla.LIMIT), 5, 3


def measure(names: Sequence[str], data: Path | None) -> None:
    """Print the seconds of the first call and the median of later ones, a line of JSON a posterior."""
    for case in cases(tuple(names), data):
        seconds = []
        for seed in range(1 + WARM):
            began = time.perf_counter()
            ps.sample(case.target, seed=seed, progress=False)
            seconds.append(time.perf_counter() - began)
        print(json.dumps([case.name, seconds[0], statistics.median(seconds[1:])]), flush=True)
        jax.clear_caches()


def run(limit: int, data: Path) -> dict[str, tuple[float, float]]:
    """Return the seconds of a process with a limit: posterior -> of the first call, of a later one."""
    flags = {"XLA_FLAGS": f"{_xla.OPTION}={_xla.NAME}={limit}"}
    alone = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    command = [sys.executable, "-m", "benchmarks.small_loops", "--data", str(data), "--one"]
    done = subprocess.run(command, env=alone | flags, check=True, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return {name: (first, later) for name, first, later in found}


def rows(data: Path) -> Iterator[list[str]]:
    """Run processes in turns, and make a row of each posterior."""
    found = [[run(limit, data) for limit in LIMITS] for _ in range(RUNS)]
    for name in NAMES:
        cells = []
        for part in (1, 0):
            theirs, ours = (statistics.median(pair[which][name][part] for pair in found) for which in (0, 1))
            ratio = statistics.median(pair[0][name][part] / pair[1][name][part] for pair in found)
            cells += [f"{theirs:.3g}", f"{ours:.3g}", f"{ratio:.2f}"]
        yield [name, *cells]


def main() -> None:
    """Write the table, or with --one measure in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="FOLDER", required=True, help="data that do not ship")
    parser.add_argument("--one", action="store_true", help="measure in this process, and print JSON")
    given = parser.parse_args()
    if given.one:
        measure(NAMES, given.data)
        return
    write_rows(
        "small_loops",
        "Small loops compiled whole",
        "`parsample.sample` with every default, 4 chains of 1,000 warm-up steps and 1,000 draws, with XLA's own limit "
        f"for loops that it compiles as one function on a CPU, {LIMITS[0]:,} bytes, and with ours, {LIMITS[1]:,}, "
        "which `import parsample` puts into XLA_FLAGS. Seconds of a later call and of the first, compiling included; "
        f"medians over {RUNS} processes of each kind in turns, and of the ratio in each turn.",
        ("posterior", "later: XLA's", "ours", "ratio", "first: XLA's", "ours", "ratio"),
        rows(given.data),
    )


if __name__ == "__main__":
    main()
