"""A plain log density as a target."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from parsample.engine.names import unknown
from parsample.engine.traceable import traceable
from parsample.targets.base import Target
from parsample.targets.bijectors import Bijector, find
from parsample.targets.names import leaf_names

# What to do with a function that cannot be written in JAX.
OUTSIDE = "give it as it is to parsample.targets.External, which runs it outside of JAX"


class LogDensity(Target):
    """A plain function of any pytree, with a position to start around.

    The trace has one variable for each leaf, named by its path: {"a": {"b": ...}} gives `a.b`, a bare array `x`
    (`parsample.targets.names.leaf_names`).

    Args:
        logdensity_fn: position -> log density, up to a constant, over unconstrained numbers, or over those that the
            bijectors lead to.
        initial_position: a pytree of floating-point arrays. Chains start at it plus uniform noise on (-1, 1), which is
            added in unconstrained coordinates.
        bijectors: variable -> "positive", "unit_interval", "simplex", "ordered" or another name in
            `parsample.targets.bijectors.NAMES`, or a distrax bijector from all real numbers; variables that are not
            named are unconstrained. The logarithm of the Jacobian is added to the log density.

    Raises:
        ValueError: the function cannot be called, the position holds no floating-point numbers, or the log density of
            it is not one real number; or a bijector is unknown, of no variable, or does not reach the initial position.
    """

    name: ClassVar[str] = "log_density"

    logdensity_fn: Callable
    center: PyTree[Array]
    bijectors: tuple[Bijector | None, ...] = eqx.field(static=True)

    def __init__(self, logdensity_fn: Callable, initial_position: PyTree, bijectors: Mapping[str, Any] | None = None):
        """Check that the function gives one real number at the position."""
        if not callable(logdensity_fn):
            raise ValueError(f"logdensity_fn is a {type(logdensity_fn).__name__}, expected a function of a position.")
        self.logdensity_fn = logdensity_fn
        position = jax.tree.map(_floating, initial_position)
        if not jax.tree.leaves(position):
            raise ValueError("initial_position holds no arrays, expected a pytree with at least one.")
        if sum(leaf.size for leaf in jax.tree.leaves(position)) == 0:
            raise ValueError("initial_position holds no numbers, expected at least one array that is not empty.")
        with traceable("the log density", OUTSIDE):
            check_scalar(jax.eval_shape(logdensity_fn, position))
        given, leaves, names = dict(bijectors or {}), jax.tree.leaves(position), leaf_names(position)
        for variable in given:
            if variable not in names:
                raise unknown("a name in bijectors", variable, names)
        self.bijectors = tuple(find(name, given[name]) if name in given else None for name in names)
        free = [_free(name, leaf, row) for name, leaf, row in zip(names, leaves, self.bijectors, strict=True)]
        self.center = jax.tree.unflatten(jax.tree.structure(position), free)

    def logdensity(self, position: PyTree) -> Float[Array, ""]:
        """Return the log density, with the log-Jacobians of the bijectors."""
        constrained, log_jacobian = self._forward(position)
        value = self.logdensity_fn(constrained)
        return value if log_jacobian is None else value + log_jacobian

    def _forward(self, position: PyTree) -> tuple[PyTree, Float[Array, ""] | None]:
        """Return the constrained position, and the sum of the log-Jacobians, None where there are no bijectors."""
        leaves, tree = jax.tree.flatten(position)
        log_jacobian = None
        for place, bijector in enumerate(self.bijectors):
            if bijector is not None:
                leaves[place], term = bijector.forward(leaves[place])
                log_jacobian = term if log_jacobian is None else log_jacobian + term
        return jax.tree.unflatten(tree, leaves), log_jacobian

    def position_template(self) -> PyTree:
        """Return zeros like the initial position, in unconstrained coordinates."""
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
        """Name the leaves by their paths, in their own coordinates."""
        constrained, _ = self._forward(position)
        return dict(zip(leaf_names(constrained), jax.tree.leaves(constrained), strict=True))

    def start_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Name all variables: the leaves of a position, in their own coordinates."""
        return jax.eval_shape(lambda: self.constrain(self.center))

    def unconstrain(self, values: Mapping[str, Array], rng_key: Key[Array, ""]) -> PyTree:
        """Return a position with given values, where they are not given that of `initial_position`."""
        leaves, tree = jax.tree.flatten(self.initial_position(rng_key))
        for place, (name, bijector) in enumerate(zip(self.start_shapes(), self.bijectors, strict=True)):
            if name in values:
                leaves[place] = values[name] if bijector is None else bijector.inverse(values[name])
        return jax.tree.unflatten(tree, leaves)


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


def _free(name: str, leaf: Array, bijector: Bijector | None) -> Array:
    """Return an initial value in unconstrained coordinates."""
    if bijector is None:
        return leaf
    free = bijector.inverse(leaf)
    if not jnp.isfinite(free).all():
        raise ValueError(
            f"initial_position of {name!r} is {leaf}, which its bijector does not reach; start inside the constraint."
        )
    return free


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
