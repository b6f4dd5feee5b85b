"""The stretch of steps being solved, and how it moves."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree


class Window(NamedTuple):
    """A window of fixed length that starts at the first step that has not converged.

    Attributes:
        first_step: the number of steps accepted so far, which is the row of the window's first state.
        boundary: the accepted state before the window, shape (dim,).
        guesses: shape (window, dim), the current guess of every state in the window.
    """

    first_step: Int[Array, ""]
    boundary: Float[Array, " dim"]
    guesses: Float[Array, "window dim"]

    def inside(self, steps: int) -> Bool[Array, " window"]:
        """Say which rows lie before the end of the chain; the others are padding."""
        return self.first_step + jnp.arange(self.guesses.shape[0]) < steps


def count_leading(accept: Bool[Array, " window"]) -> Int[Array, ""]:
    """Count the rows before the first one that is not accepted."""
    return jnp.cumprod(accept.astype(jnp.int32)).sum(dtype=jnp.int32)


def count_nearly_leading(
    accept: Bool[Array, " window"], passable: Bool[Array, " window"], share: float
) -> Int[Array, ""]:
    """Count the rows of the longest stretch from the first in which at most this share is not accepted.

    The stretch does not go beyond the first row that is not passable.
    """
    length = jnp.arange(1, accept.shape[0] + 1)
    few = jnp.cumsum(~accept) <= share * length
    return jnp.max(jnp.where(few & (length <= count_leading(passable)), length, 0)).astype(jnp.int32)


def move(
    window: Window,
    accepted: Float[Array, "window dim"],
    updated: Float[Array, "window dim"],
    incoming: Float[Array, "window dim"] | None,
    advance: Int[Array, ""],
) -> Window:
    """Move a window by `advance` steps, at least 1.

    Args:
        window: as it was.
        accepted: its states; the first `advance` of them are final.
        updated: the new guesses for the rows that stay.
        incoming: guesses for the steps beyond the window, or None: they start from the window's last state.
        advance: how many steps were accepted.
    """
    length = window.guesses.shape[0]
    if incoming is None:
        incoming = jnp.broadcast_to(updated[-1], updated.shape)
    guesses = jax.lax.dynamic_slice_in_dim(jnp.concatenate([updated, incoming]), advance, length)
    boundary = jax.lax.dynamic_index_in_dim(accepted, advance - 1, keepdims=False)
    return Window(window.first_step + advance, boundary, guesses)


def slide(rows: PyTree, entering: PyTree, advance: Int[Array, ""]) -> PyTree:
    """Move what is kept for every row of a window by `advance` steps; the rows that enter are those of `entering`."""

    def one(old: Array, new: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(jnp.concatenate([old, new]), advance, old.shape[0])

    return jax.tree.map(one, rows, entering)
