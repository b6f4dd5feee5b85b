import jax
import numpy as np
import pytest
from scipy import stats

from parsample.targets import KidscoreInteraction
from tests.targets.builders import log_density, log_jacobian, random_positions, small_data
from tests.tolerances import SAME_COMPUTATION


def reference(data, beta, sigma):
    schooling, iq = np.array(data["mom_hs"]), np.array(data["mom_iq"])
    mean = beta[0] + beta[1] * schooling + beta[2] * iq + beta[3] * schooling * iq
    return stats.norm(mean, sigma).logpdf(data["kid_score"]).sum() + stats.halfcauchy(scale=2.5).logpdf(sigma)


def test_log_density_is_that_of_the_model(x64, rng):
    data = small_data("kidscore_interaction")
    target = KidscoreInteraction(data)
    for position in random_positions(target, rng):
        draw = target.constrain(position)
        expected = reference(data, draw["beta"], draw["sigma"]) + log_jacobian(target, position)
        SAME_COMPUTATION.check(log_density(target, **position), expected)


def test_chains_start_with_a_sigma_that_fits_their_coefficients(rng_key):
    data = small_data("kidscore_interaction")
    target = KidscoreInteraction(data)
    start = target.initial_position(rng_key)
    assert np.all(np.abs(start["beta"]) <= 2)
    draw = target.constrain(start)
    slope = jax.grad(lambda log_sigma: target.likelihood(start["beta"], log_sigma))(start["log_sigma"])
    np.testing.assert_allclose(slope, 0, atol=1e-3)
    assert draw["sigma"] > 10


def test_names_of_the_coefficients():
    target = KidscoreInteraction(small_data("kidscore_interaction"))
    assert target.coords == {"column": ["intercept", "mom_hs", "mom_iq", "mom_hs:mom_iq"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mom_hs": [1, 0]}, r"data\['mom_hs'\] has 2 entries, expected 30, as many as data\['kid_score'\] has"),
        ({"mom_iq": [100.0]}, r"data\['mom_iq'\] has 1 entries, expected 30"),
        ({"N": 31}, r"data\['kid_score'\] has 30 entries, expected 31, as data\['N'\] says"),
        ({"mom_iq": [100.0, float("nan")]}, r"data\['mom_iq'\]\[1\] is nan, expected a finite number"),
    ],
)
def test_data_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        KidscoreInteraction(small_data("kidscore_interaction") | change)
