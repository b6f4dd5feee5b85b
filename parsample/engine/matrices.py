"""The structures a transition matrix A[t] can have.

Every leaf may carry leading axes (usually `steps`); the laws hold along them by broadcasting:

    (A2 @ A1).apply(x) == A2.apply(A1.apply(x))          composition is associative
    identity_like(A) @ A == A @ identity_like(A) == A
    A.dense(dim) is the same linear map
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Matrix(eqx.Module):
    """A square matrix of known structure, or a stack of them along leading axes. Dimensionless."""

    @abc.abstractmethod
    def apply(self, vector: Float[Array, "*steps dim"]) -> Float[Array, "*steps dim"]:
        """Return A x."""

    @abc.abstractmethod
    def scale(self, factor: Float[Array, "*steps"] | float) -> "Matrix":
        """Return `factor` A, one factor for all matrices or one for each."""

    @abc.abstractmethod
    def clip(self, limit: float) -> "Matrix":
        """Return A with its stored entries clipped to [-limit, limit]."""

    @abc.abstractmethod
    def project(self) -> "Matrix":
        """Return a matrix of spectral norm at most 1: entries clipped for a diagonal, A / max(1, norm) for a dense."""

    @abc.abstractmethod
    def dense(self, dim: int) -> Float[Array, "*steps dim dim"]:
        """Return the matrix written out."""

    @abc.abstractmethod
    def isfinite(self) -> Bool[Array, "*steps"] | bool:
        """Say for each matrix whether all its entries are finite."""

    @abc.abstractmethod
    def where(self, keep: Bool[Array, "*steps"]) -> "Matrix":
        """Return A where `keep` holds and 0 elsewhere."""

    def __matmul__(self, earlier: "Matrix") -> "Matrix":
        """Return the composition: first `earlier`, then this one."""
        return compose(self, earlier)


class Zero(Matrix):
    """A = 0."""

    def apply(self, vector: Float[Array, "*steps dim"]) -> Float[Array, "*steps dim"]:
        """Return zeros like `vector`."""
        return jnp.zeros_like(vector)

    def scale(self, factor: Float[Array, "*steps"] | float) -> "Zero":
        """Return itself."""
        return self

    def clip(self, limit: float) -> "Zero":
        """Return itself."""
        return self

    def project(self) -> "Zero":
        """Return itself."""
        return self

    def dense(self, dim: int) -> Float[Array, "dim dim"]:
        """Return one matrix of zeros, whatever the leading axes."""
        return jnp.zeros((dim, dim))

    def isfinite(self) -> bool:
        """Return True."""
        return True

    def where(self, keep: Bool[Array, "*steps"]) -> "Zero":
        """Return itself."""
        return self


class ScaledIdentity(Matrix):
    """A = a I, with `factor` a of shape (*steps,)."""

    factor: Float[Array, "*steps"]

    def apply(self, vector: Float[Array, "*steps dim"]) -> Float[Array, "*steps dim"]:
        """Return a x."""
        return self.factor[..., None] * vector

    def scale(self, factor: Float[Array, "*steps"] | float) -> "ScaledIdentity":
        """Return `factor` a I."""
        return ScaledIdentity(factor * self.factor)

    def clip(self, limit: float) -> "ScaledIdentity":
        """Return a I with a clipped to [-limit, limit]."""
        return ScaledIdentity(jnp.clip(self.factor, -limit, limit))

    def project(self) -> "ScaledIdentity":
        """Return a I with a clipped to [-1, 1], which is the nearest matrix of norm at most 1."""
        return self.clip(1.0)

    def dense(self, dim: int) -> Float[Array, "*steps dim dim"]:
        """Return the matrices written out."""
        return self.factor[..., None, None] * jnp.eye(dim, dtype=self.factor.dtype)

    def isfinite(self) -> Bool[Array, "*steps"]:
        """Say for each matrix whether it is finite."""
        return jnp.isfinite(self.factor)

    def where(self, keep: Bool[Array, "*steps"]) -> "ScaledIdentity":
        """Return A where `keep` holds and 0 elsewhere."""
        return ScaledIdentity(jnp.where(keep, self.factor, 0))


class Diagonal(Matrix):
    """A = diag(a), with `entries` a of shape (*steps, dim)."""

    entries: Float[Array, "*steps dim"]

    def apply(self, vector: Float[Array, "*steps dim"]) -> Float[Array, "*steps dim"]:
        """Return a * x."""
        return self.entries * vector

    def scale(self, factor: Float[Array, "*steps"] | float) -> "Diagonal":
        """Return `factor` A."""
        return Diagonal(jnp.asarray(factor, self.entries.dtype)[..., None] * self.entries)

    def clip(self, limit: float) -> "Diagonal":
        """Return A with its diagonal clipped to [-limit, limit]."""
        return Diagonal(jnp.clip(self.entries, -limit, limit))

    def project(self) -> "Diagonal":
        """Return A with its diagonal clipped to [-1, 1], the nearest matrix of norm at most 1."""
        return self.clip(1.0)

    def dense(self, dim: int) -> Float[Array, "*steps dim dim"]:
        """Return the matrices written out."""
        return self.entries[..., None] * jnp.eye(dim, dtype=self.entries.dtype)

    def isfinite(self) -> Bool[Array, "*steps"]:
        """Say for each matrix whether it is finite."""
        return jnp.isfinite(self.entries).all(-1)

    def where(self, keep: Bool[Array, "*steps"]) -> "Diagonal":
        """Return A where `keep` holds and 0 elsewhere."""
        return Diagonal(jnp.where(keep[..., None], self.entries, 0))


class Dense(Matrix):
    """A written out, `entries` of shape (*steps, dim, dim)."""

    entries: Float[Array, "*steps dim dim"]

    def apply(self, vector: Float[Array, "*steps dim"]) -> Float[Array, "*steps dim"]:
        """Return A x. O(dim^2)."""
        return jnp.einsum("...ij,...j->...i", self.entries, vector)

    def scale(self, factor: Float[Array, "*steps"] | float) -> "Dense":
        """Return `factor` A."""
        return Dense(jnp.asarray(factor, self.entries.dtype)[..., None, None] * self.entries)

    def clip(self, limit: float) -> "Dense":
        """Return A with every entry clipped to [-limit, limit]."""
        return Dense(jnp.clip(self.entries, -limit, limit))

    def project(self) -> "Dense":
        """Return A / max(1, spectral norm). O(dim^3), by singular values.

        A matrix that is not finite stays as it is: the singular values of the others are still right.
        """
        finite = self.isfinite()
        norm = jnp.linalg.norm(self.where(finite).entries, ord=2, axis=(-2, -1))
        return Dense(self.entries / jnp.maximum(norm, 1)[..., None, None])

    def dense(self, dim: int) -> Float[Array, "*steps dim dim"]:
        """Return the entries."""
        return self.entries

    def isfinite(self) -> Bool[Array, "*steps"]:
        """Say for each matrix whether it is finite."""
        return jnp.isfinite(self.entries).all((-2, -1))

    def where(self, keep: Bool[Array, "*steps"]) -> "Dense":
        """Return A where `keep` holds and 0 elsewhere."""
        return Dense(jnp.where(keep[..., None, None], self.entries, 0))


class Block(Matrix):
    """A made of 2 x 2 blocks of diagonals: it couples each coordinate of one half of the state with its partner.

    The halves are the first and the second half of the flat state, (position, momentum) where the state is such a pair.
    For an odd dim the first half is one longer, and its last coordinate has a partner that is always 0.

    `entries` has shape (*steps, 2, 2, half): y[i] = sum over j of entries[i, j] * x[j], with x[0] and x[1] the halves.
    """

    entries: Float[Array, "*steps 2 2 half"]

    def apply(self, vector: Float[Array, "*steps dim"]) -> Float[Array, "*steps dim"]:
        """Return A x. O(dim)."""
        return from_halves(jnp.sum(self.entries * to_halves(vector)[..., None, :, :], -2), vector.shape[-1])

    def scale(self, factor: Float[Array, "*steps"] | float) -> "Block":
        """Return `factor` A."""
        return Block(jnp.asarray(factor, self.entries.dtype)[..., None, None, None] * self.entries)

    def clip(self, limit: float) -> "Block":
        """Return A with every entry clipped to [-limit, limit]."""
        return Block(jnp.clip(self.entries, -limit, limit))

    def project(self) -> "Block":
        """Return A with every 2 x 2 block divided by max(1, its spectral norm). O(dim).

        The norm of [[a, b], [c, d]] is (|(a + d, c - b)| + |(a - d, b + c)|) / 2.
        """
        a, b, c, d = (self.entries[..., i, j, :] for i in (0, 1) for j in (0, 1))
        norm = (jnp.hypot(a + d, c - b) + jnp.hypot(a - d, b + c)) / 2
        return Block(self.entries / jnp.maximum(norm, 1)[..., None, None, :])

    def dense(self, dim: int) -> Float[Array, "*steps dim dim"]:
        """Return the matrices written out."""
        # Column k is the image of the k-th unit vector.
        unit = jnp.broadcast_to(jnp.eye(dim, dtype=self.entries.dtype), (*self.entries.shape[:-3], dim, dim))
        columns = Block(self.entries[..., None, :, :, :]).apply(unit)
        return jnp.swapaxes(columns, -1, -2)

    def isfinite(self) -> Bool[Array, "*steps"]:
        """Say for each matrix whether all its entries are finite."""
        return jnp.isfinite(self.entries).all((-3, -2, -1))

    def where(self, keep: Bool[Array, "*steps"]) -> "Block":
        """Return A where `keep` holds and 0 elsewhere."""
        return Block(jnp.where(keep[..., None, None, None], self.entries, 0))


def to_halves(vector: Float[Array, "*steps dim"]) -> Float[Array, "*steps 2 half"]:
    """Return the two halves of vectors, one above the other; an odd dim is filled up with a 0."""
    dim = vector.shape[-1]
    padding = [(0, 0)] * (vector.ndim - 1) + [(0, dim % 2)]
    return jnp.pad(vector, padding).reshape(*vector.shape[:-1], 2, -(-dim // 2))


def from_halves(halves: Float[Array, "*steps 2 half"], dim: int) -> Float[Array, "*steps dim"]:
    """Return the vectors of `dim` numbers that `to_halves` made halves of."""
    return halves.reshape(*halves.shape[:-2], 2 * halves.shape[-1])[..., :dim]


class Permutation(Matrix):
    """A scaled permutation: (A x)[i] = factor[i] * x[index[i]]. Both of shape (*steps, dim).

    Signs, scales and zeros go into `factor`; compositions stay in this form, in O(dim).
    """

    index: Int[Array, "*steps dim"]
    factor: Float[Array, "*steps dim"]

    def apply(self, vector: Float[Array, "*steps dim"]) -> Float[Array, "*steps dim"]:
        """Return A x. O(dim)."""
        shape = jnp.broadcast_shapes(self.index.shape, vector.shape)
        index = jnp.broadcast_to(self.index, shape)
        return self.factor * jnp.take_along_axis(jnp.broadcast_to(vector, shape), index, -1)

    def scale(self, factor: Float[Array, "*steps"] | float) -> "Permutation":
        """Return `factor` A."""
        return _permutation(self.index, jnp.asarray(factor, self.factor.dtype)[..., None] * self.factor)

    def clip(self, limit: float) -> "Permutation":
        """Return A with its factors clipped to [-limit, limit]."""
        return Permutation(self.index, jnp.clip(self.factor, -limit, limit))

    def project(self) -> "Permutation":
        """Return A with its factors clipped to [-1, 1], the nearest matrix of norm at most 1."""
        return self.clip(1.0)

    def dense(self, dim: int) -> Float[Array, "*steps dim dim"]:
        """Return the matrices written out."""
        return self.factor[..., None] * (self.index[..., None] == jnp.arange(dim))

    def isfinite(self) -> Bool[Array, "*steps"]:
        """Say for each matrix whether all its factors are finite."""
        return jnp.isfinite(self.factor).all(-1)

    def where(self, keep: Bool[Array, "*steps"]) -> "Permutation":
        """Return A where `keep` holds and 0 elsewhere."""
        return Permutation(self.index, jnp.where(keep[..., None], self.factor, 0))


def _permute_columns(later: Permutation, factor: Array) -> Array:
    """Return later.factor * factor[later.index]."""
    index, factor = jnp.broadcast_arrays(later.index, factor)
    return later.factor * jnp.take_along_axis(factor, index, -1)


def _permutation(index: Array, factor: Array) -> Permutation:
    """Return a stack as long as the longer of the two: one permutation may come with many factors, and conversely."""
    return Permutation(*jnp.broadcast_arrays(index, factor))


def _permute_twice(later: Permutation, earlier: Permutation) -> Permutation:
    inner, outer = jnp.broadcast_arrays(earlier.index, later.index)
    return _permutation(jnp.take_along_axis(inner, outer, -1), _permute_columns(later, earlier.factor))


def _dense_after(later: Any, earlier: Any) -> Dense:
    dim = (later if isinstance(later, Dense) else earlier).entries.shape[-1]
    return Dense(later.dense(dim) @ earlier.dense(dim))


# (later, earlier) -> their product, for structures that are neither zero nor a scaled identity. One that composes with
# its like only adds its row from its own file.
PRODUCTS: dict[tuple[type, type], Callable[[Any, Any], Matrix]] = {
    (Diagonal, Diagonal): lambda later, earlier: Diagonal(later.entries * earlier.entries),
    (Diagonal, Block): lambda later, earlier: Block(to_halves(later.entries)[..., :, None, :] * earlier.entries),
    (Block, Diagonal): lambda later, earlier: Block(later.entries * to_halves(earlier.entries)[..., None, :, :]),
    # A sum over the two halves in the middle; a matrix product would put the short axes of length 2 last.
    (Block, Block): lambda later, earlier: Block(
        (later.entries[..., :, :, None, :] * earlier.entries[..., None, :, :, :]).sum(-3)
    ),
    (Diagonal, Permutation): lambda later, earlier: _permutation(earlier.index, later.entries * earlier.factor),
    (Permutation, Diagonal): lambda later, earlier: _permutation(later.index, _permute_columns(later, earlier.entries)),
    (Permutation, Permutation): _permute_twice,
    (Diagonal, Dense): lambda later, earlier: Dense(later.entries[..., :, None] * earlier.entries),
    (Dense, Diagonal): lambda later, earlier: Dense(later.entries * earlier.entries[..., None, :]),
    (Dense, Dense): lambda later, earlier: Dense(later.entries @ earlier.entries),
    (Dense, Block): _dense_after,
    (Block, Dense): _dense_after,
    (Dense, Permutation): _dense_after,
    (Permutation, Dense): _dense_after,
}


def compose(later: Matrix, earlier: Matrix) -> Matrix:
    """Return the matrix of `x -> later(earlier(x))`, in the simplest structure that holds it.

    Raises:
        TypeError: no structure holds the product: a block with a permutation.

    Cost: O(1), O(dim) or, where one is dense and neither diagonal, O(dim^3) each.
    """
    if isinstance(later, Zero) or isinstance(earlier, Zero):
        return Zero()
    if isinstance(later, ScaledIdentity):
        return earlier.scale(later.factor)
    if isinstance(earlier, ScaledIdentity):
        return later.scale(earlier.factor)
    product = PRODUCTS.get((type(later), type(earlier)))
    if product is None:
        raise TypeError(f"no composition is known for {type(later).__name__} after {type(earlier).__name__}")
    return product(later, earlier)
