"""Gibbs sampling: one block after the other, each from its conditional distribution or by a random-walk step."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from parsample.engine.names import unknown
from parsample.engine.transition import floating_dtype
from parsample.samplers import metropolis
from parsample.samplers.base import PositionSampler, Sampler, check_step_size
from parsample.samplers.metropolis import MetropolisInfo, MetropolisInput, MetropolisState
from parsample.samplers.noise import draw_uniforms, log_uniform, normal


class Conditional(eqx.Module):
    """The update of one block: its new value as a function of the position and of numbers drawn in advance.

    Where the block is continuous the function should be smooth, so that the chain has derivatives: a mean plus a
    standard deviation times a normal number, a scale over a gamma number of fixed shape, or an inverse CDF of a uniform
    one. Scales are best kept as logarithms: the parallel iteration cannot leave their range.

    Args:
        block: the entry of the position that is updated, a tuple of several, or None for the whole position. With
            None the position may be any pytree, otherwise it is a dict.
        update: `update(position, input) -> block`, pure; for several entries a tuple of their values.
        draw: `draw(rng_key, num_steps, dtype) -> inputs`, any pytree with leading axis `steps`. `dtype` is that of the
            position's floating-point arrays.
    """

    block: str | tuple[str, ...] | None = eqx.field(static=True)
    update: Callable
    draw: Callable

    @property
    def names(self) -> tuple[str, ...]:
        """The entries that are updated."""
        return () if self.block is None else (self.block,) if isinstance(self.block, str) else tuple(self.block)

    def check_names(self, position: PyTree) -> None:
        """Raise ValueError unless the position has the entries that are updated."""
        if self.block is not None and not isinstance(position, dict):
            raise ValueError(
                f"block is {self.block!r}, but the position is a {type(position).__name__}, expected a dict with that "
                "entry; block=None updates the whole position."
            )
        for name in self.names:
            if name not in position:
                raise unknown("block", name, position)

    def apply(self, position: PyTree, input: PyTree) -> PyTree:
        """Return the position with its block updated.

        Raises:
            ValueError: the update returned anything but its block, or changed the position that it was given.
        """
        # The update works on a copy of the containers: a leaf that is not the same object afterwards was replaced.
        given = jax.tree.map(lambda leaf: leaf, position)
        new = self.update(given, input)
        if [*map(id, jax.tree.leaves(given))] != [*map(id, jax.tree.leaves(position))]:
            raise ValueError(
                f"the update of the block {self.block!r} changed the position that it was given, expected it to return "
                "its block and to leave the position alone."
            )
        if self.block is None:
            return self._checked(new, position)
        if isinstance(self.block, str):
            return {**position, self.block: self._checked(new, position[self.block])}
        values = self._checked(new, tuple(position[name] for name in self.names))
        return {**position, **dict(zip(self.names, values, strict=True))}

    def _checked(self, new: PyTree, old: PyTree) -> PyTree:
        found, expected = _describe(new), _describe(old)
        if found != expected:
            raise ValueError(
                f"the update of the block {self.block!r} returned {found}, expected {expected}, like that block; "
                "return the block and nothing else, in its shapes and dtypes."
            )
        return jax.tree.map(jnp.asarray, new)


def _describe(tree: PyTree) -> str:
    return str(jax.tree.map(lambda leaf: f"{jnp.result_type(leaf)}{list(np.shape(leaf))}", tree))


def as_conditionals(updates: Iterable[Any]) -> tuple[Conditional, ...]:
    """Return updates given as `Conditional`s or as plain tuples (block, update, draw).

    Raises:
        ValueError: there is none, or one is neither.
    """
    found = []
    for number, update in enumerate(updates):
        if isinstance(update, tuple) and len(update) == 3 and callable(update[1]) and callable(update[2]):
            update = Conditional(*update)
        if not isinstance(update, Conditional):
            raise ValueError(
                f"updates[{number}] is {update!r}, expected Conditional(block, update, draw) with two functions."
            )
        found.append(update)
    if not found:
        raise ValueError("updates is empty, expected one for each entry of the position; None makes random walks.")
    return tuple(found)


def draw_all(updates: tuple[Conditional, ...], rng_key: Key[Array, ""], num_steps: int, dtype: Any) -> tuple:
    """Draw the inputs of every update for `num_steps` steps."""
    keys = jax.random.split(rng_key, len(updates))
    return tuple(update.draw(key, num_steps, dtype) for update, key in zip(updates, keys, strict=True))


def sweep(updates: tuple[Conditional, ...], position: PyTree, inputs: tuple) -> PyTree:
    """Return the position after all updates, in their order: each sees what those before it made."""
    for update, input in zip(updates, inputs, strict=True):
        position = update.apply(position, input)
    return position


class Gibbs(PositionSampler):
    """Gibbs sampling: a sweep over conditional updates, or over the coordinates by random-walk Metropolis steps.

    With `updates`, or where the log density has `conditional_updates` (tuples (block, update, draw), as targets have
    them), a step is one sweep over them, in their order. Without, coordinate after coordinate is moved by step_size
    times a normal number and accepted or rejected (Metropolis within Gibbs); `acceptance_rate` is then the mean over
    the coordinates, and `is_accepted` says whether any of them moved.

    Updates may hold integers in their blocks, such as spins: then a method that takes no derivative (jacobi, picard)
    evaluates the chain in parallel.

    Args:
        logdensity_fn: position -> log density, up to a constant. May be None where there are updates.
        step_size: standard deviation of a coordinate's random walk, in its units. Nothing to conditional updates.
        updates: `Conditional`s; None for those of the log density, or for random walks if it has none.

    Raises:
        ValueError: the step size is not positive, there is neither a log density nor an update; at the first use, an
            update does not keep to its block, names one that is not there, or an entry of the position has no update.

    Cost: with updates what they cost, and no gradient. Without, one log density a coordinate in a sequential step, and
        one more where only the position is known.

    Source: Geman & Geman 1984; Gelman, Roberts & Gilks 1996 for the acceptance of 0.44 in one dimension. Inputs
    drawn in advance for every update: Zoltowski et al. 2025, section 4.
    """

    target_acceptance: ClassVar[float] = 0.44
    power_of_length: ClassVar[float] = 1

    logdensity_fn: Callable
    step_size: Float[Array, ""] | float
    updates: tuple[Conditional, ...] | None

    def __init__(self, logdensity_fn: Callable | None, step_size: Any = 1.0, updates: Iterable[Any] | None = None):
        """Check the arguments, and find the updates."""
        check_step_size(step_size)
        if updates is None:
            updates = getattr(logdensity_fn, "conditional_updates", None)
        if updates is None and logdensity_fn is None:
            raise ValueError("logdensity_fn is None, expected a log density, or updates that need none.")
        self.logdensity_fn = _not_known if logdensity_fn is None else logdensity_fn
        self.step_size = step_size
        self.updates = None if updates is None else as_conditionals(updates)

    @property
    def has_step_size(self) -> bool:
        """Whether the step size changes anything: not with conditional updates."""
        return self.updates is None

    def init(self, position: PyTree, rng_key: Key[Array, ""] | None = None) -> MetropolisState:
        """Return the state at a position, with its log density: NaN where none was given."""
        self._check(position)
        return MetropolisState(position, self.logdensity_fn(position))

    def draw_block(self, rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: Any) -> MetropolisInput | tuple:
        """Draw the inputs of every update, or noise and uniform numbers for every coordinate, of `num_steps` steps."""
        if self.updates is not None:
            return draw_all(self.updates, rng_key, num_steps, dtype)
        noise, uniform = draw_uniforms(rng_key, dtype, (num_steps, dim), (num_steps, dim))
        return MetropolisInput(normal(noise), log_uniform(uniform))

    def step(
        self, state: MetropolisState, input: MetropolisInput | tuple, gate: str = "frozen"
    ) -> tuple[MetropolisState, MetropolisInfo]:
        """Make one sweep. `gate` concerns the random walks only."""
        if self.updates is None:
            return self._walk(state, MetropolisInput(*input), gate)
        state = self.init(sweep(self.updates, state.position, input))
        return state, MetropolisInfo(jnp.ones((), floating_dtype(state.position)), jnp.asarray(True))

    def _walk(
        self, state: MetropolisState, input: MetropolisInput, gate: str
    ) -> tuple[MetropolisState, MetropolisInfo]:
        vector, unravel = ravel_pytree(state.position)
        coordinates = jnp.arange(vector.size)

        def move(flat: MetropolisState, element: tuple) -> tuple[MetropolisState, MetropolisInfo]:
            number, noise, log_uniform = element
            moved = (flat.position + self.step_size * noise).astype(vector.dtype)
            # A select, because under `vmap` writing to one coordinate would be a scatter.
            moved = jnp.where(coordinates == number, moved, flat.position)
            proposal = MetropolisState(moved, self.logdensity_fn(unravel(moved)))
            return metropolis.decide(gate, log_uniform, proposal.logdensity - flat.logdensity, proposal, flat)

        flat, infos = jax.lax.scan(move, state._replace(position=vector), (coordinates, *input))
        info = MetropolisInfo(infos.acceptance_rate.mean(), infos.is_accepted.any())
        return flat._replace(position=unravel(flat.position)), info

    def with_diagonal(self, unknowns: PyTree, input: MetropolisInput | tuple) -> tuple[tuple[Any, Any], PyTree] | None:
        """Return the step and ones: a random walk moves by the same wherever it stands. None for updates."""
        if self.updates is not None:
            return None
        return self.step(self.init(unknowns), input), jax.tree.map(jnp.ones_like, unknowns)

    def surrogate(self) -> Sampler | None:
        """Return random walks on the log density's `surrogate`, if it has one; conditional updates have none."""
        return super().surrogate() if self.updates is None else None

    def _check(self, position: PyTree) -> None:
        if self.updates is None:
            if any(not jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in jax.tree.leaves(position)):
                raise ValueError(
                    f"the position is {_describe(position)}, expected floating-point arrays, which random walks move; "
                    "integers need updates of their own."
                )
            return
        for update in self.updates:
            update.check_names(position)
        written = {name for update in self.updates for name in update.names}
        if all(update.block is not None for update in self.updates) and set(position) != written:
            raise ValueError(
                f"the entries {sorted(set(position) - written)} of the position have no update, expected one for each; "
                "what is fixed belongs into the update functions."
            )


def _not_known(position: PyTree) -> Float[Array, ""]:
    return jnp.full((), jnp.nan, floating_dtype(position))
