"""What a method is: a choice of the matrix A[t], and in a few cases of what is solved with it."""

import abc
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from parsample.engine.active import linearise_active, never, stay
from parsample.engine.iteration import Around, Linearised, Memory, Steps, Update, solve, update_of
from parsample.engine.numbers import whole
from parsample.engine.transition import GATES, FlatTransition


class Prepared(NamedTuple):
    """What a method works out once, before the first iteration.

    Attributes:
        per_step: a pytree with leading axis `steps`, handed to the iterations step by step; None for nothing.
        guess: a trajectory to start from, shape (steps, dim); None for the driver's own.
        common: a pytree that is the same for all steps, handed to the iterations as it is; None for nothing.
    """

    per_step: PyTree = None
    guess: Float[Array, "steps dim"] | None = None
    common: PyTree = None


class Method(eqx.Module):
    """What happens in an iteration. The driver in `evaluate.py` does the rest, once for all methods.

    Nearly every method is a `LinearMethod`, which only chooses A[t].
    """

    # Whether A is projected to spectral norm 1 unless the caller says otherwise, and whether there is an A at all, for
    # damping, projection and clipping to work on.
    projects: ClassVar[bool] = True
    has_matrices: ClassVar[bool] = True
    # Whether the points inside of a step at which it reads the log density are unknown as well, so that an iteration
    # waits for one gradient.
    is_lifted: ClassVar[bool] = False
    # Whether the method can evaluate only the active steps.
    has_active_set: ClassVar[bool] = False

    @property
    def needs_derivative(self) -> bool:
        """Whether the transition is differentiated: then states may hold no integers."""
        return True

    def tangents(self, dim: int) -> int:
        """Return the derivatives along one direction that an iteration takes of a step, for states of `dim` numbers."""
        return int(self.needs_derivative)

    def turns(self, transition: FlatTransition, state: jax.ShapeDtypeStruct, inputs: PyTree) -> int:
        """Return within how many iterations a step ends whose previous state is known, given the form of the states."""
        return 1

    def prepare(self, transition: FlatTransition, initial_state: Float[Array, " dim"], inputs: PyTree) -> Prepared:
        """Work out what the iterations need, over the whole chain: for most methods nothing."""
        return Prepared()

    def start(self, transition: FlatTransition, around: Around) -> Memory:
        """Return the memory before the first iteration: for most methods none."""
        return Memory()

    @abc.abstractmethod
    def iterate(self, transition: FlatTransition, around: Around, memory: Memory) -> Update:
        """Evaluate the transition along the guesses of a window, and make new ones."""


class AbstractWrapper(Method):
    """A method around another one, which answers what the driver asks about its matrices and derivatives."""

    method: eqx.AbstractVar[Method]

    @property
    def needs_derivative(self) -> bool:
        """Whether the transition is differentiated: as the method inside does."""
        return self.method.needs_derivative

    def prepare(self, transition: FlatTransition, initial_state: Float[Array, " dim"], inputs: PyTree) -> Prepared:
        """Prepare what the method inside does."""
        return self.method.prepare(transition, initial_state, inputs)

    def tangents(self, dim: int) -> int:
        """Return those of the method inside."""
        return self.method.tangents(dim)

    def turns(self, transition: FlatTransition, state: jax.ShapeDtypeStruct, inputs: PyTree) -> int:
        """Return those of the method inside."""
        return self.method.turns(transition, state, inputs)


def innermost(method: Method) -> Method:
    """Return the method inside all wrappers."""
    return innermost(method.method) if isinstance(method, AbstractWrapper) else method


class PreparedMethod(Method):
    """A choice of A[t], with something worked out for every step before the first iteration."""

    has_active_set: ClassVar[bool] = True

    @abc.abstractmethod
    def linearise(self, transition: FlatTransition, steps: Steps) -> Linearised:
        """Evaluate the transition at every step, and choose its matrix.

        Args:
            transition: between flat vectors.
            steps: where and with which inputs.

        Returns:
            The values f(previous[t], inputs[t]), A with leading axis `steps`, and the details of the steps.
        """

    def start(self, transition: FlatTransition, around: Around) -> Memory:
        """Remember evaluations if only the active steps are evaluated again, otherwise nothing."""
        return Memory() if around.capacity is None else Memory(never(self.linearise, transition, around))

    def iterate(self, transition: FlatTransition, around: Around, memory: Memory) -> Update:
        """Linearise, and solve the linear system."""
        if around.capacity is None:
            values, matrices, details = jax.lax.stop_gradient(self.linearise(transition, around.steps()))
            return update_of(around, values, *solve(around, values, matrices), details)
        last, waiting, evaluations = linearise_active(self.linearise, transition, around, memory.rows, around.capacity)
        correction, guesses = solve(around, last.values, last.matrices, last.at)
        guesses = jnp.where(stay(around, last.values, correction)[:, None], around.guesses, guesses)
        update = update_of(around, last.values, correction, guesses, last.details, Memory(last))
        return update._replace(evaluations=evaluations, waiting=waiting)


class LinearMethod(PreparedMethod):
    """A choice of A[t] from the step alone, and nothing else."""


def check_gate(gate: str) -> None:
    """Raise ValueError unless `gate` is the name of one."""
    if gate not in GATES:
        raise ValueError(f"gate is {gate!r}, expected one of {', '.join(map(repr, GATES))}.")


def check_probes(num_probes: int) -> None:
    """Raise ValueError unless there is at least one probe."""
    whole("num_probes", num_probes, "for no derivative use method='jacobi' or 'secant'")


def evaluate_all(transition: FlatTransition, steps: Steps) -> tuple[Float[Array, "steps dim"], PyTree]:
    """Evaluate the transition at every step: the values, shape (steps, dim), and the details."""
    return jax.vmap(transition.with_details)(steps.previous, steps.inputs)


def draw_signs(rng_key: Key[Array, ""], shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """Draw random signs, 32 from each random word: eight times faster than one word a sign."""
    size = 1
    for axis in shape:
        size *= axis
    words = jax.random.bits(rng_key, (-(-size // 32),), jnp.uint32)
    bits = (words[:, None] >> jnp.arange(32, dtype=jnp.uint32)) & 1
    return (2 * bits.reshape(-1)[:size].reshape(shape).astype(dtype) - 1).astype(dtype)
