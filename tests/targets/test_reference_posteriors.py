"""The targets of posteriordb against its reference draws: BlackJAX samples the target, and means and spreads agree.

By BlackJAX's HMC, so that nothing but the densities is on trial. The step size is what warm-up finds times a random
number, because on posteriors that are nearly normal, trajectories of one length return to where they began.
"""

import json

import arviz
import blackjax
import jax
import numpy as np
import pytest

from parsample.targets import TARGETS, Target
from tests.conftest import SEED
from tests.tolerances import MIN_EFFECTIVE_SAMPLES, STATISTICAL

POSTERIORS = {
    "eight_schools": "eight_schools-eight_schools_noncentered",
    "kidscore_interaction": "kidiq-kidscore_interaction",
    "blr": "sblrc-blr",
    "autoregressive": "arK-arK",
    "garch": "garch-garch11",
    "gp_regression": "gp_pois_regr-gp_regr",
    "lotka_volterra": "hudson_lynx_hare-lotka_volterra",
}
CHAINS, WARMUP, DRAWS, LEAPFROGS = 4, 800, 2000, 6


def sample(target: Target) -> dict[str, np.ndarray]:
    """Draws of the trace's variables, shape (chain, draw, ...)."""
    warmup = blackjax.window_adaptation(
        blackjax.hmc, target.logdensity, is_mass_matrix_diagonal=False, num_integration_steps=LEAPFROGS
    )
    kernel = blackjax.hmc.build_kernel()

    def chain(key):
        key_start, key_warmup, key_draws = jax.random.split(key, 3)
        (state, found), _ = warmup.run(key_warmup, target.initial_position(key_start), WARMUP)

        def step(state, key):
            key_length, key_step = jax.random.split(key)
            step_size = found["step_size"] * jax.random.uniform(key_length, minval=0.6, maxval=1.4)
            state, _ = kernel(key_step, state, target.logdensity, step_size, found["inverse_mass_matrix"], LEAPFROGS)
            return state, target.constrain(state.position)

        return jax.lax.scan(step, state, jax.random.split(key_draws, DRAWS))[1]

    draws = jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(SEED), CHAINS))
    return {name: np.asarray(values) for name, values in draws.items()}


def check_mean(name: str, values: np.ndarray, expected: float, error: float) -> None:
    """Assert that the mean of draws is the expected one, which itself has a standard error."""
    size = float(arviz.ess(values, method="mean"))
    assert size > MIN_EFFECTIVE_SAMPLES, f"{name}: {size:.0f} effective samples, {MIN_EFFECTIVE_SAMPLES} needed"
    distance = (values.mean() - expected) / np.hypot(values.std() / np.sqrt(size), error)
    print(f"{name}: {values.mean():.5g}, expected {expected:.5g}: {distance:.1f} standard errors, {size:.0f} draws")
    assert abs(distance) < STATISTICAL, f"{name} is {values.mean():.5g}, expected {expected:.5g}: {distance:.1f} errors"


@pytest.mark.parametrize("name", POSTERIORS)
def test_means_and_spreads_are_those_of_posteriordb(name, shared_data, x64):
    path = shared_data / "posteriors" / f"{POSTERIORS[name]}.json"
    reference = json.loads(path.read_text())["reference"]
    draws = sample(TARGETS[name]() if name == "eight_schools" else TARGETS[name](data=path))
    draws.pop("theta_trans", None)  # eight schools have it beside theta, and posteriordb has not

    assert len(reference) == sum(values[0, 0].size for values in draws.values())
    for entry, known in reference.items():
        variable, _, index = entry.rstrip("]").partition("[")  # such as beta[1]
        values = draws[variable][..., int(index) - 1] if index else draws[variable]
        check_mean(entry, values, known["mean"], known["mcse_mean"])
        squares = (values - known["mean"]) ** 2
        check_mean(f"variance of {entry}", squares, known["sd"] ** 2, squares.std() / np.sqrt(known["n_draws"]))
