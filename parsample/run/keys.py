"""The random keys of a run: all that is drawn follows from its seed."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
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
    return Keys(*_keys(np.uint32(seed), np.arange(num_chains, dtype=np.int32)))


# One program: operation by operation, JAX compiles half a dozen. Flat, for which it compiles fastest.
@jax.jit
def _keys(seed: Array, chains: Array) -> list[Array]:
    number, purposes = len(chains), jax.random.split(jax.random.key(seed), len(Keys._fields))
    keys = jax.vmap(jax.random.fold_in)(jnp.repeat(purposes, number), jnp.tile(chains, len(purposes)))
    return [keys[row * number : (row + 1) * number] for row in range(len(purposes))]
