"""A vector at length 1, whatever its length is."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def unit(vector: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, ""]]:
    """Return a vector at length 1, and its length. At 0 there is no direction: 0, with derivatives that are finite.

    It is measured in units of its largest entry, so that no square leaves the range of the numbers: in float32 that of
    a length of 2e19 is infinite, and dividing by it would leave 0, a number like any other. What is not finite stays
    not finite.
    """
    # Any scale gives the same, so the derivative need not know which it was.
    scale = jax.lax.stop_gradient(jnp.abs(vector).max())
    # What is below the normal numbers is flushed to 0 on the way.
    is_zero = scale < jnp.finfo(vector.dtype).tiny
    # By its root twice: the inverse of the largest numbers is below the normal ones.
    root = jnp.sqrt(jnp.where(is_zero, 1, scale))
    inverse = 1 / root
    scaled = vector * inverse * inverse
    length = jnp.sqrt(jnp.where(is_zero, 1, jnp.sum(scaled**2)))
    return scaled / length, jnp.where(is_zero, 0, length * root * root)
