"""A particle of constant speed that the gradient of the log density steers: one step of McLachlan's integrator."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from parsample.engine.unit import unit

# Kicks of B, 1 - 2 B and B of a step, with half a drift before and after the middle.
B = 0.1931833275037836


class Isokinetic(NamedTuple):
    """A flat position, the direction of the velocity, of length 1, and log density and gradient at the position."""

    vector: Float[Array, " dim"]
    direction: Float[Array, " dim"]
    logdensity: Float[Array, ""]
    gradient: Float[Array, " dim"]


def advance(
    value_and_gradient: Callable[[Array], tuple[Array, Array]], before: Isokinetic, step_size: Float[Array, ""]
) -> tuple[Isokinetic, Float[Array, ""]]:
    """Make one step of McLachlan's integrator: two gradients.

    Returns:
        Where it ends, and the change of the energy over the step, the error of the integrator: 0 in the limit of small
        steps.
    """
    direction, kinetic = kick(before.direction, before.gradient, B * step_size)
    vector = before.vector + step_size / 2 * direction
    direction, more = kick(direction, value_and_gradient(vector)[1], (1 - 2 * B) * step_size)
    vector = vector + step_size / 2 * direction
    value, gradient = value_and_gradient(vector)
    direction, last = kick(direction, gradient, B * step_size)
    return Isokinetic(vector, direction, value, gradient), kinetic + more + last - (value - before.logdensity)


def kick(direction: Float[Array, " dim"], gradient: Float[Array, " dim"], time: Array) -> tuple[Array, Array]:
    """Turn a direction by a constant gradient for a time, exactly.

    Returns:
        The direction after it, and the change of the kinetic energy, which makes up for that of the log density.
    """
    toward, norm = unit(gradient)
    delta = time * norm / (direction.size - 1)
    # In exp(-delta), which cannot overflow where the gradient is large, and in the square of what is missing to the
    # opposite direction, 1 + cos, in which nothing cancels.
    zeta, missing = jnp.exp(-delta), jnp.sum((direction + toward) ** 2) / 2
    turned, length = unit(toward * (1 - zeta) * (missing * (1 - zeta) + 2 * zeta) + 2 * zeta * direction)
    size = (missing * (1 - zeta**2) + 2 * zeta**2) / 2
    # Straight against a force that all else is nothing to, no side is the one to turn to.
    growth = jnp.where(size == 0, -delta, delta + jnp.log(jnp.where(size == 0, 1, size)))
    return jnp.where(length == 0, direction, turned), (direction.size - 1) * growth


def check_dim(dim: int, name: str, other: str) -> None:
    """Raise ValueError unless there are at least two dimensions to turn between."""
    if dim < 2:
        raise ValueError(
            f"the position holds {dim} number, but {name} needs at least 2, between which it can turn; {other} is the "
            "like for one."
        )
