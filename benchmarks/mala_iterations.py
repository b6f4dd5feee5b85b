"""Iterations and evaluations of MALA's parallel evaluation: German credit and a mixture of four.

    python -m benchmarks.mala_iterations --data german.data-numeric

Both count exactly and do not depend on the machine's speed; wall times are not measured here. Every row is checked
against the sequential loop: largest difference, and accept decisions that differ.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

import parsample as ps
from benchmarks.chains import HEADER, PUBLISHED, SEEDS, eigenbasis_at_mode, measure
from benchmarks.device import write_rows
from parsample.engine.methods import Newton, QuasiNewton
from parsample.warmup.coordinates import plain


def german_credit(path: Path) -> Iterator[list[Any]]:
    """MALA on German credit in the eigenbasis of its mode, step 0.0015, from the mode."""
    density, mode = eigenbasis_at_mode(ps.targets.GermanCredit(path))
    tight = {"atol": 1e-5, "rtol": 1e-5}
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("frozen gate, analytic diagonal", {"method": QuasiNewton("analytic")}, "<= 17"),
        ("frozen gate, 1 probe", {"method": QuasiNewton("hutchinson", 1)}, "<= 17"),
        ("frozen gate, 2 probes", {"method": QuasiNewton("hutchinson", 2)}, "<= 17"),
        ("published: straight-through, 2 probes, clip 1", PUBLISHED, "22 published"),
        ("frozen gate, analytic diagonal", {"method": QuasiNewton("analytic"), "window": 64}, ""),
        ("the same, tolerance 1e-5", {"method": QuasiNewton("analytic"), "window": 64, **tight}, ""),
    ]
    for name, options, goal in cases:
        row = measure(ps.samplers.MALA(density, 0.0015), mode, 4096, **options)
        yield ["German credit, D=25", 4096, name, options.get("window", "full"), *row, goal]


def mixture_of_four(steps: int) -> Iterator[list[Any]]:
    """MALA on the mixture of four round normal distributions, step 0.5, from a mode."""
    density = plain(ps.targets.GaussianMixture())
    start = ravel_pytree({"x": jnp.array([2.0, 2.0])})[0]
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("Newton, frozen gate, projected", {"method": Newton()}, "127 at 20,000"),
        ("Newton, frozen gate, projected", {"method": Newton(), "window": 256}, ""),
        ("quasi-Newton, frozen gate, 1 probe", {"method": QuasiNewton("hutchinson")}, ""),
        ("quasi-Newton, frozen gate, 1 probe", {"method": QuasiNewton("hutchinson"), "window": 256}, ""),
        ("published: straight-through, 2 probes, clip 1", PUBLISHED, "169 to 186 at 20,000"),
    ]
    for name, options, goal in cases:
        row = measure(ps.samplers.MALA(density, 0.5), start, steps, **options)
        yield ["mixture of 4, D=2", f"{steps:,}", name, options.get("window", "full"), *row, goal]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the UCI file german.data-numeric; without it its rows are left out")
    parser.add_argument("--steps", type=int, nargs="*", default=[20_000], help="of the mixture's chains")
    arguments = parser.parse_args()
    rows = german_credit(arguments.data) if arguments.data else iter(())
    write_rows(
        "mala_iterations",
        "MALA: iterations and evaluations until every step is within tolerance",
        f"One chain for each of the seeds {', '.join(map(str, SEEDS))}; iterations are listed by seed, the one that "
        "verifies included. Tolerance atol 1e-4, rtol 1e-3 unless the row says otherwise, float32. Evaluations count "
        "every step of the window in every iteration. The last columns but one compare with the sequential loop.",
        HEADER,
        itertools.chain(rows, *map(mixture_of_four, arguments.steps)),
    )


if __name__ == "__main__":
    main()
