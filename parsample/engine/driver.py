"""The one driver of every method: a batch of chains, whose steps stream through it block by block.

Each chain has a window of steps that are being solved. An iteration judges all windows, and moves each to the first
step of its chain that is not accepted. What is carried from iteration to iteration is one block of steps, a few windows
long, and nothing as long as the chain; a chain that has left the block behind waits for the others. A window stops at
the end of the chain, and one as long as the chain never moves.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from parsample.engine.block import Loop, Place, Problem, Rows, state_before
from parsample.engine.iteration import Memory
from parsample.engine.loop import finish
from parsample.engine.methods.base import Method
from parsample.engine.options import Options
from parsample.engine.solution import History, add_counts
from parsample.engine.step import Step, View, around_of, judged_step
from parsample.engine.transition import FlatTransition
from parsample.engine.window import cut, each, put, slide


class Trajectory(NamedTuple):
    """All steps of all chains as the driver leaves them, and where it stopped."""

    rows: Rows
    place: Place
    history: History | None


def solve(
    transition: FlatTransition,
    method: Method,
    chosen: Options,
    tolerances: tuple[Float[Array, " steps"], Float[Array, ""]],
    initial: Float[Array, "chain dim"],
    inputs: PyTree,
    guess: Float[Array, "chain steps dim"] | None,
) -> Trajectory:
    """Solve for all steps of a batch of chains: `inputs` have the leading axes (chain, steps)."""
    prepared = each(lambda *chain: method.prepare(transition, *chain))(initial, inputs)
    guess = prepared.guess if guess is None else guess
    atol, rtol = tolerances
    found = prepared.per_step, prepared.common
    problem = Problem(transition, method, chosen, rtol, atol, initial, inputs, *found, guess)
    count, steps = initial.shape[0], problem.steps
    nothing = jnp.zeros(count, jnp.int32)
    place = Place(nothing, nothing, nothing + steps, nothing > 0, nothing, nothing, nothing)
    rows = _rows(problem, 0, problem.rows)
    loop = Loop(initial, rows, place, Memory(), _no_history(problem))
    views = _views(problem, loop, 0)
    memory = each(lambda view: method.start(transition, around_of(problem, view)))(views)
    problem, loop = problem._replace(entering=memory.rows), loop._replace(memory=memory)
    if problem.rows == steps:
        loop = _solve_block(problem, loop, 0, steps)
        return Trajectory(loop.rows, loop.place, loop.history)

    last = steps - problem.rows
    blocks = 1 + -(-last // problem.stride)

    def block(number: Array, carry: tuple[Loop, Array, Rows]) -> tuple[Loop, Array, Rows]:
        loop, last_begin, found = carry
        begin = jnp.minimum(number * problem.stride, last)
        loop = _move_on(problem, loop, last_begin, begin)
        loop = _solve_block(problem, loop, begin, jnp.where(begin == last, steps, begin + problem.stride))
        return loop, begin, jax.tree.map(lambda all_rows, some: put(all_rows, some, begin, 1), found, loop.rows)

    empty = jax.tree.map(lambda leaf: jnp.zeros((count, steps, *leaf.shape[2:]), leaf.dtype), rows)
    loop, _, found = jax.lax.fori_loop(0, blocks, block, (loop, jnp.asarray(0), empty))
    return Trajectory(found, loop.place, loop.history)


def _solve_block(problem: Problem, loop: Loop, begin: int | Array, end: int | Array) -> Loop:
    """Iterate until every chain has the steps before `end`, or has failed; `begin` is the first step of the block."""

    def going(place: Place) -> Bool[Array, " chain"]:
        return (place.done < end) & (place.iterations < problem.chosen.max_iterations) & ~place.stuck

    def iterate(loop: Loop) -> Loop:
        return _iterate(problem, loop, begin, going(loop.place))

    loop = jax.lax.while_loop(lambda loop: going(loop.place).any(), iterate, loop)
    if not problem.chosen.stopping.finish:
        return loop
    rest = lambda loop: finish(problem, loop, begin, end)  # noqa: E731
    return jax.lax.cond((loop.place.done < end).any(), rest, lambda loop: loop, loop)


def _views(problem: Problem, loop: Loop, begin: int | Array) -> View:
    """Cut the windows out of the chains, leading axis `chain`."""
    place, length, count = loop.place, problem.chosen.window, loop.before.shape[0]
    latest = state_before(loop, place.done - begin)
    if length == problem.steps:
        atol = jnp.broadcast_to(problem.atol, (count, length))
        fixed = problem.inputs, problem.prepared, atol, problem.common
        return View(loop.before, latest, loop.rows.states, place.start, place.done, place.iterations, *fixed)
    # Rows that no window has held yet start from the last one that it has.
    held = jnp.minimum(place.start[:, None] + jnp.arange(length), place.reached[:, None] - 1) - begin
    take = lambda states, at: states.at[at].get(mode="clip", wrap_negative_indices=False)  # noqa: E731
    guesses = each(take)(loop.rows.states, held)
    boundary = state_before(loop, place.start - begin)
    inputs, prepared = each(lambda tree, at: cut(tree, at, length))((problem.inputs, problem.prepared), place.start)
    atol = each(lambda at: cut(problem.atol, at, length))(place.start)
    fixed = inputs, prepared, atol, problem.common
    return View(boundary, latest, guesses, place.start, place.done, place.iterations, *fixed)


def _iterate(problem: Problem, loop: Loop, begin: int | Array, going: Bool[Array, " chain"]) -> Loop:
    """Make one iteration of every chain, of which only those that are going move."""
    place, chosen, steps = loop.place, problem.chosen, problem.steps
    length, whole = chosen.window, chosen.window == steps
    step = each(lambda *chain: judged_step(problem, *chain))(_views(problem, loop, begin), loop.memory)
    # Where the active sets of chains differ in size, all wait for the largest.
    performed = step.evaluations.max().astype(jnp.int32)
    done = jnp.where(going, place.start + step.accepted, place.done)
    start = jnp.minimum(done, steps - length)

    # What is final stays to the bit; its evaluation may have been repeated, and rounded otherwise.
    changes = going[:, None] & (place.start[:, None] + jnp.arange(length) >= place.done[:, None])

    def write(rows: Array, new: Array) -> Array:
        mask = changes.reshape(*changes.shape, *[1] * (new.ndim - 2))
        if whole:
            return jnp.where(mask, new, rows)
        one = lambda rows, new, mask, at: put(rows, jnp.where(mask, new, cut(rows, at, length)), at)  # noqa: E731
        return each(one)(rows, new, mask, place.start - begin)

    rows = jax.tree.map(write, loop.rows, step.rows)
    memory = step.memory
    if not whole:
        memory = memory._replace(rows=each(slide)(memory.rows, problem.entering, start - place.start))
    keep = lambda new, old: jnp.where(going.reshape(-1, *[1] * (new.ndim - 1)), new, old)  # noqa: E731
    reached = place.reached if problem.guess is not None else keep(place.start + length, place.reached)
    return Loop(
        loop.before,
        rows,
        Place(
            start=start,
            done=done,
            reached=reached,
            stuck=place.stuck | (going & step.stuck),
            iterations=place.iterations + going,
            evaluations=add_counts(place.evaluations, jnp.broadcast_to(performed, done.shape)),
            finished=place.finished,
        ),
        jax.tree.map(keep, memory, loop.memory),
        _record(loop, step, going),
    )


def _record(loop: Loop, step: Step, going: Bool[Array, " chain"]) -> History | None:
    """Write down what an iteration saw, for the chains that are going."""
    if loop.history is None:
        return None
    seen, chain = step.seen, jnp.arange(going.shape[0])
    assert seen is not None
    if seen.states is not None:
        seen = seen._replace(states=each(put)(loop.rows.states, seen.states, loop.place.start))
    # Beyond the end, and so dropped, for a chain that waits.
    at = jnp.where(going, loop.place.iterations, loop.history.merit.shape[1])
    return jax.tree.map(lambda old, new: old.at[chain, at].set(new, mode="drop"), loop.history, seen)


def _move_on(problem: Problem, loop: Loop, last: Array, begin: Array) -> Loop:
    """Move the block from the step `last` to `begin`, at most a stride away."""
    fresh = _rows(problem, last + problem.rows, problem.stride)

    def move(old: Array, new: Array) -> Array:
        return cut(jnp.concatenate([old, new], 1), begin - last, old.shape[1], axis=1)

    before = state_before(loop, jnp.broadcast_to(begin - last, loop.place.done.shape))
    return loop._replace(before=before, rows=jax.tree.map(move, loop.rows, fresh))


def _rows(problem: Problem, begin: int | Array, count: int) -> Rows:
    """Return what steps start from: the guess or the initial state, and nothing known of them."""
    chains, dim = problem.initial.shape
    if problem.guess is None:
        states = jnp.broadcast_to(problem.initial[:, None], (chains, count, dim))
    else:
        states = jnp.take(problem.guess, begin + jnp.arange(count), axis=1, mode="clip")
    first = jax.tree.map(lambda leaf: leaf[0, 0], problem.inputs)
    shapes = jax.eval_shape(lambda: problem.transition.with_details(problem.initial[0], first)[1])
    details = jax.tree.map(lambda leaf: jnp.zeros((chains, count, *leaf.shape), leaf.dtype), shapes)
    return Rows(states, jnp.full((chains, count), jnp.inf, states.dtype), details)


def _no_history(problem: Problem) -> History | None:
    """Return the history of no iteration, leading axes (chain, max_iterations)."""
    chosen, (chains, dim) = problem.chosen, problem.initial.shape
    if not chosen.history:
        return None
    missing = lambda *shape: jnp.full((chains, chosen.max_iterations, *shape), jnp.nan, problem.initial.dtype)  # noqa: E731
    residual = missing(chosen.window) if chosen.history == "steps" else None
    states = missing(problem.steps, dim) if chosen.history == "states" else None
    return History(jnp.full((chains, chosen.max_iterations), -1), missing(), missing(), residual, states)
