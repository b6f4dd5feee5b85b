"""What the front door refuses: one clear sentence for every argument that does not fit."""

import math
import re
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import pytest

import parsample as ps
from parsample.targets import Target


def normal(x: Any) -> jax.Array:
    return -0.5 * jnp.sum(x**2)


PLAIN = {"target": normal, "initial_position": jnp.zeros(3)}
NO_START = {
    "target": lambda p: jnp.sqrt(-1 - p["scale"] ** 2) - p["shift"] ** 2,
    "initial_position": {"scale": 0.0, "shift": 0.0},
}


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"target": "eight_school"}, "target is 'eight_school', expected one of .*Did you mean 'eight_schools'?"),
        (
            {"target": "nothing like it"},
            "target is 'nothing like it', expected one of multivariate_normal, .*density.$",
        ),
        ({"target": normal}, "target normal cannot be run as a NumPyro model .* if it is a plain log density, the pos"),
        (
            {"initial_position": jnp.zeros(2)},
            "initial_position: something was given, but the target banana draws",
        ),
        (
            {"sampler_options": {"num_steps": 4}},
            "a name in sampler_options of HMC is 'num_steps', expected one of inverse",
        ),
        ({"sampler_options": {"step_size": 4}}, "sampler_options has 'step_size', which the run sets: it is an arg"),
        ({"sampler": "hmc", "sampler_options": {"num_integration_steps": 0}}, "num_integration_steps is 0, expected"),
        ({"sampler": "malla"}, "sampler is 'malla', expected one of ula, mala, .*Did you mean 'mala'?"),
        ({"method": "quasinewton"}, "method is 'quasinewton', expected one of .*Did you mean 'quasi_newton'?"),
        ({"num_samples": 0}, "num_samples is 0, expected a whole number of at least 1; each chain needs a draw"),
        ({"num_samples": -1}, "num_samples is -1, expected a whole number of at least 1"),
        ({"num_samples": True}, "num_samples is True, expected a whole number of at least 1"),
        ({"num_chains": 0}, "num_chains is 0, expected a whole number of at least 1; one chain is enough"),
        ({"num_warmup": -1}, "num_warmup is -1, expected a whole number of at least 1; 0 leaves warm-up out"),
        ({"num_warmup": False}, "num_warmup is False, expected a whole number"),
        ({"seed": -1}, "seed is -1, expected a whole number from 0 to"),
        ({"seed": 2**32}, "seed is 4294967296, expected a whole number from 0 to"),
        ({"seed": True}, "seed is True, expected a whole number from 0 to"),
        ({"window": 0}, "window is 0, expected a whole number of at least 1"),
        ({"window": "whole"}, "window is 'whole', expected a whole number of steps, or 'all' for the whole chain"),
        ({"max_iterations": 0}, "max_iterations is 0, expected a whole number of at least 1"),
        ({"atol": -1e-3}, "atol is -0.001, expected a finite number of at least 0"),
        ({"rtol": math.nan}, "rtol is nan, expected a finite number of at least 0"),
        (
            {"atol": 1e-9, "rtol": 0.0},
            "atol is 1e-09 and rtol is 0.0, both below 1.2e-07, the rounding error of float32",
        ),
        ({"step_size": 0.0}, "step_size is 0.0, expected one finite number above 0"),
        ({"step_size": math.nan}, "step_size is nan, expected one finite number above 0"),
        (
            {**PLAIN, "target": lambda x: -(x**2)},
            r"the log density returned float32\[3\], expected one real .*; sum it",
        ),
        ({**PLAIN, "target": lambda x: 1j * x.sum()}, r"the log density returned complex64\[\], expected one real"),
        ({**PLAIN, "target": lambda x: x.sum().astype(int)}, r"the log density returned int32\[\], expected one real"),
        ({**PLAIN, "initial_position": {}}, "initial_position holds no arrays"),
        (NO_START, "chain 0 found no start with a finite log density in 100 draws.* trouble in scale; check"),
    ],
)
def test_a_bad_argument_is_refused_in_a_clear_sentence(keywords: dict[str, Any], message: str) -> None:
    arguments = {"target": "banana", "progress": False, **keywords}
    with pytest.raises(ValueError, match=message):
        ps.sample(**arguments)


class VectorTarget(Target):
    """A target whose log density is one number for every coordinate."""

    name: ClassVar[str] = "vector"

    def logdensity(self, position: Any) -> Any:
        return -(position["x"] ** 2)

    def position_template(self) -> Any:
        return {"x": jnp.zeros(3)}


def test_a_target_whose_log_density_is_a_vector() -> None:
    with pytest.raises(ValueError, match=r"the log density returned float32\[3\], expected one real"):
        ps.sample(VectorTarget(), progress=False)


WRONG_TYPES = {
    "num_samples": (1.5, "num_samples is 1.5, expected a whole number of at least 1; each chain needs a draw."),
    "num_chains": ("4", "num_chains is '4', expected a whole number of at least 1; one chain is enough to sample"),
    "num_warmup": (0.0, "num_warmup is 0.0, expected a whole number of at least 1; 0 leaves warm-up out."),
    "seed": (1.5, "seed is 1.5, expected a whole number from 0 to"),
    "window": (2.5, "window is 2.5, expected a whole number of at least 1"),
    "target": (3, "target is a int, expected the name of a target, a Target, a NumPyro model, a distrax distribution"),
    "sampler": (None, "sampler is None, expected one of ula, mala, hmc, "),
    "method": (7, "method is 7, expected one of auto, sequential, "),
    "step_size": ([0.1, 0.2], "step_size is [0.1, 0.2], expected one finite number above 0"),
}


@pytest.mark.parametrize("name", WRONG_TYPES)
def test_arguments_of_the_wrong_type(name: str) -> None:
    value, message = WRONG_TYPES[name]
    given: dict[str, Any] = {"target": "banana", name: value}
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        ps.sample(**given)
