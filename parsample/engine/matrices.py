"""The structures a transition matrix A[t] can have.

Every leaf may carry leading axes (usually `steps`); the laws hold along them by broadcasting:

    (A2 @ A1).apply(x) == A2.apply(A1.apply(x))          composition is associative
    identity_like(A) @ A == A @ identity_like(A) == A
    A.dense(dim) is the same linear map
"""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


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


def compose(later: Matrix, earlier: Matrix) -> Matrix:
    """Return the matrix of `x -> later(earlier(x))`, in the simplest structure that holds it.

    Cost: O(1), O(dim) or, between dense matrices, O(dim^3) each.
    """
    match later, earlier:
        case (Zero(), _) | (_, Zero()):
            return Zero()
        case ScaledIdentity(), _:
            return earlier.scale(later.factor)
        case _, ScaledIdentity():
            return later.scale(earlier.factor)
        case Diagonal(), Diagonal():
            return Diagonal(later.entries * earlier.entries)
        case Diagonal(), Dense():
            return Dense(later.entries[..., :, None] * earlier.entries)
        case Dense(), Diagonal():
            return Dense(later.entries * earlier.entries[..., None, :])
        case Dense(), Dense():
            return Dense(later.entries @ earlier.entries)
    raise TypeError(f"no composition is known for {type(later).__name__} after {type(earlier).__name__}")
