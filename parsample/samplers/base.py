"""What a sampler is: it makes transitions with fixed inputs, most of them from a log density."""

import abc
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from parsample.engine.arrays import with_arrays
from parsample.engine.lifted import Lifted
from parsample.engine.transition import Transition, floating_dtype

# Steps share a random key in blocks of this many, counted from step 0 of the chain: the inputs of a step depend on the
# key and on its number alone, not on where a window or a segment begins.
BLOCK = 128


class Chain(eqx.Module):
    """A Markov chain: what is drawn in advance for every step, and what a step does with it.

    A step maps a state to a state. The state has a `position` and whatever the next step can reuse (a gradient, say);
    the part of it that has to be known, and that the engine solves for, are its unknowns: the position, and for some
    samplers a momentum or further replicas. Everything else of a state follows from them.

    Keys stop at `init` and `draw_inputs`: `step` never takes one.
    """

    # The diagnostics of its steps that it learns from in warm-up, by name: see `Sampler.options_learnt`.
    learns_from: ClassVar[tuple[str, ...]] = ()
    # Whether the state holds the gradient of the log density there, as a flat vector `gradient`.
    holds_gradient: ClassVar[bool] = False

    @abc.abstractmethod
    def init(self, position: PyTree, rng_key: Key[Array, ""] | None = None) -> Any:
        """Return the state at a position. What else is unknown is drawn with `rng_key`, or 0 without one."""

    @abc.abstractmethod
    def unknowns(self, state: Any) -> PyTree:
        """Return what the engine solves for: floating-point arrays of one dtype, or for some samplers integers."""

    @abc.abstractmethod
    def resume(self, unknowns: PyTree) -> Any:
        """Return the state with these unknowns."""

    @abc.abstractmethod
    def draw_block(self, rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype) -> PyTree:
        """Draw the inputs of `num_steps` steps, leading axis `steps`, for positions of `dim` numbers."""

    @abc.abstractmethod
    def step(self, state: Any, input: Any, gate: str = "frozen") -> tuple[Any, Any]:
        """Make one step: the next state, and diagnostics of the step. `gate` concerns only its derivative.

        The diagnostics have at least `acceptance_rate` and `is_accepted`. Their scalars go into the trace, and what
        `learns_from` names.
        """

    @abc.abstractmethod
    def with_diagonal(self, unknowns: PyTree, input: Any) -> tuple[tuple[Any, Any], PyTree] | None:
        """Return what `step` does, and the diagonal of the unknowns' Jacobian (frozen gate), or None if not known."""

    @abc.abstractmethod
    def surrogate(self) -> "Chain | None":
        """Return the same chain on a Gaussian that resembles its target, or None where none is known."""

    def draw_inputs(self, rng_key: Key[Array, ""], num_steps: int, position: PyTree, start: int | Array = 0) -> PyTree:
        """Draw everything random about steps `start` to `start + num_steps` of a chain.

        Args:
            rng_key: of the chain.
            num_steps: how many; leading axis of every array that is returned.
            position: any position, for its size and dtype.
            start: the first step, counted from the beginning of the chain.

        Returns:
            A pytree with leading axis `steps`. Step t gets the same input whatever `start` and `num_steps` are.

        Raises:
            ValueError: `num_steps` is below 1.
        """
        if num_steps < 1:
            raise ValueError(f"num_steps is {num_steps}, expected at least 1.")
        size, dtype = sum(np.size(leaf) for leaf in jax.tree.leaves(position)), floating_dtype(position)
        num_blocks = -(-num_steps // BLOCK) + (0 if isinstance(start, int) and start % BLOCK == 0 else 1)
        keys = _block_keys(rng_key, start, num_blocks)
        return _rows(jax.vmap(lambda key: self.draw_block(key, BLOCK, size, dtype))(keys), start, num_steps)

    def for_loop(self) -> "Chain":
        """Return the same chain with values left open that only a derivative needs to know when it is compiled."""
        return self

    @property
    def transition(self) -> "SamplerTransition":
        """What the engine solves: `transition(unknowns, input) -> unknowns`."""
        return SamplerTransition(with_arrays(self, Chain))


# One program each, and not one for every operation and array.
@functools.partial(jax.jit, static_argnums=2)
def _block_keys(rng_key: Array, start: Array, count: int) -> Array:
    """Return the keys of the blocks from that of a step on."""
    return jax.vmap(lambda block: jax.random.fold_in(rng_key, block))(start // BLOCK + jnp.arange(count))


@functools.partial(jax.jit, static_argnums=2)
def _rows(blocks: PyTree, start: Array, count: int) -> PyTree:
    """Return the rows of some steps, of blocks with the leading axes (block, step)."""

    def cut(leaf: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(leaf.reshape(-1, *leaf.shape[2:]), start % BLOCK, count)

    return jax.tree.map(cut, blocks)


class Sampler(Chain):
    """A chain on a log density, with a step size. Every row of the table works with its defaults."""

    logdensity_fn: eqx.AbstractVar[Callable]
    step_size: eqx.AbstractVar[Float[Array, ""] | float]
    # The mean acceptance rate that warm-up steers the step size to, dimensionless; None for no accept/reject.
    target_acceptance: ClassVar[float | None]
    # The power of the target's length that the step size goes with: for a target a times as wide, a step size that is
    # a**power_of_length times as large makes the same chain, a times as wide. 1 for a step in units of the position, 2
    # in squared ones, 0 for one without a unit.
    power_of_length: ClassVar[float]
    # Without accept/reject: (a, b) for a step size of a * dim**b * step_size**(power_of_length / 2), where MALA accepts
    # as it should at `step_size` in standardised coordinates.
    beside_mala: ClassVar[tuple[float, float]] = (0.1, 0.0)
    # Whether MALA finds the scale of the posterior in warm-up, and this sampler only its own step size: without a
    # gradient that takes too many steps.
    warm_up_by_mala: ClassVar[bool] = False
    # Whether only the sequential loop evaluates it: where the work of a step is known when it is done, say.
    loop_only: ClassVar[bool] = False

    if TYPE_CHECKING:  # What the fields above do not say: a sampler works with its defaults, from a log density alone.

        def __init__(self, logdensity_fn: Callable, step_size: Any = 0.1): ...

    @property
    def has_step_size(self) -> bool:
        """Whether the step size changes anything, so that warm-up looks for one."""
        return True

    @classmethod
    def at_length(cls, logdensity_fn: Callable, step_size: Any, length: Array | float) -> "Sampler":
        """Return the sampler, with its defaults, of a target that is `length` times as wide as one for `step_size`."""
        return cls(logdensity_fn, step_size * length**cls.power_of_length)

    @classmethod
    def steered_as(cls, options: Mapping[str, Any]) -> type["Sampler"]:
        """Return the class whose acceptance, scaling and way of warm-up are those of this sampler with its options."""
        return cls

    @classmethod
    def options_at(
        cls, options: Mapping[str, Any], step_size: float, longer: int = 1, more: int = 1
    ) -> dict[str, Any] | None:
        """Return the options to go on with: those given, and what follows from a step size that warm-up found.

        Args:
            options: of the constructor, as they were given.
            step_size: in standardised coordinates, dimensionless.
            longer: how many times as far as usual a step should go, since the draws of warm-up depended on each other.
            more: of how many moves a step should be made, for draws that going further would not set apart.

        Returns:
            None where nothing follows.
        """
        return None

    def options_learnt(self, options: Mapping[str, Any], seen: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
        """Return the options to go on with: those given, and what a stretch of warm-up says of them.

        Args:
            options: of the constructor, as they were given.
            seen: the diagnostics that `learns_from` names, at the steps of chains that have found in, axes (chain,
                step) in front.

        Returns:
            None where nothing follows.
        """
        return None

    def surrogate(self) -> "Sampler | None":
        """Return the same sampler on the log density's `surrogate`, if it has one."""
        density = getattr(self.logdensity_fn, "surrogate", None)
        return None if density is None else self.on(density)

    def on(self, logdensity_fn: Callable) -> "Sampler":
        """Return the same sampler on another log density."""
        return eqx.tree_at(lambda sampler: sampler.logdensity_fn, self, logdensity_fn)

    @property
    def points(self) -> Callable[[Any, Any], Float[Array, "points dim"]] | None:
        """Where a step reads the log density beside where it starts, in turn, as a function of the state and the input.

        Flat positions. At each the step reads its value and gradient, at the one of number n by
        `engine.lifted.numbered(logdensity_fn, n)`, counted from 1. None where they are not known, or where something
        else than the position is unknown.
        """
        return None


class PositionSampler(Sampler):
    """A sampler whose only unknown is the position."""

    @abc.abstractmethod
    def init(self, position: PyTree, rng_key: Key[Array, ""] | None = None) -> Any:
        """Return the state at a position. Nothing else is unknown, and nothing is drawn."""

    def unknowns(self, state: Any) -> PyTree:
        """Return the position."""
        return state.position

    def resume(self, unknowns: PyTree) -> Any:
        """Return the state at a position."""
        return self.init(unknowns)


class SamplerTransition(Transition):
    """A chain's step as a transition from unknowns to unknowns: for most samplers, from position to position."""

    sampler: Chain
    gate: str = eqx.field(static=True, default="frozen")
    # Whether what it tells of a step has the gradient of the log density, where the chain's state holds it.
    keeps_gradient: bool = eqx.field(static=True, default=False)

    def __call__(self, state: PyTree, input: PyTree) -> PyTree:
        """Return the next unknowns."""
        return self.sampler.unknowns(self.step(state, input)[0])

    def step(self, unknowns: PyTree, input: PyTree) -> tuple[Any, Any]:
        """Return the chain's next state and the diagnostics of the step, from the unknowns alone."""
        return self.sampler.step(self.sampler.resume(unknowns), input, self.gate)

    def with_gate(self, gate: str) -> "SamplerTransition":
        """Return the same transition with another derivative of accept/reject."""
        return dataclasses.replace(self, gate=gate)

    def with_diagonal(self, state: PyTree, input: PyTree) -> tuple[tuple[Any, Any], PyTree] | None:
        """Return the step and the diagonal of the Jacobian, if the chain knows it."""
        return self.sampler.with_diagonal(state, input)

    def surrogate(self) -> "SamplerTransition | None":
        """Return the transition of the chain's surrogate, if it has one."""
        found = self.sampler.surrogate()
        return None if found is None else dataclasses.replace(self, sampler=found)

    def lifted(self) -> Lifted | None:
        """Return where steps read the log density, if the sampler says so."""
        sampler = self.sampler
        if not isinstance(sampler, Sampler) or sampler.points is None or not _says_itself(type(sampler)):
            return None

        def points(density: Callable, unknowns: PyTree, input: PyTree) -> Float[Array, "points dim"]:
            other = sampler.on(density)
            assert other.points is not None
            return other.points(other.resume(unknowns), input)

        def on(density: Callable) -> SamplerTransition:
            return dataclasses.replace(self, sampler=sampler.on(density))

        surrogate = sampler.surrogate()
        return Lifted(sampler.logdensity_fn, None if surrogate is None else surrogate.logdensity_fn, on, points)

    def start(self, state: PyTree) -> Any:
        """Return the chain's state, which caches what the next step needs."""
        return self.sampler.resume(state)

    def advance(self, carry: Any, input: PyTree) -> tuple[Any, Any]:
        """Make one step with the cache."""
        return self.sampler.step(carry, input, self.gate)

    def state_of(self, carry: Any) -> PyTree:
        """Return the unknowns of a chain's state."""
        return self.sampler.unknowns(carry)

    def details(self, carry: Any, diagnostics: Any) -> "Details":
        """Return the draw, its log density, the diagnostics that are scalars, and those that warm-up learns from."""
        learns_from = self.sampler.learns_from
        kept = {name: v for name, v in diagnostics._asdict().items() if np.ndim(v) == 0 or name in learns_from}
        gradient = carry.gradient if self.keeps_gradient and self.sampler.holds_gradient else None
        return Details(carry.position, carry.logdensity, kept, gradient)


class Details(NamedTuple):
    """What is kept of a step: the draw, its log density up to a constant, diagnostics by name, a gradient or None."""

    position: PyTree
    lp: Float[Array, ""]
    info: dict[str, Array]
    gradient: Float[Array, " dim"] | None = None


def _says_itself(sampler_class: type[Sampler]) -> bool:
    """Say whether `points` are those of the sampler's own steps, and not of a class whose steps it has overridden."""
    definer = lambda name: next(row for row in sampler_class.__mro__ if name in vars(row))  # noqa: E731
    return all(issubclass(definer("points"), definer(name)) for name in ("step", "init", "resume"))


def check_step_size(step_size: Any) -> None:
    """Raise ValueError unless a step size is a positive number, where its value is known."""
    if isinstance(step_size, jax.core.Tracer):
        return
    if (
        isinstance(step_size, bool)
        or np.ndim(step_size) != 0
        or not (float(step_size) > 0 and math.isfinite(float(step_size)))
    ):
        raise ValueError(f"step_size is {step_size}, expected one finite number above 0, such as 0.1.")


def check_power_of_length(sampler_class: type[Sampler]) -> None:
    """Raise ValueError unless a sampler says how its step size goes with the length of the target."""
    if not hasattr(sampler_class, "power_of_length"):
        raise ValueError(
            f"{sampler_class.__name__} does not say how its step size goes with the scale of the target; set the class "
            "attribute power_of_length: 1 where step_size is in units of the position, 2 in squared ones, 0 without."
        )


def value_and_gradient(logdensity_fn: Callable, position: PyTree) -> tuple[Float[Array, ""], Float[Array, " dim"]]:
    """Return the log density at a position, and its gradient as a flat vector."""
    value, gradient = jax.value_and_grad(logdensity_fn)(position)
    return value, ravel_pytree(gradient)[0]
