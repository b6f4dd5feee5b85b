"""Evaluate again only the steps whose input has moved: the active set.

A step whose previous state is, to the bit, the one it was last evaluated at keeps its value and its matrix. The driver
helps by leaving a state where it is as long as its correction is small against the tolerance.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from parsample.engine.iteration import Around, Steps
from parsample.engine.matrices import Matrix
from parsample.engine.transition import FlatTransition

# A state stays where it is while its correction is below this share of its tolerance. A larger share saves evaluations
# and spends iterations: what is neglected here comes back in the corrections of later steps.
SHARE = 0.1

Linearise = Callable[[FlatTransition, Steps], tuple[Array, Matrix]]


class Evaluated(NamedTuple):
    """The last evaluation of every step of a window.

    Attributes:
        at: the state before each step where it was evaluated; NaN where it never was.
        values: of the transition there.
        matrices: chosen there.
    """

    at: Float[Array, "window dim"]
    values: Float[Array, "window dim"]
    matrices: Matrix


def never(linearise: Linearise, transition: FlatTransition, around: Around) -> Evaluated:
    """Return the memory before the first evaluation."""
    values, matrices = jax.eval_shape(lambda: linearise(transition, around.steps()))
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (values, matrices))
    return Evaluated(jnp.full_like(around.guesses, jnp.nan), *empty)


def linearise_active(
    linearise: Linearise, transition: FlatTransition, around: Around, last: Evaluated, capacity: int
) -> tuple[Evaluated, Int[Array, ""]]:
    """Linearise the active steps, `capacity` at a time.

    Returns:
        The last evaluation of every step, now at the present guesses, and the number of calls of the transition: a
        multiple of `capacity`.
    """
    rows = around.guesses.shape[0]
    steps = around.steps()
    active = is_active(around, last)
    # Active rows first, in their order; padding repeats the last row, so that every batch is full.
    order = jnp.argsort(~active, stable=True)
    order = jnp.concatenate([order, jnp.broadcast_to(order[-1:], (-rows % capacity,))])
    batches = -(-jnp.sum(active, dtype=jnp.int32) // capacity)

    def batch(number: Array, last: Evaluated) -> Evaluated:
        chosen = jax.lax.dynamic_slice_in_dim(order, number * capacity, capacity)
        take = lambda leaf: leaf[chosen]  # noqa: E731
        some = Steps(
            take(steps.previous),
            jax.tree.map(take, steps.inputs),
            jax.tree.map(take, steps.prepared),
            jax.random.fold_in(steps.rng_key, number),
        )
        found = Evaluated(some.previous, *jax.lax.stop_gradient(linearise(transition, some)))
        return jax.tree.map(lambda all_rows, new: all_rows.at[chosen].set(new), last, found)

    return jax.lax.fori_loop(0, batches, batch, last), batches * capacity


def is_active(around: Around, last: Evaluated) -> Bool[Array, " window"]:
    """Say which steps have moved since they were evaluated; padding beyond the chain never has."""
    return around.inside & jnp.any(last.at != around.previous(), 1)


def stay(around: Around, correction: Float[Array, "window dim"]) -> Bool[Array, " window"]:
    """Say which states stay where they are, because their correction is small against their tolerance."""
    return (jnp.abs(correction) <= SHARE * around.tolerance).all(1)
