import jax
import numpy as np
import pytest
import scipy.stats

from parsample.targets import GaussianMixture
from tests.targets.builders import log_density, quadrature
from tests.tolerances import SAME_COMPUTATION

COVARIANCES = np.array([[[1.0, 0.7], [0.7, 0.8]], [[0.3, -0.1], [-0.1, 0.5]], [[2.0, 0.0], [0.0, 0.1]]])
MEANS = np.array([[0.0, 1.0], [-2.0, 0.5], [1.0, -3.0]])
WEIGHTS = np.array([0.5, 0.2, 0.3])


def test_log_density_is_scipys(x64):
    x = np.array([0.3, -0.8])
    parts = [scipy.stats.multivariate_normal(m, c).pdf(x) for m, c in zip(MEANS, COVARIANCES, strict=True)]
    value = log_density(GaussianMixture(WEIGHTS, MEANS, COVARIANCES), x=x)
    SAME_COMPUTATION.check(value, np.log(WEIGHTS @ np.array(parts)))


def test_log_density_is_that_of_the_distrax_distribution(x64, rng_key):
    target = GaussianMixture.anisotropic(rng_key, 3, 5)
    x = np.linspace(-1, 1, 5)
    ours, theirs = jax.jit(lambda x: (target.logdensity({"x": x}), target.distribution().log_prob(x)))(x)
    SAME_COMPUTATION.check(ours, theirs)


def test_default_is_the_mixture_of_four(x64):
    target = GaussianMixture()
    parts = [scipy.stats.multivariate_normal([a, b]).pdf([0.5, 1.0]) for a in (-2, 2) for b in (-2, 2)]
    SAME_COMPUTATION.check(log_density(target, x=[0.5, 1.0]), np.log(np.mean(parts)))


def test_moments_are_those_of_the_density(x64):
    target = GaussianMixture(WEIGHTS, MEANS, COVARIANCES)
    axes = np.linspace(-12, 14, 521), np.linspace(-8, 9, 681)
    mass, mean, sd = quadrature(lambda x: target.logdensity({"x": x}), *axes)
    np.testing.assert_allclose(mass, 1, rtol=1e-8)
    np.testing.assert_allclose(target.moments()["x"], (mean, sd), rtol=1e-7)


def test_anisotropic_is_a_sum_of_equally_high_components(x64, rng_key):
    target = GaussianMixture.anisotropic(rng_key, 4, 6)
    assert target.means.shape == (4, 6)
    # Height of a component at its own mean, from the fields: log weight + log det W, up to the same constant.
    log_weights, means, whitening = map(np.asarray, (target.log_weights, target.means, target.whitening))
    heights = log_weights + np.log(np.diagonal(whitening, axis1=1, axis2=2)).sum(axis=1)
    np.testing.assert_allclose(heights, heights[0], rtol=1e-8)
    white = np.einsum("kij,kj->ki", whitening, np.ones(6) - means)
    constant = heights[0] - 3 * np.log(2 * np.pi)
    expected = constant + np.log(np.exp(-0.5 * np.sum(white**2, axis=1)).sum())
    SAME_COMPUTATION.check(log_density(target, x=np.ones(6)), expected)


def test_one_covariance_serves_all_components():
    target = GaussianMixture(means=MEANS, covariances=COVARIANCES[0])
    np.testing.assert_array_equal(target.whitening[0], target.whitening[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": [0.5, 0.5]}, "weights has 2 entries, expected 4, as many as means has"),
        ({"weights": [0.2, 0.2, 0.2, 0.2]}, r"weights sum to 0.8, expected 1; divide them by their sum"),
        ({"weights": [0.5, 0.5, 0.5, -0.5]}, "weights holds -0.5, expected numbers above 0"),
        ({"means": [1.0, 2.0]}, r"means has shape \(2,\), expected \(components, dim\)"),
        ({"covariances": COVARIANCES}, r"covariances has shape \(3, 2, 2\), expected \(4, 2, 2\) or \(2, 2\)"),
        ({"covariances": np.eye(3)}, r"covariances has shape \(3, 3\), expected \(4, 2, 2\) or \(2, 2\)"),
        ({"covariances": -np.eye(2)}, r"covariances\[0\] is not positive definite: its smallest eigenvalue is -1"),
        ({"covariances": 1.0}, r"covariances has shape \(\), expected \(components, dim, dim\) or \(dim, dim\)"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(**arguments)


@pytest.mark.parametrize(("size", "message"), [((0, 2), "num_components is 0"), ((2, 0), "dim is 0, expected")])
def test_bad_sizes(size, message, rng_key):
    with pytest.raises(ValueError, match=message):
        GaussianMixture.anisotropic(rng_key, *size)
