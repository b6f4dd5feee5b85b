"""Gradient descent on the merit, with the Cauchy step: for comparison."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from parsample.engine.iteration import Around, Memory, Update, shift, update_of
from parsample.engine.methods.base import Method
from parsample.engine.transition import FlatTransition


class MeritDescent(Method):
    """Go down the gradient of the merit, half the sum of squared residuals, to its minimum in the linearised model.

    Without a scan, information passes one step an iteration, whatever the transition: this is what the other methods
    are better than. (Gauss-Newton on the merit is Newton's iteration, for the residual's Jacobian is square.)

    Cost: one vector-Jacobian and one Jacobian-vector product a step.

    Source: Gonzalez et al. 2025, "Predictability enables parallelization of nonlinear state space models", where the
    step is fixed; the Cauchy step needs no tuning (Nocedal & Wright 2006, section 4.1).
    """

    has_matrices: ClassVar[bool] = False

    def iterate(self, transition: FlatTransition, around: Around, memory: Memory) -> Update:
        """Take one step down the gradient."""
        # 1. With r[t] = x[t] - f(x[t-1]) the gradient of |r|^2 / 2 is g[t] = r[t] - J[t+1]^T r[t+1].
        # 2. Along -g the residual is r - s q with q[t] = g[t] - J[t] g[t-1], so |r - s q|^2 is least at s = r.q / q.q,
        #    and r.q = |g|^2.

        def evaluate(guesses: Array) -> tuple[Array, PyTree]:
            return jax.vmap(transition.with_details)(shift(around.boundary, guesses), around.inputs)

        values, pullback, details = jax.vjp(evaluate, around.guesses, has_aux=True)
        usable = around.open[:, None] & jnp.isfinite(values).all(1, keepdims=True)
        residual = jnp.where(usable, around.guesses - values, 0)
        gradient = residual - pullback(residual)[0]
        gradient = jnp.where(usable & jnp.isfinite(gradient).all(1, keepdims=True), gradient, 0)
        _, pushed, _ = jax.jvp(evaluate, (around.guesses,), (gradient,), has_aux=True)
        change = jnp.where(usable, gradient - pushed, 0)
        change = jnp.where(jnp.isfinite(change), change, 0)
        size = jnp.sum(change**2)
        correction = -gradient * jnp.where(size > 0, jnp.sum(gradient**2) / jnp.where(size > 0, size, 1), 0)
        return update_of(around, values, correction, around.guesses + correction, details)
