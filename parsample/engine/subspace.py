"""Matrices that are written out in a subspace, and simple outside it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from parsample.engine.matrices import PRODUCTS, Matrix
from parsample.engine.parts import Parts


class Subspace(Matrix):
    """A = R + the sum over i of excess[i] basis[i]^T: R outside the span of the basis, anything at all inside.

    R is a scaled identity, or one for each pair of parts of the state, and must keep the span and its complement apart
    (a scaled identity always does). With orthonormal rows `basis`, the same for all matrices that are composed, a
    product is of the same form and the same rank. Both arrays have shape (*steps, rank, dim).
    """

    rest: Matrix
    basis: Float[Array, "*steps rank dim"]
    excess: Float[Array, "*steps rank dim"]

    def apply(self, vector: Float[Array, "*steps dim"]) -> Float[Array, "*steps dim"]:
        """Return A x. O(rank dim)."""
        inside = jnp.einsum("...rd,...d->...r", self.basis, vector)
        return self.rest.apply(vector) + jnp.einsum("...r,...rd->...d", inside, self.excess)

    def scale(self, factor: Float[Array, "*steps"] | float) -> "Subspace":
        """Return `factor` A."""
        return Subspace(self.rest.scale(factor), self.basis, jnp.asarray(factor)[..., None, None] * self.excess)

    def clip(self, limit: float) -> "Subspace":
        """Return A with its stored entries clipped to [-limit, limit]."""
        return Subspace(self.rest.clip(limit), self.basis, jnp.clip(self.excess, -limit, limit))

    def project(self) -> "Subspace":
        """Return A / max(1, its spectral norm). O(rank^2 dim).

        A matrix that is not finite stays as it is.
        """
        finite = self.where(self.isfinite())
        count = finite.rest.entries.shape[-1] if isinstance(finite.rest, Parts) else 1
        steps, dim = self.basis.shape[:-2], self.basis.shape[-1]
        # Everything but R happens among these vectors of one part, and the norm is found there: what is outside the
        # basis, among the images or else among what the decomposition adds to them, is multiplied by R alone.
        vectors = jnp.concatenate([self.basis, finite.excess], -2)
        vectors = vectors.reshape(*steps, -1, dim // count)
        span = jnp.swapaxes(jnp.linalg.qr(jnp.swapaxes(vectors, -1, -2))[0], -1, -2)
        span = jnp.kron(jnp.eye(count, dtype=span.dtype), span)
        norm = jnp.linalg.norm(_each(finite.apply, span) @ jnp.swapaxes(span, -1, -2), ord=2, axis=(-2, -1))
        return self.scale(1 / jnp.maximum(norm, 1))

    def dense(self, dim: int) -> Float[Array, "*steps dim dim"]:
        """Return the matrices written out."""
        return self.rest.dense(dim) + jnp.einsum("...ri,...rj->...ij", self.excess, self.basis)

    def isfinite(self) -> Bool[Array, "*steps"]:
        """Say for each matrix whether all its entries are finite."""
        return self.rest.isfinite() & jnp.isfinite(self.excess).all((-2, -1))

    def where(self, keep: Bool[Array, "*steps"]) -> "Subspace":
        """Return A where `keep` holds and 0 elsewhere."""
        return Subspace(self.rest.where(keep), self.basis, jnp.where(keep[..., None, None], self.excess, 0))


def written_out_in(rest: Matrix, basis: Float[Array, "*steps rank dim"], images: Array) -> Subspace:
    """Return the matrix that is `rest` outside the span of the basis, and takes its row i to row i of `images`."""
    return Subspace(rest, basis, images - _each(rest.apply, basis))


def _compose(later: Subspace, earlier: Subspace) -> Subspace:
    """Return the product on the subspace of both. O(rank^2 dim)."""
    images = _each(later.apply, _each(earlier.apply, earlier.basis))
    return written_out_in(later.rest @ earlier.rest, jnp.broadcast_to(later.basis, images.shape), images)


PRODUCTS[Subspace, Subspace] = _compose


def _each(apply: Callable[[Array], Array], rows: Array) -> Array:
    """Apply a matrix to every row."""
    return jax.vmap(apply, in_axes=-2, out_axes=-2)(rows)
