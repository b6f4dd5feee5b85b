"""MALA on German credit, in the eigenbasis of the Hessian at the mode, by every method."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import parsample as ps
from benchmarks.chains import HEADER, PUBLISHED, eigenbasis_at_mode, measure
from benchmarks.device import write_table
from parsample import methods

STEP_SIZE = 0.0015
LONG = 16_384
SLOW = ("picard", "scaled identity, tr(J) / D")


def short_cases(surrogate: methods.Surrogate) -> list[tuple[str, dict[str, Any], str]]:
    """Return a name, the options and the goal of every row of 4,096 steps."""
    transition: Any = surrogate.surrogate

    def coarse(state: jax.Array, inputs: Any) -> jax.Array:
        return jax.lax.scan(lambda state, input: (transition(state, input), None), state, inputs)[0]

    unguided = methods.Surrogate(transition, start_from_it=False)
    return [
        ("quasi-Newton, analytic", {"method": "quasi_newton"}, "<= 17"),
        ("quasi-Newton, active set", {"method": "quasi_newton", "active_set": 64}, "K about 6"),
        ("surrogate's matrices", {"method": unguided}, "19 in the prototype"),
        ("surrogate, its chain as the guess", {"method": surrogate}, "14 in the prototype"),
        ("surrogate, active set", {"method": surrogate, "active_set": 64}, "K 6.2 in the prototype"),
        ("surrogate", {"method": surrogate, "window": 512, "active_set": 64}, "K <= 7"),
        ("surrogate", {"method": surrogate, "window": 64}, "K <= 7"),
        ("lagged quasi-Newton", {"method": "lagged"}, ""),
        ("parareal, segments of 16", {"method": methods.Parareal(coarse)}, ""),
        ("anderson on the surrogate", {"method": methods.Anderson(surrogate)}, ""),
        ("secant", {"method": "secant"}, ""),
        ("scaled identity, tr(J) / D", {"method": "scaled_identity"}, ""),
        ("picard", {"method": "picard"}, ""),
        ("published: straight-through, 2 probes, clip 1", PUBLISHED, "22 in the prototype"),
    ]


def long_cases(surrogate: methods.Surrogate) -> list[tuple[str, dict[str, Any], str]]:
    """Return the same for 16,384 steps and four chains."""
    goal = "<= 20, K <= 7"
    return [
        ("quasi-Newton, analytic", {"method": "quasi_newton"}, goal),
        ("quasi-Newton, active set", {"method": "quasi_newton", "active_set": 256}, goal),
        ("surrogate, its chain as the guess", {"method": surrogate}, goal),
        ("surrogate, active set", {"method": surrogate, "active_set": 256}, goal),
        ("published: straight-through, 2 probes, clip 1", PUBLISHED, "76 published (slowest chain)"),
    ]


def write(data: Path) -> None:
    """Measure every row, and write the table."""
    density, mode = eigenbasis_at_mode(ps.targets.GermanCredit(data=data))
    sampler = ps.samplers.MALA(density, STEP_SIZE)
    variances = 1 / jnp.diagonal(-jax.hessian(density)(mode))
    surrogate = methods.Surrogate(ps.samplers.MALA(ps.Gaussian(mode, np.asarray(variances)), STEP_SIZE).transition)
    for name, steps, cases, seeds in (
        ("rounds_german_credit_long", LONG, long_cases(surrogate), (0, 1, 2, 3)),
        ("rounds_german_credit", 4096, short_cases(surrogate), (0, 1, 2)),
    ):
        rows = []
        alone = " and ".join(case for case, *_ in cases if case in SLOW)
        for case, given, goal in cases:
            # What gains a step or two an iteration makes its point with one chain.
            row = measure(sampler, mode, steps, seeds[:1] if case in SLOW else seeds, **given)
            rows.append(["German credit, D=25", f"{steps:,}", case, given.get("window", "full"), *row, goal])
            print(*rows[-1], flush=True)
        write_table(
            name,
            f"German credit, {steps:,} steps: iterations and evaluations until every step is within tolerance",
            "MALA, step 0.0015, from the mode, in the eigenbasis of the Hessian there; the surrogate is the Gaussian "
            f"with that mode and Hessian. One chain for each of the seeds {', '.join(map(str, seeds))}"
            f"{', one alone for ' + alone if alone else ''}; atol 1e-4, rtol 1e-3, float32. Active sets are gathered "
            "64 steps at a time, 256 where there are 16,384. Where decisions differ, a proposal's accept/reject hung "
            "on less than the tolerance. K is evaluations a step.",
            HEADER,
            rows,
        )
