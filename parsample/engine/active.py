"""Evaluate again only the steps whose input has moved: the active set.

A step whose previous state is, to the bit, the one it was last evaluated at keeps its value and its matrix. The driver
helps by leaving a state where it is as long as its correction is small against the tolerance. An active step may wait:
where a step shortly before it has moved much further, it will move again, and until then its linear model serves. Only
steps that were evaluated at exactly their previous state are accepted, so the verdict knows nothing of all this.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from parsample.engine.iteration import Around, Linearised, Steps, shift
from parsample.engine.matrices import Matrix
from parsample.engine.transition import FlatTransition

# A state stays where it is while its correction is below this share of its tolerance, and so is what the correction
# does to the next state. Two such shares make the residual of a step: up to a half, it stays within tolerance.
SHARE = 0.5
# Where steps are accepted only together, of a tenth of the tolerance: corrections then add up over the whole window.
TOGETHER = 0.1
# A step waits while one of the SHADOW steps before it has moved 1 / MUCH times as far since its last evaluation. More
# of either saves evaluations and spends iterations.
MUCH = 0.1
SHADOW = 48

Linearise = Callable[[FlatTransition, Steps], Linearised]


class Evaluated(NamedTuple):
    """The last evaluation of every step of a window.

    Attributes:
        at: the state before each step where it was evaluated; NaN where it never was.
        values: of the transition there.
        matrices: chosen there.
        details: of the steps there.
    """

    at: Float[Array, "window dim"]
    values: Float[Array, "window dim"]
    matrices: Matrix
    details: PyTree


def never(linearise: Linearise, transition: FlatTransition, around: Around) -> Evaluated:
    """Return the memory before the first evaluation."""
    shapes = jax.eval_shape(lambda: linearise(transition, around.steps()))
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return Evaluated(jnp.full_like(around.guesses, jnp.nan), *empty)


def linearise_active(
    linearise: Linearise, transition: FlatTransition, around: Around, last: Evaluated, capacity: int
) -> tuple[Evaluated, Bool[Array, " window"], Int[Array, ""]]:
    """Linearise the active steps that do not wait, `capacity` at a time.

    Returns:
        The last evaluation of every step; which steps wait, so that it is not at the present guesses; and the number of
        calls of the transition: a multiple of `capacity`.
    """
    rows = around.guesses.shape[0]
    steps = around.steps()
    now = is_active(around, last) & ~waits(around, last)
    # Rows to evaluate first, in their order; padding repeats the last row, so that every batch is full.
    order = jnp.argsort(~now, stable=True)
    order = jnp.concatenate([order, jnp.broadcast_to(order[-1:], (-rows % capacity,))])
    batches = -(-jnp.sum(now, dtype=jnp.int32) // capacity)

    def batch(number: Array, last: Evaluated) -> Evaluated:
        chosen = jax.lax.dynamic_slice_in_dim(order, number * capacity, capacity)
        take = lambda leaf: leaf[chosen]  # noqa: E731
        some = Steps(
            take(steps.previous),
            jax.tree.map(take, steps.inputs),
            jax.tree.map(take, steps.prepared),
            jax.random.fold_in(steps.rng_key, number),
            steps.common,
        )
        found = Evaluated(some.previous, *jax.lax.stop_gradient(linearise(transition, some)))
        return jax.tree.map(lambda all_rows, new: all_rows.at[chosen].set(new), last, found)

    last = jax.lax.fori_loop(0, batches, batch, last)
    return last, is_active(around, last), batches * capacity


def is_active(around: Around, last: Evaluated) -> Bool[Array, " window"]:
    """Say which steps have moved since they were evaluated; those that are accepted never have."""
    return around.open & jnp.any(last.at != around.previous(), 1)


def waits(around: Around, last: Evaluated) -> Bool[Array, " window"]:
    """Say which steps wait, because one shortly before them has moved so much more that they will move again.

    The first open row never does, so that every iteration gains a step.
    """
    moved = (jnp.abs(around.previous() - last.at) / shift(around.tolerance[0], around.tolerance)).max(1)
    # A step that was never evaluated does not wait, nor do others wait for it.
    known = jnp.isfinite(moved)
    before = jnp.concatenate([jnp.zeros(1, moved.dtype), jnp.where(known & around.open, moved, 0)[:-1]])
    most = jax.lax.reduce_window(before, -jnp.inf, jax.lax.max, (SHADOW,), (1,), ((SHADOW - 1, 0),))
    return known & (moved < MUCH * most)


def stay(
    around: Around, values: Float[Array, "window dim"], correction: Float[Array, "window dim"]
) -> Bool[Array, " window"]:
    """Say which states stay where they are, because it makes little difference to them and to the next ones."""
    # What the correction of the state before adds to a state: A correction[t-1] = correction[t] - (f - x)[t].
    pushed = correction - (values - around.guesses)
    limit = SHARE * (around.accept_early or TOGETHER) * around.tolerance
    small = (jnp.abs(correction) <= limit).all(1)
    small_after = (jnp.abs(pushed) <= limit).all(1)
    return small & jnp.concatenate([small_after[1:], small_after[-1:]])
