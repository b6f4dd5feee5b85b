"""The likelihood of linear regression with normal errors, at a cost that does not grow with the rows.

With the triangle R of the QR decomposition of (X, y), the squared residuals of a coefficient vector b sum to

    |y - X b|^2 = |(X, y) (-b, 1)|^2 = |R (-b, 1)|^2

since Q does not change lengths. R has dim + 1 columns and at most as many rows. Unlike sums over rows, and unlike
b^T (X^T X) b - 2 b^T X^T y + y^T y, this cancels nothing: single precision is enough.
"""

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.lax import Precision
from jaxtyping import Array, Float

from parsample.engine.arrays import to_jax
from parsample.targets.base import Position, Target


class LinearLikelihood(eqx.Module):
    """log p(y | b, sigma) for y_i ~ N(x_i^T b, sigma^2), normalised.

    Attributes:
        triangle: R, shape (min(rows, dim + 1), dim + 1). In the units of the data.
        rows: how many observations there are.
    """

    triangle: Float[Array, "rank columns"]
    rows: int = eqx.field(static=True)

    def __init__(self, design: np.ndarray, observed: np.ndarray, dtype: Any):
        """Decompose the data, in double precision.

        Args:
            design: X, shape (rows, dim).
            observed: y, shape (rows,).
            dtype: of the triangle.
        """
        self.triangle = to_jax(np.linalg.qr(np.column_stack([design, observed]), mode="r"), dtype)
        self.rows = len(observed)

    def __call__(self, coefficients: Float[Array, "dim"], log_sigma: Float[Array, ""]) -> Float[Array, ""]:
        """Return the log density of the observations. Cost: O(dim^2)."""
        # Scaled before it is squared, it overflows later.
        white = self.rotated_residual(coefficients) * jnp.exp(-log_sigma)
        return -0.5 * (white @ white) - self.rows * (log_sigma + 0.5 * math.log(2 * math.pi))

    def rotated_residual(self, coefficients: Float[Array, "dim"]) -> Float[Array, "rank"]:
        """Return R (-b, 1), as long as y - X b is."""
        signed = jnp.concatenate([-coefficients, jnp.ones(1, coefficients.dtype)])
        return jnp.matmul(self.triangle.astype(coefficients.dtype), signed, precision=Precision.HIGHEST)

    def log_spread(self, coefficients: Float[Array, "dim"]) -> Float[Array, ""]:
        """Return the logarithm of the root mean square of the residuals, in the units of y: the likeliest log sigma."""
        return jnp.log(jnp.linalg.norm(self.rotated_residual(coefficients))) - 0.5 * math.log(self.rows)


class AbstractLinearRegression(Target):
    """What linear regressions share: a likelihood, of coefficients and `log_sigma`, and a prior.

    Attributes:
        likelihood: of the observations.
    """

    likelihood: eqx.AbstractVar[LinearLikelihood]

    @abc.abstractmethod
    def coefficients(self, position: Position) -> Float[Array, " dim"]:
        """Return the coefficients of the design, in its order."""

    @abc.abstractmethod
    def log_prior(self, position: Position) -> Float[Array, ""]:
        """Return the log density of the prior."""

    def logdensity(self, position: Position) -> Float[Array, ""]:
        """Return the log density at the coefficients and log_sigma, a scalar. Cost: O(dim^2)."""
        self.check_position(position)
        return self.log_prior(position) + self.likelihood(self.coefficients(position), position["log_sigma"])

    def around(self, position: Position, basis: Float[Array, "columns k"]) -> "NearLinearRegression":
        """Return the log density as a function of z, at the position plus basis z, where it is rounded less.

        Coefficients that are large beside their posterior standard deviations, or columns of the design that are nearly
        collinear, have terms cancel in X b that are large beside the residuals. Here they do so once, in double
        precision.
        """
        place, unravel = ravel_pytree(position)
        columns = jax.vmap(lambda column: self.coefficients(unravel(column)), in_axes=1, out_axes=1)(basis)
        log_sigma, likelihood = position["log_sigma"], self.likelihood
        triangle = np.asarray(likelihood.triangle, np.float64) * np.exp(-float(log_sigma))
        white = triangle[:, -1] - triangle[:, :-1] @ np.asarray(self.coefficients(position), np.float64)
        value = -0.5 * white @ white - likelihood.rows * (float(log_sigma) + 0.5 * math.log(2 * math.pi))
        return NearLinearRegression(
            target=self,
            place=place,
            basis=basis,
            unravel=unravel,
            residuals=to_jax(triangle[:, :-1] @ np.asarray(columns, np.float64), place.dtype),
            white=to_jax(white, place.dtype),
            excess=to_jax(white @ white - likelihood.rows, place.dtype),
            value=to_jax(value, place.dtype),
        )


class NearLinearRegression(eqx.Module):
    """The log density of a linear regression at a place plus basis z, as a function of z.

    With v = R (-b, 1) / sigma at the place, moved by d = R (basis z) / sigma and by s in log sigma, the squares of the
    residuals sum to

        |v - d|^2 e^(-2 s) = (n + (|v|^2 - n) + q) (1 + e),    q = |d|^2 - 2 v^T d,    e = e^(-2 s) - 1

    and n log sigma adds 2 n s to them. What is as large as n stands in n (e + 2 s) alone, whose derivative is -2 n e:
    it vanishes at the place, where that of each of the two terms is as large as n.

    Attributes:
        target: the regression.
        place: a flat position.
        basis: directions from it.
        unravel: flat position -> position.
        residuals: R basis / sigma at the place.
        white: v.
        excess: |v|^2 - n, where n is the number of observations.
        value: of the likelihood at the place, its logarithm.
    """

    target: AbstractLinearRegression
    place: Float[Array, " columns"]
    basis: Float[Array, "columns k"]
    unravel: Callable = eqx.field(static=True)
    residuals: Float[Array, "rank k"]
    white: Float[Array, " rank"]
    excess: Float[Array, ""]
    value: Float[Array, ""]

    def __call__(self, z: Float[Array, " k"]) -> Float[Array, ""]:
        """Return the log density. Cost: O(dim^2)."""
        step = jnp.matmul(self.basis, z, precision=Precision.HIGHEST)
        moved = jnp.matmul(self.residuals, z, precision=Precision.HIGHEST)
        s = self.unravel(step)["log_sigma"]
        squares, grown = moved @ moved - 2 * (self.white @ moved), jnp.expm1(-2 * s)
        rest = squares * (1 + grown) + self.excess * grown + self.target.likelihood.rows * _beyond_linear(s)
        return self.target.log_prior(self.unravel(self.place + step)) + self.value - 0.5 * rest


@jax.custom_jvp
def _beyond_linear(s: Float[Array, ""]) -> Float[Array, ""]:
    """Return e^(-2 s) - 1 + 2 s."""
    return jnp.expm1(-2 * s) + 2 * s


@_beyond_linear.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _beyond_linear(*primals), -2 * jnp.expm1(-2 * primals[0]) * tangents[0]
