"""The normal density, without the import of all of `jax.scipy.stats`, which takes longer than all targets together."""

import math

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float


def normal_logpdf(x: ArrayLike, mean: ArrayLike = 0.0, scale: ArrayLike = 1.0) -> Float[Array, "..."]:
    """Return the logarithm of the normal density, with the shape that the arguments broadcast to."""
    white = (x - mean) / scale
    return -0.5 * white * white - jnp.log(scale) - 0.5 * math.log(2 * math.pi)
