"""The random numbers of a block of steps: all from one call of the generator, each of which is slow to compile."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key


def draw_uniforms(rng_key: Key[Array, ""], dtype: jnp.dtype, *shapes: tuple[int, ...]) -> list[Float[Array, "..."]]:
    """Draw uniform numbers on (-1, 1), without its ends, of some shapes.

    Drawn flat: for a short last axis XLA unrolls the generator on a CPU, and takes up to nine times as long to compile.
    """
    sizes = [math.prod(shape) for shape in shapes]
    least = np.nextafter(np.asarray(-1, dtype), np.asarray(0, dtype), dtype=dtype)
    drawn = jax.random.uniform(rng_key, (sum(sizes),), dtype, least, 1)
    ends = np.cumsum(sizes)
    parts = [drawn[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def normal(uniform: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Turn uniform numbers on (-1, 1) into standard normal ones, as `jax.random.normal` does."""
    return math.sqrt(2) * jax.lax.erf_inv(uniform)


def logistic(uniform: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Turn uniform numbers on (-1, 1) into standard logistic ones."""
    return 2 * jnp.arctanh(uniform)


def log_uniform(uniform: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Turn uniform numbers on (-1, 1) into logarithms of uniform ones on (0, 1), never infinite."""
    return jnp.log((1 + uniform) / 2)


def draw_normal(rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype) -> Float[Array, "steps dim"]:
    """Draw standard normal noise for `num_steps` steps."""
    return normal(draw_uniforms(rng_key, dtype, (num_steps, dim))[0])
