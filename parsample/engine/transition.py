"""Transitions: what the engine solves, and how pytrees become flat vectors."""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

GATES = ("frozen", "straight_through")

# How far a guess of an integer may be from it: below a half, so that rounding gives the integer.
WITHIN_AN_INTEGER = 0.25


class Transition(eqx.Module):
    """A pure function `state, input -> state`, with what the engine may ask of it beyond its value.

    A plain function is wrapped by `as_transition`; samplers bring their own subclass.
    """

    @abc.abstractmethod
    def __call__(self, state: PyTree, input: PyTree) -> PyTree:
        """Return the next state."""

    @abc.abstractmethod
    def with_gate(self, gate: str) -> "Transition":
        """Return the same transition whose derivative treats accept/reject as `gate` says, one of `GATES`."""

    @abc.abstractmethod
    def with_diagonal(self, state: PyTree, input: PyTree) -> tuple[PyTree, PyTree] | None:
        """Return the next state and the diagonal of the Jacobian (a pytree like the state), or None if unknown."""

    @abc.abstractmethod
    def surrogate(self) -> "Transition | None":
        """Return a cheaper transition of the same states and inputs that behaves nearly like it, or None."""

    @abc.abstractmethod
    def start(self, state: PyTree) -> PyTree:
        """Return the carry of the sequential loop: the state and whatever the next step can reuse."""

    @abc.abstractmethod
    def advance(self, carry: PyTree, input: PyTree) -> tuple[PyTree, PyTree]:
        """Make one sequential step: the next carry, and diagnostics of the step."""

    @abc.abstractmethod
    def state_of(self, carry: PyTree) -> PyTree:
        """Return the state inside a carry."""


class FunctionTransition(Transition):
    """A plain function as a `Transition`: no gate, no analytic diagonal, nothing to cache."""

    function: Callable

    def __call__(self, state: PyTree, input: PyTree) -> PyTree:
        """Return the next state."""
        return self.function(state, input)

    def with_gate(self, gate: str) -> Transition:
        """Return itself: the derivative of a plain function is what JAX says, which is the frozen gate."""
        if gate != "frozen":
            raise ValueError(
                f"gate is {gate!r}, but a plain function has no accept/reject decision to treat that way; "
                "expected gate='frozen', or a sampler's transition."
            )
        return self

    def with_diagonal(self, state: PyTree, input: PyTree) -> None:
        """Return None: nothing is known about the Jacobian of a plain function."""
        return None

    def surrogate(self) -> None:
        """Return None: nothing is known that could stand in for a plain function."""
        return None

    def start(self, state: PyTree) -> PyTree:
        """Return the state itself."""
        return state

    def advance(self, carry: PyTree, input: PyTree) -> tuple[PyTree, None]:
        """Return the next state and no diagnostics."""
        return self.function(carry, input), None

    def state_of(self, carry: PyTree) -> PyTree:
        """Return the carry, which is the state."""
        return carry


def as_transition(transition: Callable) -> Transition:
    """Return `transition` as a `Transition`, wrapping a plain function.

    Raises:
        ValueError: it cannot be called.
    """
    if isinstance(transition, Transition):
        return transition
    if not callable(transition):
        raise ValueError(
            f"transition is a {type(transition).__name__}, expected a function `transition(state, input) -> state`."
        )
    return FunctionTransition(transition)


class FlatTransition(eqx.Module):
    """A transition between flat vectors of shape (dim,), for methods, which know nothing of pytrees."""

    transition: Transition
    unravel: Callable = eqx.field(static=True)

    def __call__(self, vector: Float[Array, " dim"], input: PyTree) -> Float[Array, " dim"]:
        """Return the next state, flat."""
        return ravel_state(self.transition(self.unravel(vector), input), vector.dtype)

    def tolerance(self, states: Float[Array, "*steps dim"], atol: Array, rtol: Array) -> Float[Array, "*steps dim"]:
        """Return what the error of each number may be: atol + rtol * |state|, and for integers too little to matter.

        An integer within `WITHIN_AN_INTEGER` of the transition's value is that value once it is rounded.
        """
        bound = atol + rtol * jnp.abs(states)
        leaves = jax.tree.leaves(jax.eval_shape(self.unravel, jax.ShapeDtypeStruct(states.shape[-1:], states.dtype)))
        real = np.concatenate([np.full(leaf.size, jnp.issubdtype(leaf.dtype, jnp.floating)) for leaf in leaves])
        return bound if real.all() else jnp.where(real, bound, jnp.minimum(bound, WITHIN_AN_INTEGER))

    def with_gate(self, gate: str) -> "FlatTransition":
        """Return the same with another gate."""
        return FlatTransition(self.transition.with_gate(gate), self.unravel)

    def with_diagonal(self, vector: Float[Array, " dim"], input: PyTree) -> tuple[Array, Array] | None:
        """Return the next state and the diagonal of the Jacobian, both flat, or None."""
        pair = self.transition.with_diagonal(self.unravel(vector), input)
        return None if pair is None else (ravel_state(pair[0], vector.dtype), ravel_state(pair[1], vector.dtype))

    def surrogate(self) -> "FlatTransition | None":
        """Return the transition that can stand in for this one, or None."""
        found = self.transition.surrogate()
        return None if found is None else FlatTransition(found, self.unravel)

    def stand_in(self, transition: Callable) -> "FlatTransition":
        """Return another transition of the same states, flat."""
        return FlatTransition(as_transition(transition), self.unravel)


@dataclass(frozen=True)
class Unravel:
    """From a flat vector back to the state. Two are equal where the states are alike, so that programs are found again.

    Attributes:
        unravel: to a state whose leaves are all floating-point numbers.
        dtypes: of the leaves of the state itself.
    """

    unravel: Callable
    dtypes: tuple[jnp.dtype, ...]

    def __call__(self, vector: Float[Array, " dim"]) -> PyTree:
        """Return the state, its integers rounded."""
        leaves, tree = jax.tree.flatten(self.unravel(vector))
        pairs = zip(leaves, self.dtypes, strict=True)
        return jax.tree.unflatten(tree, [x if x.dtype == dtype else jnp.round(x).astype(dtype) for x, dtype in pairs])


def flatten(transition: Transition, initial_state: PyTree, inputs: PyTree) -> tuple[FlatTransition, Array, int]:
    """Check a problem and put it in flat form.

    Integers and truth values become floating-point numbers, and are rounded on the way back. Those that the numbers
    cannot hold exactly (from 2^24 on in single precision, 2^53 in double) become NaN, which no method passes.

    Returns:
        The transition between flat vectors, the initial state of shape (dim,), and the number of steps.

    Raises:
        ValueError: the state is not made of real arrays, its floating-point arrays have several dtypes, the inputs have
            no common leading axis, or the transition does not return a state like the one it was given.
    """
    steps = _count_steps(inputs)
    initial_state = jax.tree.map(jnp.asarray, initial_state)
    leaves = jax.tree_util.tree_leaves_with_path(initial_state)
    dtypes = {leaf.dtype for _, leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)}
    if not leaves or sum(leaf.size for _, leaf in leaves) == 0:
        raise ValueError("initial_state holds no numbers, expected a pytree with at least one non-empty array.")
    for path, leaf in leaves:
        if not any(jnp.issubdtype(leaf.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
            raise ValueError(
                f"initial_state{jax.tree_util.keystr(path)} has dtype {leaf.dtype}, expected floating point, or "
                "integers for a method that takes no derivative; convert it, for example with "
                "jnp.asarray(value, float)."
            )
    if len(dtypes) > 1:
        names = ", ".join(sorted(str(dtype) for dtype in dtypes))
        raise ValueError(f"initial_state mixes the dtypes {names}, expected one; convert its arrays to the same dtype.")
    _check_output(transition, initial_state, jax.tree.map(lambda leaf: leaf[0], inputs))
    dtype = floating_dtype(initial_state)
    vector, unravel = ravel_pytree(jax.tree.map(lambda leaf: _to_floating(leaf, dtype), initial_state))
    return FlatTransition(transition, Unravel(unravel, tuple(leaf.dtype for _, leaf in leaves))), vector, steps


def floating_dtype(tree: PyTree) -> jnp.dtype:
    """Return the dtype of a tree's floating-point arrays, or that of Python's floats if all are integers."""
    dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves(tree)]
    floating = [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    return jnp.result_type(*floating) if floating else jnp.result_type(float)


def ravel_state(state: PyTree, dtype: jnp.dtype) -> Float[Array, " dim"]:
    """Return a state as a flat vector of floating-point numbers; integers that these cannot hold become NaN."""
    return ravel_pytree(jax.tree.map(lambda leaf: _to_floating(leaf, dtype), state))[0]


def _to_floating(leaf: Array, dtype: jnp.dtype) -> Array:
    if jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
        return leaf
    value = jnp.asarray(leaf, dtype)
    return jnp.where(jnp.abs(value) < 2.0 ** (jnp.finfo(dtype).nmant + 1), value, jnp.nan)


def _count_steps(inputs: PyTree) -> int:
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(inputs)]
    if not shapes or any(len(shape) == 0 for shape in shapes):
        raise ValueError(
            "inputs must be a pytree of arrays with a leading axis `steps`, "
            f"but its leaves have the shapes {shapes}; give at least one array, such as jnp.arange(steps)."
        )
    lengths = sorted({shape[0] for shape in shapes})
    if len(lengths) > 1:
        raise ValueError(f"inputs have leading axes of {lengths} steps, expected the same number for every array.")
    if lengths[0] == 0:
        raise ValueError("inputs hold 0 steps, expected at least 1.")
    return lengths[0]


def _check_output(transition: Transition, state: PyTree, input: PyTree) -> None:
    output = jax.eval_shape(transition, state, input)

    def describe(tree: Any) -> str:
        return str(jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree))

    same_tree = str(jax.tree.structure(output)) == str(jax.tree.structure(state))
    if not same_tree or describe(output) != describe(state):
        raise ValueError(
            f"transition returned {describe(output)}, expected a state like initial_state, {describe(state)}; "
            "return the same structure, shapes and dtypes."
        )
