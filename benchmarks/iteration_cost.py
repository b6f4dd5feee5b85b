"""What an iteration of a window costs as the chain grows: it should not depend on its length.

    python -m benchmarks.iteration_cost

MALA on a density of two dimensions that costs next to nothing, so that the driver is what is measured.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

import parsample as ps
from benchmarks.device import write_rows

LENGTHS, CHAINS, WINDOW, REPEATS = (2048, 16384, 131072), (1, 4, 16), 32, 5
HEADER = ("chains", "how", *(f"T = {steps:,}" for steps in LENGTHS), "longest / shortest", "bytes a step")
NOTE = (
    f"Microseconds an iteration of all chains, medians of {REPEATS}, quasi-Newton, a window of {WINDOW}, MALA. "
    "`vmap` is that of one chain; `chains=True` takes one chain after the other on a CPU. The last column is by how "
    "much the memory of the compiled program, beside its arguments and results, grows for each step of each chain: "
    "its states, until they are complete."
)


def density(position: Array) -> Array:
    """Return a log density with tails lighter than a normal's."""
    return -0.5 * jnp.sum(position**2) - 0.1 * jnp.sum(position**4)


SAMPLER = ps.samplers.MALA(density, step_size=0.3)


def problem(chains: int, steps: int) -> tuple[Array, Any]:
    """Return starts and inputs, leading axis `chain`."""
    starts, keys = jnp.zeros((chains, 2)), jax.random.split(jax.random.key(0), chains)
    return starts, jax.vmap(lambda key: SAMPLER.draw_inputs(key, steps, starts[0]))(keys)


def solve(chains: bool) -> Callable[[Array, Any], tuple[Array, Array]]:
    """Return the compiled evaluation, which gives the iterations and a sum of the states."""

    def run(starts: Array, inputs: Any) -> tuple[Array, Array]:
        found = ps.evaluate(
            SAMPLER.transition, starts, inputs, method="quasi_newton", window=WINDOW, chains=chains, throw=False
        )
        return found.iterations, found.states.sum()

    return jax.jit(run if chains else jax.vmap(run))


def rows() -> Iterator[tuple[object, ...]]:
    """Yield a row for each number of chains and way to batch them, the lengths interleaved."""
    for count in CHAINS:
        for name, run in {"vmap": solve(False), "chains=True": solve(True)}.items():
            problems = {steps: problem(count, steps) for steps in LENGTHS}
            iterations = {steps: int(jnp.max(run(*given)[0])) for steps, given in problems.items()}
            seconds: dict[int, list[float]] = {steps: [] for steps in LENGTHS}
            for _ in range(REPEATS):
                for steps, given in problems.items():
                    start = time.perf_counter()
                    jax.block_until_ready(run(*given))
                    seconds[steps].append(time.perf_counter() - start)
            cost = {steps: 1e6 * statistics.median(seconds[steps]) / iterations[steps] for steps in LENGTHS}
            memory = [_temporaries(run, problems[steps]) for steps in LENGTHS]
            growth = (memory[-1] - memory[0]) / (count * (LENGTHS[-1] - LENGTHS[0]))
            ratio = cost[LENGTHS[-1]] / cost[LENGTHS[0]]
            yield count, name, *(f"{cost[steps]:.0f}" for steps in LENGTHS), f"{ratio:.2f}", f"{growth:.1f}"


def _temporaries(run: Any, given: tuple[Array, Any]) -> int:
    return int(run.lower(*given).compile().memory_analysis().temp_size_in_bytes)


if __name__ == "__main__":
    write_rows("iteration_cost", "The cost of an iteration as the chain grows", NOTE, HEADER, rows())
