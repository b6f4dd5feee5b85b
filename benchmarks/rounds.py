"""Iterations and evaluations of every method on one chain: MALA on German credit, in the eigenbasis at the mode.

    python -m benchmarks.rounds --data german.data-numeric

Counts are exact and do not depend on the machine's speed. Every row is compared with the sequential loop.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import parsample as ps
from benchmarks.device import write_table
from benchmarks.mala_iterations import HEADER, PUBLISHED, eigenbasis_at_mode, measure
from parsample import methods

STEP_SIZE = 0.0015


def cases(surrogate: methods.Surrogate) -> list[tuple[str, dict[str, Any], str]]:
    """Return a name, the options and the goal of every row."""
    stand_in: Any = surrogate.stand_in

    def coarse(state: jax.Array, inputs: Any) -> jax.Array:
        return jax.lax.scan(lambda state, input: (stand_in(state, input), None), state, inputs)[0]

    unguided = methods.Surrogate(stand_in, start_from_it=False)
    return [
        ("quasi-Newton, analytic", {"method": "quasi_newton"}, "<= 17"),
        ("quasi-Newton, active set", {"method": "quasi_newton", "active_set": True}, "K about 6"),
        ("surrogate's matrices", {"method": unguided}, "19 in the prototype"),
        ("surrogate, its chain as the guess", {"method": surrogate}, "14 in the prototype"),
        ("surrogate, active set", {"method": surrogate, "active_set": True}, "K 6.2 in the prototype"),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the UCI file german.data-numeric")
    parser.add_argument("--steps", type=int, default=4096)
    options = parser.parse_args()
    density, mode = eigenbasis_at_mode(ps.targets.GermanCredit(data=options.data))
    variances = 1 / jnp.diagonal(-jax.hessian(density)(mode))
    gaussian = ps.Gaussian(mode, np.asarray(variances))
    surrogate = methods.Surrogate(ps.samplers.MALA(gaussian, STEP_SIZE).transition)
    rows = []
    for name, given, goal in cases(surrogate):
        row = measure(density, mode, STEP_SIZE, options.steps, **given)
        rows.append(["German credit, D=25", options.steps, name, given.get("window", "full"), *row, goal])
    write_table(
        "rounds",
        "German credit by every method: iterations and evaluations until every step is within tolerance",
        "MALA, step 0.0015, from the mode, in the eigenbasis of the Hessian there; the surrogate is the Gaussian with "
        "that mode and Hessian. One chain for each of the seeds 0, 1, 2; atol 1e-4, rtol 1e-3, float32. "
        "Where decisions differ, a proposal's accept/reject hung on less than the tolerance.",
        HEADER,
        rows,
    )


if __name__ == "__main__":
    main()
