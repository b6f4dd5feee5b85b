"""The random keys of a run: all that is drawn follows from its seed."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key


class Keys(NamedTuple):
    """Keys by what they are for, one a chain."""

    start: Key[Array, " chain"]
    warmup: Key[Array, " chain"]
    chain: Key[Array, " chain"]
    tuning: Key[Array, " chain"]


def run_keys(seed: int, num_chains: int) -> Keys:
    """Return the keys of a run. Those of a chain are the same whatever the number of chains."""
    return Keys(*_keys(np.uint32(seed), np.arange(num_chains * len(Keys._fields), dtype=np.uint32)))


# One program: operation by operation, JAX compiles half a dozen. Random numbers are what takes long to compile in it.
@jax.jit
def _keys(seed: Array, numbers: Array) -> list[Array]:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), numbers)
    return [keys[row :: len(Keys._fields)] for row in range(len(Keys._fields))]
