"""One iteration of one chain: what a method sees of its window, and the verdict about the states it evaluated."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from parsample.engine.block import Problem, Rows
from parsample.engine.iteration import Around, Memory
from parsample.engine.solution import History
from parsample.engine.window import count_leading, count_nearly_leading


class View(NamedTuple):
    """What an iteration sees of a chain; the attributes are those of `Around` and `Place`."""

    boundary: Float[Array, " dim"]
    latest: Float[Array, " dim"]
    guesses: Float[Array, "window dim"]
    start: Int[Array, ""]
    done: Int[Array, ""]
    iterations: Int[Array, ""]
    inputs: PyTree
    prepared: PyTree
    atol: Float[Array, " window"]
    common: PyTree


class Step(NamedTuple):
    """What an iteration made of the window of a chain: its rows, how many are accepted, and the rest."""

    rows: Rows
    accepted: Int[Array, ""]
    stuck: Bool[Array, ""]
    evaluations: Int[Array, ""]
    memory: Memory
    seen: History | None


def around_of(problem: Problem, view: View) -> Around:
    """Return what a method sees of one chain."""
    chosen, length = problem.chosen, problem.chosen.window
    return Around(
        boundary=view.boundary,
        guesses=view.guesses,
        open=view.start + jnp.arange(length) >= view.done,
        latest=view.latest,
        inputs=view.inputs,
        prepared=view.prepared,
        tolerance=problem.transition.tolerance(view.guesses, view.atol[:, None], problem.rtol),
        rng_key=jax.random.key(view.iterations),
        conditioning=chosen.conditioning,
        capacity=chosen.capacity,
        accept_early=chosen.stopping.accept_early,
        common=view.common,
    )


def judged_step(problem: Problem, view: View, memory: Memory) -> Step:
    """Iterate the method on the window of one chain, and judge the states that it evaluated."""
    chosen, length, size = problem.chosen, problem.chosen.window, problem.chosen.stopping.size
    around = around_of(problem, view)
    update = problem.method.iterate(problem.transition, around, memory)
    states, values = update.states, update.values
    residual = states - values
    # A guess that is not finite would be within a tolerance that is not finite either.
    finite = jnp.isfinite(values) & jnp.isfinite(states)
    known = jnp.ones(length, bool) if update.waiting is None else ~update.waiting

    def count_within(tolerance: Array) -> Array:
        good = finite & (size(residual) <= tolerance) & (size(update.correction) <= tolerance)
        return count_leading(~around.open | (known & good.all(1)))

    verified = count_within(around.tolerance)
    if chosen.stopping.accept_early < 1:
        is_rest = view.start + verified == problem.steps
        verified = jnp.where(is_rest, verified, count_within(around.early()))
    row = jnp.arange(length)
    # The first row that is not verified has an accepted state before it, so the transition's value there is exact,
    # unless it waits for its evaluation. Where the whole window is verified there is no such row.
    exact = (row == verified) & known
    stuck = jnp.any(exact & ~jnp.isfinite(values).all(1))
    accepted = jnp.where(exact.any() & ~stuck, verified + 1, verified)
    final = jnp.where(exact[:, None], values, states)
    if chosen.mismatch:
        fitting = finite & (size(residual) <= around.tolerance)
        # Where a correction overflowed, a new guess is none: the method put another state in its place.
        passable = (jnp.isfinite(values) & jnp.isfinite(update.correction)).all(1)
        farther = count_nearly_leading(fitting.all(1), passable, around.open, chosen.mismatch)
        # The new guesses are one iteration further; `evaluate` measures what they are worth.
        final = jnp.where(farther > accepted, update.guesses, final)
        accepted = jnp.maximum(accepted, farther)
    is_final = (row < accepted) | exact
    largest = jnp.where(row < verified, jnp.abs(residual).max(1), jnp.where(exact, 0, jnp.inf))
    return Step(
        rows=Rows(jnp.where(is_final[:, None], final, update.guesses), largest, update.details),
        accepted=accepted,
        stuck=stuck,
        evaluations=update.evaluations,
        memory=update.memory,
        seen=_seen(problem, view, residual, known & (row >= verified), known & around.open, states),
    )


def _seen(
    problem: Problem,
    view: View,
    residual: Float[Array, "window dim"],
    left: Bool[Array, " window"],
    known: Bool[Array, " window"],
    states: Float[Array, "window dim"],
) -> History | None:
    """Return what is recorded of an iteration, if anything."""
    if not problem.chosen.history:
        return None
    rest = jnp.where(left[:, None], residual, 0)
    seen = History(view.done, jnp.abs(rest).max(), 0.5 * jnp.sum(rest**2))
    if problem.chosen.history == "steps":
        sizes = jnp.where(known, jnp.abs(residual).max(1), jnp.nan)
        # Row r is that of the step `done + r`.
        at = view.done - view.start + jnp.arange(sizes.shape[0])
        seen = seen._replace(residual=sizes.at[at].get(mode="fill", fill_value=jnp.nan))
    return seen._replace(states=states) if problem.chosen.history == "states" else seen
