"""What stands in for a model: the conditional mean of normal data, and how it is fitted."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from parsample.samplers import diffusion
from parsample.samplers.diffusion import GaussianDenoiser, NormalDenoiser
from tests.tolerances import Tolerance

# Inverses of a covariance whose eigenvalues differ by a factor of 1,000.
INVERSES = Tolerance(float32=(1e-4, 1e-4), float64=(1e-9, 1e-9))


@pytest.fixture
def data(rng: np.random.Generator) -> np.ndarray:
    return 0.5 + rng.normal(size=(40, 2, 3)) @ np.diag([1.0, 0.1, 0.03])


def conditional_mean(data: np.ndarray, x: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
    """The textbook's mean of x0 given alpha x0 + sigma noise, for normal data with this mean and covariance."""
    flat = data.reshape(len(data), -1)
    mean, covariance = flat.mean(0), np.cov(flat.T)
    seen = alpha**2 * covariance + sigma**2 * np.eye(len(mean))
    found = mean + alpha * covariance @ np.linalg.solve(seen, x.reshape(-1) - alpha * mean)
    return found.reshape(x.shape)


@pytest.mark.parametrize(("alpha", "sigma"), [(0.1, 0.99), (0.7, 0.7), (0.99, 0.1), (1.0, 3.0)])
def test_it_is_the_conditional_mean(data: np.ndarray, rng: np.random.Generator, alpha: float, sigma: float) -> None:
    x = rng.normal(size=(2, 3))
    found = NormalDenoiser.fit(data)(jnp.asarray(x), jnp.asarray(alpha), jnp.asarray(sigma))
    assert found.shape == x.shape
    INVERSES.check(found, conditional_mean(data, x, alpha, sigma))


def test_fewer_directions_keep_the_largest_variances_and_the_sum(data: np.ndarray) -> None:
    values = np.sort(np.linalg.eigvalsh(np.cov(data.reshape(40, -1).T)))[::-1]
    for known in (NormalDenoiser.fit(data, 2), NormalDenoiser.fit(data).keep(2), NormalDenoiser.fit(data, 4).keep(2)):
        np.testing.assert_allclose(known.variances, values[:2], rtol=1e-4)
        assert known.rest == pytest.approx(values[2:].mean(), rel=1e-4)
        np.testing.assert_allclose(known.vectors.T @ known.vectors, np.eye(2), atol=1e-5)
        np.testing.assert_allclose(known.mean, data.mean(0).reshape(-1), rtol=1e-5)


def test_round_data_of_mean_zero_is_the_gaussian_denoiser() -> None:
    x, alpha, sigma = jnp.arange(4.0), jnp.asarray(0.6), jnp.asarray(0.8)
    round_one = NormalDenoiser(jnp.zeros(4), jnp.eye(4)[:, :1], jnp.full(1, 0.09), 0.09)
    np.testing.assert_allclose(round_one(x, alpha, sigma), GaussianDenoiser(0.3)(x, alpha, sigma), rtol=1e-5)


def test_fewer_samples_than_numbers_and_a_constant_pixel(rng: np.random.Generator) -> None:
    data = rng.normal(size=(5, 100))
    data[:, 7] = 0.25
    known = NormalDenoiser.fit(data)
    assert known.variances.shape == (4,)
    out = known(jnp.zeros(100), jnp.asarray(1.0), jnp.asarray(1e-6))
    assert jnp.isfinite(out).all()
    assert NormalDenoiser.fit(np.ones((3, 70)) * np.arange(3)[:, None]).rest > 0
    assert NormalDenoiser.fit(rng.normal(size=(100, 80))).variances.shape == (64,)


def test_the_digits_have_theirs() -> None:
    images = load_digits()
    used = (images.images / 8 - 1)[np.arange(len(images.images)) % 5 != 0]
    shipped, fitted = diffusion.DigitsModel().normal, NormalDenoiser.fit(used)
    x, alpha, sigma = jnp.asarray(used[3] + 0.3), jnp.asarray(0.8), jnp.asarray(0.6)
    np.testing.assert_allclose(shipped(x, alpha, sigma), fitted(x, alpha, sigma), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NormalDenoiser.fit(["a", "b"]), r"data is a list that holds more than numbers, expected an array"),
        (lambda: NormalDenoiser.fit(np.zeros(5)), r"data has shape \(5,\), expected at least two samples"),
        (lambda: NormalDenoiser.fit(np.zeros((1, 5))), r"data has shape \(1, 5\), expected at least two samples"),
        (lambda: NormalDenoiser.fit(np.ones((4, 5))), r"data holds the same sample throughout"),
        (lambda: NormalDenoiser.fit(np.array([[1.0], [np.nan], [2.0]])), r"not finite in sample 1; leave it out"),
        (lambda: NormalDenoiser.fit(np.eye(3), 3), r"rank is 3, expected at most 2: 3 samples of 3 numbers"),
        (lambda: NormalDenoiser.fit(np.eye(3), 0), r"rank is 0, expected a whole number of at least 1"),
        (lambda: NormalDenoiser.fit(np.eye(3)).keep(3), r"rank is 3, expected at most 2"),
        (lambda: NormalDenoiser(jnp.zeros(3), jnp.eye(2), jnp.ones(2), 1.0), r"vectors has shape \(2, 2\)"),
        (lambda: NormalDenoiser(jnp.zeros(2), jnp.eye(2), jnp.zeros(2), 1.0), r"go down to 0, expected finite"),
        (lambda: NormalDenoiser(jnp.zeros(2), jnp.eye(2), jnp.ones(2), -1.0), r"go down to -1, expected finite"),
        (
            lambda: NormalDenoiser.fit(np.eye(3))(jnp.zeros(5), jnp.ones(()), jnp.ones(())),
            r"surrogate was made for samples of 3 numbers, but they have shape \(5,\)",
        ),
        (
            lambda: diffusion.DDIM(lambda x, t: x, num_steps=5, surrogate=3),
            r"surrogate is a int, expected a Denoiser such as NormalDenoiser.fit\(images\)",
        ),
    ],
)
def test_what_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
