import numpy as np
import pytest
import scipy.stats

from parsample.targets import Banana
from tests.targets.builders import log_density, quadrature
from tests.tolerances import SAME_COMPUTATION


def test_log_density_is_that_of_the_inference_gym(x64):
    x = np.array([4.0, -1.5])
    expected = scipy.stats.norm(0, 10).logpdf(x[0]) + scipy.stats.norm(0.03 * (x[0] ** 2 - 100), 1).logpdf(x[1])
    SAME_COMPUTATION.check(log_density(Banana(), x=x), expected)


def test_moments_are_those_of_the_density(x64):
    target = Banana(curvature=0.2, scale=2.0)
    axes = np.linspace(-16, 16, 401), np.linspace(-10, 60, 1401)
    mass, mean, sd = quadrature(lambda x: target.logdensity({"x": x}), *axes)
    np.testing.assert_allclose(mass, 1, rtol=1e-8)
    np.testing.assert_allclose(target.moments()["x"], (mean, sd), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 0.0}, "scale holds 0, expected numbers above 0"),
        ({"curvature": np.nan}, "curvature is nan"),
        ({"curvature": [1.0]}, r"curvature has shape \(1,\), expected \(\)"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Banana(**arguments)
