"""Parareal and MGRIT: a coarse propagator carries corrections from segment to segment, on two levels or more."""

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from parsample.engine.iteration import Around, Memory, Update, shift
from parsample.engine.methods.base import Method, Prepared
from parsample.engine.numbers import whole
from parsample.engine.transition import FlatTransition


class Parareal(Method):
    """Run the steps of every segment in sequence, all segments at once; a coarse propagator joins them.

    With F the steps of a segment and G the coarse propagator, the state at the end of segment n becomes
    F(x[n]) + G(x_new[n]) - G(x[n]). With segments of one step and a linear G this is the driver's own iteration.

    With more than two levels (MGRIT) the sweep over the ends of segments, a recursion as well, is cut into segments of
    its own, which a propagator over `segment` times as many steps joins, and so on; only the coarsest is sequential.

    Args:
        coarse: `coarse(state, inputs) -> state`, over a whole segment: `inputs` have a leading axis of at most
            `segment` steps. It may be any sampler with a larger step. None for the steps of a segment by the
            transition's surrogate (see `Surrogate`), or, where there is none, by the transition linearised in its
            diagonal at the initial state.
        segment: steps of a segment, at least 1.
        levels: 2 is Parareal. With more, `coarse` is also handed segment^2, segment^3, ... steps at a time.
        relaxation: "F", or "FCF" to run the segments once more from the ends of their first run, on every level: an
            iteration is exact for two segments more, not one, at twice the evaluations.

    Raises:
        ValueError: a segment below 1, fewer than two levels, or another relaxation.

    Cost: each iteration has a depth of `segment` evaluations (twice that with FCF), and on every further level of as
        many calls of a coarse propagator, and on the coarsest of one for each of its steps: for T steps and segments
        of m, T / m calls on two levels, m + T / m^2 on three. These calls are not counted as evaluations.

    Source: Lions et al. 2001; Selvam et al. 2024 (SRDS) for samplers; Falgout et al. 2014 (MGRIT), as one V-cycle an
    iteration, with the full approximation scheme. Here segments are counted from the window's start, and inside a
    segment the states are the transition's own.
    """

    has_matrices: ClassVar[bool] = False

    coarse: Callable | None = None
    segment: int = eqx.field(static=True, default=16)
    levels: int = eqx.field(static=True, default=2)
    relaxation: str = eqx.field(static=True, default="F")

    def __check_init__(self):
        """Check the options."""
        whole("segment", self.segment, "it is how many steps are run in sequence")
        whole("levels", self.levels, "2 is Parareal", least=2)
        if self.relaxation not in ("F", "FCF"):
            raise ValueError(f"relaxation is {self.relaxation!r}, expected 'F' or 'FCF'.")

    @property
    def needs_derivative(self) -> bool:
        """Whether the transition is differentiated: not with a coarse propagator of its own."""
        return self.coarse is None

    def depth(self, window: int) -> int:
        """Return the calls of an iteration that wait for one another, those of a coarse propagator of its own too."""
        runs = 2 if self.relaxation == "FCF" else 1
        total, left = runs * min(self.segment, window), -(-window // self.segment)
        if self.coarse is None:
            return total
        for _ in range(self.levels - 2):
            total, left = total + runs * min(self.segment, left), -(-left // self.segment)
        return total + left

    def prepare(self, transition: FlatTransition, initial_state: Float[Array, " dim"], inputs: PyTree) -> Prepared:
        """Linearise at the initial state if there is nothing else to be coarse with."""
        if self.coarse is not None or transition.surrogate() is not None:
            return Prepared()

        def diagonal(input: PyTree) -> Array:
            known = transition.with_diagonal(initial_state, input)
            return jnp.diagonal(jax.jacfwd(transition)(initial_state, input)) if known is None else known[1]

        return Prepared(jnp.clip(jax.vmap(diagonal)(inputs), -1, 1))

    def iterate(self, transition: FlatTransition, around: Around, memory: Memory) -> Update:
        """Run all segments, then solve for their ends."""
        window = around.guesses.shape[0]
        cut = lambda leaf: _cut(leaf, self.segment)  # noqa: E731
        inputs, prepared, held = jax.tree.map(cut, (around.inputs, around.prepared, around.guesses))
        is_open = cut(around.open)
        ends = held[:, -1]

        def fine(start: Array, *steps: PyTree) -> tuple[Array, PyTree]:
            def step(state: Array, element: tuple) -> tuple[Array, tuple[Array, PyTree]]:
                input, held, is_open = element
                state, details = transition.with_details(state, input)
                state = jnp.where(is_open, state, held)
                return state, (state, details)

            return jax.lax.scan(step, start, steps)[1]

        def run(ends: Array) -> tuple[Array, PyTree]:
            return jax.lax.stop_gradient(jax.vmap(fine)(shift(around.boundary, ends), inputs, held, is_open))

        values, details = run(ends)
        if self.relaxation == "FCF":
            ends = values[:, -1]
            values, details = run(ends)
        new_ends = self._next(transition, around, (inputs, prepared), ends, values[:, -1], self.levels - 1)
        states, guesses = _inside(around.boundary, ends, new_ends, values)
        flat = lambda rows: rows.reshape(-1, *rows.shape[2:])[:window]  # noqa: E731
        states, guesses, values, details = jax.tree.map(flat, (states, guesses, values, details))
        evaluations = jnp.asarray(is_open.size * (2 if self.relaxation == "FCF" else 1))
        return Update(states, values, guesses - states, guesses, evaluations, memory, details)

    def _next(
        self,
        transition: FlatTransition,
        around: Around,
        steps: PyTree,
        ends: Float[Array, "segments dim"],
        values: Float[Array, "segments dim"],
        levels: int,
    ) -> Float[Array, "segments dim"]:
        """Return new ends of segments, given where their runs from the old ends came out: x = G(x before) + forcing.

        Args:
            transition: of every step.
            around: the window.
            steps: inputs and what is prepared, leading axes (segments, steps of a segment).
            ends: states from which the segments after them were run.
            values: ends of the runs.
            levels: that are left, this one included.
        """
        coarse = self._propagator(transition)
        forcing = values - jax.vmap(coarse)(shift(around.boundary, ends), *steps)

        def advance(start: Array, segment: tuple) -> tuple[Array, Array]:
            steps, forcing = segment
            end = coarse(start, *steps) + forcing
            # A segment that is not finite forgets its past; such a guess is never accepted.
            end = jnp.where(jnp.isfinite(end).all(), end, around.latest)
            return end, end

        if levels == 1:
            return jax.lax.scan(advance, around.boundary, (steps, forcing))[1]
        count = ends.shape[0]
        cut = lambda leaf: _cut(leaf, self.segment)  # noqa: E731
        segments = jax.tree.map(cut, (steps, forcing))

        def run(ends: Array) -> Array:
            scan = lambda start, segment: jax.lax.scan(advance, start, segment)[1]  # noqa: E731
            return jax.vmap(scan)(shift(around.boundary, ends), segments)

        last = cut(values)[:, -1]
        inside = run(last)
        if self.relaxation == "FCF":
            last = inside[:, -1]
            inside = run(last)
        joined = jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0], -1, *leaf.shape[3:]), segments[0])
        new = self._next(transition, around, joined, last, inside[:, -1], levels - 1)
        return _inside(around.boundary, last, new, inside)[1].reshape(-1, ends.shape[1])[:count]

    def _propagator(self, transition: FlatTransition) -> Callable[[Array, PyTree, PyTree], Array]:
        if self.coarse is not None:
            whole = transition.like(self.coarse)
            return lambda state, inputs, prepared: whole(state, inputs)
        surrogate = transition.surrogate()
        if surrogate is not None:
            return lambda state, inputs, prepared: jax.lax.scan(lambda x, u: (surrogate(x, u), None), state, inputs)[0]
        return lambda state, inputs, prepared: state * jnp.prod(prepared, 0)


def _cut(leaf: Array, segment: int) -> Array:
    """Cut the leading axis into segments, the last filled up with its last element; one that is shorter is one."""
    length = min(segment, leaf.shape[0])
    count = -(-leaf.shape[0] // length)
    padding = jnp.broadcast_to(leaf[-1:], (count * length - leaf.shape[0], *leaf.shape[1:]))
    return jnp.concatenate([leaf, padding]).reshape(count, length, *leaf.shape[1:])


def _inside(
    boundary: Float[Array, " dim"],
    ends: Float[Array, "segments dim"],
    new_ends: Float[Array, "segments dim"],
    values: Float[Array, "segments steps dim"],
) -> tuple[Float[Array, "segments steps dim"], Float[Array, "segments steps dim"]]:
    """Return the states of runs that began at the ends, and the new ones: moved along with the start of a segment."""
    moved = shift(jnp.zeros_like(boundary), new_ends - ends)[:, None]
    return values.at[:, -1].set(ends), (values + moved).at[:, -1].set(new_ends)
