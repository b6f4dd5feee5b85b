import numpy as np
import pytest
import scipy.stats

from parsample.targets import LogGamma
from tests.targets.builders import log_density, quadrature
from tests.tolerances import SAME_COMPUTATION


def test_log_density_is_scipys(x64, rng):
    concentration, x = np.array([0.3, 1.0, 4.0]), rng.standard_normal(3)
    value = log_density(LogGamma(concentration), x=x)
    SAME_COMPUTATION.check(value, scipy.stats.loggamma(concentration).logpdf(x).sum())


@pytest.mark.parametrize("concentration", [0.5, 3.0])
def test_moments_are_those_of_the_density(x64, concentration):
    target = LogGamma([concentration])
    mass, mean, sd = quadrature(lambda x: target.logdensity({"x": x}), np.linspace(-80, 8, 8001))
    np.testing.assert_allclose(mass, 1, rtol=1e-8)
    np.testing.assert_allclose(target.moments()["x"], (mean, sd), rtol=1e-8)


@pytest.mark.parametrize(
    ("concentration", "message"),
    [
        ([1.0, 0.0], "concentration holds 0, expected numbers above 0"),
        (1.0, r"concentration has shape \(\), expected \(dim,\)"),
        ([np.inf], r"concentration\[0\] is inf"),
    ],
)
def test_bad_arguments(concentration, message):
    with pytest.raises(ValueError, match=message):
        LogGamma(concentration)
