"""The benchmark suite: effective draws a second, by every default, beside NumPyro, BlackJAX, nutpie and a paper.

    python -m benchmarks.bench --data FOLDER [--only garch blr] [--opponents NumPyro "ours, auto"] [--repeats 5]
    python -m benchmarks.bench --quick

Every posterior is written to bench.json, bench.md and bench.png as it ends, and takes the place of what was there of
it. With --quick every row runs on a few steps, in double precision, compared with the loop, and nothing is written.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax
import numpyro

from benchmarks.bench import report
from benchmarks.bench.cases import NAMES, cases
from benchmarks.bench.measure import REPEATS, Bench, Meter, Row
from benchmarks.bench.opponents import OPPONENTS, Size
from benchmarks.device import RESULTS
from parsample.results.verdict import SAME

QUICK = Size(warmup=20, draws=20, chains=2)


def wrong(row: Row) -> str:
    """Return what is wrong with a quick run, "" for nothing."""
    if "error" in row:
        return str(row["error"])
    if row.get("parted"):
        return f"{row['parted']:.1%} of its draws are not those of the loop's chain"
    if row.get("difference", 0.0) > SAME:
        return f"{row['difference']:.2g} standard deviations from the loop's chain"
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for, and return 1 where a row failed or disagrees with the loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="data that do not ship, for their rows")
    parser.add_argument("--only", nargs="+", default=list(NAMES), choices=NAMES, metavar="NAME", help="posteriors")
    parser.add_argument("--opponents", nargs="+", default=[""], metavar="TEXT", help="those with it in their name")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="warm runs; fewer where they take long")
    parser.add_argument("--quick", action="store_true", help="a few steps of every row; writes nothing")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FOLDER", help="where the results go")
    given = parser.parse_args(arguments)
    names = [name for name in OPPONENTS if any(text in name for text in given.opponents)]
    size, repeats = (QUICK, 1) if given.quick else (Size(), given.repeats)
    jax.config.update("jax_enable_compilation_cache", given.quick)  # first calls compile
    # Asked before anything is written, which the commit would be said to differ by.
    meter, place, faults = Meter(), report.environment(), []
    # In double precision a chain that differs from the loop's does so for a reason; in single, rounding may part them.
    with jax.enable_x64(given.quick):
        for case in cases(tuple(given.only), given.data):
            jax.clear_caches()
            rows = Bench(case, size, names, meter).measure(repeats)
            for row in rows:
                print(case.name, report.line(row), sep=" | ", flush=True)
                faults += [f"{case.name}, {row['opponent']}: {wrong(row)}"] if wrong(row) else []
            if not given.quick:
                report.save(given.output, case.name, place, case.dim, rows)
    print(*(faults or ["every row ran, and agrees with the loop"]), sep="\n")
    return bool(faults)


if __name__ == "__main__":
    # Before JAX starts: NumPyro's users ask for a device a chain.
    numpyro.set_host_device_count(Size().chains)
    raise SystemExit(main())
