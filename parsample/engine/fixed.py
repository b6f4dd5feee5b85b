"""What is worked out once for an argument that rarely changes: how it is taken apart, and what is known of it."""

import functools
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np

from parsample.engine.reads import is_of_library

T = TypeVar("T")
# Of XLA on a CPU, for programs that run once: what they gain by being optimised is less than that takes.
RUN_ONCE = {"xla_backend_optimization_level": 0}


def once(function: Callable[[Any], T]) -> Callable[[Any], T]:
    """Return a function of an object that never changes, which works out its value once for as long as that lives.

    The value must not hold the object, which would then live for ever. Whether JAX is in x64 makes another value. Of a
    user's class it is worked out every time: what its methods read may have changed.
    """
    kept: dict[tuple[int, bool], T] = {}

    @functools.wraps(function)
    def wrapper(thing: Any) -> T:
        if not is_of_library(type(thing)):
            return function(thing)
        config: Any = jax.config
        key = id(thing), config.jax_enable_x64
        if key not in kept:
            kept[key] = function(thing)
            weakref.finalize(thing, kept.pop, key, None).atexit = False
        return kept[key]

    return wrapper


class _Rest:
    """What of a pytree is no array: of equal ones the programs are shared. Its hash is worked out once."""

    def __init__(self, structure: Any, leaves: tuple):
        self.parts = structure, leaves
        self.number = hash(self.parts)

    def with_arrays(self, arrays: list) -> Any:
        """Return the pytree with arrays in their places."""
        structure, leaves = self.parts
        given = iter(arrays)
        return jax.tree.unflatten(structure, [next(given) if leaf is _ARRAY else leaf for leaf in leaves])

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Rest) and self.parts == other.parts)


class fixed_first:
    """Compile a function of a pytree and of arrays; `of(tree)` is the function of the arrays alone.

    `function(tree, *arrays)` and `function.of(tree)(*arrays)` are `eqx.filter_jit(function)(tree, *arrays)`, arrays
    being pytrees of arrays, but `of` takes the tree apart: where a call takes less than a millisecond, that is most of
    it.

    Args:
        function: of a pytree and of arrays.
        runs_once: a program is run once or so, and is to be compiled soon rather than well.
    """

    def __init__(self, function: Callable, runs_once: bool = False):
        """Wrap the function."""
        self.function, self.runs_once = function, runs_once
        self.__name__, self.__doc__ = function.__name__, function.__doc__

    @functools.cached_property
    def jitted(self) -> Any:
        """The function of what is no array, of the arrays, and of the others, compiled."""
        # Asked here, and not where a function is defined, as that starts JAX.
        options = RUN_ONCE if self.runs_once and jax.default_backend() == "cpu" else None

        def whole(rest: _Rest, arrays: list, *others: Any) -> Any:
            return self.function(rest.with_arrays(arrays), *others)

        whole.__name__ = whole.__qualname__ = self.function.__name__
        return jax.jit(whole, static_argnums=0, compiler_options=options)

    def of(self, tree: Any) -> Callable:
        """Return the function with its first argument in place; leaves that are no arrays are hashable."""
        return functools.partial(self.jitted, *_apart(tree))

    def __call__(self, tree: Any, *arrays: Any) -> Any:
        """Return the function's value."""
        return self.jitted(*_apart(tree), *arrays)

    def lower(self, tree: Any, *arrays: Any) -> jax.stages.Lowered:
        """Return the program for arrays, or for their shapes, to be compiled: a later call finds it compiled."""
        return self.jitted.lower(*_apart(tree), *arrays)


# In the place of an array.
_ARRAY = object()


def _apart(tree: Any) -> tuple[_Rest, list]:
    leaves, structure = jax.tree.flatten(tree)
    is_array = [eqx.is_array(leaf) or isinstance(leaf, np.ndarray | np.generic) for leaf in leaves]
    rest = tuple(_ARRAY if found else leaf for leaf, found in zip(leaves, is_array, strict=True))
    return _Rest(structure, rest), [leaf for leaf, found in zip(leaves, is_array, strict=True) if found]
