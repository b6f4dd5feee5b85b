"""Matrices for states of several like parts: one number for each pair of parts, the same for every coordinate."""

import jax.numpy as jnp
from jax.lax import Precision
from jaxtyping import Array, Bool, Float

from parsample.engine.matrices import PRODUCTS, Matrix, ScaledIdentity


class Parts(Matrix):
    """A scaled identity for each pair of parts: a sample with its last predictions, a position with its momentum.

    The flat state is its parts one after the other, each of the same size. `entries` has shape (*steps, parts, parts):
    part i of the result is the sum over j of entries[i, j] times part j. It composes with its like only.
    """

    entries: Float[Array, "*steps parts parts"]

    def apply(self, vector: Float[Array, "*steps dim"]) -> Float[Array, "*steps dim"]:
        """Return A x. O(parts dim)."""
        count = self.entries.shape[-1]
        # Sizes in full: the associative scan also asks for the product of no vectors at all.
        parts = vector.reshape(*vector.shape[:-1], count, vector.shape[-1] // count)
        return jnp.matmul(self.entries, parts, precision=Precision.HIGHEST).reshape(vector.shape)

    def scale(self, factor: Float[Array, "*steps"] | float) -> "Parts":
        """Return `factor` A."""
        return Parts(jnp.asarray(factor, self.entries.dtype)[..., None, None] * self.entries)

    def clip(self, limit: float) -> "Parts":
        """Return A with its entries clipped to [-limit, limit]."""
        return Parts(jnp.clip(self.entries, -limit, limit))

    def project(self) -> "Parts":
        """Return A / max(1, its spectral norm)."""
        norm = jnp.linalg.norm(self.entries, ord=2, axis=(-2, -1), keepdims=True)
        return Parts(self.entries / jnp.maximum(norm, 1))

    def dense(self, dim: int) -> Float[Array, "*steps dim dim"]:
        """Return the matrix written out."""
        return jnp.kron(self.entries, jnp.eye(dim // self.entries.shape[-1], dtype=self.entries.dtype))

    def isfinite(self) -> Bool[Array, "*steps"]:
        """Say for each matrix whether all its entries are finite."""
        return jnp.isfinite(self.entries).all((-2, -1))

    def where(self, keep: Bool[Array, "*steps"]) -> "Parts":
        """Return A where `keep` holds and 0 elsewhere."""
        return Parts(jnp.where(keep[..., None, None], self.entries, 0))


PRODUCTS[Parts, Parts] = lambda later, earlier: Parts(
    jnp.matmul(later.entries, earlier.entries, precision=Precision.HIGHEST)
)


def scaled(factor: Float[Array, "*steps"] | Float[Array, "*steps parts parts"]) -> ScaledIdentity | Parts:
    """Return scaled identities, one number a step or one for each pair of parts."""
    return Parts(factor) if factor.ndim == 3 else ScaledIdentity(factor)
