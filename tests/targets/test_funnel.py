import numpy as np
import pytest
import scipy.stats

from parsample.targets import Funnel
from tests.targets.builders import log_density, quadrature
from tests.tolerances import SAME_COMPUTATION


def test_log_density_is_neals(x64, rng):
    v, x = np.float64(-1.3), rng.standard_normal(9)
    expected = scipy.stats.norm(0, 3).logpdf(v) + scipy.stats.norm(0, np.exp(v / 2)).logpdf(x).sum()
    SAME_COMPUTATION.check(log_density(Funnel(), v=v, x=x), expected)


def test_moments_are_those_of_the_density(x64):
    target = Funnel(scale=0.8, size=1)
    axes = np.linspace(-7, 7, 401), np.sinh(np.linspace(-6, 6, 2001))
    mass, mean, sd = quadrature(lambda p: target.logdensity({"v": p[0], "x": p[1:]}), *axes)
    np.testing.assert_allclose(mass, 1, rtol=1e-4)
    (_, v_sd), (_, x_sd) = target.moments()["v"], target.moments()["x"]
    np.testing.assert_allclose(mean, 0, atol=1e-8)
    np.testing.assert_allclose(sd, [v_sd, x_sd[0]], rtol=1e-3)


def test_density_is_finite_where_the_variance_underflows():
    value = log_density(Funnel(), v=np.float32(-150), x=np.full(9, 1e-30, np.float32))
    assert np.isfinite(value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size is 0, expected an integer of at least 1"),
        ({"scale": -1.0}, "scale holds -1, expected numbers above 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Funnel(**arguments)
