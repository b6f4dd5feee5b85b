"""Langevin steps as textbooks write them: NumPy and SciPy, double precision, nothing from the package.

The density is not Gaussian, so that the drift is not linear and the acceptance rate depends on everything:

    log p(x) = b^T x - x^T P x / 2 - sum(x^4) / 4
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import multivariate_normal

DIM = 3
P = np.array([[1.0, 0.4, -0.2], [0.4, 2.0, 0.3], [-0.2, 0.3, 0.5]])
B = np.array([0.5, -1.0, 0.25])

DIAGONAL = np.array([0.5, 2.0, 1.2])
DENSE = np.array([[0.8, 0.3, -0.1], [0.3, 1.5, 0.2], [-0.1, 0.2, 0.6]])
# What `inverse_mass_matrix` may be, and the same written out.
MASSES = {"identity": (None, np.eye(DIM)), "diagonal": (DIAGONAL, np.diag(DIAGONAL)), "dense": (DENSE, DENSE)}


def logdensity(x: np.ndarray) -> float:
    return float(B @ x - 0.5 * x @ P @ x - 0.25 * np.sum(x**4))


def gradient(x: np.ndarray) -> np.ndarray:
    return B - P @ x - x**3


def hessian(x: np.ndarray) -> np.ndarray:
    return -P - np.diag(3 * x**2)


@jax.jit
def quartic(x):
    linear, quadratic = jnp.asarray(B, x.dtype), jnp.asarray(P, x.dtype)
    return linear @ x - 0.5 * x @ quadratic @ x - 0.25 * jnp.sum(x**4)


class Quartic:
    """The same density for JAX, with what it knows of its Hessian."""

    def __call__(self, x):
        return quartic(x)

    def hessian_diagonal(self, x):
        return -jnp.asarray(np.diag(P), x.dtype) - 3 * x**2


def drift(x: np.ndarray, step_size: float, inverse_mass: np.ndarray) -> np.ndarray:
    return x + step_size * inverse_mass @ gradient(x)


def propose(x: np.ndarray, noise: np.ndarray, step_size: float, inverse_mass: np.ndarray) -> np.ndarray:
    return drift(x, step_size, inverse_mass) + np.sqrt(2 * step_size) * np.linalg.cholesky(inverse_mass) @ noise


def log_ratio(x: np.ndarray, proposal: np.ndarray, step_size: float, inverse_mass: np.ndarray) -> float:
    """log p(x') q(x | x') / (p(x) q(x' | x)), where q(. | x) is the normal density about the drift from x."""

    def log_q(to, origin):
        return multivariate_normal.logpdf(to, drift(origin, step_size, inverse_mass), 2 * step_size * inverse_mass)

    forward, backward = log_q(proposal, x), log_q(x, proposal)
    return float(logdensity(proposal) + backward - logdensity(x) - forward)


def leapfrog(
    x: np.ndarray, p: np.ndarray, step_size: float, inverse_mass: np.ndarray, num_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Neal 2011, figure 2, with a mass matrix: half a kick, a drift, half a kick, `num_steps` times."""
    for _ in range(num_steps):
        p = p + step_size / 2 * gradient(x)
        x = x + step_size * inverse_mass @ p
        p = p + step_size / 2 * gradient(x)
    return x, p


def energy(x: np.ndarray, p: np.ndarray, inverse_mass: np.ndarray) -> float:
    return float(p @ inverse_mass @ p / 2 - logdensity(x))
