import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from parsample.targets import GPRegression
from tests.targets.builders import log_density, log_jacobian, random_positions, small_data
from tests.tolerances import SAME_COMPUTATION


def reference(data, rho, alpha, sigma):
    x = np.array(data["x"])
    covariance = alpha**2 * np.exp(-0.5 * ((x[:, None] - x) / rho) ** 2) + sigma * np.eye(x.size)
    log_prior = stats.gamma(25, scale=1 / 4).logpdf(rho)
    log_prior += stats.halfnorm(scale=2).logpdf(alpha) + stats.halfnorm(scale=1).logpdf(sigma)
    return log_prior + stats.multivariate_normal(cov=covariance).logpdf(data["y"])


def test_log_density_is_that_of_the_model(x64, rng):
    data = small_data("gp_regression")
    target = GPRegression(data)
    for position in random_positions(target, rng, 5):
        draw = {name: float(value) for name, value in target.constrain(position).items()}
        expected = reference(data, **draw) + log_jacobian(target, position)
        np.testing.assert_allclose(log_density(target, **position), expected, rtol=1e-9)


def test_one_point_has_the_variance_alpha_squared_and_sigma(x64):
    target = GPRegression({"x": [3], "y": [0.7]})
    position = {"log_rho": jnp.asarray(0.2), "log_alpha": jnp.asarray(-0.1), "log_sigma": jnp.asarray(0.4)}
    draw = {name: float(value) for name, value in target.constrain(position).items()}
    expected = reference({"x": [3], "y": [0.7]}, **draw) + log_jacobian(target, position)
    SAME_COMPUTATION.check(log_density(target, **position), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": [1, 2]}, r"data\['x'\] has 2 entries, expected 7, as many as data\['y'\] has"),
        ({"N": 6}, r"data\['y'\] has 7 entries, expected 6, as data\['N'\] says"),
        ({"y": ["a"] * 7}, r"data\['y'\] has dtype <U1, expected real numbers"),
    ],
)
def test_data_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        GPRegression(small_data("gp_regression") | change)
