"""What an evaluation returns: the states, and an honest verdict about exactly those states."""

import dataclasses
import enum
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from parsample._former import former_attribute


class Status(enum.IntEnum):
    """How an evaluation ended, from the best end to the worst."""

    CONVERGED = 0
    APPROXIMATE = 1
    MAX_ITERATIONS = 2
    NOT_FINITE = 3

    @property
    def remedy(self) -> str:
        """What to do about it, in a sentence."""
        return _REMEDIES[self]


_REMEDIES = {
    Status.CONVERGED: "Nothing needs to be done.",
    Status.APPROXIMATE: (
        "That is what Picard's mismatch asks for; lower it for a closer chain, and leave it out for that of the loop."
    ),
    Status.MAX_ITERATIONS: (
        "Raise max_iterations (None always finishes), use a smaller window or step size, a method with more of the "
        "Jacobian, or method='sequential'."
    ),
    Status.NOT_FINITE: (
        "The sequential loop meets the same value, so no method can pass this step: use a smaller step size, or check "
        "the transition and the log density there."
    ),
}


class History(NamedTuple):
    """What each iteration saw, leading axis `max_iterations`; rows that were not reached hold -1 or NaN.

    Attributes:
        first_step: the first step of the window before the iteration.
        largest_residual: over the steps of the window, in the units of the state.
        merit: half the sum of squared residuals over the window, in squared units of the state.
        residual: with `history="steps"` of every step of the window, row r that of step first_step + r: the largest
            component, in the units of the state; NaN beyond the end of the chain, and where a step was not evaluated.
        states: with `history="states"` a pytree like the state, leading axes (iterations, steps): the trajectory that
            the iteration judged, with what was accepted before it and what it had not reached yet.
    """

    first_step: Int[Array, "*chain iterations"]
    largest_residual: Float[Array, "*chain iterations"]
    merit: Float[Array, "*chain iterations"]
    residual: Float[Array, "*chain iterations window"] | None = None
    states: PyTree = None


class Solution(eqx.Module):
    """A trajectory with the verdict about it.

    Attributes:
        states: a pytree like the state with leading axis `steps`; row t is the state after t + 1 transitions.
        converged: whether every state is finite and every residual is within atol + rtol * |state|.
        status: a `Status`, as an integer array.
        iterations: passes of linearise-and-scan, the one that verifies included; for the sequential loop, the steps.
        evaluations: calls of the transition over all iterations and steps, padding of the window included. It stays at
            the largest integer of its dtype where there were more.
        residual: shape (steps,), the largest component of |x[t] - f(x[t-1], u[t])| of the returned states, in their
            units. Exactly 0 where a state was taken from the transition itself.
        first_bad_step: the row of the first state that is not finite or not within tolerance, -1 where there is none.
        converged_steps: shape (steps,), whether a state is finite and its residual within tolerance.
        finished: steps that were left to the sequential loop; they are among the evaluations, not the iterations.
        history: a `History`, or None.
        details: with `details=True` what the transition tells of every step beside its state; otherwise None.
    """

    states: PyTree
    converged: Bool[Array, "*chain"]
    status: Int[Array, "*chain"]
    iterations: Int[Array, "*chain"]
    evaluations: Int[Array, "*chain"]
    residual: Float[Array, "*chain steps"]
    first_bad_step: Int[Array, "*chain"]
    converged_steps: Bool[Array, "*chain steps"]
    finished: Int[Array, "*chain"]
    history: History | None = None
    details: PyTree = None

    is_within = former_attribute("is_within", "converged_steps")

    def explain(self) -> str:
        """Return the verdict in a sentence or two: how it ended, where, how far off, and what to do.

        For a batch of chains, of the chain that ended worst.
        """
        worst = int(np.argmax(np.ravel(self.status)))
        steps = self.residual.shape[-1]
        pick = lambda values: np.ravel(values)[worst]  # noqa: E731
        status, iterations = Status(int(pick(self.status))), int(pick(self.iterations))
        residual = np.reshape(self.residual, (-1, steps))[worst]
        chain = f"Chain {worst}: " if np.size(self.status) > 1 else ""
        if status is Status.CONVERGED:
            return (
                f"{chain}all {steps} steps converged in {iterations} iterations; largest residual {residual.max():.2g}."
            )
        bad = int(pick(self.first_bad_step))
        if status is Status.APPROXIMATE:
            count = int(np.sum(~np.reshape(self.converged_steps, (-1, steps))[worst]))
            found = (
                f"{count} of {steps} steps are not within tolerance after {iterations} iterations; "
                f"the largest residual is {residual.max():.2g}"
            )
        elif status is Status.NOT_FINITE:
            found = f"the state after {bad + 1} of {steps} steps is not finite"
        else:
            found = (
                f"{bad} of {steps} steps converged in {iterations} iterations; "
                f"the residual of step {bad} is {residual[bad]:.2g}"
            )
        return f"{chain}{found}. {status.remedy}"


def add_counts(count: Int[Array, "*chain"], more: Int[Array, "*chain"]) -> Int[Array, "*chain"]:
    """Add numbers of at least 0, and stay at the largest integer where the sum is beyond it."""
    largest = jnp.iinfo(count.dtype).max
    return jnp.where(more > largest - count, largest, count + more)


class ConvergenceError(RuntimeError):
    """An evaluation with `throw=True` did not converge. Its `solution` holds what was reached."""

    def __init__(self, solution: Solution):
        """Keep the solution, and explain it."""
        super().__init__(solution.explain())
        self.solution = solution


def raise_unless_converged(solution: Solution) -> Solution:
    """Return the solution if it converged or is as approximate as was asked, otherwise raise; under `jit`, at run time.

    Raises:
        ConvergenceError: some chain failed. While a compiled program runs, JAX makes a JaxRuntimeError of it, which has
            the same sentence.
    """
    is_traced = isinstance(solution.converged, jax.core.Tracer)
    # NumPy's where there are numbers: JAX would compile a program for every operation.
    xp: Any = jnp if is_traced else np
    failed = ~(xp.asarray(solution.converged) | (xp.asarray(solution.status) == Status.APPROXIMATE))
    if is_traced:
        verdict = dataclasses.replace(solution, states=None, history=None, details=None)
        # Reached where a chain has failed, and nowhere else: a program that ends well never waits for the host.
        jax.lax.cond(eqx.internal.unvmap_any(failed), lambda: jax.debug.callback(_raise, verdict), lambda: None)
    elif failed.any():
        raise ConvergenceError(solution)
    return solution


def _raise(verdict: Solution) -> None:
    """Raise if some chain failed: under `vmap` this is called for each."""
    raise_unless_converged(verdict)
