"""Rounds and model evaluations of diffusion samplers by many methods, on mixtures whose model is exact.

    python -m benchmarks.diffusion [--only "ddim-100, D=64"]

Counts are exact and do not depend on the machine's speed. Every row is compared with the sequential sampler.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from benchmarks.denoising import TIME_NOTE, Loop, verdict
from benchmarks.device import parse_only, write_rows
from parsample.engine import methods
from parsample.samplers import diffusion

SEED, SAMPLES, DEVIATION, TOLERANCE = 1, 16, 0.2, 1e-3
OURS, SUBSPACE = "scaled identity, schedule", "Newton in the subspace"
COMPONENTS, FITTED = 10, 1000
HEADER = (
    "process", "steps", "sequential", "method", "rounds", "slowest", "evaluations", "error", "time",
    "goal", "goal met", "published",
)  # fmt: skip


class Case(NamedTuple):
    """A process, the goal and the published rounds of other models, and whether every method runs or few."""

    process: str
    steps: int
    goal: str = ""
    published: str = ""
    everything: bool = False
    schedule: diffusion.Schedule = diffusion.LinearBetas()
    dim: int = 64

    @property
    def label(self) -> str:
        """What `--only` looks at."""
        return f"{self.process}-{self.steps}, D={self.dim}"


MAIN = [
    Case("ddpm", 1000, "15", "42 to 44, ParaDiGMS"),
    Case("ddpm", 100, "9", "25, ParaDiGMS", True),
    Case("ddim", 500, "10", "42, ParaDiGMS"),
    Case("ddim", 200, "8", "16, ParaDiGMS"),
    Case("ddim", 100, "5", "7, ParaTAA", True),
    Case("ddim", 25),
    Case("ddim", 15, "4", "7, ParaDiGMS", True),
    Case("dpm_solver_pp", 200, "7", "16, ParaDiGMS"),
    Case("dpm_solver_pp", 15, "4", "6, ParaDiGMS", True),
    Case("unipc", 15),
    Case("heun", 25, schedule=diffusion.Karras()),
    Case("edm", 25, schedule=diffusion.Karras()),
    Case("euler_maruyama", 100, schedule=diffusion.VP()),
]
LARGE = [
    case._replace(dim=4096, everything=False)
    for case in MAIN
    if case[:2] in (("ddpm", 100), ("ddim", 100), ("dpm_solver_pp", 15))
]


class CoarseDDIM(eqx.Module):
    """One step of DDIM in the place of a whole segment: the coarse solver of SRDS."""

    process: diffusion.DDIM

    def __call__(self, x: Any, inputs: diffusion.StepInput) -> Any:
        """Return the state at the end of a segment."""
        now = jax.tree.map(lambda row: row[0], inputs.now)
        after = jax.tree.map(lambda row: row[-1], inputs.next)
        x0 = self.process.denoise(x, now)
        kept = after.sigma / now.sigma
        return kept * x + (after.alpha - kept * now.alpha) * x0


def srds(process: diffusion.DDIM, dim: int) -> tuple[dict[str, Any], int]:
    """Return the options of SRDS, and the rounds of the coarse run that it starts from."""
    steps = process.num_steps
    segment = math.isqrt(steps - 1) + 1
    coarse = CoarseDDIM(process)

    def start(key: Any) -> Any:
        state_key, input_key = jax.random.split(key)
        x, inputs = process.init(state_key, (dim,)), process.draw_inputs(input_key, (dim,))
        rows = []
        for first in range(0, steps, segment):
            piece = jax.tree.map(lambda leaf, first=first: leaf[first : first + segment], inputs)
            x = coarse(x, piece)
            rows.append(jnp.broadcast_to(x, (min(segment, steps - first), dim)))
        return jnp.concatenate(rows)

    guess = jax.jit(lambda keys: jax.lax.map(start, keys))(jax.random.split(jax.random.key(SEED), SAMPLES))
    return {"method": methods.Parareal(coarse, segment), "guess": guess}, -(-steps // segment)


class Choice(NamedTuple):
    """A method, with its options and the rounds that its guess cost, and whether the process knows the data."""

    label: str
    options: dict[str, Any]
    rounds: int = 0
    knows: bool = False


def choices(process: diffusion.Process, case: Case) -> list[Choice]:
    """The methods of a case: the published ones, and ours."""
    dim, everything = case.dim, case.everything
    # Whether a state holds past predictions.
    remembers = len(jax.tree.leaves(process.start(jnp.zeros(())))) > 1
    rows: list[Choice] = []
    if not remembers:
        rows.append(Choice("Picard, from the noise", {"method": "picard", "guess": "start"}))
        rows.append(Choice("Picard, our guess", {"method": "picard"}))
    if not remembers and everything:
        rows.append(Choice("Anderson on Picard, from the noise", {"method": "anderson", "guess": "start"}))
        rows.append(Choice("Anderson on Picard, our guess", {"method": "anderson"}))
    if isinstance(process, diffusion.DDIM) and (everything or process.num_steps == 25):
        rows.append(Choice("Parareal, coarse DDIM (SRDS)", *srds(process, dim)))
    rows.append(Choice(OURS, {"method": "scaled_identity"}))
    if isinstance(process, diffusion.DDPM) and process.num_steps == 100:
        rows.append(Choice("the same, window of 50", {"method": "scaled_identity", "window": 50}))
    rows.append(Choice(OURS, {"method": "scaled_identity"}, knows=True))
    rows.append(Choice(SUBSPACE, {"method": "subspace_newton"}, knows=True))
    if not everything:
        return rows
    if remembers:
        rows.append(Choice("block quasi-Newton, 2 probes", {"method": methods.BlockQuasiNewton(num_probes=2)}))
    else:
        rows.append(Choice("scaled identity, tr(J) / D", {"method": methods.ScaledIdentity("trace")}))
        rows.append(Choice("quasi-Newton, 2 probes", {"method": methods.QuasiNewton("hutchinson", num_probes=2)}))
        rows.append(Choice("Newton, the exact Jacobian", {"method": "newton"}))
    return rows


def rows_of(case: Case) -> Iterator[list[str]]:
    """Make the rows of a case."""
    model = diffusion.MixtureModel.at_random(jax.random.key(0), case.schedule, case.dim, COMPONENTS, DEVIATION)
    data = diffusion.NormalDenoiser.fit(model.draw(jax.random.key(2), FITTED), COMPONENTS - 1)
    processes = [
        diffusion.PROCESSES[case.process](model, case.schedule, case.steps, sigma_data=DEVIATION, surrogate=surrogate)
        for surrogate in (None, data)
    ]
    loops = [Loop(process, (case.dim,), SAMPLES, seed=SEED, tolerance=TOLERANCE) for process in processes]
    for choice in choices(processes[0], case):
        loop = loops[choice.knows]
        found = loop.measure(choice.options, choice.rounds)
        label = choice.label + (", data's covariance" if choice.knows else "")
        cells = [f"{case.process}, D={case.dim:,}", f"{case.steps:,}", f"{loop.evaluations:,}", label, *found.counts()]
        cells += [f"{found.error / (TOLERANCE * DEVIATION):.2g}", found.ratio(), f"<= {case.goal}" if case.goal else ""]
        yield [*cells, verdict(found.rounds, case.goal) if choice.label in (OURS, SUBSPACE) else "", case.published]


def main() -> None:
    only = parse_only("Rounds of diffusion samplers on mixtures whose model is exact.")
    cases = [case for case in (*MAIN, *LARGE) if only in case.label]
    write_rows(
        "diffusion",
        "Diffusion: rounds until every step is within tolerance",
        f"A mixture of {COMPONENTS} round normal distributions of deviation {DEVIATION} with means drawn from a "
        "standard normal distribution; the exact noise prediction; linear betas, but for Heun and EDM (churn 40) "
        "Karras's noise "
        f"levels, and for Euler-Maruyama the VP SDE; {SAMPLES} samples; full window; float32. The "
        f"tolerance is {TOLERANCE:g} of the noise level sqrt(sigma^2 + alpha^2 {DEVIATION}^2) of the "
        "step, root mean square over pixels; all steps are accepted together, with a window of 50 the first ones at a "
        "thousandth of it. Rounds are batches of model calls that "
        "wait for one another, the verifying one and those of a guess included, as a mean and for the slowest sample; "
        "evaluations are a sample's, a derivative along a probe counted as one. "
        "The sequential sampler needs as many of both as its column says. Error: of a sample "
        f"against the sequential one, root mean square, the largest of all, in tolerances ({TOLERANCE * DEVIATION:g} "
        "in the units of the data). Our guess is the process on normal data with the same noise, which calls no model; "
        "the methods without a word on it start there. With the data's covariance the normal data have mean and "
        f"{COMPONENTS - 1} principal directions of {FITTED:,} draws from the mixture, as a user would have them from "
        "training data (`NormalDenoiser.fit`), in place of the deviation alone, and Newton in the subspace takes the "
        "Jacobian along those directions; a normal distribution knows of no components. "
        "SRDS starts from its coarse run; its rounds are those of the "
        "coarse run, and in every iteration the steps of a segment and the coarse sweep, without the pipelining that "
        "overlaps the two; coarse calls inside iterations are not among its evaluations. Picard and Anderson are left "
        "out for DPM-Solver++ and UniPC, whose states hold past predictions, which the identity would carry along for "
        "good: Picard then takes as many rounds as there are steps. Newton shows what no better matrix would mend. "
        "No Jacobian is projected. "
        f"{TIME_NOTE} A guess that is handed in, as SRDS's, is not in it. Published rounds are of "
        "trained image and robot models and of other tolerances.",
        HEADER,
        (row for case in cases for row in rows_of(case)),
        save=not only,
    )


if __name__ == "__main__":
    main()
