"""The truncated normal variable against SciPy, from means where nothing is cut off to means far in the tail."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import erfcx, log_ndtr, ndtri
from scipy.stats import truncnorm

from parsample.targets.truncated_normal import FAR, positive_normal

MEANS = np.array([-1e4, -300.0, -40.0, -10.0, -FAR - 1e-3, -FAR + 1e-3, -2.0, 0.0, 0.3, 2.0, 6.0, 30.0])
EXPONENTIALS = np.array([1e-6, 1e-3, 0.1, 1.0, 4.0, 15.0])
GRID = [grid.ravel() for grid in np.meshgrid(MEANS, EXPONENTIALS)]


def inverse(mean: float, exponential: float) -> float:
    """The x with P(X > x) = exp(-exponential), by bisection of a form in which nothing large cancels."""
    if mean > 0:
        above = np.exp(log_ndtr(mean) - exponential)
        return mean - ndtri(above) if above < 0.5 else mean + ndtri(-np.expm1(log_ndtr(mean) - exponential))
    a, root = -mean, np.sqrt(2)

    def equation(x: float) -> float:
        return x * (a + x / 2) + np.log(erfcx(a / root) / erfcx((a + x) / root)) - exponential

    return brentq(equation, 0, 2 * exponential + 2 * np.sqrt(2 * exponential), xtol=1e-300, rtol=1e-14)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-13)])
def test_it_is_the_inverse_of_the_distribution_function(dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        mean, exponential = (grid.astype(dtype) for grid in GRID)
        found = np.asarray(jax.jit(positive_normal)(mean, exponential))
        assert found.dtype == dtype
        assert np.all(found >= 0)
    expected = np.array([inverse(float(m), float(e)) for m, e in zip(mean, exponential, strict=True)])
    # Relative to the spread of the variable, which is that of an exponential variable far in the tail; where x is a
    # difference of numbers of size FAR, to their rounding.
    spread = 1 / np.maximum(-mean, 1)
    error = np.abs(found - expected) / np.maximum(expected, spread)
    assert np.max(error / np.where((mean < 0) & (mean >= -FAR), 10, 1)) < tolerance


@pytest.mark.usefixtures("x64")
def test_its_distribution_is_scipys():
    for mean in (-8.0, -1.0, 2.0):
        exponential = np.array([0.05, 0.7, 3.0])
        x = np.asarray(positive_normal(jnp.full(3, mean), jnp.asarray(exponential)))
        np.testing.assert_allclose(truncnorm.logsf(x, -mean, np.inf, loc=mean), -exponential, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_its_derivatives():
    mean, exponential = GRID
    usual = (np.abs(mean) < 50) & (exponential > 1e-4)
    mean, exponential = jnp.asarray(mean[usual]), jnp.asarray(exponential[usual])
    by_mean, by_exponential = jax.jit(jax.vmap(jax.grad(positive_normal, (0, 1))))(mean, exponential)
    assert np.all((by_mean > 0) & (by_mean <= 1))
    width = 1e-5
    difference = lambda dm, de: (  # noqa: E731
        (positive_normal(mean + dm, exponential + de) - positive_normal(mean - dm, exponential - de)) / (2 * width)
    )
    np.testing.assert_allclose(by_mean, difference(width, 0), rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(by_exponential, difference(0, width), rtol=1e-4, atol=1e-8)
    second = jax.jit(jax.vmap(jax.grad(jax.grad(positive_normal))))
    slope = jax.jit(jax.vmap(jax.grad(positive_normal)))
    expected = (slope(mean + width, exponential) - slope(mean - width, exponential)) / (2 * width)
    np.testing.assert_allclose(second(mean, exponential), expected, rtol=1e-4, atol=1e-7)


def test_single_precision_derivatives_are_finite_and_contract():
    mean, exponential = (jnp.asarray(grid, jnp.float32) for grid in GRID)
    slope = np.asarray(jax.jit(jax.vmap(jax.grad(positive_normal)))(mean, exponential))
    assert np.all(np.isfinite(slope) & (slope > -1e-5) & (slope <= 1))
