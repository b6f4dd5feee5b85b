"""The likelihood of linear regression with normal errors, at a cost that does not grow with the rows.

With the triangle R of the QR decomposition of (X, y), the squared residuals of a coefficient vector b sum to

    |y - X b|^2 = |(X, y) (-b, 1)|^2 = |R (-b, 1)|^2

since Q does not change lengths. R has dim + 1 columns and at most as many rows. Unlike sums over rows, and unlike
b^T (X^T X) b - 2 b^T X^T y + y^T y, this cancels nothing: single precision is enough.
"""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision
from jaxtyping import Array, Float


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
        self.triangle = jnp.asarray(np.linalg.qr(np.column_stack([design, observed]), mode="r"), dtype)
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
