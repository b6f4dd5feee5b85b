"""Parareal: a coarse propagator carries corrections from segment to segment."""

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from parsample.engine.iteration import Around, Memory, Update, shift
from parsample.engine.methods.base import Method, Prepared
from parsample.engine.transition import FlatTransition


class Parareal(Method):
    """Run the steps of every segment in sequence, all segments at once; a coarse propagator joins them.

    With F the steps of a segment and G the coarse propagator, the state at the end of segment n becomes
    F(x[n]) + G(x_new[n]) - G(x[n]). With segments of one step and a linear G this is the driver's own iteration.

    Args:
        coarse: `coarse(state, inputs) -> state`, over a whole segment: `inputs` have a leading axis of at most
            `segment` steps. It may be any sampler with a larger step. None for the steps of a segment by the
            transition's surrogate (see `Surrogate`), or, where there is none, by the transition linearised in its
            diagonal at the initial state.
        segment: steps of a segment, at least 1.

    Raises:
        ValueError: a segment below 1.

    Cost: each iteration has a depth of `segment` evaluations beside the coarse sweep, which is sequential. Calls of
        the coarse propagator are not counted as evaluations.

    Source: Lions et al. 2001; Selvam et al. 2024 (SRDS) for samplers. Here segments are counted from the window's
    start, and inside a segment the states are the transition's own.
    """

    has_matrices: ClassVar[bool] = False

    coarse: Callable | None = None
    segment: int = eqx.field(static=True, default=16)

    def __check_init__(self):
        """Check the length of a segment."""
        if isinstance(self.segment, bool) or not isinstance(self.segment, int) or self.segment < 1:
            raise ValueError(f"segment is {self.segment!r}, expected a whole number of steps of at least 1.")

    @property
    def needs_derivative(self) -> bool:
        """Whether the transition is differentiated: not with a coarse propagator of its own."""
        return self.coarse is None

    def prepare(self, transition: FlatTransition, initial_state: Float[Array, " dim"], inputs: PyTree) -> Prepared:
        """Linearise at the initial state if there is nothing else to be coarse with."""
        if self.coarse is not None or transition.surrogate() is not None:
            return Prepared()

        def diagonal(input: PyTree) -> Array:
            known = transition.with_diagonal(initial_state, input)
            return jnp.diagonal(jax.jacfwd(transition)(initial_state, input)) if known is None else known[1]

        return Prepared(jnp.clip(jax.vmap(diagonal)(inputs), -1, 1))

    def start(self, transition: FlatTransition, around: Around) -> Memory:
        """Remember nothing."""
        return Memory()

    def iterate(self, transition: FlatTransition, around: Around, memory: Memory) -> Update:
        """Run all segments, then sweep over their ends."""
        window = around.guesses.shape[0]
        length = min(self.segment, window)
        count = -(-window // length)

        def cut(leaf: Array) -> Array:
            padding = jnp.broadcast_to(leaf[-1:], (count * length - window, *leaf.shape[1:]))
            return jnp.concatenate([leaf, padding]).reshape(count, length, *leaf.shape[1:])

        inputs, prepared, held = jax.tree.map(cut, (around.inputs, around.prepared, around.guesses))
        is_open = cut(around.open)
        ends = cut(around.guesses)[:, -1]
        starts = shift(around.boundary, ends)

        def fine(start: Array, *steps: PyTree) -> tuple[Array, PyTree]:
            def step(state: Array, element: tuple) -> tuple[Array, tuple[Array, PyTree]]:
                input, held, is_open = element
                state, details = transition.with_details(state, input)
                state = jnp.where(is_open, state, held)
                return state, (state, details)

            return jax.lax.scan(step, start, steps)[1]

        values, details = jax.lax.stop_gradient(jax.vmap(fine)(starts, inputs, held, is_open))
        coarse = self._propagator(transition)
        before = jax.vmap(coarse)(starts, inputs, prepared)

        def join(start: Array, segment: tuple) -> tuple[Array, Array]:
            inputs, prepared, value, old = segment
            end = value + coarse(start, inputs, prepared) - old
            # A segment that is not finite forgets its past; such a guess is never accepted.
            end = jnp.where(jnp.isfinite(end).all(), end, around.latest)
            return end, end

        _, new_ends = jax.lax.scan(join, around.boundary, (inputs, prepared, values[:, -1], before))
        # Inside a segment the states are those of the fine run; a correction of its start moves them along.
        moved = shift(jnp.zeros_like(around.boundary), new_ends - ends)[:, None]
        last = (jnp.arange(length) == length - 1)[None, :, None]
        states = jnp.where(last, ends[:, None], values)
        guesses = jnp.where(last, new_ends[:, None], values + moved)
        flat = lambda rows: rows.reshape(-1, *rows.shape[2:])[:window]  # noqa: E731
        states, guesses, values, details = jax.tree.map(flat, (states, guesses, values, details))
        return Update(states, values, guesses - states, guesses, jnp.asarray(count * length), memory, details)

    def _propagator(self, transition: FlatTransition) -> Callable[[Array, PyTree, PyTree], Array]:
        if self.coarse is not None:
            whole = transition.stand_in(self.coarse)
            return lambda state, inputs, prepared: whole(state, inputs)
        surrogate = transition.surrogate()
        if surrogate is not None:
            return lambda state, inputs, prepared: jax.lax.scan(lambda x, u: (surrogate(x, u), None), state, inputs)[0]
        return lambda state, inputs, prepared: state * jnp.prod(prepared, 0)
