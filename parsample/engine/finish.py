"""Finish by the sequential loop what an evaluation left undone."""

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from parsample.engine.solution import Solution, Status, add_counts
from parsample.engine.transition import Transition


def finish_sequentially(transition: Transition, initial_state: PyTree, inputs: PyTree, solution: Solution) -> Solution:
    """Run the loop from the first step that did not converge to the end.

    Args:
        transition: the one that was evaluated.
        initial_state: as it was given to `evaluate`.
        inputs: as they were given to `evaluate`, leading axis `steps`.
        solution: what `evaluate(..., throw=False)` returned.

    Returns:
        The whole trajectory, converged unless the loop meets a state that is not finite. The steps of the loop have
        residual 0; they count as evaluations, and not as iterations. A solution that is as approximate as was asked
        has nothing left, and stays as it is.

    Cost: one evaluation for each step that is left; nothing for a solution that converged.
    """
    steps = solution.residual.shape[0]
    complete = solution.converged | (solution.status == Status.APPROXIMATE)
    first = jnp.where(complete, steps, solution.first_bad_step)

    def state_before(step: jax.Array) -> PyTree:
        return jax.tree.map(
            lambda start, rows: jnp.where(step == 0, start, rows[jnp.maximum(step - 1, 0)]),
            initial_state,
            solution.states,
        )

    def advance(step: jax.Array, loop: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        carry, states = loop
        carry, _ = transition.advance(carry, jax.tree.map(lambda leaf: leaf[step], inputs))
        state = transition.state_of(carry)
        return carry, jax.tree.map(lambda rows, row: rows.at[step].set(row), states, state)

    _, states = jax.lax.fori_loop(first, steps, advance, (transition.start(state_before(first)), solution.states))
    finite = jnp.stack([jnp.isfinite(leaf).reshape(steps, -1).all(1) for leaf in jax.tree.leaves(states)]).all(0)
    is_within = jnp.where(jnp.arange(steps) < first, solution.is_within, finite)
    converged = is_within.all()
    return Solution(
        states=states,
        converged=converged,
        status=jnp.where(converged, Status.CONVERGED, jnp.where(complete, solution.status, Status.NOT_FINITE)),
        iterations=solution.iterations,
        evaluations=add_counts(solution.evaluations, steps - first),
        residual=jnp.where(jnp.arange(steps) < first, solution.residual, jnp.where(finite, 0, jnp.nan)),
        first_bad_step=jnp.where(converged, -1, jnp.argmin(is_within)),
        is_within=is_within,
        history=solution.history,
    )
