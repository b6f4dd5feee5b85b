"""A root of a covariance that stretches a few directions, and is diagonal otherwise."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class LowRank(eqx.Module):
    """The root S (I + U (diag(s) - I) U^T), S diagonal: coordinates of scale S, stretched by s along the columns of U.

    Its covariance is S (I + U (diag(s^2) - I) U^T) S. With as many directions as dimensions it is any covariance.

    Attributes:
        scale: of each coordinate, in its units, shape (dim,).
        directions: U, orthonormal columns, shape (dim, rank). A column of no meaning has stretch 1.
        stretch: s, dimensionless, shape (rank,), above 0.
    """

    scale: Float[Array, " dim"]
    directions: Float[Array, "dim rank"]
    stretch: Float[Array, " rank"]

    def times(self, z: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Return the root times z. Cost: O(dim rank)."""
        return self.scale * (z + self.directions @ ((self.stretch - 1) * (z @ self.directions)))

    def solve(self, vector: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Return the z that the root maps to a vector. Cost: O(dim rank)."""
        scaled = vector / self.scale
        return scaled + self.directions @ ((1 / self.stretch - 1) * (scaled @ self.directions))

    def times_rows(self, rows: Float[np.ndarray, "*rows dim"]) -> Float[np.ndarray, "*rows dim"]:
        """Return the root times each row, on the host, in double precision. Cost: O(dim rank)."""
        scale, directions, stretch = (np.asarray(part, float) for part in (self.scale, self.directions, self.stretch))
        return (rows + (rows @ directions * (stretch - 1)) @ directions.T) * scale

    def solve_transposed(self, rows: Float[np.ndarray, "*rows dim"]) -> Float[np.ndarray, "*rows dim"]:
        """Return what the transposed root maps to each row, on the host, in double precision. Cost: O(dim rank)."""
        scale, directions, stretch = (np.asarray(part, float) for part in (self.scale, self.directions, self.stretch))
        return (rows + (rows @ directions * (1 / stretch - 1)) @ directions.T) / scale

    def deviations(self) -> Float[np.ndarray, " dim"]:
        """Return the standard deviation of every coordinate, in double precision. Cost: O(dim rank)."""
        scale, directions, stretch = (np.asarray(part, float) for part in (self.scale, self.directions, self.stretch))
        return scale * np.sqrt(1 + directions**2 @ (stretch**2 - 1))

    def dense(self) -> Float[Array, "dim dim"]:
        """Return the root as a matrix."""
        stretched = jnp.eye(self.scale.size, dtype=self.scale.dtype) + (
            self.directions * (self.stretch - 1) @ self.directions.T
        )
        return self.scale[:, None] * stretched
