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
