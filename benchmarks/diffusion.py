"""Rounds and model evaluations of diffusion samplers by many methods, on mixtures whose model is exact.

    python -m benchmarks.diffusion

Counts are exact and do not depend on the machine's speed. Every row is compared with the sequential sampler.
"""

from typing import Any

import jax
import numpy as np

import parsample as ps
from benchmarks.device import write_table
from parsample.engine import methods
from parsample.samplers import diffusion

SEED, SAMPLES, DEVIATION, TOLERANCE = 1, 16, 0.2, 1e-3
SCHEDULE = diffusion.LinearBetas()

# Process, steps, the goal, and the published rounds of other models.
CASES: list[tuple[str, int, str, str]] = [
    ("ddpm", 1000, "15", "42 to 44, ParaDiGMS"),
    ("ddpm", 100, "9", "25, ParaDiGMS"),
    ("ddim", 500, "10", "42, ParaDiGMS"),
    ("ddim", 200, "8", "16, ParaDiGMS"),
    ("ddim", 100, "5", "7, ParaTAA"),
    ("ddim", 25, "", ""),
    ("ddim", 15, "4", "7, ParaDiGMS"),
    ("dpm_solver_pp", 200, "7", "16, ParaDiGMS"),
    ("dpm_solver_pp", 15, "4", "6, ParaDiGMS"),
]


def choices(name: str, dim: int) -> list[tuple[str, dict[str, Any]]]:
    """The methods of a table: Picard as published, and ours."""
    pairs = name == "dpm_solver_pp"
    probes: Any = methods.BlockQuasiNewton(num_probes=2) if pairs else methods.QuasiNewton("hutchinson", num_probes=2)
    rows: list[tuple[str, dict[str, Any]]] = [
        ("Picard, from the noise", {"method": "picard", "guess": "start"}),
        ("scaled identity, schedule", {"method": "scaled_identity"}),
    ]
    if not pairs:
        rows.append(("scaled identity, tr(J) / D", {"method": methods.ScaledIdentity("trace")}))
    if dim > 64:
        return rows
    rows.append(("quasi-Newton, 2 probes", {"method": probes} | ({"projection": False} if pairs else {})))
    rows.append(("Anderson on Picard", {"method": "anderson", "guess": "start"}))
    rows.append(("Parareal, sqrt(steps)", {"method": "parareal"}))
    return rows


def measure(name: str, steps: int, dim: int, options: dict[str, Any]) -> list[Any]:
    """Draw the samples, compare them with the loop's, and return the cells of a row."""
    model = diffusion.MixtureModel.at_random(jax.random.key(0), SCHEDULE, dim, deviation=DEVIATION)
    process = diffusion.PROCESSES[name](model, SCHEDULE, steps, sigma_data=DEVIATION)
    options = {key: value for key, value in options.items() if key != "projection"}
    keywords: dict[str, Any] = {"seed": SEED, "tolerance": TOLERANCE}
    loop = ps.diffuse(process, (dim,), SAMPLES, method="sequential", **keywords)
    out = ps.diffuse(process, (dim,), SAMPLES, **options, **keywords)
    error = np.sqrt(np.mean((np.asarray(out.samples) - np.asarray(loop.samples)) ** 2, 1)).max()
    rounds = np.asarray(out.rounds)
    return [f"{rounds.mean():.1f}", rounds.max(), f"{np.mean(out.model_evaluations):,.0f}", f"{error:.1g}"]


def main() -> None:
    rows = []
    for dim, cases in ((64, CASES), (4096, [CASES[1], CASES[4], CASES[8]])):
        for name, steps, goal, published in cases:
            for label, options in choices(name, dim):
                found = measure(name, steps, dim, options)
                verdict = ""
                if goal and label.startswith("scaled identity, schedule"):
                    over = found[1] - int(goal)
                    verdict = "met" if over <= 0 else f"met on average, slowest {over} over"
                    if float(found[0]) > int(goal):
                        verdict = f"missed by {float(found[0]) - int(goal):.1f}, slowest by {over}"
                cells = [f"{name}, D={dim:,}", f"{steps:,}", label, *found]
                cells += [f"<= {goal}" if goal else "", verdict, published]
                rows.append(cells)
                print(*cells, sep=" | ", flush=True)
    write_table(
        "diffusion",
        "Diffusion: rounds until every step is within tolerance",
        f"A mixture of 10 round normal distributions of deviation {DEVIATION} with means drawn from a standard normal "
        f"distribution; the exact noise prediction; linear betas; {SAMPLES} samples; full window; float32. The "
        f"tolerance "
        f"is {TOLERANCE:g} of the noise level sqrt(sigma^2 + alpha^2 {DEVIATION}^2) at every step, root mean square "
        f"over "
        "pixels. Rounds are batches of model calls that wait for one another, the verifying one included, as a mean "
        "and "
        "for the slowest sample; evaluations are a sample's, a derivative along a probe counted as one. The sequential "
        "sampler needs as many of both as there are steps. Difference: of a sample from the sequential one, root mean "
        "square, the largest of all. All methods but Picard and Anderson start from the process on normal data, which "
        "calls no model. Published rounds are of trained image and robot models and of other tolerances.",
        (
            "process",
            "steps",
            "method",
            "rounds",
            "slowest",
            "evaluations",
            "difference",
            "goal",
            "goal met",
            "published",
        ),
        rows,
    )


if __name__ == "__main__":
    main()
