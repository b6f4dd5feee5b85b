"""MALA on the mixture of four normal distributions in the plane, 100,000 steps, from any start."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp

import parsample as ps
from benchmarks.chains import HEADER, PUBLISHED, measure
from benchmarks.device import write_table
from parsample.engine.methods import Newton, QuasiNewton
from parsample.warmup.coordinates import plain

STEPS = 100_000
GOAL = "<= 120, K <= 10"
MODE = (2.0, 2.0)
OTHERS = [(-2.0, -2.0), (-2.0, 2.0), (2.0, -2.0), (0.0, 0.0), (30.0, -20.0)]
BEST: dict[str, Any] = {"method": QuasiNewton("exact"), "active_set": 256}

CASES: list[tuple[str, dict[str, Any], str]] = [
    ("Newton", {"method": Newton()}, GOAL),
    ("quasi-Newton, exact diagonal", {"method": QuasiNewton("exact")}, GOAL),
    ("quasi-Newton, 1 probe", {"method": QuasiNewton("hutchinson")}, GOAL),
    ("Newton, active set", {"method": Newton(), "active_set": 256}, GOAL),
    ("quasi-Newton, exact diagonal, active set", BEST, GOAL),
    ("quasi-Newton, exact diagonal, active set", {**BEST, "window": 16_384, "active_set": 64}, GOAL),
    ("quasi-Newton, exact diagonal", {"method": QuasiNewton("exact"), "window": 256}, GOAL),
    ("published: straight-through, 2 probes, clip 1", PUBLISHED, "about 50 published, 98% of the steps"),
]


def write(data: Path | None) -> None:
    """Measure every row, and write the table."""
    sampler = ps.samplers.MALA(plain(ps.targets.GaussianMixture()), 0.5)
    rows = []
    cases = [(MODE, [0, 1, 2], *case) for case in CASES]
    cases += [(start, [0], "quasi-Newton, exact diagonal, active set", BEST, GOAL) for start in OTHERS]
    for start, seeds, name, options, goal in cases:
        row = measure(sampler, jnp.asarray(start), STEPS, seeds, **options)
        case = f"mixture of 4, from ({start[0]:g}, {start[1]:g})"
        rows.append([case, f"{STEPS:,}", name, options.get("window", "full"), *row, goal])
        print(*rows[-1], flush=True)
    write_table(
        "rounds_mixture_of_four",
        "Mixture of four: iterations and evaluations until every step is within tolerance",
        "MALA, step 0.5, D=2, float32, atol 1e-4, rtol 1e-3. From the mode (2, 2) one chain for each of the seeds 0, "
        "1, 2; from the other modes, the saddle and a far start one with seed 0. Active sets are gathered 256 steps at "
        "a time, 64 with the window of 16,384. Where decisions differ, a proposal's accept/reject hung on less than "
        "the tolerance, and the two chains part until they meet again. K is evaluations a step.",
        HEADER,
        rows,
    )
