"""Matrices that are written out in a subspace, and simple outside it."""

from collections.abc import Callable
from typing import ClassVar, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from parsample.engine.matrices import Matrix, ScaledIdentity, product
from parsample.engine.norms import spectral_norm_bound, two_by_two_norm
from parsample.engine.parts import Parts


class Subspace(Matrix):
    """A = R + the sum over i of excess[i] basis[i]^T: R outside the span of the basis, anything at all inside.

    R is a scaled identity, or one for each pair of parts of the state, and must keep the span and its complement apart
    (a scaled identity always does). With orthonormal rows `basis`, the same for all matrices that are composed, a
    product is of the same form and the same rank. `excess` has shape (*steps, rank, dim), `basis` the same or
    (rank, dim).
    """

    entry_axes: ClassVar = {"rest": 0, "excess": 2}
    as_long: ClassVar = ("excess",)
    common: ClassVar = ("basis",)

    rest: ScaledIdentity | Parts
    basis: Float[Array, "*_ rank dim"]
    excess: Float[Array, "*steps rank dim"]

    def apply(self, vector: Float[Array, "*steps dim"]) -> Float[Array, "*steps dim"]:
        """Return A x. O(rank dim)."""
        inside = jnp.einsum("...rd,...d->...r", self.basis, vector)
        return self.rest.apply(vector) + jnp.einsum("...r,...rd->...d", inside, self.excess)

    def project(self) -> "Subspace":
        """Return A made smaller by a bound of its spectral norm (`shrink`). O(rank^2 dim).

        In coordinates of the span and its complement A is [[W, 0], [V, R]], and its norm at most that of the 2 x 2
        matrix of their norms: exact, but for the bounds of these, where A keeps the span or V or R is 0; otherwise at
        most by a factor of sqrt(2) too large. A matrix that is not finite stays as it is.
        """
        finite = self.where(self.isfinite())
        images = _each(finite.apply, jnp.broadcast_to(self.basis, self.excess.shape))
        inside = jnp.einsum("...id,...jd->...ij", images, self.basis)
        outside = images - jnp.einsum("...ij,...jd->...id", inside, self.basis)
        # Where the span is the whole space, nothing is outside.
        is_whole = self.basis.shape[-2] >= self.basis.shape[-1]
        rest = jnp.zeros_like(inside[..., 0, 0]) if is_whole else finite.rest.norm_bound()
        bound = two_by_two_norm(spectral_norm_bound(inside), 0.0, spectral_norm_bound(outside), rest)
        return self.shrink(bound)

    def dense(self, dim: int) -> Float[Array, "*steps dim dim"]:
        """Return the matrices written out."""
        return self.rest.dense(dim) + jnp.einsum("...ri,...rj->...ij", self.excess, self.basis)


def written_out_in(rest: ScaledIdentity | Parts, basis: Float[Array, "*_ rank dim"], images: Array) -> Subspace:
    """Return the matrix that is `rest` outside the span of the basis, and takes its row i to row i of `images`."""
    return Subspace(rest, basis, images - _each(rest.apply, jnp.broadcast_to(basis, images.shape)))


@product(Subspace, Subspace)
def _compose(later: Subspace, earlier: Subspace) -> Subspace:
    """Return the product on the subspace of both. O(rank^2 dim)."""
    axes = jnp.broadcast_shapes(later.excess.shape, earlier.excess.shape)
    images = _each(later.apply, _each(earlier.apply, jnp.broadcast_to(earlier.basis, axes)))
    rest = cast(ScaledIdentity | Parts, later.rest @ earlier.rest)
    return written_out_in(rest, later.basis, images)


def _each(apply: Callable[[Array], Array], rows: Array) -> Array:
    """Apply a matrix to every row."""
    return jax.vmap(apply, in_axes=-2, out_axes=-2)(rows)
