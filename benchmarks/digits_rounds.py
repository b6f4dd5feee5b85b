"""Rounds and model evaluations of diffusion samplers by many methods, on the trained model of digits.

    python -m benchmarks.digits_rounds

Counts are exact and do not depend on the machine's speed; seconds do. Every row is compared with the loop.
"""

import time
from typing import Any

import jax
import numpy as np

import parsample as ps
from benchmarks.device import write_table
from parsample.samplers import diffusion

SAMPLES, TOLERANCE = 4, 1e-3
# Process, steps, the goal, and the published rounds of other models.
CASES: list[tuple[str, int, str, str]] = [
    ("ddim", 100, "5", "7, ParaTAA"),
    ("ddim", 50, "", ""),
    ("ddim", 25, "", ""),
    ("ddim", 15, "4", "7, ParaDiGMS"),
    ("dpm_solver_pp", 25, "", ""),
    ("ddpm", 100, "9", "25, ParaDiGMS"),
    ("ddpm", 1000, "15", "42 to 44, ParaDiGMS"),
]
METHODS: dict[str, dict[str, Any]] = {
    "Picard, from the noise": {"method": "picard", "guess": "start"},
    "scaled identity, schedule": {"method": "scaled_identity"},
    "scaled identity, tr(J) / D": {"method": ps.methods.ScaledIdentity("trace")},
    "Anderson on Picard": {"method": "anderson", "guess": "start"},
}


def measure(process: diffusion.Process, options: dict[str, Any]) -> list[Any]:
    """Draw the samples, compare them with the loop's, and return the cells of a row."""
    keywords: dict[str, Any] = {"seed": 0, "tolerance": TOLERANCE}
    loop = ps.diffuse(process, (8, 8), SAMPLES, method="sequential", **keywords)
    out = ps.diffuse(process, (8, 8), SAMPLES, **options, **keywords)
    away = (np.asarray(out.samples) - np.asarray(loop.samples)).reshape(SAMPLES, -1)
    rounds = np.asarray(out.rounds)
    return [
        f"{rounds.mean():.1f}",
        rounds.max(),
        f"{np.mean(out.model_evaluations):,.0f}",
        f"{np.sqrt(np.mean(away**2, 1)).max():.1g}",
    ]


def seconds(process: diffusion.Process, options: dict[str, Any]) -> float:
    """Return the wall time of a run that has been compiled."""
    start = time.perf_counter()
    jax.block_until_ready(ps.diffuse(process, (8, 8), SAMPLES, seed=1, tolerance=TOLERANCE, **options))
    return time.perf_counter() - start


def main() -> None:
    schedule, rows = diffusion.LinearBetas(), []
    model = diffusion.DigitsModel(schedule, "x0")
    for name, steps, goal, published in CASES:
        process = diffusion.PROCESSES[name](model, schedule, steps, "x0", sigma_data=model.sigma_data)
        # The others take a quarter of an hour each with 1,000 steps.
        for label in list(METHODS) if steps < 1000 else ["scaled identity, schedule"]:
            options = METHODS[label]
            found = measure(process, options)
            times = [seconds(process, chosen) for chosen in (options, {"method": "sequential"})]
            verdict = ""
            if goal and label == "scaled identity, schedule":
                over = float(found[0]) - int(goal)
                verdict = f"missed by {over:.1f}" if over > 0 else "met" if found[1] <= int(goal) else "met on average"
            cells = [name, f"{steps:,}", label, *found, *(f"{value:.2f}" for value in times)]
            rows.append([*cells, f"<= {goal}" if goal else "", verdict, published])
            print(*rows[-1], sep=" | ", flush=True)
    write_table(
        "digits_rounds",
        "Diffusion on the digits: rounds until every step is within tolerance",
        f"The trained model that ships with the package, any digit, linear betas, {SAMPLES} samples, full window, "
        f"float32. The tolerance is {TOLERANCE:g} of the noise level sqrt(sigma^2 + alpha^2 {model.sigma_data}^2) at "
        "the last step, falling to a tenth of that at the first, root mean square over pixels. Rounds are batches of "
        "model calls that wait for one another, the verifying one included, as a mean and for the slowest sample; "
        "evaluations are a sample's, a derivative along a probe counted as one. The sequential sampler needs as many "
        "of both as there are steps. Difference: of an image from the sequential one, root mean square, the largest "
        "of all; images go from -1 to 1. Picard and Anderson start from the noise, as published; the others from the "
        "process on normal data, which calls no model. Seconds: of all samples, compiled, one run, on a machine that "
        "was busy with other work; the loop takes the samples together. Published rounds are of other models and "
        "tolerances. With 1,000 steps only one method was run.",
        (
            "process",
            "steps",
            "method",
            "rounds",
            "slowest",
            "evaluations",
            "difference",
            "seconds",
            "loop, seconds",
            "goal",
            "goal met",
            "published",
        ),
        rows,
    )


if __name__ == "__main__":
    main()
