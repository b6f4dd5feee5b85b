"""Anderson acceleration of another method, triangular: a step's mixing looks only at the steps before it."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from parsample.engine.iteration import PRECISION, Around, Memory, Update
from parsample.engine.methods.base import AbstractWrapper, Method
from parsample.engine.methods.picard import Picard
from parsample.engine.transition import FlatTransition

LARGEST_MEMORY = 16
# Added to the normal equations, relative to their trace, and the largest mixing weight that is trusted. Both in
# dimensionless numbers; the second rejects the wild extrapolations of nearly dependent differences.
REGULARISATION = 1e-6
LARGEST_WEIGHT = 10.0


class Anderson(AbstractWrapper):
    """The last few iterations of another method, mixed so that their linearised corrections are least.

    Step t is mixed with weights of its own, from the corrections of the steps up to t, so that what is wrong later does
    not disturb what is nearly right earlier.

    Args:
        method: to accelerate; any but the sequential loop.
        memory: how many differences of iterates are mixed, from 1 to 16; 2 to 5 are usual.

    Raises:
        ValueError: a memory out of its range, or the sequential loop.

    Cost: that of the method, and O(memory^2) numbers a step.

    Source: Tang et al. 2024 (ParaTAA), section 4; Walker & Ni 2011 for the form. Here a mixing that is not finite or
    whose weights exceed 10 is left out, and where the corrections of the steps up to one grew, its memory starts anew.
    """

    has_active_set: ClassVar[bool] = True

    method: Method = Picard()
    memory: int = eqx.field(static=True, default=3)

    def __check_init__(self):
        """Check the memory, and that the method iterates."""
        if isinstance(self.memory, bool) or not isinstance(self.memory, int) or not 1 <= self.memory <= LARGEST_MEMORY:
            raise ValueError(
                f"memory is {self.memory!r}, expected a whole number from 1 to {LARGEST_MEMORY}; "
                "for no mixing use the method itself."
            )
        if not isinstance(self.method, Method) or type(self.method).__name__ in ("Sequential", "Anderson"):
            raise ValueError(
                f"method is {self.method!r}, expected an iterative method to accelerate, such as Picard()."
            )

    def start(self, transition: FlatTransition, around: Around) -> Memory:
        """Remember nothing yet: rows are (last states, last corrections, differences of both), beside the method's."""
        inner = self.method.start(transition, around)
        window, dim = around.guesses.shape
        unknown = jnp.full_like(around.guesses, jnp.nan)
        differences = jnp.zeros((window, self.memory, dim), around.guesses.dtype)
        return Memory((unknown, unknown, differences, differences, inner.rows), inner.numbers)

    def iterate(self, transition: FlatTransition, around: Around, memory: Memory) -> Update:
        """Iterate the method once, and mix what it makes with what it made before."""
        last_states, last_corrections, state_steps, correction_steps, rows = memory.rows
        update = self.method.iterate(transition, around, Memory(rows, memory.numbers))
        states, corrections = update.states, update.correction
        usable = around.open[:, None] & jnp.isfinite(corrections).all(1, keepdims=True)
        corrections = jnp.where(usable, corrections, 0)

        known = jnp.isfinite(last_corrections)
        size = lambda rows: jnp.cumsum(jnp.sum(jnp.where(known, rows, 0) ** 2, 1))  # noqa: E731
        grew = (size(corrections) > size(last_corrections))[:, None, None]
        difference = lambda new, old: jnp.where(known & usable & jnp.isfinite(new), new - old, 0)[:, None]  # noqa: E731
        append = lambda all_steps, new: jnp.where(grew, 0, jnp.concatenate([all_steps, new], 1)[:, 1:])  # noqa: E731
        state_steps = append(state_steps, difference(states, last_states))
        correction_steps = append(correction_steps, difference(corrections, last_corrections))

        with jax.default_matmul_precision(PRECISION):
            weights = _weights(correction_steps, corrections)
            mixed = update.guesses - jnp.einsum("tm,tmd->td", weights, state_steps + correction_steps)
        guesses = jnp.where(jnp.isfinite(mixed).all(1, keepdims=True), mixed, update.guesses)
        kept = Memory((states, corrections, state_steps, correction_steps, update.memory.rows), update.memory.numbers)
        return update._replace(guesses=guesses, memory=kept)


def _weights(
    differences: Float[Array, "window memory dim"], corrections: Float[Array, "window dim"]
) -> Float[Array, "window memory"]:
    """Return for every step the w that makes |corrections - w . differences| least over the steps up to it."""
    products = jnp.cumsum(jnp.einsum("tid,tjd->tij", differences, differences), 0)
    sides = jnp.cumsum(jnp.einsum("tid,td->ti", differences, corrections), 0)
    trace = jnp.trace(products, axis1=1, axis2=2)[:, None, None]
    unit = jnp.eye(differences.shape[1], dtype=differences.dtype)
    regular = products + jnp.where(trace > 0, REGULARISATION * trace, 1) * unit
    weights = jax.numpy.linalg.solve(regular, sides[..., None])[..., 0]
    trusted = (jnp.abs(weights) <= LARGEST_WEIGHT).all(1, keepdims=True)
    return jnp.where(trusted, weights, 0)
