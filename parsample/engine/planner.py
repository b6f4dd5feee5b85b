"""Choose by measuring: never slower by surprise."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from parsample.engine import methods

# A parallel method must be this much faster than the loop on the pilot before it is chosen: timings are noisy, and the
# loop's cost is the only one that cannot change along the chain.
MARGIN = 1.1
REPEATS = 3
# Steps of the pilot: enough for a window of the longest candidate to move.
PILOT = 1024
WINDOWS = (64, 512)


class Choice(NamedTuple):
    """What was chosen, and the measurements behind it.

    Attributes:
        method: to use.
        window: to use; None for all steps.
        seconds: candidate -> median wall time of the pilot, without compiling.
    """

    method: methods.Method
    window: int | None
    seconds: dict[str, float]


def fastest(candidates: Mapping[str, Callable[[], Any]], preferred: str) -> tuple[str, dict[str, float]]:
    """Time candidates, interleaved, and return the name of the fastest with all medians.

    Args:
        candidates: name -> function without arguments that does the work and returns JAX arrays. Each is called once
            first, so that compiling is not counted.
        preferred: the candidate that is kept unless another is `MARGIN` times faster.
    """
    for run in candidates.values():
        jax.block_until_ready(run())
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(REPEATS):
        for name, run in candidates.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append(time.perf_counter() - start)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    best = min(seconds, key=lambda name: seconds[name] * (1 if name == preferred else MARGIN))
    return best, seconds


def choose(
    evaluate: Callable,
    transition: Callable,
    initial_state: PyTree,
    inputs: PyTree,
    *,
    window: int | None,
    options: Mapping[str, Any],
) -> Choice:
    """Time the sequential loop and quasi-Newton on the first steps of a chain, and take the fastest.

    Args:
        evaluate: the driver, which is above the planner.
        transition: as for it.
        initial_state: as for `evaluate`.
        inputs: as for `evaluate`.
        window: of the parallel candidates; None to try several.
        options: of `evaluate`, those that the chain will be evaluated with: tolerances, guess, norm and the like.

    Raises:
        ValueError: called under `jit`, `vmap` or `grad`, where nothing can be measured.

    Cost: compiles every candidate, and evaluates each four times on at most 1,024 steps.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((initial_state, inputs))):
        raise ValueError(
            "method is 'auto' inside a compiled or transformed function, where nothing can be timed; "
            "call evaluate with method='auto' outside, or name a method."
        )
    steps = jax.tree.leaves(inputs)[0].shape[0]
    first = lambda tree: jax.tree.map(lambda leaf: leaf[: min(steps, PILOT)], tree)  # noqa: E731
    pilot, options = first(inputs), {**options, "guess": first(options.get("guess"))}
    if np.ndim(options["atol"]):
        options["atol"] = first(options["atol"])
    windows = {min(size, steps) for size in (WINDOWS if window is None else (window,))}
    choices: dict[str, tuple[methods.Method, int | None]] = {"sequential": (methods.Sequential(), None)}
    choices |= {f"quasi_newton, window {size}": (methods.QuasiNewton(), size) for size in sorted(windows)}

    def run(method: methods.Method, size: int | None) -> Callable[[], Any]:
        return lambda: evaluate(transition, initial_state, pilot, method=method, window=size, throw=False, **options)

    best, seconds = fastest({name: run(*choice) for name, choice in choices.items()}, "sequential")
    return Choice(*choices[best], seconds)
