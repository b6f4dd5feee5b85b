"""Matrices for states of several like parts: one number for each pair of parts, the same for every coordinate."""

from typing import ClassVar

import jax.numpy as jnp
from jax.lax import Precision
from jaxtyping import Array, Float

from parsample.engine.matrices import Matrix, ScaledIdentity, product
from parsample.engine.norms import spectral_norm_bound


class Parts(Matrix):
    """A scaled identity for each pair of parts: a sample with its last predictions, a position with its momentum.

    The flat state is its parts one after the other, each of the same size. `entries` has shape (*steps, parts, parts):
    part i of the result is the sum over j of entries[i, j] times part j.
    """

    entry_axes: ClassVar = {"entries": 2}

    entries: Float[Array, "*steps parts parts"]

    def apply(self, vector: Float[Array, "*steps dim"]) -> Float[Array, "*steps dim"]:
        """Return A x. O(parts dim)."""
        count = self.entries.shape[-1]
        # Sizes in full: the associative scan also asks for the product of no vectors at all.
        parts = vector.reshape(*vector.shape[:-1], count, vector.shape[-1] // count)
        return jnp.matmul(self.entries, parts, precision=Precision.HIGHEST).reshape(vector.shape)

    def project(self) -> "Parts":
        """Return A made smaller by a bound of its spectral norm (`shrink`), that of `entries`."""
        return self.shrink(self.norm_bound())

    def norm_bound(self) -> Float[Array, "*steps"]:
        """Return an upper bound of the spectral norm of each matrix; 0 for one that is not finite."""
        return spectral_norm_bound(self.where(self.isfinite()).entries)

    def dense(self, dim: int) -> Float[Array, "*steps dim dim"]:
        """Return the matrix written out."""
        return jnp.kron(self.entries, jnp.eye(dim // self.entries.shape[-1], dtype=self.entries.dtype))


product(Parts, Parts)(
    lambda later, earlier: Parts(jnp.matmul(later.entries, earlier.entries, precision=Precision.HIGHEST))
)


def scaled(factor: Float[Array, "*steps"] | Float[Array, "*steps parts parts"]) -> ScaledIdentity | Parts:
    """Return scaled identities, one number a step or one for each pair of parts."""
    return Parts(factor) if factor.ndim == 3 else ScaledIdentity(factor)
