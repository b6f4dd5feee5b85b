"""The multivariate normal distribution."""

import math
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax.lax import Precision
from jaxtyping import Array, Float

from parsample.engine.arrays import to_jax
from parsample.targets import checks
from parsample.targets.base import AbstractVector, Position, check_basis


class MultivariateNormal(AbstractVector):
    """Multivariate normal with any mean and covariance; two coordinates with correlation 0.95 by default.

    The log density is normalised. The variable of the trace is `x`.

    Attributes:
        mean: shape (dim,), in the units of x.
        whitening: W, shape (dim, dim), with W C W^T = I for the covariance C. In inverse units of x.
    """

    name: ClassVar[str] = "multivariate_normal"
    mean: Float[Array, "dim"]
    whitening: Float[Array, "dim dim"]

    def __init__(self, mean: Any = 0.0, covariance: Any = ((1.0, 0.95), (0.95, 1.0))) -> None:
        """Factor the covariance.

        Args:
            mean: shape (dim,), or one number for every coordinate.
            covariance: C, shape (dim, dim).

        Raises:
            ValueError: a shape does not fit, a value is not finite, or the covariance is not positive definite.
        """
        dtype = checks.float_dtype(mean, covariance)
        matrix = checks.real_array("covariance", covariance, ("dim", "dim"))
        whitening = checks.inverse_cholesky("covariance", matrix)
        center = checks.real_array("mean", mean, ("dim",), ())
        center = np.full(len(matrix), center) if center.ndim == 0 else center
        checks.same_size("mean", center, "covariance", len(matrix))
        self.mean = to_jax(center, dtype)
        self.whitening = to_jax(whitening, dtype)

    def logdensity(self, position: Position) -> Float[Array, ""]:
        """Return the log density at `position["x"]`, shape (dim,)."""
        self.check_position(position)
        x = position["x"]
        whitening = self.whitening.astype(x.dtype)
        white = jnp.matmul(whitening, x - self.mean.astype(x.dtype), precision=Precision.HIGHEST)
        log_determinant = jnp.sum(jnp.log(jnp.diagonal(whitening)))
        return log_determinant - 0.5 * (white @ white + x.size * math.log(2 * math.pi))

    def hessian_diagonal(self, position: Position, basis: Float[Array, "dim k"]) -> Float[Array, "k"]:
        """Return the diagonal of B^T H B with H = -C^-1, the same everywhere."""
        self.check_position(position)
        check_basis(basis, self.mean.size)
        dtype = position["x"].dtype
        white = jnp.matmul(self.whitening.astype(dtype), basis.astype(dtype), precision=Precision.HIGHEST)
        return -jnp.sum(white**2, axis=0)

    def position_template(self) -> Position:
        """Return zeros: x, shape (dim,)."""
        return {"x": jnp.zeros_like(self.mean)}

    def moments(self) -> dict[str, tuple[Array, Array]]:
        """Return the mean and the square roots of the covariance's diagonal."""
        root = jnp.linalg.inv(self.whitening)
        return {"x": (self.mean, jnp.sqrt(jnp.sum(root**2, axis=1)))}
