"""Accept or reject, and what the derivative makes of it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from parsample.engine.names import unknown
from parsample.engine.transition import GATES


def choose(
    gate: str, is_accepted: Bool[Array, ""], log_odds: Float[Array, ""], proposal: PyTree, current: PyTree
) -> PyTree:
    """Return `proposal` where it is accepted and `current` where it is not.

    Args:
        gate: "frozen": the derivative is that of the one that was chosen. "straight_through": the derivative is that
            of `current + sigmoid(log_odds) (proposal - current)`, with the decision in place of the sigmoid's value.
        is_accepted: the decision.
        log_odds: log ratio minus log uniform: above 0 exactly where the proposal is accepted.
        proposal: a pytree.
        current: a pytree like it.

    Raises:
        ValueError: `gate` is not one of `GATES`.

    Source: the straight-through gate is that of Zoltowski et al. 2025, section 4.
    """
    if gate not in GATES:
        raise unknown("gate", gate, GATES)
    select = _select if gate == "frozen" else _select_straight_through
    return jax.tree.map(lambda new, old: select(is_accepted, log_odds, new, old), proposal, current)


def _select(is_accepted: Array, log_odds: Array, new: Array, old: Array) -> Array:
    return jnp.where(is_accepted, new, old)


@jax.custom_jvp
def _select_straight_through(is_accepted: Array, log_odds: Array, new: Array, old: Array) -> Array:
    return jnp.where(is_accepted, new, old)


@_select_straight_through.defjvp
def _straight_through_jvp(primals, tangents):
    is_accepted, log_odds, new, old = primals
    _, d_odds, d_new, d_old = tangents
    soft = jax.nn.sigmoid(log_odds)
    # A proposal without a chance may be anything, infinite or not a number at all.
    jump = jnp.where(jnp.isfinite(log_odds), new - old, 0)
    tangent = jnp.where(is_accepted, d_new, d_old) + soft * (1 - soft) * d_odds * jump
    return jnp.where(is_accepted, new, old), tangent
