"""How far effects are centred, and what that makes of a position.

Of x with location m and scale s, the number in a position is z = c m + s^(c - 1) (x - m): x itself where c is 1, which
is called centred, and (x - m) / s where c is 0. A target whose effects can be written so has their c in `centred`,
name -> array, and location and scale at a position by its `effects(position)`, name -> the two, of the effect's shape.

Source: Papaspiliopoulos, Roberts & Sköld 2007 ("A general framework for the parametrization of hierarchical models").
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from parsample.targets.base import Position


def recentred(
    position: Position, effects: Mapping[str, tuple[Array, Array]], now: Mapping[str, Array], new: Mapping[str, Array]
) -> tuple[Position, Float[Array, ""]]:
    """Return a position as it is where effects are centred otherwise, and the logarithm of the volume's growth.

    Args:
        position: with effects that are centred as `now` says.
        effects: name -> location and scale there.
        now: name -> how far it is centred, of its shape.
        new: the same, as it shall be.
    """
    found, volume = dict(position), jnp.zeros((), jnp.result_type(*position.values()))
    for name, (location, scale) in effects.items():
        further = new[name] - now[name]
        grown = further * jnp.log(scale)
        factor = jnp.exp(grown)
        found[name] = factor * position[name] + (new[name] - now[name] * factor) * location
        volume += jnp.sum(grown)
    return found, volume
