"""Nested evaluation: a chain on coarser grids first, each solution the guess of the next finer one."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from parsample.engine.evaluate import evaluate
from parsample.engine.options import whole
from parsample.engine.solution import Solution


def evaluate_nested(
    coarsen: Callable[[int], tuple[Callable[[PyTree, PyTree], PyTree], PyTree]],
    initial_state: PyTree,
    factors: Sequence[int],
    *,
    guess: PyTree | None = None,
    coarse: Mapping[str, Any] | None = None,
    **options: Any,
) -> tuple[Solution, ...]:
    """Evaluate a recursion level by level, from the coarsest grid to the chain itself.

    For recursions that discretise a process in time, such as Langevin dynamics (`ULA.coarsen`): a step of a coarse
    level covers many steps of the chain with the same noise. Between its own times a coarse state is held. A coarse
    level only makes a guess, so it need not converge; what is returned for the chain is judged as `evaluate` does.

    Iterations move to levels where they cost little; their sum over all levels, which is the number of rounds, hardly
    falls. Count both: `sum(level.iterations for level in levels)`, and `evaluations` alike.

    Args:
        coarsen: `coarsen(factor)` returns the transition and the inputs of the level whose steps cover `factor` steps
            each; `coarsen(1)` those of the chain. An incomplete step at the end may be left out.
        initial_state: step 0 of every level.
        factors: of the levels, falling, from the coarsest to 1.
        guess: of the coarsest level, as for `evaluate`.
        coarse: options of `evaluate` for all levels but the last, such as {"max_iterations": 6}.
        **options: of `evaluate` for every level. `throw` concerns the last one only.

    Returns:
        The `Solution` of every level, that of the chain last.

    Raises:
        ValueError: an argument is not what it should be; the sentence says which and how to mend it.
        ConvergenceError: as for `evaluate`, about the last level.

    Cost: that of `evaluate` on every level, compiled for each.

    Source: nested iteration, the first half of full multigrid (Brandt 1977); coarse time grids as in Parareal (Lions et
    al. 2001), here solved in parallel too.
    """
    factors = _check_factors(factors)
    levels = [coarsen(factor) for factor in factors]
    steps = _check_lengths(factors, [inputs for _, inputs in levels])
    solutions: list[Solution] = []
    for k, (factor, (transition, inputs)) in enumerate(zip(factors, levels, strict=True)):
        if k > 0:
            guess = _hold(initial_state, solutions[-1].states, factors[k - 1], factor, steps[k])
        chosen = options if factor == 1 else {**options, **(coarse or {}), "throw": False}
        solutions.append(evaluate(transition, initial_state, inputs, guess=guess, **chosen))
    return tuple(solutions)


def _hold(initial_state: PyTree, states: PyTree, coarse: int, fine: int, steps: int) -> PyTree:
    """Return for every step of a finer level the last coarse state that is not after it."""
    elapsed = (1 + jnp.arange(steps)) * fine
    leaves = [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(states)]
    finite = jnp.stack([jnp.isfinite(leaf).all(1) for leaf in leaves]).all(0)
    # State 0 is before the first step; beyond the last coarse state that one is held.
    last = jnp.minimum(elapsed // coarse, finite.shape[0])

    def pick(start: Any, rows: Any) -> Any:
        # A coarse level that is not finite somewhere, as too long a step can be, is no guess there.
        usable = jnp.where(finite.reshape(-1, *[1] * (rows.ndim - 1)), rows, start)
        return jnp.concatenate([jnp.asarray(start, rows.dtype)[None], usable])[last]

    return jax.tree.map(pick, initial_state, states)


def _check_factors(factors: Sequence[int]) -> list[int]:
    found = [whole("factors", factor, "each is how many steps a step of a level covers") for factor in factors]
    if not found or found[-1] != 1 or any(a <= b for a, b in itertools.pairwise(found)):
        raise ValueError(f"factors is {tuple(found)}, expected falling numbers that end in 1, such as (16, 4, 1).")
    return found


def _check_lengths(factors: list[int], inputs: list[PyTree]) -> list[int]:
    """Return the number of steps of every level."""
    steps = [np.shape(jax.tree.leaves(leaves)[0])[0] for leaves in inputs]
    for factor, found in zip(factors, steps, strict=True):
        low, high = steps[-1] // factor, -(-steps[-1] // factor)
        if not max(low, 1) <= found <= high:
            raise ValueError(
                f"coarsen({factor}) returned inputs of {found} steps, expected {max(low, 1)} to {high}: the chain has "
                f"{steps[-1]}, and a step of this level covers {factor}; leave out factors larger than the chain."
            )
    return steps
