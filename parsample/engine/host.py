"""Whether a program calls back to the host: for a model that does not run in JAX, a network of PyTorch, say."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core
from jaxtyping import PyTree

CALLBACKS = ("pure_callback", "io_callback")


def calls_host(function: Callable, *args: PyTree) -> bool:
    """Return whether a function of arrays, or of their shapes, calls back to the host anywhere.

    Cost: one trace, no run.
    """
    return _has_callback(jax.make_jaxpr(function)(*args).jaxpr)


def programs_in(equation: Any) -> Iterator[Any]:
    """Return the programs inside an equation of a program: of a loop, a branch, a function."""
    for value in equation.params.values():
        for row in value if isinstance(value, tuple | list) else [value]:
            if isinstance(row, core.ClosedJaxpr):
                yield row.jaxpr
            elif isinstance(row, core.Jaxpr):
                yield row


def _has_callback(program: Any) -> bool:
    return any(
        equation.primitive.name in CALLBACKS or any(map(_has_callback, programs_in(equation)))
        for equation in program.eqns
    )
