"""Diffusion with a model that is evaluated in bfloat16 beside the same in float32; the state is in float32 in both.

python -m benchmarks.diffusion_bfloat16 [--only "digits, ddim"]
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.denoising import Loop
from benchmarks.device import parse_only, write_rows
from parsample.samplers import diffusion

SEED, DEVIATION = 1, 0.2
# By what the model is evaluated in.
TOLERANCES = {False: (1e-3,), True: (1e-3, 5e-2)}
SAMPLES = {"digits": 4, "mixture": 16}
SCHEDULE = diffusion.LinearBetas()
CASES = [(model, process, 100) for model in ("digits", "mixture") for process in ("ddim", "ddpm")]
METHODS: dict[str, dict[str, Any]] = {
    "scaled identity, schedule": {"method": "scaled_identity"},
    "Picard, from the noise": {"method": "picard", "guess": "start"},
}


def lower(tree: Any) -> Any:
    """Return floating-point arrays in bfloat16, and the rest as it is."""
    return jax.tree.map(
        lambda leaf: leaf.astype(jnp.bfloat16) if eqx.is_inexact_array(leaf) else leaf, tree, is_leaf=eqx.is_array
    )


class Lowered(eqx.Module):
    """A model with its weights and what it is given in bfloat16, and so all that it works out."""

    model: Callable

    def __init__(self, model: Callable):
        self.model = lower(model)

    def __call__(self, x: jax.Array, *rest: Any) -> jax.Array:
        """Return the prediction, in bfloat16."""
        return self.model(lower(x), *(lower(value) for value in rest))


def build(which: str, name: str, steps: int, is_lowered: bool) -> diffusion.Process:
    """Return a process with the model in one precision or the other."""
    if which == "digits":
        network = diffusion.DigitsModel(SCHEDULE).network
        chosen: Any = Lowered(network) if is_lowered else network
        return diffusion.PROCESSES[name](
            diffusion.DigitsModel(SCHEDULE, "x0", network=chosen), SCHEDULE, steps, "x0", sigma_data=0.25
        )
    model = diffusion.MixtureModel.at_random(jax.random.key(0), SCHEDULE, 64, deviation=DEVIATION, prediction="x0")
    predict = Lowered(model) if is_lowered else model
    return diffusion.PROCESSES[name](predict, SCHEDULE, steps, "x0", sigma_data=DEVIATION)


def rows_of(which: str, name: str, steps: int) -> Iterator[list[str]]:
    """Make the rows of a case: both precisions by every method."""
    shape = (8, 8) if which == "digits" else (64,)
    reference = None
    for is_lowered in (False, True):
        process = build(which, name, steps, is_lowered)
        loop = Loop(process, shape, SAMPLES[which], seed=SEED)
        reference = loop.samples if reference is None else reference
        shift = np.sqrt(np.mean((loop.samples - reference) ** 2, 1)).max()
        for tolerance, (label, options) in itertools.product(TOLERANCES[is_lowered], METHODS.items()):
            found = loop.measure(options | {"tolerance": tolerance})
            cells = [which, name, str(steps), label, "bfloat16" if is_lowered else "float32", f"{tolerance:g}"]
            yield [*cells, *found.counts()[:2], f"{found.error:.1g}", f"{shift:.1g}" if is_lowered else ""]


def main() -> None:
    only = parse_only("Diffusion with a model in bfloat16.")
    cases = [case for case in CASES if only in ", ".join(map(str, case))]
    write_rows(
        "diffusion_bfloat16",
        "Diffusion with a model that is evaluated in bfloat16",
        "Weights, arguments and all that the model works out in bfloat16 or in float32; it predicts x0. The state of "
        f"the sampler is in float32. The digits model that ships with the package ({SAMPLES['digits']} samples), and "
        f"a mixture of 10 normal distributions of deviation {DEVIATION} in 64 dimensions ({SAMPLES['mixture']}); "
        "linear betas. Rounds as a mean and for the slowest sample. Difference: of a sample "
        "from the loop's with the same model in the same precision, root mean square, the largest of all, in the "
        "units of the data. Shift: what bfloat16 itself does to the loop's samples, measured alike; with a tolerance "
        "that asks for less, an evaluation goes on until the samples are the loop's to the last bit, or nearly.",
        (
            "model",
            "process",
            "steps",
            "method",
            "evaluated in",
            "tolerance",
            "rounds",
            "slowest",
            "difference",
            "shift",
        ),
        (row for case in cases for row in rows_of(*case)),
        save=not only,
    )


if __name__ == "__main__":
    main()
