"""Secant iteration: a diagonal A from the last two iterates, without derivatives."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp

from parsample.engine.iteration import Around, Memory, Update, solve, update_of
from parsample.engine.matrices import Diagonal
from parsample.engine.methods.base import Method, evaluate_all
from parsample.engine.transition import FlatTransition

# A difference of states below this many rounding errors of the state says nothing about the derivative.
NOISE = 100


class Secant(Method):
    """A[t] = diag of the differences of f over those of the state, between the last two iterates.

    For transitions that cannot be differentiated, or only at a price. In one dimension it is the secant method; in more
    the quotients mix in what the other coordinates did, so they are safeguarded: a coordinate that hardly moved keeps
    its entry, and the driver projects the entries to [-1, 1].

    Args:
        initial: every entry before the first difference, in [-1, 1], dimensionless; 1 is Picard.

    Raises:
        ValueError: `initial` is outside [-1, 1].

    Source: Ortega & Rheinboldt 1970, section 7.2 (secant methods); the diagonal form is ours.
    """

    needs_derivative: ClassVar[bool] = False
    initial: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        """Check the initial entry."""
        if not -1 <= self.initial <= 1:
            raise ValueError(f"initial is {self.initial}, expected a number in [-1, 1]; 1 starts as Picard does.")

    def start(self, transition: FlatTransition, around: Around) -> Memory:
        """Remember no iterate yet: states, values and entries for every row."""
        unknown = jnp.full_like(around.guesses, jnp.nan)
        return Memory((unknown, unknown, jnp.full_like(around.guesses, self.initial)))

    def iterate(self, transition: FlatTransition, around: Around, memory: Memory) -> Update:
        """Evaluate, update the entries, and solve."""
        steps = around.steps()
        values, details = evaluate_all(transition, steps)
        last_states, last_values, entries = memory.rows
        moved, change = steps.previous - last_states, values - last_values
        smallest = NOISE * jnp.finfo(values.dtype).eps * (1 + jnp.abs(steps.previous))
        quotient = change / jnp.where(jnp.abs(moved) > smallest, moved, jnp.nan)
        entries = jnp.where(jnp.isfinite(quotient), quotient, entries)
        correction, guesses = solve(around, values, Diagonal(entries))
        return update_of(around, values, correction, guesses, details, Memory((steps.previous, values, entries)))
