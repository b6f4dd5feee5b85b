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
    "word_problem": Study(
        [],
        "The group word problem over S5: iterations and memory",
        "Random words; the methods that are not exact on words of 1,000 letters at most. Newton takes one "
        "iteration and one that verifies, `permutation` the same ones with matrices in compact form. Published: "
        "Newton 1 iteration, the others nearly as many as letters (Gonzalez et al. 2025, figure 1).",
    ),
    "gru": Study(
        [],
        "A random gated recurrent unit: iterations against width and length",
        "Untrained weights, normal inputs; atol 1e-4, rtol 1e-3, float32; at most 1,000 iterations. Published as a "
        "figure of times: Newton and quasi-Newton take few iterations, Picard about as many as steps (Gonzalez et "
        "al. 2025, figure 2).",
    ),
    "chaotic_observers": Study(
        [],
        "Chaotic flows and their observers: exponents, and Newton iterations",
        "T=30,000, Euler steps of 0.01, float64; the exponents are computed before anything is solved; at most 200 "
        "iterations. Published: Gonzalez et al. 2025, table 1. The observer of the Roessler flow is another one "
        "there.",
    ),
    "anisotropic_mixture": Study(
        "--dims 32 64 128 256 --steps 1000 10000 30000 --step-sizes 1e-5 --cap 50".split(),
        "Langevin dynamics in a mixture of anisotropic Gaussians: iterations and memory",
        "ULA at the published step size, 1e-5, one chain, at most 50 iterations; the memory is that of the "
        "compiled program for a batch of 16, and what takes more than 5 GB for one chain is not run. Published as "
        "figures of times and memory: "
        "Picard is the fastest, and Newton runs out of memory at the top (Gonzalez et al. 2025, figure 3). Over more "
        "than 1,000 steps Picard's sums overshoot, to 1e17.",
    ),
    "residual_network": Study(
        [],
        "A residual network of 1,000 blocks, in parallel over its depth",
        "Random weights, 16 units; h is how much a block moves the state; atol 1e-4, rtol 1e-3, float32; at most "
        "300 iterations. All blocks are accepted together but in the rows that say early, where each keeps the "
        "error that it is accepted with.",
    ),
    "two_wells": Study(
        [],
        "Langevin dynamics in two wells: Newton alone, from a guess, and nested",
        "ULA, step 0.01, T=10,000, seeds 0 to 19, from the saddle; atol 1e-4, rtol 1e-3, float32, all steps "
        "accepted together. Least / median / most over the seeds; iterations are those of the chain itself, rounds "
        "those of all levels. Published is Newton, not projected; the goal was 12 iterations on every seed: a guess "
        "from a mixture of two normal distributions, fitted to 8,000 draws of a pilot chain, misses it by 2 on "
        "the worst seed. Nested "
        "levels leave 4 to 13 to the chain itself, a median of 5, and take half the evaluations. In rounds they "
        "gain nothing over the Gaussian's chain as the guess: each time a chain lingers at the barrier, some level "
        "has to find out on which side it falls.",
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
