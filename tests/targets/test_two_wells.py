import numpy as np
import pytest
import scipy.stats

from parsample.targets import TwoWells
from tests.targets.builders import log_density, quadrature
from tests.tolerances import SAME_COMPUTATION


def test_log_density_is_that_of_the_published_mixture(x64):
    x = np.array([0.4, -0.3])
    density = 0.49 * scipy.stats.multivariate_normal([-1.4, 0], [0.45, 0.45]).pdf(x)
    density += 0.51 * scipy.stats.multivariate_normal([1.6, 0], [0.54, 0.45]).pdf(x)
    SAME_COMPUTATION.check(log_density(TwoWells(), x=x), np.log(density))


def test_moments_are_those_of_the_density(x64):
    target = TwoWells(0.2, [[-1.0, 2.0], [1.5, 0.5]], [[0.5, 1.0], [0.3, 0.2]])
    axes = np.linspace(-8, 8, 401), np.linspace(-8, 10, 401)
    mass, mean, sd = quadrature(lambda x: target.logdensity({"x": x}), *axes)
    np.testing.assert_allclose(mass, 1, rtol=1e-8)
    np.testing.assert_allclose(target.moments()["x"], (mean, sd), rtol=1e-8)


def test_far_from_both_wells_the_density_is_finite():
    assert np.isfinite(log_density(TwoWells(), x=np.array([1e6, -1e6], np.float32)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": 1.0}, "weight is 1, expected a number between 0 and 1"),
        ({"weight": [0.5, 0.5]}, r"weight has shape \(2,\), expected \(\)"),
        ({"means": [[0.0], [1.0], [2.0]]}, "means has 3 entries, expected 2"),
        ({"variances": [[1.0], [1.0]]}, r"variances has shape \(2, 1\), expected \(2, 2\), the shape of means"),
        ({"variances": [[1.0, 1.0], [1.0, -2.0]]}, "variances holds -2, expected numbers above 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        TwoWells(**arguments)
