"""Transitions: what the engine solves, and how pytrees become flat vectors."""

import abc
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from parsample.engine.lifted import Lifted
from parsample.engine.reads import pinned, settling
from parsample.engine.traceable import traceable

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
    def with_diagonal(self, state: PyTree, input: PyTree) -> tuple[tuple[PyTree, PyTree], PyTree] | None:
        """Return what `advance` makes of `start(state)`, and the diagonal of the Jacobian, a pytree like the state.

        None where the diagonal is not known.
        """

    @abc.abstractmethod
    def surrogate(self) -> "Transition | None":
        """Return a cheaper transition of the same states and inputs that behaves nearly like it, or None."""

    def lifted(self) -> Lifted | None:
        """Return where steps read a log density, or None."""
        return None

    @abc.abstractmethod
    def start(self, state: PyTree) -> PyTree:
        """Return the carry of the sequential loop: the state and whatever the next step can reuse."""

    @abc.abstractmethod
    def advance(self, carry: PyTree, input: PyTree) -> tuple[PyTree, PyTree]:
        """Make one sequential step: the next carry, and diagnostics of the step."""

    @abc.abstractmethod
    def state_of(self, carry: PyTree) -> PyTree:
        """Return the state inside a carry."""

    def details(self, carry: PyTree, diagnostics: PyTree) -> PyTree:
        """Return what a trace keeps of the step that ended in this carry: any pytree of arrays."""
        return diagnostics


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
        """Return None: a plain function has none."""
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
    """A transition between flat vectors of shape (dim,), for methods, which know nothing of pytrees.

    Attributes:
        transition: between states.
        unravel: from a flat vector to a state.
        detailed: whether the details of a step are asked for; where they are not, None stands for them.
    """

    transition: Transition
    unravel: Callable = eqx.field(static=True)
    detailed: bool = eqx.field(static=True, default=False)

    def __call__(self, vector: Float[Array, " dim"], input: PyTree) -> Float[Array, " dim"]:
        """Return the next state, flat."""
        return ravel_state(self.transition(self.unravel(vector), input), vector.dtype)

    def with_details(self, vector: Float[Array, " dim"], input: PyTree) -> tuple[Float[Array, " dim"], PyTree]:
        """Return the next state, flat, and the details of the step."""
        if not self.detailed:
            return self(vector, input), None
        _, state, details = self.advance(self.start(vector), input, vector.dtype)
        return state, details

    def linearise(self, vector: Float[Array, " dim"], input: PyTree) -> tuple[Array, Callable, PyTree]:
        """Return the next state, flat, the function that the Jacobian is, and the details of the step."""
        return jax.linearize(lambda vector: self.with_details(vector, input), vector, has_aux=True)

    def start(self, vector: Float[Array, " dim"]) -> PyTree:
        """Return the carry of the sequential loop."""
        return self.transition.start(self.unravel(vector))

    def advance(self, carry: PyTree, input: PyTree, dtype: jnp.dtype) -> tuple[PyTree, Float[Array, " dim"], PyTree]:
        """Make one sequential step: the next carry, the state in it, flat, and the details of the step."""
        return self._seen(*self.transition.advance(carry, input), dtype)

    def _seen(self, carry: PyTree, diagnostics: PyTree, dtype: jnp.dtype) -> tuple[PyTree, Array, PyTree]:
        details = self.transition.details(carry, diagnostics) if self.detailed else None
        return carry, ravel_state(self.transition.state_of(carry), dtype), details

    def tolerance(self, states: Float[Array, "*steps dim"], atol: Array, rtol: Array) -> Float[Array, "*steps dim"]:
        """Return what the error of each number may be: atol + rtol * |state|, and for integers too little to matter.

        An integer within `WITHIN_AN_INTEGER` of the transition's value is that value once it is rounded.
        """
        bound = atol + rtol * jnp.abs(states)
        leaves = jax.tree.leaves(jax.eval_shape(self.unravel, jax.ShapeDtypeStruct(states.shape[-1:], states.dtype)))
        inexact = [np.full(leaf.size, jnp.issubdtype(leaf.dtype, jnp.inexact)) for leaf in leaves]
        # The imaginary parts follow the leaves.
        known = np.concatenate([*inexact, *(np.full(leaf.size, True) for leaf in leaves if _is_complex(leaf))])
        return bound if known.all() else jnp.where(known, bound, jnp.minimum(bound, WITHIN_AN_INTEGER))

    def with_gate(self, gate: str) -> "FlatTransition":
        """Return the same with another gate."""
        return FlatTransition(self.transition.with_gate(gate), self.unravel, self.detailed)

    def with_diagonal(self, vector: Float[Array, " dim"], input: PyTree) -> tuple[Array, Array, PyTree] | None:
        """Return the next state and the diagonal of the Jacobian, both flat, and the details of the step, or None.

        A diagonal of complex numbers is none: for their real and imaginary parts it would be one of 2 x 2 blocks.
        """
        found = self.transition.with_diagonal(self.unravel(vector), input)
        if found is None or any(_is_complex(leaf) for leaf in jax.tree.leaves(found[1])):
            return None
        step, diagonal = found
        _, state, details = self._seen(*step, vector.dtype)
        return state, ravel_state(diagonal, vector.dtype), details

    def surrogate(self) -> "FlatTransition | None":
        """Return the surrogate of the transition, or None."""
        found = self.transition.surrogate()
        return None if found is None else FlatTransition(found, self.unravel)

    def like(self, transition: Callable) -> "FlatTransition":
        """Return another transition of the same states, flat."""
        return FlatTransition(as_transition(transition), self.unravel)


@dataclass(frozen=True)
class Unravel:
    """From a flat vector back to the state. Two are equal where the states are alike, so that programs are found again.

    Attributes:
        unravel: to the `_parts` of a state.
        dtypes: of the leaves of the state itself.
    """

    unravel: Callable
    dtypes: tuple[jnp.dtype, ...]

    def __call__(self, vector: Float[Array, " dim"]) -> PyTree:
        """Return the state, its integers rounded."""
        state, imaginary = self.unravel(vector)
        leaves, tree = jax.tree.flatten(state)
        rest = iter(imaginary)

        def of(leaf: Array, dtype: jnp.dtype) -> Array:
            if jnp.issubdtype(dtype, jnp.complexfloating):
                return jax.lax.complex(leaf, next(rest))
            return leaf if leaf.dtype == dtype else jnp.round(leaf).astype(dtype)

        return jax.tree.unflatten(tree, [of(leaf, dtype) for leaf, dtype in zip(leaves, self.dtypes, strict=True)])


def flatten(
    transition: Transition, initial_state: PyTree, inputs: PyTree, detailed: bool = False
) -> tuple[FlatTransition, Array, int]:
    """Check a problem and put it in flat form: `flat_problem`, with the initial state as a vector."""
    flat, form, steps = flat_problem(transition, initial_state, inputs, detailed)
    return flat, ravel_state(initial_state, form.dtype), steps


def flat_problem(
    transition: Transition, initial_state: PyTree, inputs: PyTree, detailed: bool = False
) -> tuple[FlatTransition, jax.ShapeDtypeStruct, int]:
    """Check a problem, of which only the shapes may be given, and put it in flat form.

    What is compiled of the transition serves until something changes that it reads, a global number say
    (`reads.pinned`).

    A complex number becomes two real ones: first come the real parts of all leaves, then all imaginary parts, so that
    for a state of complex numbers `methods.BlockQuasiNewton` sees how the two are coupled.

    Integers and truth values become floating-point numbers, and are rounded on the way back. Those that the numbers
    cannot hold exactly (from 2^24 on in single precision, 2^53 in double) become NaN, which no method passes.

    Returns:
        The transition between flat vectors, the form of such a vector, of shape (dim,), and the number of steps.

    Raises:
        ValueError: the state is not made of numbers, its floating-point arrays have several dtypes, the inputs have
            no common leading axis, or the transition does not return a state like the one it was given.
    """
    steps = _count_steps(inputs)
    of = lambda leaf: leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jnp.asarray(leaf)  # noqa: E731
    initial_state = jax.tree.map(of, initial_state)
    leaves = jax.tree_util.tree_leaves_with_path(initial_state)
    dtypes = {_real_dtype(leaf.dtype) for _, leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)}
    if not leaves or sum(leaf.size for _, leaf in leaves) == 0:
        raise ValueError("initial_state holds no numbers, expected a pytree with at least one non-empty array.")
    for path, leaf in leaves:
        if not any(jnp.issubdtype(leaf.dtype, kind) for kind in (jnp.inexact, jnp.integer, jnp.bool_)):
            raise ValueError(
                f"initial_state{jax.tree_util.keystr(path)} has dtype {leaf.dtype}, expected real or complex floating "
                "point, or integers for a method that takes no derivative; convert it, for example with "
                "jnp.asarray(value, float)."
            )
    if len(dtypes) > 1:
        names = ", ".join(sorted(str(dtype) for dtype in dtypes))
        raise ValueError(f"initial_state mixes the dtypes {names}, expected one; convert its arrays to the same dtype.")
    first = jax.eval_shape(first_row, inputs)
    with traceable("transition"):
        with settling(transition) as is_new:
            if is_new:
                jax.eval_shape(transition, initial_state, first)
        transition = pinned(transition)
        _check_output(transition, initial_state, first)
    tree = jax.tree.structure(initial_state)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(initial_state))
    unravel, form = _form(tree, shapes, floating_dtype(initial_state))
    return FlatTransition(transition, unravel, detailed), form, steps


def first_row(tree: PyTree) -> PyTree:
    """Return the first row of every array."""
    return jax.tree.map(lambda leaf: leaf[0], tree)


def flat_form(transition: Transition, state: PyTree, detailed: bool = False) -> tuple[FlatTransition, Array]:
    """Return a transition of flat vectors, and a state as one, of a problem that needs no check."""
    vector, unravel = _taken_apart(state)
    return FlatTransition(transition, unravel, detailed), vector


def _taken_apart(state: PyTree) -> tuple[Array, "Unravel"]:
    """Return a state as a flat vector, and the way back."""
    vector, unravel = ravel_pytree(_parts(state, floating_dtype(state)))
    return vector, Unravel(unravel, tuple(jnp.result_type(leaf) for leaf in jax.tree.leaves(state)))


@functools.lru_cache(maxsize=1024)
def _form(
    tree: Any, leaves: tuple[tuple[tuple[int, ...], Any], ...], dtype: jnp.dtype
) -> tuple["Unravel", jax.ShapeDtypeStruct]:
    """Return the same for states of a form, without their numbers, for which nothing is compiled.

    `dtype` is what integers become, which depends on JAX's settings.
    """
    found = []

    def vector(state: PyTree) -> Array:
        vector, unravel = _taken_apart(state)
        found.append(unravel)
        return vector

    shapes = [jax.ShapeDtypeStruct(*leaf) for leaf in leaves]
    form = jax.eval_shape(vector, jax.tree.unflatten(tree, shapes))
    return found[0], form


def floating_dtype(tree: PyTree) -> jnp.dtype:
    """Return the dtype of a tree's real numbers, parts of complex ones too; if all are integers, Python's floats'."""
    dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves(tree)]
    floating = [_real_dtype(dtype) for dtype in dtypes if jnp.issubdtype(dtype, jnp.inexact)]
    return jnp.result_type(*floating) if floating else jnp.result_type(float)


def ravel_state(state: PyTree, dtype: jnp.dtype) -> Float[Array, " dim"]:
    """Return a state as a flat vector of floating-point numbers; integers that these cannot hold become NaN."""
    return ravel_pytree(_parts(state, dtype))[0]


def _parts(state: PyTree, dtype: jnp.dtype) -> tuple[PyTree, list[Array]]:
    """Return the real parts of a state as floating-point numbers, and the imaginary parts of its complex leaves."""
    real = jax.tree.map(lambda leaf: _to_floating(jnp.real(leaf), dtype), state)
    return real, [jnp.imag(leaf) for leaf in jax.tree.leaves(state) if _is_complex(leaf)]


def _is_complex(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating)


def _real_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Return the dtype of the real part."""
    return jnp.finfo(dtype).dtype if jnp.issubdtype(dtype, jnp.complexfloating) else dtype


def _to_floating(leaf: Array, dtype: jnp.dtype) -> Array:
    if jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
        return leaf
    value = jnp.asarray(leaf, dtype)
    return jnp.where(jnp.abs(value) < 2.0 ** (jnp.finfo(dtype).nmant + 1), value, jnp.nan)


def _count_steps(inputs: PyTree) -> int:
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(inputs)]
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


@functools.partial(jax.jit, static_argnums=1)
def _step(arrays: Transition, rest: tuple[Any, tuple], state: PyTree, input: PyTree) -> PyTree:
    return eqx.combine(arrays, jax.tree.unflatten(*rest))(state, input)


def _check_output(transition: Transition, state: PyTree, input: PyTree) -> None:
    # Compiled functions remember what they were traced with; this one is never run.
    arrays, rest = eqx.partition(transition, lambda leaf: isinstance(leaf, jax.Array | np.ndarray))
    leaves, tree = jax.tree.flatten(rest)
    output = _step.eval_shape(arrays, (tree, tuple(leaves)), state, input)

    def describe(tree: Any) -> str:
        return str(jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree))

    same_tree = str(jax.tree.structure(output)) == str(jax.tree.structure(state))
    if not same_tree or describe(output) != describe(state):
        raise ValueError(
            f"transition returned {describe(output)}, expected a state like initial_state, {describe(state)}; "
            "return the same structure, shapes and dtypes."
        )
