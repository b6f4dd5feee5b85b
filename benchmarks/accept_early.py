"""Steps of Markov chains accepted together, or one after the other: iterations, and the distance from the loop.

    python -m benchmarks.accept_early

Iterations do not depend on the machine's speed.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

import parsample as ps
from benchmarks.device import parse_only, write_rows
from parsample.warmup.adapt import adapt
from parsample.warmup.starts import starts

STEPS, LARGEST_COUNT, WINDOW = 1024, 500, 256
# Of the step size that warm-up finds: chains that are worth evaluating in parallel.
SHARE_OF_STEP = 0.5
SHARES = (1.0, 0.1, 0.01, 0.0)
TARGETS = ("two_wells", "gaussian_mixture", "banana", "eight_schools")


def rows_of(name: str) -> Iterator[list[str]]:
    """Make the rows of a target: MALA over both windows by two methods."""
    target, keys = ps.TARGETS[name](), jax.random.split(jax.random.key(0), 2)
    found = adapt(target, ps.samplers.MALA, starts(target, keys), keys, 800)
    mala = ps.samplers.MALA(found.density, found.step_size * SHARE_OF_STEP)
    start = found.density.inverse(found.last[0])
    inputs = mala.draw_inputs(jax.random.key(1), STEPS, start)
    loop = ps.evaluate_sequential(mala.transition, start, inputs).states
    for window in (STEPS, WINDOW):
        for method in ("quasi_newton", "newton"):
            cells = []
            for share in SHARES:
                solution = ps.evaluate(
                    mala.transition, start, inputs, method=method, window=window,
                    stopping=ps.Stopping(accept_early=share),
                    max_iterations=LARGEST_COUNT, throw=False,
                )  # fmt: skip
                away = float(jnp.abs(solution.states - loop).max())
                cells.append(f"{int(solution.iterations)}, {away:.1g}" if solution.converged else f"> {LARGEST_COUNT}")
            yield [name, method, "full" if window == STEPS else str(window), *cells]
    jax.clear_caches()


def main() -> None:
    only = parse_only("Steps of Markov chains accepted together, or one after the other.")
    write_rows(
        "accept_early",
        "Markov chains: iterations, and the largest difference from the loop, by `accept_early`",
        f"One chain of MALA with {STEPS:,} steps, in the coordinates of a warm-up of 800, at {SHARE_OF_STEP:g} of the "
        f"step size that it finds; atol 1e-4, rtol 1e-3, float32; at most {LARGEST_COUNT} iterations. At 1, the "
        "default, a step is accepted once it and all before it are within tolerance; at 0 only with all that are left, "
        "or once no iteration changes it; between, once it is within that share of the tolerance.",
        ("target", "method", "window", *(f"{share:g}" for share in SHARES)),
        (row for name in TARGETS if only in name for row in rows_of(name)),
        save=not only,
    )


if __name__ == "__main__":
    main()
