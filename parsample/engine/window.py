"""Bookkeeping of windows: rows that are cut out, put back, moved along, and counted."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree


def each(function: Callable) -> Callable:
    """Return what applies a function to every chain: `vmap`, under which both sides of a branch are paid for.

    Not so for one chain alone.
    """

    def apply(*batch: PyTree) -> PyTree:
        if jax.tree.leaves(batch)[0].shape[0] > 1:
            return jax.vmap(function)(*batch)
        return jax.tree.map(lambda leaf: leaf[None], function(*jax.tree.map(lambda leaf: leaf[0], batch)))

    return apply


def cut(tree: PyTree, start: Int[Array, ""], length: int, axis: int = 0) -> PyTree:
    """Cut `length` rows out of every leaf; `start` counts from the front."""
    slice_in = jax.lax.dynamic_slice_in_dim
    return jax.tree.map(lambda leaf: slice_in(leaf, start, length, axis, allow_negative_indices=False), tree)


def put(rows: Array, some: Array, start: Int[Array, ""], axis: int = 0) -> Array:
    """Put some rows in the place of others; `start` counts from the front."""
    return jax.lax.dynamic_update_slice_in_dim(rows, some, start, axis, allow_negative_indices=False)


def slide(rows: PyTree, entering: PyTree, advance: Int[Array, ""]) -> PyTree:
    """Move what is kept for every row of a window by `advance` steps; the rows that enter are those of `entering`."""
    return jax.tree.map(lambda old, new: cut(jnp.concatenate([old, new]), advance, old.shape[0]), rows, entering)


def count_leading(accept: Bool[Array, " window"]) -> Int[Array, ""]:
    """Count the rows before the first one that is not accepted."""
    return jnp.cumprod(accept.astype(jnp.int32)).sum(dtype=jnp.int32)


def count_nearly_leading(
    accept: Bool[Array, " window"], passable: Bool[Array, " window"], counted: Bool[Array, " window"], share: float
) -> Int[Array, ""]:
    """Count the rows of the longest stretch from the first in which at most this share is not accepted.

    The stretch does not go beyond the first row that is not passable. Rows that are not counted are accepted.
    """
    length = jnp.arange(1, accept.shape[0] + 1)
    few = jnp.cumsum(~accept & counted) <= share * jnp.cumsum(counted)
    return jnp.max(jnp.where(few & (length <= count_leading(passable | ~counted)), length, 0)).astype(jnp.int32)
