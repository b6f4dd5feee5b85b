"""From the positions of chains to the variables of the trace, as many draws at a time as memory is to be spent on."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from parsample.engine.fixed import fixed_first
from parsample.results.variables import Naming
from parsample.warmup.coordinates import Standardised

# Bytes of what is worked out between the position of a draw and its variables, of all draws at a time.
BUDGET = 64 * 2**20


@fixed_first
def variables_of(given: tuple[Naming, Standardised], z: Float[Array, "chain draw dim"]) -> dict[str, Array]:
    """Return the variables of draws, leading axes (chain, draw).

    Args:
        given: what the trace holds of a draw; the density whose coordinates these are.
        z: standardised positions.
    """
    naming, density = given
    return map_draws(lambda row: naming(density.target, density.position(row)), z)


def map_draws(function: Callable[[Array], PyTree], rows: Array) -> PyTree:
    """Apply a function to every draw, shape (chain, draw, ...), in batches that keep within `BUDGET`."""
    chains, draws = rows.shape[:2]
    batch = batch_of(function, rows[0, 0])
    if batch >= chains * draws:
        return jax.vmap(jax.vmap(function))(rows)
    found = jax.lax.map(function, rows.reshape(chains * draws, *rows.shape[2:]), batch_size=batch)
    return jax.tree.map(lambda leaf: leaf.reshape(chains, draws, *leaf.shape[1:]), found)


def batch_of(function: Callable, *arguments: Any) -> int:
    """Return how many draws are worked out at a time."""
    return max(1, BUDGET // max(1, bytes_between(function, *arguments)))


def bytes_between(function: Callable, *arguments: Any) -> int:
    """Return the bytes of all that a function works out, results included: the most that it can need at a time.

    Args:
        function: of JAX.
        *arguments: arrays or their shapes.
    """
    return sum(_sizes(jax.make_jaxpr(function)(*arguments).jaxpr))


def _sizes(jaxpr: Any) -> Iterator[int]:
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            # A token has neither a shape nor a dtype.
            itemsize = getattr(getattr(variable.aval, "dtype", None), "itemsize", 4)
            yield int(np.prod(getattr(variable.aval, "shape", ()), dtype=np.int64)) * itemsize
        for parameter in equation.params.values():
            for part in parameter if isinstance(parameter, tuple | list) else (parameter,):
                inner = getattr(part, "jaxpr", part)
                if hasattr(inner, "eqns"):
                    yield from _sizes(inner)
