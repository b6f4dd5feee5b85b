"""A step of the loop in coordinates with a dense root: a matrix product called, or summed in what is compiled.

python -m benchmarks.loop_products
"""

import statistics
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from benchmarks.device import write_rows
from parsample.warmup.coordinates import FEW_PRODUCTS, SMALL_DENSE

CHAINS, DIMS, STEPS, REPEATS = (1, 4, 8, 16), (2, 5, 10, 16, 24, 32, 48), 1000, 7
HEADER = ("chains", "dim", "products", "called, us", "summed, us", "called / summed", "the package's choice")
NOTE = (
    f"Microseconds of a gradient and a leapfrog step of all chains at once, by a scan over {STEPS} steps, float32; "
    f"medians of {REPEATS} in turns. Products are chains x dim^2; up to {FEW_PRODUCTS} of them, and dimension "
    f"{SMALL_DENSE}, the package sums."
)


def rows() -> Iterator[list[Any]]:
    """Make the rows."""
    for chains in CHAINS:
        for dim in DIMS:
            z = jax.random.normal(jax.random.key(0), (chains, dim))
            root = jnp.eye(dim) + 0.1 * jnp.tril(jnp.ones((dim, dim)))
            times: dict[bool, list[float]] = {False: [], True: []}
            for by_sums in times:
                _leapfrog(z, root, by_sums)
            for _ in range(REPEATS):
                for by_sums, found in times.items():
                    began = time.perf_counter()
                    jax.block_until_ready(_leapfrog(z, root, by_sums))
                    found.append((time.perf_counter() - began) / STEPS * 1e6)
            called, summed = (statistics.median(found) for found in times.values())
            chosen = "summed" if dim <= SMALL_DENSE and chains * dim**2 <= FEW_PRODUCTS else "called"
            yield [chains, dim, chains * dim**2, f"{called:.2f}", f"{summed:.2f}", f"{called / summed:.2f}", chosen]


def _density(x: Array) -> Array:
    return -0.5 * jnp.sum(jnp.log1p(x**2))


@jax.jit(static_argnums=2)
def _leapfrog(z: Array, root: Array, by_sums: bool) -> Array:
    def value(z: Array) -> Array:
        return _density(jnp.sum(root * z, -1) if by_sums else root @ z)

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        z, momentum = carry
        z = z + 0.01 * momentum
        return (z, momentum + 0.01 * jax.vmap(jax.grad(value))(z)), None

    return jax.lax.scan(step, (z, jnp.zeros_like(z)), None, length=STEPS)[0][0]


if __name__ == "__main__":
    write_rows("loop_products", "Small matrix products in the loop", NOTE, HEADER, rows())
