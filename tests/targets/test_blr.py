import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from parsample.targets import BLR
from tests.targets.builders import log_density, log_jacobian, random_positions, small_data
from tests.tolerances import SAME_COMPUTATION


def reference(data, beta, sigma):
    log_prior = stats.norm(0, 10).logpdf(beta).sum() + stats.halfnorm(scale=10).logpdf(sigma)
    return log_prior + stats.norm(np.array(data["X"]) @ beta, sigma).logpdf(data["y"]).sum()


def test_log_density_is_that_of_the_model(x64, rng):
    data = small_data("blr")
    target = BLR(data)
    for position in random_positions(target, rng):
        draw = target.constrain(position)
        expected = reference(data, draw["beta"], draw["sigma"]) + log_jacobian(target, position)
        SAME_COMPUTATION.check(log_density(target, **position), expected)


def test_chains_start_with_a_sigma_that_fits_their_coefficients(rng_key):
    target = BLR(small_data("blr"))
    start = target.initial_position(rng_key)
    assert np.all(np.abs(start["beta"]) <= 2)
    slope = jax.grad(lambda log_sigma: target.likelihood(start["beta"], log_sigma))(start["log_sigma"])
    np.testing.assert_allclose(slope, 0, atol=1e-4)


def test_more_features_than_observations_are_no_problem(x64, rng):
    data = {"X": rng.standard_normal((2, 3)), "y": rng.standard_normal(2)}
    target = BLR(data)
    position = {"beta": jnp.asarray([0.3, -0.2, 1.0]), "log_sigma": jnp.asarray(0.1)}
    expected = reference(data, position["beta"], np.exp(0.1)) + 0.1
    SAME_COMPUTATION.check(log_density(target, **position), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": [[1.0, 2.0, 3.0]]}, r"data\['X'\] has 1 entries, expected 20, as many as data\['y'\] has"),
        ({"X": [1.0] * 20}, r"data\['X'\] has shape \(20,\), expected \(rows, features\)"),
        ({"D": 4}, r"data\['X'\] has 3 columns, expected 4, as data\['D'\] says"),
        ({"N": 3}, r"data\['y'\] has 20 entries, expected 3, as data\['N'\] says"),
    ],
)
def test_data_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        BLR(small_data("blr") | change)
