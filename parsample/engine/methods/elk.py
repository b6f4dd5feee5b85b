"""ELK: Newton's iteration with a trust region at every step, its linear system solved as a Kalman smoother."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from parsample.engine.iteration import PRECISION, Around, Memory, Update, shift, update_of
from parsample.engine.kalman import smooth
from parsample.engine.methods.base import Method, Prepared, PreparedMethod
from parsample.engine.methods.newton import Newton
from parsample.engine.methods.quasi_newton import QuasiNewton
from parsample.engine.transition import FlatTransition

# The penalty of Levenberg and Marquardt: its start, its factors after a success and after a failure, its bounds.
START, SUCCESS, FAILURE = 1e-3, 0.1, 3.0
SMALLEST, LARGEST = 1e-8, 0.1


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
        """Remember no trajectory yet: rows are (states, values, matrices, penalties)."""
        values, matrices, _ = jax.eval_shape(lambda: self.linear.linearise(transition, around.steps()))
        empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), matrices)
        unknown = jnp.full(values.shape, jnp.nan, values.dtype)
        return Memory((unknown, unknown, empty, jnp.full(values.shape[0], START, values.dtype)))

    def iterate(self, transition: FlatTransition, around: Around, memory: Memory) -> Update:
        """Evaluate the candidate, go on from what is best of it and of the last trajectory, and solve."""
        values, matrices, details = jax.lax.stop_gradient(self.linear.linearise(transition, around.steps()))
        last_states, last_values, last_matrices, penalties = memory.rows
        new = _better(around, values, last_states, last_values)
        states = jnp.where(new[:, None], around.guesses, last_states)
        # A step's value and matrix are those at the state before it: they come from where that one comes from.
        after_new = jnp.concatenate([jnp.ones(1, bool), new[:-1]])
        values_here, matrices_here = jax.tree.map(
            lambda new, last: jnp.where(after_new.reshape(-1, *[1] * (new.ndim - 1)), new, last),
            (values, matrices),
            (last_values, last_matrices),
        )
        penalties = jnp.clip(penalties * jnp.where(new, SUCCESS, FAILURE), SMALLEST, LARGEST)

        usable = around.open & jnp.isfinite(values_here).all(1) & matrices_here.isfinite()
        # The state before the first open step is final, so that the step's correction is known and not to be smoothed.
        after_final = jnp.concatenate([jnp.ones(1, bool), ~around.open[:-1]])
        after_known = jnp.concatenate([jnp.zeros(1, bool), after_final[:-1]])
        offsets = jnp.where(usable[:, None], values_here - states, 0)
        known = jnp.where(after_final[:, None], offsets, 0)
        from_known = shift(jnp.zeros_like(around.boundary), known)
        with jax.default_matmul_precision(PRECISION):
            conditioned = around.conditioning.apply(matrices_here.where(usable & ~after_final))
            offsets = offsets - known + conditioned.apply(from_known)
            smoothed = smooth(conditioned.where(~after_known), offsets, penalties)
        guesses = states + known + smoothed
        guesses = jnp.where(jnp.isfinite(guesses).all(1, keepdims=True), guesses, around.latest)
        kept = Memory((states, values_here, matrices_here, penalties))
        return update_of(around, values, guesses - around.guesses, guesses, details, kept)


def _better(
    around: Around,
    values: Float[Array, "window dim"],
    last_states: Float[Array, "window dim"],
    last_values: Float[Array, "window dim"],
) -> Bool[Array, " window"]:
    """Say which steps to take from the candidate: those whose residual, after what is taken before them, is no larger.

    A comparison with NaN is False: what is not known, or not finite, is not kept.
    """
    size = lambda states, values: jnp.sum((states - values) ** 2, 1)  # noqa: E731
    new = lambda values: ~around.open | ~(size(last_states, values) < size(around.guesses, values))  # noqa: E731

    def compose(earlier: tuple[Array, Array], later: tuple[Array, Array]) -> tuple[Array, Array]:
        choose = lambda is_new: jnp.where(is_new, later[1], later[0])  # noqa: E731
        return choose(earlier[0]), choose(earlier[1])

    # A step is a map from the choice before it to its own: a pair, after the last one and after the new one. The state
    # before the window is final, and so are those before the first open step: new.
    return jax.lax.associative_scan(compose, (new(last_values), new(values)))[1]


class ELK(_TrustRegion):
    """Newton's iteration in a trust region at every step, stable where Newton's is not.

    An iteration minimises the sum over steps of |linearised residual|^2 + penalty[t] |correction[t]|^2. Where it makes
    the residual of a step larger, that step is taken from the last trajectory, and its penalty grows; elsewhere the
    penalty falls. What is wrong later never holds up what comes before it. clip-ELK and scale-ELK are this with
    `Conditioning(clip=1.0)` and with its `damping`.

    Cost: as Newton, and a Kalman filter and smoother: O(dim^3) a step.

    Source: Gonzalez et al. 2024, section 4 (ELK), with one fixed penalty; that it adapts is Levenberg-Marquardt
    (Nocedal & Wright 2006, section 10.3). Ours: a penalty and a decision for each step, in place of one for all, where
    a step that is hard to foresee stops every other one.
    """

    linear: PreparedMethod = Newton()


class QuasiELK(_TrustRegion):
    """`ELK` with the diagonals of quasi-Newton: O(dim) a step.

    Source: Gonzalez et al. 2024, section 4 (quasi-ELK); as for `ELK`, the trust region adapts, step by step.
    """

    linear: PreparedMethod = QuasiNewton()
