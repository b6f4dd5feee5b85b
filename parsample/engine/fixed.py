"""Functions compiled for a first argument that rarely changes, which is taken apart once and not at every call."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np


class _Rest:
    """What of a pytree is no array: of equal ones the programs are shared. Its hash is worked out once."""

    def __init__(self, tree: Any):
        leaves, structure = jax.tree.flatten(tree)
        self.tree, self.parts = tree, (structure, tuple(leaves))
        self.number = hash(self.parts)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Rest) and self.parts == other.parts)


class fixed_first:
    """Compile a function of a pytree and of arrays; `of(tree)` is the function of the arrays alone.

    `function(tree, *arrays)` and `function.of(tree)(*arrays)` are `eqx.filter_jit(function)(tree, *arrays)`, arrays
    being pytrees of arrays, but `of` takes the tree apart: where a call takes less than a millisecond, that is most of
    it.
    """

    def __init__(self, function: Callable):
        """Wrap the function."""
        self.__name__, self.__doc__ = function.__name__, function.__doc__

        def whole(rest: _Rest, arrays: Any, *others: Any) -> Any:
            return function(eqx.combine(arrays, rest.tree), *others)

        whole.__name__ = whole.__qualname__ = function.__name__
        self.jitted = jax.jit(whole, static_argnums=0)

    def of(self, tree: Any) -> Callable:
        """Return the function with its first argument in place; leaves that are no arrays are hashable."""
        return functools.partial(self.jitted, *_apart(tree))

    def __call__(self, tree: Any, *arrays: Any) -> Any:
        """Return the function's value."""
        return self.jitted(*_apart(tree), *arrays)

    def lower(self, tree: Any, *arrays: Any) -> jax.stages.Lowered:
        """Return the program for arrays, or for their shapes, to be compiled: a later call finds it compiled."""
        return self.jitted.lower(*_apart(tree), *arrays)


def _apart(tree: Any) -> tuple[_Rest, Any]:
    arrays, rest = eqx.partition(tree, lambda leaf: eqx.is_array(leaf) or isinstance(leaf, np.ndarray | np.generic))
    return _Rest(rest), arrays
