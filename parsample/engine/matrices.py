"""The structures a transition matrix A[t] can have.

Every leaf may carry leading axes (usually `steps`); the laws hold along them by broadcasting:

    (A2 @ A1).apply(x) == A2.apply(A1.apply(x))          composition is associative
    identity_like(A) @ A == A @ identity_like(A) == A
    A.dense(dim) is the same linear map

A structure is a class here or in its own file, with the product of two of its kind registered below it.
"""

import abc
import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from parsample.engine.norms import spectral_norm_bound, two_by_two_norm

# What is projected as a whole is divided by 1 and so many times what its norm exceeds 1 by. With 1 its norm is 1 where
# it was above, and errors are handed on without loss; with 2 the longest chains need about half the iterations
# (`benchmarks/hmc_iterations.py`).
EXCESS = 2.0
# The structure at hand: scaling and the like stay in it.
Same = TypeVar("Same", bound="Matrix")


class Matrix(eqx.Module):
    """A square matrix of known structure, or a stack of them along leading axes. Dimensionless.

    A structure says what its entries are, and has `scale`, `clip`, `where` and `isfinite` by that.
    """

    # The fields that A is linear in, and the number of trailing axes that make one matrix; a matrix has its own.
    entry_axes: ClassVar[Mapping[str, int]] = {}
    # The fields whose last axis is as long as the vectors.
    as_long: ClassVar[tuple[str, ...]] = ()
    # The fields that all matrices of a system have in common.
    common: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def apply(self, vector: Float[Array, "*steps dim"]) -> Float[Array, "*steps dim"]:
        """Return A x."""

    @abc.abstractmethod
    def project(self) -> "Matrix":
        """Return a matrix of spectral norm at most 1, up to rounding: A itself where an upper bound of its norm is."""

    def shrink(self: Same, bound: Float[Array, "*steps"]) -> Same:
        """Return A / (1 + 2 max(0, bound - 1)), where `bound` is one of its spectral norm.

        The more A amplifies, the further below 1 its norm comes, towards 1/2: what one step has amplified wrongly, the
        steps after it forget.
        """
        return self.scale(1 / (1 + EXCESS * jnp.maximum(bound - 1, 0)))

    @abc.abstractmethod
    def dense(self, dim: int) -> Float[Array, "*steps dim dim"]:
        """Return the matrix written out."""

    @property
    def dim(self) -> int | None:
        """The size of the vectors, where the entries tell it."""
        return next((value.shape[-1] for name, (value, _) in self._entries().items() if name in self.as_long), None)

    def scale(self: Same, factor: Float[Array, "*steps"] | float) -> Same:
        """Return `factor` A, one factor for all matrices or one for each."""
        return self._map(lambda entries, axes: _beside(jnp.asarray(factor, entries.dtype), axes) * entries)

    def clip(self: Same, limit: float) -> Same:
        """Return A with its stored entries clipped to [-limit, limit]."""
        return self._map(lambda entries, _: jnp.clip(entries, -limit, limit))

    def where(self: Same, keep: Bool[Array, "*steps"] | bool) -> Same:
        """Return A where `keep` holds and 0 elsewhere."""
        return self._map(lambda entries, axes: jnp.where(_beside(jnp.asarray(keep), axes), entries, 0))

    def isfinite(self) -> Bool[Array, "*steps"] | bool:
        """Say for each matrix whether all its entries are finite."""
        found = [
            value.isfinite() if isinstance(value, Matrix) else jnp.isfinite(value).all(tuple(range(-axes, 0)))
            for value, axes in self._entries().values()
        ]
        return functools.reduce(operator.and_, found, True)

    def split(self: Same) -> tuple[Same, Same]:
        """Return what is each matrix's own, and what those of a system have in common, with None for the rest.

        `equinox.combine` puts them together again. What is common is taken from the first matrix of a stack, so that
        copies of it that were only broadcast are never made.
        """
        theirs = {name: getattr(self, name) for name in self.common}
        own = jax.tree.map(lambda leaf: None if any(leaf is field for field in theirs.values()) else leaf, self)
        first = jax.tree.map(lambda leaf: leaf[0] if any(leaf is field for field in theirs.values()) else None, self)
        return own, first

    def __matmul__(self, earlier: "Matrix") -> "Matrix":
        """Return the composition: first `earlier`, then this one."""
        return compose(self, earlier)

    def _entries(self) -> dict[str, tuple[Any, int]]:
        return {name: (getattr(self, name), axes) for name, axes in self.entry_axes.items()}

    def _map(self: Same, change: Callable[[Array, int], Array]) -> Same:
        """Return the matrix with `change(entries, axes)` in place of its entries."""
        changed = {
            name: value._map(change) if isinstance(value, Matrix) else change(value, axes)
            for name, (value, axes) in self._entries().items()
        }
        return dataclasses.replace(self, **changed)


def _beside(numbers: Array, axes: int) -> Array:
    """Return one number for each matrix, shaped to meet its entries."""
    return numbers.reshape(*numbers.shape, *[1] * axes)


# (later, earlier) -> their product, for structures that are neither zero nor a scaled identity.
PRODUCTS: dict[tuple[type, type], Callable[[Any, Any], Matrix]] = {}


def product(later: type, earlier: type) -> Callable[[Callable[[Any, Any], Matrix]], Callable[[Any, Any], Matrix]]:
    """Register how matrices of two structures are composed. A pair without a product is written out."""

    def register(compose_them: Callable[[Any, Any], Matrix]) -> Callable[[Any, Any], Matrix]:
        PRODUCTS[later, earlier] = compose_them
        return compose_them

    return register


def compose(later: Matrix, earlier: Matrix) -> Matrix:
    """Return the matrix of `x -> later(earlier(x))`: of their structure where both have the same, or else dense.

    A scale changes no structure, and what meets zero is zero.

    Raises:
        TypeError: no product is registered, and neither matrix knows the size of its vectors to be written out.

    Cost: O(1) or O(dim) each; O(dim^3) where one is dense, or two are written out.
    """
    if isinstance(later, Zero) or isinstance(earlier, Zero):
        return Zero()
    if isinstance(later, ScaledIdentity):
        return earlier.scale(later.factor)
    if isinstance(earlier, ScaledIdentity):
        return later.scale(earlier.factor)
    found = PRODUCTS.get((type(later), type(earlier)))
    if found is not None:
        return found(later, earlier)
    dim = earlier.dim if later.dim is None else later.dim
    if dim is None:
        raise TypeError(
            f"no product is registered for {type(later).__name__} after {type(earlier).__name__}, and neither knows "
            "the size of its vectors; register one with `product`, or write one of them out as Dense."
        )
    return Dense(later.dense(dim) @ earlier.dense(dim))


class Zero(Matrix):
    """A = 0."""

    def apply(self, vector: Float[Array, "*steps dim"]) -> Float[Array, "*steps dim"]:
        """Return zeros like `vector`."""
        return jnp.zeros_like(vector)

    def project(self) -> "Zero":
        """Return itself."""
        return self

    def dense(self, dim: int) -> Float[Array, "dim dim"]:
        """Return one matrix of zeros, whatever the leading axes."""
        return jnp.zeros((dim, dim))


class ScaledIdentity(Matrix):
    """A = a I, with `factor` a of shape (*steps,)."""

    entry_axes: ClassVar = {"factor": 0}

    factor: Float[Array, "*steps"]

    def apply(self, vector: Float[Array, "*steps dim"]) -> Float[Array, "*steps dim"]:
        """Return a x."""
        return self.factor[..., None] * vector

    def project(self) -> "ScaledIdentity":
        """Return a I with a clipped to [-1, 1], which is the nearest matrix of norm at most 1."""
        return self.clip(1.0)

    def dense(self, dim: int) -> Float[Array, "*steps dim dim"]:
        """Return the matrices written out."""
        return self.factor[..., None, None] * jnp.eye(dim, dtype=self.factor.dtype)

    def norm_bound(self) -> Float[Array, "*steps"]:
        """Return the spectral norm |a| of each matrix."""
        return jnp.abs(self.factor)


class Diagonal(Matrix):
    """A = diag(a), with `entries` a of shape (*steps, dim)."""

    entry_axes: ClassVar = {"entries": 1}
    as_long: ClassVar = ("entries",)

    entries: Float[Array, "*steps dim"]

    def apply(self, vector: Float[Array, "*steps dim"]) -> Float[Array, "*steps dim"]:
        """Return a * x."""
        return self.entries * vector

    def project(self) -> "Diagonal":
        """Return A with its diagonal clipped to [-1, 1], the nearest matrix of norm at most 1."""
        return self.clip(1.0)

    def dense(self, dim: int) -> Float[Array, "*steps dim dim"]:
        """Return the matrices written out."""
        return self.entries[..., None] * jnp.eye(dim, dtype=self.entries.dtype)


product(Diagonal, Diagonal)(lambda later, earlier: Diagonal(later.entries * earlier.entries))


class Dense(Matrix):
    """A written out, `entries` of shape (*steps, dim, dim)."""

    entry_axes: ClassVar = {"entries": 2}
    as_long: ClassVar = ("entries",)

    entries: Float[Array, "*steps dim dim"]

    def apply(self, vector: Float[Array, "*steps dim"]) -> Float[Array, "*steps dim"]:
        """Return A x. O(dim^2)."""
        return jnp.einsum("...ij,...j->...i", self.entries, vector)

    def project(self) -> "Dense":
        """Return A made smaller by a bound of its spectral norm that is within a few percent. O(dim^3).

        A matrix that is not finite stays as it is.
        """
        return self.shrink(spectral_norm_bound(self.where(self.isfinite()).entries))

    def dense(self, dim: int) -> Float[Array, "*steps dim dim"]:
        """Return the entries."""
        return self.entries


product(Dense, Dense)(lambda later, earlier: Dense(later.entries @ earlier.entries))


class Block(Matrix):
    """A made of 2 x 2 blocks of diagonals: it couples each coordinate of one half of the state with its partner.

    The halves are the first and the second half of the flat state, (position, momentum) where the state is such a pair.
    For an odd dim the first half is one longer, and its last coordinate has a partner that is always 0.

    `entries` has shape (*steps, 2, 2, half): y[i] = sum over j of entries[i, j] * x[j], with x[0] and x[1] the halves.
    """

    entry_axes: ClassVar = {"entries": 3}

    entries: Float[Array, "*steps 2 2 half"]

    def apply(self, vector: Float[Array, "*steps dim"]) -> Float[Array, "*steps dim"]:
        """Return A x. O(dim)."""
        return from_halves(jnp.sum(self.entries * to_halves(vector)[..., None, :, :], -2), vector.shape[-1])

    def project(self) -> "Block":
        """Return A with every 2 x 2 block divided by max(1, its spectral norm). O(dim)."""
        norm = two_by_two_norm(*(self.entries[..., i, j, :] for i in (0, 1) for j in (0, 1)))
        return Block(self.entries / jnp.maximum(norm, 1)[..., None, None, :])

    def dense(self, dim: int) -> Float[Array, "*steps dim dim"]:
        """Return the matrices written out."""
        # Column k is the image of the k-th unit vector.
        unit = jnp.broadcast_to(jnp.eye(dim, dtype=self.entries.dtype), (*self.entries.shape[:-3], dim, dim))
        columns = Block(self.entries[..., None, :, :, :]).apply(unit)
        return jnp.swapaxes(columns, -1, -2)


def to_halves(vector: Float[Array, "*steps dim"]) -> Float[Array, "*steps 2 half"]:
    """Return the two halves of vectors, one above the other; an odd dim is filled up with a 0."""
    dim = vector.shape[-1]
    padding = [(0, 0)] * (vector.ndim - 1) + [(0, dim % 2)]
    return jnp.pad(vector, padding).reshape(*vector.shape[:-1], 2, -(-dim // 2))


def from_halves(halves: Float[Array, "*steps 2 half"], dim: int) -> Float[Array, "*steps dim"]:
    """Return the vectors of `dim` numbers that `to_halves` made halves of."""
    return halves.reshape(*halves.shape[:-2], 2 * halves.shape[-1])[..., :dim]


# A sum over the two halves in the middle; a matrix product would put the short axes of length 2 last.
product(Block, Block)(
    lambda later, earlier: Block((later.entries[..., :, :, None, :] * earlier.entries[..., None, :, :, :]).sum(-3))
)


class Permutation(Matrix):
    """A scaled permutation: (A x)[i] = factor[i] * x[index[i]]. Both of shape (*steps, dim).

    Signs, scales and zeros go into `factor`; compositions stay in this form, in O(dim).
    """

    entry_axes: ClassVar = {"factor": 1}
    as_long: ClassVar = ("factor",)

    index: Int[Array, "*steps dim"]
    factor: Float[Array, "*steps dim"]

    def apply(self, vector: Float[Array, "*steps dim"]) -> Float[Array, "*steps dim"]:
        """Return A x. O(dim)."""
        shape = jnp.broadcast_shapes(self.index.shape, vector.shape)
        index = jnp.broadcast_to(self.index, shape)
        return self.factor * jnp.take_along_axis(jnp.broadcast_to(vector, shape), index, -1)

    def project(self) -> "Permutation":
        """Return A with its factors clipped to [-1, 1], the nearest matrix of norm at most 1."""
        return self.clip(1.0)

    def dense(self, dim: int) -> Float[Array, "*steps dim dim"]:
        """Return the matrices written out."""
        return self.factor[..., None] * (self.index[..., None] == jnp.arange(dim))


@product(Permutation, Permutation)
def _permute_twice(later: Permutation, earlier: Permutation) -> Permutation:
    index, factor, outer = jnp.broadcast_arrays(earlier.index, earlier.factor, later.index)
    index, factor = (jnp.take_along_axis(leaf, outer, -1) for leaf in (index, factor))
    return Permutation(index, later.factor * factor)
