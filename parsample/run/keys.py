"""The random keys of a run: all that is drawn follows from its seed."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key


class Keys(NamedTuple):
    """Keys by what they are for, each to be made one a chain by `of_chains`."""

    start: Key[Array, ""]
    warmup: Key[Array, ""]
    chain: Key[Array, ""]


def run_keys(seed: int) -> Keys:
    """Return the keys of a run."""
    return Keys(*_split(np.uint32(seed)))


def of_chains(rng_key: Key[Array, ""], num_chains: int) -> Key[Array, " chain"]:
    """Return a key for each chain, which the number of chains makes no difference to."""
    return _fold_in(rng_key, np.arange(num_chains, dtype=np.int32))


# One small program each: operation by operation, JAX compiles half a dozen.
_split = jax.jit(lambda seed: tuple(jax.random.split(jax.random.key(seed), 3)))
_fold_in = jax.jit(jax.vmap(jax.random.fold_in, in_axes=(None, 0)))
