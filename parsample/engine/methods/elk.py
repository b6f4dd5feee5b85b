"""ELK: Newton's iteration with a trust region, its linear system solved as a Kalman smoother."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from parsample.engine.iteration import PRECISION, Around, Memory, Update, update_of
from parsample.engine.kalman import smooth
from parsample.engine.methods.base import Method, Prepared, PreparedMethod
from parsample.engine.methods.newton import Newton
from parsample.engine.methods.quasi_newton import QuasiNewton
from parsample.engine.transition import FlatTransition

# The penalty of Levenberg and Marquardt: its start, its factors after a success and after a failure, its bounds.
START, SUCCESS, FAILURE = 1e-3, 0.1, 10.0
SMALLEST, LARGEST = 1e-8, 1e8


class _TrustRegion(Method):
    """The Levenberg-Marquardt step with the matrices of a method that chooses them step by step."""

    projects: ClassVar[bool] = False

    linear: eqx.AbstractVar[PreparedMethod]

    def tangents(self, dim: int) -> int:
        """Return those of the method that chooses the matrices."""
        return self.linear.tangents(dim)

    def prepare(self, transition: FlatTransition, initial_state: Float[Array, " dim"], inputs: PyTree) -> Prepared:
        """Prepare what the method does."""
        return self.linear.prepare(transition, initial_state, inputs)

    def start(self, transition: FlatTransition, around: Around) -> Memory:
        """Remember no trajectory yet: rows are (states, values, matrices), the number is the penalty."""
        values, matrices, _ = jax.eval_shape(lambda: self.linear.linearise(transition, around.steps()))
        empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), matrices)
        unknown = jnp.full(values.shape, jnp.nan, values.dtype)
        return Memory((unknown, unknown, empty), jnp.asarray(START, values.dtype))

    def iterate(self, transition: FlatTransition, around: Around, memory: Memory) -> Update:
        """Evaluate the candidate; go on from it if its merit is no higher, otherwise from the last best one."""
        values, matrices, details = jax.lax.stop_gradient(self.linear.linearise(transition, around.steps()))
        (best_states, best_values, best_matrices), penalty = memory.rows, memory.numbers
        # The first open row's value depends on a final state alone: it is the same for every candidate.
        first = around.open & (jnp.cumsum(around.open) == 1)
        best_values = jnp.where(first[:, None], values, best_values)
        known = around.open[:, None] & jnp.isfinite(best_states) & jnp.isfinite(best_values)
        old = jnp.sum(jnp.where(known, best_states - best_values, 0) ** 2)
        new = jnp.sum(jnp.where(known, around.guesses - values, 0) ** 2)
        # Rows that entered the window since have no merit to compare with; a comparison with NaN is False.
        better = (new <= old) | ~known.any()
        choose = lambda candidate, best: jnp.where(  # noqa: E731
            better | ~known.all(1).reshape(-1, *[1] * (candidate.ndim - 1)), candidate, best
        )
        states, values_here, matrices = jax.tree.map(
            choose, (around.guesses, values, matrices), (best_states, best_values, best_matrices)
        )
        penalty = jnp.clip(penalty * jnp.where(better, SUCCESS, FAILURE), SMALLEST, LARGEST)

        usable = around.open & jnp.isfinite(values_here).all(1) & matrices.isfinite()
        offsets = jnp.where(usable[:, None], values_here - states, 0)
        with jax.default_matmul_precision(PRECISION):
            conditioned = around.conditioning.apply(matrices.where(usable))
            guesses = states + smooth(conditioned, offsets, penalty)
        guesses = jnp.where(jnp.isfinite(guesses).all(1, keepdims=True), guesses, around.latest)
        kept = Memory((states, values_here, matrices), penalty)
        return update_of(around, values, guesses - around.guesses, guesses, details, kept)


class ELK(_TrustRegion):
    """Newton's iteration in a trust region: the merit never rises, so that it is stable where Newton's is not.

    Each step minimises |linearised residual|^2 + penalty |correction|^2. The penalty falls tenfold where the merit
    falls; where it would rise the candidate is dropped and the penalty grows tenfold. clip-ELK and scale-ELK are this
    with `clip=1` and with `damping`.

    Cost: as Newton, and a Kalman filter and smoother: O(dim^3) a step.

    Source: Gonzalez et al. 2024, section 4 (ELK), with a fixed trust region; here it adapts, as in Nocedal & Wright
    2006, section 10.3.
    """

    linear: PreparedMethod = Newton()


class QuasiELK(_TrustRegion):
    """`ELK` with the diagonals of quasi-Newton: O(dim) a step.

    Source: Gonzalez et al. 2024, section 4 (quasi-ELK); as for `ELK`, the trust region adapts.
    """

    linear: PreparedMethod = QuasiNewton()
