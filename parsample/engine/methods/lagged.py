"""Lagged Jacobian: another method's matrices, refreshed only now and then."""

import equinox as eqx
import jax
import jax.numpy as jnp

from parsample.engine.iteration import Around, Linearised, Memory, Update, solve, update_of
from parsample.engine.methods.base import AbstractWrapper, PreparedMethod, evaluate_all
from parsample.engine.methods.quasi_newton import QuasiNewton
from parsample.engine.numbers import whole
from parsample.engine.transition import FlatTransition


class Lagged(AbstractWrapper):
    """A[t] of another method, kept for several iterations, for transitions whose derivatives cost more than values.

    The matrices are refreshed every so many iterations, and as soon as the residual stops falling.

    Args:
        method: whose matrices; any that chooses them step by step.
        every: iterations between refreshes, at least 1; 1 is the method itself.
        enough: the factor, dimensionless, by which the sum of squared corrections must fall in an iteration;
            otherwise the next one refreshes.

    Raises:
        ValueError: a method without matrices of its own, `every` below 1, or `enough` outside (0, 1].

    Cost: an iteration without a refresh costs one evaluation a step; under `vmap` every iteration pays for the refresh.

    Source: the modified Newton (chord) method, Ortega & Rheinboldt 1970, section 7.1.
    """

    method: PreparedMethod = QuasiNewton()
    every: int = eqx.field(static=True, default=4)
    enough: float = eqx.field(static=True, default=0.5)

    def __check_init__(self):
        """Check the options."""
        if not isinstance(self.method, PreparedMethod):
            raise ValueError(
                f"method is {self.method!r}, expected one that chooses matrices step by step, such as QuasiNewton()."
            )
        whole("every", self.every, "1 refreshes always")
        if not 0 < self.enough <= 1:
            raise ValueError(f"enough is {self.enough}, expected a number in (0, 1], such as 0.5.")

    def start(self, transition: FlatTransition, around: Around) -> Memory:
        """Remember no matrices yet: rows are (known, matrices), numbers (age, size of the last corrections)."""
        matrices = jax.eval_shape(lambda: self.method.linearise(transition, around.steps())).matrices
        empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), matrices)
        known = jnp.zeros(around.guesses.shape[0], bool)
        return Memory((known, empty), (jnp.asarray(self.every), jnp.asarray(jnp.inf, around.guesses.dtype)))

    def iterate(self, transition: FlatTransition, around: Around, memory: Memory) -> Update:
        """Evaluate with fresh or with old matrices, and solve."""
        (known, old), (age, size) = memory
        steps = around.steps()

        def fresh() -> Linearised:
            return jax.lax.stop_gradient(self.method.linearise(transition, steps))

        def keep() -> Linearised:
            # Rows that entered the window take the matrix of the last row that has one.
            rows = jnp.arange(known.shape[0])
            nearest = jnp.where(known, rows, jnp.max(jnp.where(known, rows, 0)))
            values, details = jax.lax.stop_gradient(evaluate_all(transition, steps))
            return Linearised(values, jax.tree.map(lambda leaf: leaf[nearest], old), details)

        refresh = (age >= self.every) | ~known.any()
        values, matrices, details = jax.lax.cond(refresh, fresh, keep)
        correction, guesses = solve(around, values, matrices)
        new_size = jnp.sum(jnp.where(around.open[:, None], correction, 0) ** 2)
        age = jnp.where(refresh, 1, age + 1)
        # A comparison with NaN is False: what is not finite has not fallen.
        age = jnp.where(new_size <= self.enough * size, age, jnp.where(refresh, age, self.every))
        kept = Memory((jnp.ones_like(known), matrices), (age, new_size))
        return update_of(around, values, correction, guesses, details, kept)
