"""The model called from inside a compiled program, which waits for it: one batch whatever JAX vectorises over."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from parsample.workers.holes import NO_GRADIENT
from parsample.workers.pool import Workers


def call(workers: Workers, values: dict[str, Array]) -> Float[Array, ""]:
    """Return what the model returns for these values; its gradient is asked for where JAX takes one.

    Args:
        workers: to run the model on.
        values: by name, in one dtype, which is that of what is returned.

    Raises:
        ValueError: a gradient is taken, and the model has none.
    """
    dtype = jnp.result_type(*values.values())
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), values)
    shapes = jax.ShapeDtypeStruct((), dtype), like

    def run(values: dict[str, Any]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        # On a CPU JAX hands over its own arrays, on which it would work inside of the callback.
        values = jax.tree.map(np.asarray, values)
        name = next(iter(values))
        axes = np.shape(values[name])[: np.ndim(values[name]) - len(like[name].shape)]
        flat = {name: np.reshape(leaf, (-1, *like[name].shape)) for name, leaf in values.items()}
        positions = [{name: leaf[row] for name, leaf in flat.items()} for row in range(len(flat[name]))]
        found = workers.submit(positions, workers.has_gradient)
        found.wait_all()
        slopes = found.gradient or jax.tree.map(np.zeros_like, flat)
        slopes = {name: np.reshape(leaf, (*axes, *like[name].shape)).astype(dtype) for name, leaf in slopes.items()}
        return np.reshape(found.logdensity, axes).astype(dtype), slopes

    def both(values: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        return jax.pure_callback(run, shapes, values, vmap_method="broadcast_all")

    @jax.custom_vjp
    def value(values: dict[str, Array]) -> Array:
        return both(values)[0]

    def forward(values: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        if not workers.has_gradient:
            raise ValueError(f"gradient is None: {NO_GRADIENT}.")
        return both(values)

    value.defvjp(forward, lambda slopes, tangent: (jax.tree.map(lambda leaf: tangent * leaf, slopes),))
    return value(values)
