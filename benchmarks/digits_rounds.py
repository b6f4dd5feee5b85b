"""Rounds and model evaluations of diffusion samplers by many methods, on the trained model of digits.

    python -m benchmarks.digits_rounds [--only ddim-100]

Counts are exact and do not depend on the machine's speed; times do. Every row is compared with the loop.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import parsample as ps
from benchmarks.denoising import TIME_NOTE, Loop, verdict
from benchmarks.device import parse_only, write_rows
from parsample.samplers import diffusion

SEED, SAMPLES, TOLERANCE = 1, 4, 1e-3
HEADER = (
    "process", "steps", "sequential", "method", "rounds", "slowest", "evaluations", "difference", "time",
    "goal", "goal met", "published",
)  # fmt: skip
OURS, PICARD, ANDERSON = "scaled identity, schedule", "Picard, from the noise", "Anderson on Picard, from the noise"
TRACE, NEWTON = "scaled identity, tr(J) / D", "Newton, the exact Jacobian"
KNOWING = "scaled identity, digits' covariance"
SUBSPACES = {f"Newton in {rank} directions, digits' covariance": rank for rank in (16, 32, 64)}
SUBSPACE = list(SUBSPACES)[-1]
NEW = (OURS, KNOWING, *SUBSPACES)
# What runs, and how many principal directions of the digits the process knows; None for their deviation only.
METHODS: dict[str, tuple[dict[str, Any], int | None]] = {
    PICARD: ({"method": "picard", "guess": "start"}, None),
    ANDERSON: ({"method": "anderson", "guess": "start"}, None),
    OURS: ({"method": "scaled_identity"}, None),
    KNOWING: ({"method": "scaled_identity"}, 64),
    **{label: ({"method": "subspace_newton"}, rank) for label, rank in SUBSPACES.items()},
    TRACE: ({"method": ps.methods.ScaledIdentity("trace")}, None),
    NEWTON: ({"method": "newton"}, None),
}


class Case(NamedTuple):
    """A process, what runs, the goal, and the published rounds of other models."""

    process: str
    steps: int
    methods: tuple[str, ...]
    goal: str = ""
    published: str = ""

    @property
    def label(self) -> str:
        """What `--only` looks at."""
        return f"{self.process}-{self.steps}"


CASES = [
    Case("ddim", 100, (PICARD, ANDERSON, *NEW, TRACE, NEWTON), "5", "7, ParaTAA"),
    Case("ddim", 25, (PICARD, *NEW)),
    Case("ddim", 15, (PICARD, ANDERSON, *NEW, NEWTON), "4", "7, ParaDiGMS"),
    Case("dpm_solver_pp", 15, NEW, "4", "6, ParaDiGMS"),
    Case("unipc", 15, NEW),
    Case("ddpm", 100, (PICARD, ANDERSON, *NEW, TRACE), "9", "25, ParaDiGMS"),
    Case("ddpm", 1000, (OURS, KNOWING, SUBSPACE), "15", "42 to 44, ParaDiGMS"),
]


def rows_of(case: Case) -> Iterator[list[str]]:
    """Make the rows of a case."""
    schedule = diffusion.LinearBetas()
    model = diffusion.DigitsModel(schedule, "x0")
    for label in case.methods:
        options, rank = METHODS[label]
        known: dict[str, Any] = {
            "sigma_data": model.sigma_data,
            "surrogate": None if rank is None else model.normal.keep(rank),
        }
        process = diffusion.PROCESSES[case.process](model, schedule, case.steps, "x0", **known)
        loop = Loop(process, (8, 8), SAMPLES, seed=SEED, tolerance=TOLERANCE)
        found = loop.measure(options)
        cells = [case.process, f"{case.steps:,}", f"{loop.evaluations:,}", label, *found.counts()]
        cells += [f"{found.error:.1g}", found.ratio(), f"<= {case.goal}" if case.goal else ""]
        yield [*cells, verdict(found.rounds, case.goal) if label in NEW else "", case.published]


def main() -> None:
    only = parse_only("Rounds of diffusion samplers on the digits.")
    write_rows(
        "digits_rounds",
        "Diffusion on the digits: rounds until every step is within tolerance",
        f"The trained model that ships with the package, any digit, linear betas, {SAMPLES} samples, full window, "
        f"float32. The tolerance is {TOLERANCE:g} of the noise level sqrt(sigma^2 + alpha^2 "
        f"{diffusion.DigitsModel.sigma_data}^2) at "
        "the step, root mean square over pixels; all steps are accepted together. Rounds are batches of "
        "model calls that wait for one another, the verifying one included, as a mean and for the slowest sample; "
        "evaluations are a sample's, a derivative along a probe counted as one. The sequential sampler needs as many "
        "of both as its column says. Difference: of an image from the sequential one, root mean square, the largest "
        "of all; images go from -1 to 1. Picard and Anderson start from the noise, as published; the others from the "
        "process on normal data, which calls no model: of the digits' deviation, or of the mean and covariance of the "
        "digits that the model was trained on, in as many principal directions as Newton takes the Jacobian along. "
        "No Jacobian is projected. Newton shows what no better matrix would mend. Picard and "
        "Anderson are left out for DPM-Solver++ and UniPC, where Picard takes as many rounds as there are steps, and "
        "with 1,000 steps, where two cores would be busy for half an hour; [the table of mixtures](diffusion.md) has "
        f"Picard's rounds there. {TIME_NOTE} Published rounds are of other models and tolerances.",
        HEADER,
        (row for case in CASES if only in case.label for row in rows_of(case)),
        save=not only,
    )


if __name__ == "__main__":
    main()
