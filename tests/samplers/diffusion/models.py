"""The same exact model twice: for the package, and in NumPy for the textbook."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from parsample.samplers import diffusion

MEANS = np.array([[1.5, -0.5, 0.3], [-1.0, 1.0, 0.0], [0.2, 0.4, -1.2]])
DEVIATION = 0.3


def model(schedule: Any, prediction: str = "noise") -> diffusion.MixtureModel:
    return diffusion.MixtureModel(
        schedule, jnp.asarray(MEANS, jnp.result_type(float)), DEVIATION, prediction=prediction
    )


def x0_in_numpy(x: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
    """The mean of the data given x, by Bayes' rule."""
    variance = alpha**2 * DEVIATION**2 + sigma**2
    log = np.array([-np.sum((x - alpha * m) ** 2) / (2 * variance) for m in MEANS])
    shares = np.exp(log - log.max()) / np.exp(log - log.max()).sum()
    given = [m + alpha * DEVIATION**2 / variance * (x - alpha * m) for m in MEANS]
    return np.asarray(shares @ np.array(given))


def noise_in_numpy(x: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
    return (x - alpha * x0_in_numpy(x, alpha, sigma)) / sigma
