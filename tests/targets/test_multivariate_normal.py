import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from parsample.targets import MultivariateNormal
from tests.targets.builders import log_density
from tests.tolerances import SAME_COMPUTATION


def test_log_density_and_moments_are_scipys(x64, rng):
    factor = rng.standard_normal((4, 4))
    mean, covariance = rng.standard_normal(4), factor @ factor.T
    target = MultivariateNormal(mean, covariance)
    x = rng.standard_normal(4)
    expected = scipy.stats.multivariate_normal(mean, covariance).logpdf(x)
    SAME_COMPUTATION.check(log_density(target, x=x), expected)
    center, sd = target.moments()["x"]
    SAME_COMPUTATION.check(center, mean)
    SAME_COMPUTATION.check(sd, np.sqrt(np.diag(covariance)))


def test_default_has_correlation_095(x64):
    target = MultivariateNormal()
    expected = scipy.stats.multivariate_normal([0, 0], [[1, 0.95], [0.95, 1]]).logpdf([0.3, -0.2])
    SAME_COMPUTATION.check(log_density(target, x=[0.3, -0.2]), expected)


def test_one_number_is_the_mean_of_every_coordinate():
    target = MultivariateNormal(2.0, np.eye(3, dtype=np.float32))
    np.testing.assert_array_equal(target.mean, [2, 2, 2])
    assert target.mean.dtype == jnp.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"covariance": [[1.0, 2.0], [2.0, 1.0]]},
            "covariance is not positive definite: its smallest eigenvalue is -1",
        ),
        ({"covariance": [1.0, 2.0]}, r"covariance has shape \(2,\), expected \(dim, dim\)"),
        ({"covariance": np.ones((2, 3))}, r"covariance has shape \(2, 3\), expected a square"),
        ({"mean": [0.0, 0.0, 0.0]}, "mean has 3 entries, expected 2, as many as covariance has"),
        ({"mean": [0.0, np.nan]}, r"mean\[1\] is nan"),
        ({"mean": [[0.0], [1.0, 2.0]]}, r"mean has rows of different lengths, expected the shape \(dim,\) or \(\)"),
        ({"mean": np.nan}, "mean is nan"),
        ({"mean": "a"}, "mean has dtype <U1, expected real numbers"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultivariateNormal(**arguments)
