"""The tables that the examples print, kept: each with device, versions and date.

    python -m benchmarks.case_studies --only two_wells gru

Iterations and bytes do not depend on the machine's speed.
"""

import argparse
import importlib.util
import tempfile
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from benchmarks.device import write_table

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


class Study(NamedTuple):
    """How an example is run, and what its table has to say."""

    arguments: list[str]
    title: str
    note: str


STUDIES = {
    "two_wells": Study(
        [],
        "Langevin dynamics in two wells: Newton alone, from a guess, and nested",
        "ULA, step 0.01, T=10,000, seeds 0 to 19, from the saddle; atol 1e-4, rtol 1e-3, float32, all "
        "steps accepted together. Least / median / "
        "most over the seeds; iterations are those of the chain itself, rounds those of all levels. Published is "
        "Newton, not projected; the goal was 12 iterations on every seed. Nested levels leave 4 to 13 to the chain "
        "itself, a median of 5, and take half the evaluations. In rounds they gain nothing over the Gaussian's chain "
        "as the guess: each time a chain lingers at the barrier, some level has to find out on which side it falls.",
    ),
}


def write(name: str, study: Study) -> None:
    """Run an example and write its table."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with tempfile.TemporaryDirectory() as folder:
        table: Table = module.main([*study.arguments, "--output", str(Path(folder) / "figure.png")])
    columns = [list(column.cells) for column in table.columns]
    command = " ".join([f"python examples/{name}.py", *study.arguments])
    header = [str(column.header) for column in table.columns]
    write_table(name, study.title, f"{study.note} From `{command}`.", header, list(zip(*columns, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=STUDIES, default=list(STUDIES))
    for name in parser.parse_args().only:
        write(name, STUDIES[name])


if __name__ == "__main__":
    main()
