"""Mixtures of anisotropic normal distributions."""

import math
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision
from jaxtyping import Array, Float, Key

from parsample.engine.arrays import to_jax
from parsample.targets import checks
from parsample.targets.base import AbstractVector, Position

if TYPE_CHECKING:
    import distrax


class GaussianMixture(AbstractVector):
    """Mixture of normal distributions of any shape; four round ones at (±2, ±2) by default.

    The log density is normalised. The variable of the trace is `x`.

    Attributes:
        log_weights: shape (components,), logarithms of weights that sum to 1. Dimensionless.
        means: shape (components, dim), in the units of x.
        whitening: shape (components, dim, dim): for each covariance C the lower triangular W with W C W^T = I, in
            inverse units of x.

    Source: the default is the mixture of Zoltowski et al. 2025, `anisotropic` the family of Gonzalez et al. 2025,
    "A unifying framework for parallelizing sequential models with linear dynamical systems".
    """

    name: ClassVar[str] = "gaussian_mixture"
    log_weights: Float[Array, "components"]
    means: Float[Array, "components dim"]
    whitening: Float[Array, "components dim dim"]

    def __init__(
        self,
        weights: Any = None,
        means: Any = ((-2.0, -2.0), (-2.0, 2.0), (2.0, -2.0), (2.0, 2.0)),
        covariances: Any = None,
    ) -> None:
        """Factor the covariances.

        Args:
            weights: shape (components,), above 0, summing to 1; equal ones by default.
            means: shape (components, dim).
            covariances: shape (components, dim, dim), or (dim, dim) for all; the identity by default.

        Raises:
            ValueError: a shape does not fit, a value is not finite, the weights are not above 0 with the sum 1, or a
                covariance is not positive definite.
        """
        dtype = checks.float_dtype(*(p for p in (weights, means, covariances) if p is not None))
        centers = checks.real_array("means", means, ("components", "dim"))
        number, dim = centers.shape
        shares = (
            np.full(number, 1 / number) if weights is None else checks.positive("weights", weights, ("components",))
        )
        checks.same_size("weights", shares, "means", number)
        if abs(shares.sum() - 1) > 1e-5:
            raise ValueError(f"weights sum to {shares.sum():g}, expected 1; divide them by their sum.")
        spreads = np.eye(dim) if covariances is None else covariances
        spreads = checks.real_array("covariances", spreads, ("components", "dim", "dim"), ("dim", "dim"))
        if spreads.shape not in ((number, dim, dim), (dim, dim)):
            raise ValueError(f"covariances has shape {spreads.shape}, expected {(number, dim, dim)} or {(dim, dim)}.")
        spreads = np.broadcast_to(spreads, (number, dim, dim))
        whitening = [checks.inverse_cholesky(f"covariances[{k}]", spreads[k]) for k in range(number)]
        self.log_weights = to_jax(np.log(shares / shares.sum()), dtype)
        self.means = to_jax(centers, dtype)
        self.whitening = to_jax(np.stack(whitening), dtype)

    @classmethod
    def anisotropic(cls, rng_key: Key[Array, ""], num_components: int, dim: int) -> "GaussianMixture":
        """Draw a mixture at random: the density is the mean over k of exp(-(x - m_k)^T P_k (x - m_k)), normalised.

        The means m_k are standard normal, the matrices P_k Wishart with dim + 1 degrees of freedom and scale I. All
        components are equally high, so that the wide ones weigh more.

        Raises:
            ValueError: `num_components` or `dim` is below 1.
        """
        for argument, number in (("num_components", num_components), ("dim", dim)):
            if number < 1:
                raise ValueError(f"{argument} is {number}, expected at least 1.")
        mean_key, matrix_key = jax.random.split(rng_key)
        means = np.asarray(jax.random.normal(mean_key, (num_components, dim)))
        factors = np.asarray(jax.random.normal(matrix_key, (num_components, dim + 1, dim)), np.float64)
        precisions = 2 * np.swapaxes(factors, 1, 2) @ factors
        log_weights = -0.5 * np.linalg.slogdet(precisions)[1]
        weights = np.exp(log_weights - log_weights.max())
        covariances = np.linalg.inv(precisions)
        return cls(weights / weights.sum(), means, (covariances + np.swapaxes(covariances, 1, 2)) / 2)

    def logdensity(self, position: Position) -> Float[Array, ""]:
        """Return the log density at `position["x"]`, shape (dim,).

        It is `self.distribution().log_prob(x)`, written out: distrax solves a triangular system for each component,
        which costs 15 times as much in a loop over steps as these products (2 CPU cores, 4 components in the plane).
        """
        self.check_position(position)
        x = position["x"]
        log_weights, means, whitening = (p.astype(x.dtype) for p in (self.log_weights, self.means, self.whitening))
        number, dim = means.shape
        # One product for all components: W x - W m, with the rows of every W side by side.
        rows = jnp.swapaxes(whitening.reshape(number * dim, dim), 0, 1)
        white = jnp.matmul(x, rows, precision=Precision.HIGHEST).reshape(number, dim)
        white = white - jnp.einsum("kij,kj->ki", whitening, means, precision=Precision.HIGHEST)
        log_heights = log_weights + jnp.sum(jnp.log(jnp.diagonal(whitening, axis1=1, axis2=2)), axis=1)
        terms = log_heights - 0.5 * jnp.sum(white**2, axis=1)
        return jax.nn.logsumexp(terms) - 0.5 * dim * math.log(2 * math.pi)

    def distribution(self) -> "distrax.MixtureSameFamily":
        """Return the mixture as a distrax distribution, to draw from it or to evaluate it elsewhere."""
        import distrax

        components = distrax.MultivariateNormalTri(self.means, jnp.linalg.inv(self.whitening))
        return distrax.MixtureSameFamily(distrax.Categorical(logits=self.log_weights), components)

    def position_template(self) -> Position:
        """Return zeros: x, shape (dim,)."""
        return {"x": jnp.zeros_like(self.means[0])}

    def moments(self) -> dict[str, tuple[Array, Array]]:
        """Return mean and standard deviation: the components' variances, and the spread of their means."""
        weights = jnp.exp(self.log_weights)
        scales = jnp.linalg.inv(self.whitening)
        mean = weights @ self.means
        return {"x": (mean, jnp.sqrt(weights @ (jnp.sum(scales**2, axis=2) + (self.means - mean) ** 2)))}
