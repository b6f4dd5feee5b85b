"""Arrays of JAX for which nothing is compiled."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array


def to_jax(numbers: Any, dtype: Any) -> Array:
    """Return an array of JAX, rounded on the host: for `jnp.asarray`, `jnp.zeros` and their like JAX compiles programs.

    Args:
        numbers: that are known, in a NumPy array or what becomes one.
        dtype: of the array.
    """
    return jax.device_put(np.asarray(numbers, dtype))
