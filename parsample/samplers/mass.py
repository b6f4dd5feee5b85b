"""The inverse mass matrix: its root, which is all that samplers need of it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Entries across the diagonal may differ by this share of the largest: what rounding leaves in single precision.
ASYMMETRY = 1e-4


class Mass(eqx.Module):
    """An inverse mass matrix M^-1: identity, diagonal or dense. In squared units of the position.

    Attributes:
        root: None for the identity, the square roots of a diagonal (dim,), or the lower Cholesky factor (dim, dim).
        name: what messages call the matrix.
    """

    root: Float[Array, "..."] | None = None
    name: str = eqx.field(static=True, default="inverse_mass_matrix")

    @classmethod
    def of(cls, inverse_mass_matrix: Any, name: str = "inverse_mass_matrix") -> "Mass":
        """Factor an inverse mass matrix, or another covariance of that `name`: None, shape (dim,) or (dim, dim).

        Raises:
            ValueError: it has another shape, is not symmetric, or not positive definite.
        """
        if inverse_mass_matrix is None:
            return cls(None, name)
        matrix = jnp.asarray(inverse_mass_matrix)
        if matrix.ndim == 1:
            root = jnp.sqrt(matrix)
        elif matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]:
            _check_symmetric(matrix, name)
            root = jnp.linalg.cholesky(matrix)
        else:
            raise ValueError(f"{name} has shape {matrix.shape}, expected (dim,) for a diagonal or (dim, dim).")
        if not isinstance(root, jax.core.Tracer) and not bool(
            jnp.all(jnp.isfinite(root)) & jnp.all(_diagonal(root) > 0)
        ):
            raise ValueError(
                f"{name} is not positive definite, expected variances above 0; "
                "an estimate of the posterior covariance from too few draws needs regularisation."
            )
        return cls(root, name)

    def check(self, dim: int) -> None:
        """Raise ValueError unless the matrix fits positions of `dim` numbers."""
        if self.root is not None and self.root.shape[0] != dim:
            raise ValueError(
                f"{self.name} is for {self.root.shape[0]} dimensions, but the position holds {dim} numbers."
            )

    def like(self, vector: Float[Array, " dim"]) -> "Mass":
        """Return the matrix in the precision of a position, once it is known to fit it.

        Raises:
            ValueError: it is of another size.
        """
        self.check(vector.size)
        return self if self.root is None else Mass(self.root.astype(vector.dtype))

    def inverse(self, vector: Float[Array, " dim"]) -> Float[Array, " dim"] | Float[Array, "dim dim"]:
        """Return M^-1 for positions like this one: its diagonal where it has no more."""
        if self.root is None:
            return jnp.ones_like(vector)
        return self.root**2 if self.root.ndim == 1 else self.root @ self.root.T

    def root_times(self, vector: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Return L x, where L L^T = M^-1."""
        if self.root is None:
            return vector
        return self.root * vector if self.root.ndim == 1 else self.root @ vector

    def root_transpose_times(self, vector: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Return L^T x."""
        if self.root is None:
            return vector
        return self.root * vector if self.root.ndim == 1 else vector @ self.root

    def solve_root(self, vector: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Return L^-1 x."""
        if self.root is None:
            return vector
        if self.root.ndim == 1:
            return vector / self.root
        return jax.scipy.linalg.solve_triangular(self.root, vector, lower=True)


def _check_symmetric(matrix: Array, name: str) -> None:
    """Raise ValueError if a matrix whose values are known is not symmetric; one that is not finite fails later."""
    if isinstance(matrix, jax.core.Tracer):
        return
    known = np.asarray(matrix, np.float64)
    difference = np.abs(known - known.T).max(initial=0)
    if difference > ASYMMETRY * np.abs(known).max(initial=0):
        raise ValueError(
            f"{name} is not symmetric: entries across the diagonal differ by {difference:.3g}; pass (M + M.T) / 2."
        )


def _diagonal(root: Array) -> Array:
    return root if root.ndim == 1 else jnp.diagonal(root)
