"""Arrays of JAX for which nothing is compiled, or one program for all their values."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def to_jax(numbers: Any, dtype: Any) -> Array:
    """Return an array of JAX, rounded on the host: for `jnp.asarray`, `jnp.zeros` and their like JAX compiles programs.

    Args:
        numbers: that are known, in a NumPy array or what becomes one.
        dtype: of the array.
    """
    return jax.device_put(np.asarray(numbers, dtype))


def with_arrays(module: Any, kind: type) -> Any:
    """Return a module whose floats are arrays, so that one program serves for all their values.

    Args:
        module: whose fields are static where it branches on them.
        kind: of module, into which this goes; what else it holds, such as a user's function, stays as it is.
    """
    of = lambda leaf: jnp.asarray(leaf) if isinstance(leaf, float) else leaf  # noqa: E731
    return jax.tree.map(of, module, is_leaf=lambda node: not isinstance(node, kind))
