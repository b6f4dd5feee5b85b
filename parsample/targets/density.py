"""A plain log density as a target."""

import re
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from parsample.targets.base import Target


class LogDensity(Target):
    """A plain function of any pytree, with a position to start around.

    The trace has one variable for each leaf, named by its path: {"a": {"b": ...}} gives `a.b`, a bare array `x`.

    Args:
        logdensity_fn: position -> log density, up to a constant, over unconstrained numbers.
        initial_position: a pytree of floating-point arrays. Chains start at it plus uniform noise on (-1, 1).

    Raises:
        ValueError: the function cannot be called, the position holds no floating-point numbers, or the log density of
            it is not one real number.
    """

    name: ClassVar[str] = "log_density"

    logdensity_fn: Callable
    center: PyTree[Array]

    def __init__(self, logdensity_fn: Callable, initial_position: PyTree):
        """Check that the function gives one real number at the position."""
        if not callable(logdensity_fn):
            raise ValueError(f"logdensity_fn is a {type(logdensity_fn).__name__}, expected a function of a position.")
        self.logdensity_fn = logdensity_fn
        self.center = jax.tree.map(_floating, initial_position)
        if not jax.tree.leaves(self.center):
            raise ValueError("initial_position holds no arrays, expected a pytree with at least one.")
        if sum(leaf.size for leaf in jax.tree.leaves(self.center)) == 0:
            raise ValueError("initial_position holds no numbers, expected at least one array that is not empty.")
        check_scalar(jax.eval_shape(logdensity_fn, self.center))

    def logdensity(self, position: PyTree) -> Float[Array, ""]:
        """Return the log density."""
        return self.logdensity_fn(position)

    def position_template(self) -> PyTree:
        """Return zeros like the initial position."""
        return jax.tree.map(jnp.zeros_like, self.center)

    def initial_position(self, rng_key: Key[Array, ""]) -> PyTree:
        """Draw a start: the initial position plus uniform noise on (-1, 1)."""
        leaves, tree = jax.tree.flatten(self.center)
        keys = jax.random.split(rng_key, len(leaves))
        noise = [jax.random.uniform(key, x.shape, x.dtype, -1, 1) for key, x in zip(keys, leaves, strict=True)]
        return jax.tree.map(jnp.add, self.center, jax.tree.unflatten(tree, noise))

    @property
    def num_data(self) -> int | None:
        """That of the function, if it has minibatches."""
        return getattr(self.logdensity_fn, "num_data", None)

    @property
    def minibatch(self) -> Callable | None:
        """That of the function, if it has minibatches."""
        return getattr(self.logdensity_fn, "minibatch", None)

    @property
    def conditional_updates(self) -> Any:
        """Those of the function, if it has any."""
        return getattr(self.logdensity_fn, "conditional_updates", None)

    def constrain(self, position: PyTree) -> dict[str, Array]:
        """Name the leaves by their paths."""
        return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(position)}


def check_scalar(output: Any) -> None:
    """Raise ValueError unless a log density returned the shape and dtype of one real number.

    Args:
        output: an array or a `jax.ShapeDtypeStruct`.
    """
    shape, dtype = getattr(output, "shape", None), getattr(output, "dtype", None)
    if shape != () or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        found = type(output).__name__ if dtype is None else f"{dtype}{list(shape or ())}"
        remedy = "sum it over its axes" if shape else "return one real number"
        raise ValueError(f"the log density returned {found}, expected one real floating-point number; {remedy}.")


def _floating(leaf: Any) -> Array:
    try:
        array = jnp.asarray(leaf)
    except (TypeError, ValueError):
        raise ValueError(f"initial_position holds {leaf!r}, expected real floating-point numbers.") from None
    if jnp.issubdtype(array.dtype, jnp.integer):
        return array.astype(float)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"initial_position holds dtype {array.dtype}, expected real floating-point numbers.")
    return array


def path_name(path: tuple) -> str:
    """Return the name of the leaf at a path of a pytree: its keys and numbers with dots between them, or "x"."""
    words = re.findall(r"\w+", jax.tree_util.keystr(path))
    return ".".join(words) or "x"
