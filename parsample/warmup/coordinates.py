"""The coordinates in which chains run: flat vectors, standardised by what warm-up learnt of the posterior.

A sampler with inverse mass matrix L L^T on a position x does the same as one with the identity on z, where
x = center + L z. In z the posterior has unit scale, so a tolerance means a fraction of a standard deviation, and the
Jacobian of a step is nearly diagonal, so quasi-Newton needs few iterations.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from parsample.engine.arrays import to_jax
from parsample.engine.fixed import fixed_first, once
from parsample.samplers.base import Sampler
from parsample.samplers.chains import begin, start_keys
from parsample.samplers.gibbs import Conditional, as_conditionals, draw_all, sweep
from parsample.targets.base import Target, position_shapes
from parsample.warmup.low_rank import LowRank

# A dense root costs dim^2 numbers and products. That draws are too few for one shows in what it is worth on others.
LARGEST_DENSE = 256
# Size of the root, and products of numbers for all chains, up to which the loop on a CPU is faster without the call of
# a matrix product (benchmarks/results/loop_products.md).
SMALL_DENSE, FEW_PRODUCTS = 24, 2500


class Standardised(eqx.Module):
    """A target's log density in coordinates z, where the flat position is center + root z.

    Attributes:
        target: the target.
        center: shape (dim,), in the units of the position.
        root: shape (dim, dim), lower triangular, or (dim,) for a diagonal, or a `LowRank`.
        unravel: flat position -> position.
        surrogate: a log density that resembles this one in z; None where nothing is known of its scale.
        near: the target's log density as a function of z, rounded less; None where the target has no such.
        by_sums: multiply by a dense root by sums that are compiled into what is around them, in place of a call.
    """

    target: Target
    center: Float[Array, " dim"]
    root: Float[Array, "dim dim"] | Float[Array, " dim"] | LowRank
    unravel: Callable = eqx.field(static=True)
    surrogate: Callable | None = None
    near: Callable | None = None
    by_sums: bool = eqx.field(static=True, default=False)

    def __call__(self, z: Float[Array, " dim"]) -> Float[Array, ""]:
        """Return the target's log density (its own, without the determinant of the root)."""
        return self.target.logdensity(self.position(z)) if self.near is None else self.near(z)

    def vector(self, z: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Return the flat position at z."""
        if isinstance(self.root, LowRank):
            return self.center + self.root.times(z)
        if self.root.ndim == 1:
            return self.center + self.root * z
        return self.center + (jnp.sum(self.root * z, -1) if self.by_sums else self.root @ z)

    def for_loop(self, num_chains: int) -> "Standardised":
        """Return the same density in the form that is fastest where so many chains make one step at a time.

        On a CPU the call of a matrix product costs 2 to 5 microseconds, a small one itself far less.
        """
        if isinstance(self.root, LowRank) or self.root.ndim == 1 or jax.default_backend() != "cpu":
            return self
        by_sums = len(self.root) <= SMALL_DENSE and num_chains * self.root.size <= FEW_PRODUCTS
        return dataclasses.replace(self, by_sums=by_sums)

    def position(self, z: Float[Array, " dim"]) -> PyTree:
        """Return the position at z."""
        return self.unravel(self.vector(z))

    def inverse(self, vector: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Return the z of a flat position."""
        centred = vector - self.center
        if isinstance(self.root, LowRank):
            return self.root.solve(centred)
        if self.root.ndim == 1:
            return centred / self.root
        return jax.scipy.linalg.solve_triangular(self.root, centred, lower=True)

    def vectors(self, z: Float[np.ndarray, "*rows dim"]) -> Float[np.ndarray, "*rows dim"]:
        """Return the flat positions at rows of z, on the host, worked out in double precision."""
        if isinstance(self.root, LowRank):
            moved = self.root.times_rows(z)
        else:
            root = np.asarray(self.root, float)
            moved = z * root if root.ndim == 1 else z @ root.T
        return (np.asarray(self.center, float) + moved).astype(z.dtype)

    def at_positions(self, gradients: Float[np.ndarray, "*rows dim"]) -> Float[np.ndarray, "*rows dim"]:
        """Return gradients of the log density at flat positions, from those at z, which are root^T times them.

        On the host, in double precision. Cost: O(dim^2) a row, or O(dim rank).
        """
        if isinstance(self.root, LowRank):
            return self.root.solve_transposed(gradients)
        root, rows = np.asarray(self.root, float), np.asarray(gradients, float)
        if root.ndim == 1:
            return rows / root
        # One factorisation for all rows. SciPy's threads would be in the way of JAX's, and of NumPy's.
        return np.linalg.solve(root.T, rows.reshape(-1, len(root)).T).T.reshape(rows.shape)

    @property
    def hessian_diagonal(self) -> Callable[[Array], Array] | None:
        """The diagonal of the Hessian in z as a function of z, or None if the target does not know it."""
        known = getattr(self.target, "hessian_diagonal", None)
        if known is None:
            return None
        basis = self.basis
        return lambda z: known(self.position(z), basis)

    @property
    def basis(self) -> Float[Array, "dim dim"]:
        """The root as a matrix."""
        if isinstance(self.root, LowRank):
            return self.root.dense()
        return self.root if self.root.ndim == 2 else jnp.diag(self.root)

    @property
    def conditional_updates(self) -> tuple[tuple, ...] | None:
        """The target's conditional updates, all of them in one update of z, or None if it has none."""
        known = getattr(self.target, "conditional_updates", None)
        if known is None:
            return None
        whole = _Sweep(self, as_conditionals(known))
        return ((None, whole.update, whole.draw),)

    @property
    def num_data(self) -> int | None:
        """How many data the target can be estimated from, or None if it has no minibatches."""
        return getattr(self.target, "num_data", None)

    @property
    def minibatch(self) -> Callable[[Array, Array], Array] | None:
        """The target's estimate from a minibatch as a function of z and indices, or None if it has none."""
        known = getattr(self.target, "minibatch", None)
        return None if known is None else lambda z, indices: known(self.position(z), indices)


class _Sweep(eqx.Module):
    """All conditional updates of a target, as one update of z."""

    density: Standardised
    updates: tuple[Conditional, ...]

    def draw(self, rng_key: Key[Array, ""], num_steps: int, dtype: Any) -> tuple:
        return draw_all(self.updates, rng_key, num_steps, dtype)

    def update(self, z: Float[Array, " dim"], inputs: tuple) -> Float[Array, " dim"]:
        position = sweep(self.updates, self.density.position(z), inputs)
        return self.density.inverse(ravel_pytree(position)[0])


class StandardNormal(eqx.Module):
    """The log density of independent standard normal variables, which standardised coordinates are meant to be."""

    def __call__(self, z: Float[Array, " dim"]) -> Float[Array, ""]:
        """Return the log density at z, up to a constant."""
        return -0.5 * jnp.sum(z**2)

    def hessian_diagonal(self, z: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Return the diagonal of its Hessian, -1 everywhere."""
        return jnp.full_like(z, -1)


def plain(target: Target) -> Standardised:
    """Return the target's own coordinates: center 0 and root 1."""
    vector, unravel = _ravelled(target)
    # On the host: operation by operation, JAX would compile half a dozen programs.
    parts = np.zeros(vector.size), (np.eye if vector.size <= LARGEST_DENSE else np.ones)(vector.size)
    center, root = (to_jax(part, vector.dtype) for part in parts)
    return Standardised(target, center, root, unravel)


@once
def _ravelled(target: Target) -> tuple[jax.ShapeDtypeStruct, Callable]:
    """Return the shape of a flat position, and the function back from one."""
    unravel: Any = None

    def flat(position: PyTree) -> Array:
        nonlocal unravel
        vector, unravel = ravel_pytree(position)
        return vector

    return jax.eval_shape(flat, position_shapes(target)), unravel


def rounded_less(density: Standardised) -> Standardised:
    """Return the same density by the form that its target rounds less around the center, if it has one.

    A position is rounded where it is far from 0 beside its posterior standard deviation; z is not.
    """
    around = getattr(density.target, "around", None)
    if around is None:
        return density
    return dataclasses.replace(density, near=around(density.unravel(density.center), density.basis))


@fixed_first
def begin_chains(sampler: Sampler, vectors: Float[Array, "chain dim"], rng_keys: Array, step: Array) -> PyTree:
    """Return the unknowns of chains at flat positions; what else than the position is unknown is drawn.

    Args:
        sampler: on a `Standardised` density.
        vectors: flat positions in the target's own coordinates.
        rng_keys: one a chain.
        step: at which they begin, or begin again.
    """
    density: Any = sampler.logdensity_fn
    return begin(sampler, jax.vmap(density.inverse)(vectors), start_keys(rng_keys, step))
