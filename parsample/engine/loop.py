"""The sequential loop: over whole chains, and over the steps that an evaluation has left."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from parsample.engine.block import Loop, Place, Problem, Rows, state_before
from parsample.engine.solution import add_counts
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
