"""How much memory an evaluation takes, from the compiled program."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

from parsample.engine.evaluate import evaluate


def evaluation_bytes(
    transition: Callable[[PyTree, PyTree], PyTree], initial_state: PyTree, inputs: PyTree, batch: int, **options: Any
) -> int:
    """Return the bytes that the evaluation of a batch of chains takes beside its arguments, as compiled.

    Args:
        transition: as for `evaluate`.
        initial_state: of one chain, for its shapes.
        inputs: of one chain, for their shapes.
        batch: how many chains.
        **options: of `evaluate`.

    Cost: compiles the evaluation; nothing is run.
    """
    solve = jax.vmap(lambda start, inputs: evaluate(transition, start, inputs, throw=False, **options).states)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch, *x.shape), x.dtype), (initial_state, inputs))
    analysis = jax.jit(solve).lower(*shapes).compile().memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def largest_within(budget: int, most: int, size: Callable[[int], int]) -> int:
    """Return a window of at most `most` that takes no more than a budget; 0 where not even a window of 1 does.

    Every window that is returned has been measured. It is the largest where memory is a line in the window, and a
    little less at most where it is nearly one.

    Args:
        budget: in bytes.
        most: the window that is wanted.
        size: the bytes that a window takes.

    Cost: one measurement where `most` is within the budget, otherwise three or four.
    """
    if (over_bytes := size(most)) <= budget:
        return most
    fitting, over = 1, most
    if most == 1 or (fitting_bytes := size(fitting)) > budget:
        return 0
    # Where the line between the two crosses the budget: below `over`, and above `fitting` unless there is no room.
    while (window := fitting + (budget - fitting_bytes) * (over - fitting) // (over_bytes - fitting_bytes)) > fitting:
        measured = size(window)
        if measured <= budget:
            fitting, fitting_bytes = window, measured
        else:
            over, over_bytes = window, measured
    return fitting
