"""The sequential loop: over whole chains, and over the steps that an evaluation has left."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from parsample.engine.block import Loop, Place, Problem, Rows, state_before
from parsample.engine.solution import History, Solution, Status, add_counts
from parsample.engine.transition import FlatTransition


def run_loop(
    transition: FlatTransition, initial: Float[Array, "chain dim"], inputs: PyTree
) -> tuple[Float[Array, "chain steps dim"], PyTree]:
    """Run the sequential loop over all steps of all chains, and return the states and the details."""

    def chain(initial: Array, inputs: PyTree) -> tuple[Array, PyTree]:
        def step(carry: PyTree, input: PyTree) -> tuple[PyTree, tuple[Array, PyTree]]:
            carry, state, details = transition.advance(carry, input, initial.dtype)
            return carry, (state, details)

        return jax.lax.scan(step, transition.start(initial), inputs)[1]

    return jax.vmap(chain)(initial, inputs)


def run_some(
    transition: FlatTransition,
    initial: Float[Array, " dim"],
    inputs: PyTree,
    start: Int[Array, ""],
    count: Int[Array, ""] | int,
    rows: int,
) -> tuple[Float[Array, "rows dim"], PyTree]:
    """Run the loop over `count` steps of a chain from the step `start` on: one program, whatever these numbers are.

    A number that is not known when it is compiled is for a CPU: an accelerator would ask the host after every step.

    Returns:
        The states and the details, with room for `rows` steps; what is not used of it is 0.
    """

    @jax.jit  # so that it is traced once
    def step(carry: PyTree, number: Array) -> tuple[PyTree, tuple[Array, PyTree]]:
        input = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, number, keepdims=False), inputs)
        carry, state, details = transition.advance(carry, input, initial.dtype)
        return carry, (state, details)

    def one(number: Array, running: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        carry, row = step(running[0], start + number)
        put = lambda rows, leaf: jax.lax.dynamic_update_index_in_dim(rows, leaf, number, 0)  # noqa: E731
        return carry, jax.tree.map(put, running[1], row)

    carry = transition.start(initial)
    _, row = jax.eval_shape(step, carry, start)
    room = jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape), leaf.dtype), row)
    return jax.lax.fori_loop(0, count, one, (carry, room))[1]


def after_the_loop(states: PyTree, details: PyTree, history: bool, finite: Any, xp: Any = jnp) -> Solution:
    """Judge the states of the sequential loop like any others.

    Args:
        states: leading axes (chain, steps).
        details: of the steps.
        history: whether to record what the one iteration saw.
        finite: whether all of each state is, shape (chain, steps).
        xp: what works on them, `jax.numpy`, or on the host `numpy`, for which nothing is compiled.
    """
    chains, steps = finite.shape
    converged = finite.all(-1)
    number = xp.full(chains, steps, np.int32)
    dtype = jax.tree.leaves(states)[0].dtype
    missing = xp.full((chains, steps), np.nan, dtype if jnp.issubdtype(dtype, jnp.floating) else float)
    every = xp.broadcast_to(xp.arange(steps), (chains, steps))
    verdict = {
        "converged": converged,
        "status": xp.where(converged, Status.CONVERGED, Status.NOT_FINITE),
        "iterations": number,
        "evaluations": number,
        "residual": xp.where(finite, 0, missing),
        "first_bad_step": xp.where(converged, -1, xp.argmin(finite, -1)),
        "converged_steps": finite,
        "finished": xp.zeros_like(number),
    }
    if xp is np:
        verdict = jax.device_put(verdict)
    seen = History(every, missing, missing) if history else None
    return Solution(states=states, details=details, history=seen, **verdict)


def finish(problem: Problem, loop: Loop, begin: int | Array, end: int | Array) -> Loop:
    """Run the sequential loop over the steps before `end` that chains have left; a window of one, for them alone."""
    transition, dtype = problem.transition, loop.rows.states.dtype
    chain, length = jnp.arange(loop.place.done.shape[0]), problem.chosen.window
    carry = jax.vmap(transition.start)(state_before(loop, loop.place.done - begin))

    def advance(running: tuple[PyTree, Rows, Place]) -> tuple[PyTree, Rows, Place]:
        carry, rows, place = running
        going = place.done < end
        inputs = jax.tree.map(lambda leaf: leaf[chain, jnp.minimum(place.done, problem.steps - 1)], problem.inputs)
        carry, state, details = jax.vmap(lambda carry, input: transition.advance(carry, input, dtype))(carry, inputs)
        # Beyond the block, and so dropped, for a chain that waits.
        at = jnp.where(going, place.done - begin, problem.rows)
        write = lambda rows, new: rows.at[chain, at].set(new, mode="drop")  # noqa: E731
        residual = jnp.where(jnp.isfinite(state).all(1), 0, jnp.nan).astype(dtype)
        rows = jax.tree.map(write, rows, Rows(state, residual, details))
        done = place.done + going
        return (
            carry,
            rows,
            place._replace(
                done=done,
                start=jnp.minimum(done, problem.steps - length),
                evaluations=add_counts(place.evaluations, jnp.ones_like(done)),
                finished=place.finished + going,
            ),
        )

    going = lambda running: (running[2].done < end).any()  # noqa: E731
    _, rows, place = jax.lax.while_loop(going, advance, (carry, loop.rows, loop.place))
    return loop._replace(rows=rows, place=place)
