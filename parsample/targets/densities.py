"""The normal density, without the import of all of `jax.scipy.stats`, which takes longer than all targets together."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float


def normal_logpdf(x: Array, mean: Array | float = 0.0, scale: Array | float = 1.0) -> Float[Array, "..."]:
    """Return the logarithm of the normal density, with the shape that the arguments broadcast to."""
    white = (x - mean) / scale
    return -0.5 * white * white - jnp.log(scale) - 0.5 * math.log(2 * math.pi)
