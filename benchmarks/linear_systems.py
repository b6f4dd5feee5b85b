"""What the linear systems of an iteration cost: the scans by structure, and keeping Newton's matrices from growing.

python -m benchmarks.linear_systems
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from benchmarks.device import write_rows
from parsample.engine.matrices import Block, Dense, Diagonal, Matrix
from parsample.engine.norms import spectral_norm_bound
from parsample.engine.scan import solve_lds

DIM, REPEATS, LENGTHS = 10, 7, (4096, 65_536)
SHAPES: dict[str, tuple[type[Any], tuple[int, ...]]] = {
    "diagonal": (Diagonal, (DIM,)),
    "blocks": (Block, (2, 2, DIM // 2)),
    "dense": (Dense, (DIM, DIM)),
}
# (steps, dim) of the matrices that are projected.
PROJECTED = ((4096, 4), (4096, 10), (4096, 25))
HEADER = ("what", "steps", "dim", "how", "ms", "kernels", "MB read and written")
NOTE = (
    f"Medians of {REPEATS} runs in turns, float32, normal entries. Kernels (fusions, calls and loops) and bytes are "
    "what the compiled program holds, the steps of a loop counted once, so that they tell nothing about `loop`. "
    "Projecting divides by the spectral norm, by singular values or by the bound of `parsample.engine.norms`."
)


def rows() -> Iterator[list[Any]]:
    """Make the rows."""
    key = jax.random.key(0)
    for steps in LENGTHS:
        for name, (structure, shape) in SHAPES.items():
            matrices = structure(0.2 * jax.random.normal(key, (steps, *shape)))
            offsets = jax.random.normal(jax.random.key(1), (steps, DIM))
            # On a CPU the kernels are only interpreted.
            kernels = () if jax.default_backend() == "cpu" else ("pallas",)
            ways = {scan: _solving(scan) for scan in ("loop", "associative", "blocked", *kernels)}
            yield from _measured(f"scan, {name}", steps, DIM, ways, (matrices, offsets))
    for steps, dim in PROJECTED:
        entries = jax.random.normal(key, (steps, dim, dim)) / dim**0.5
        norms = {"singular values": lambda a: jnp.linalg.norm(a, ord=2, axis=(-2, -1)), "bound": spectral_norm_bound}
        yield from _measured(
            "projection", steps, dim, {name: _dividing(norm) for name, norm in norms.items()}, (entries,)
        )


def _solving(scan: str) -> Callable[[Matrix, Array], Array]:
    return lambda matrices, offsets: solve_lds(matrices, offsets, jnp.zeros(DIM), scan=scan)


def _dividing(norm: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda entries: entries / jnp.maximum(norm(entries), 1)[:, None, None]


def _measured(
    what: str, steps: int, dim: int, ways: dict[str, Callable], given: tuple[Any, ...]
) -> Iterator[list[Any]]:
    """Compile every way, run them in turns, and make a row of each."""
    compiled = {name: jax.jit(way).lower(*given).compile() for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(REPEATS + 1):
        for name, run in compiled.items():
            begun = time.perf_counter()
            jax.block_until_ready(run(*given))
            if turn:
                times[name].append(time.perf_counter() - begun)
    for name, run in compiled.items():
        text, costs = run.as_text(), run.cost_analysis()
        assert text is not None
        assert costs is not None
        entry = text.rsplit("ENTRY", 1)[1]
        kernels = sum(entry.count(f" {kind}(") for kind in ("fusion", "call", "while", "custom-call", "dot"))
        megabytes = costs["bytes accessed"] / 1e6
        yield [
            what,
            f"{steps:,}",
            dim,
            name,
            f"{1e3 * statistics.median(times[name]):.2g}",
            kernels,
            f"{megabytes:.3g}",
        ]


if __name__ == "__main__":
    write_rows("linear_systems", "Linear systems: scans, and projection", NOTE, HEADER, rows())
