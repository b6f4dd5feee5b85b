"""Iterations of Newton and quasi-Newton, projected and not, and with a trust region at every step (ELK).

    python -m benchmarks.trust_region

Each chain runs in the coordinates and, for MALA, near the step size that a short warm-up finds. Iterations do not
depend on the machine's speed.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import jax

import parsample as ps
from benchmarks.device import write_rows
from benchmarks.predicted_iterations import SHARE, warmed_chain

TARGETS = ("two_wells", "gaussian_mixture", "log_gamma", "banana", "funnel", "eight_schools")
CHOICES: dict[str, dict[str, Any]] = {
    "newton": {"method": "newton"},
    "newton, not projected": {"method": "newton", "conditioning": ps.Conditioning(projection=False)},
    "elk": {"method": "elk"},
    "quasi_newton": {"method": "quasi_newton"},
    "quasi_newton, not projected": {"method": "quasi_newton", "conditioning": ps.Conditioning(projection=False)},
    "quasi_elk": {"method": "quasi_elk"},
}


def compared(steps: int) -> Iterator[list[Any]]:
    """Yield a row for each target and sampler: the iterations of every choice."""
    for name in TARGETS:
        target = ps.TARGETS[name]()
        for sampler_class in (ps.samplers.ULA, ps.samplers.MALA):
            sampler, start, inputs = warmed_chain(target, sampler_class, steps)
            evaluate = lambda options, *chain: ps.evaluate(*chain, throw=False, **options)  # noqa: E731
            row = [int(evaluate(options, sampler.transition, start, inputs).iterations) for options in CHOICES.values()]
            yield [name, sampler_class.__name__, *row]
        jax.clear_caches()


def sums(rows: Sequence[Sequence[Any]]) -> str:
    """Return the note above the table, with the sum of every column."""
    totals = ", ".join(f"{name} {sum(row[2 + at] for row in rows)}" for at, name in enumerate(CHOICES))
    return (
        "Two chains are warmed up by 800 steps, and one is evaluated over the full window (atol 1e-4, rtol 1e-3, "
        f"float32); MALA at {SHARE} of the step size that warm-up finds. In all: {totals}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=512)
    options = parser.parse_args()
    title = f"Iterations for {options.steps} steps of ULA and MALA: projection, and a trust region at every step"
    write_rows("trust_region", title, sums, ("target", "sampler", *CHOICES), compared(options.steps))


if __name__ == "__main__":
    main()
