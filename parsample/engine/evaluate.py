"""The one driver of every method, and the sequential loop beside it."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from parsample.engine import methods, options, planner
from parsample.engine.derivative import differentiable
from parsample.engine.iteration import Around, Memory, Update
from parsample.engine.options import Options
from parsample.engine.solution import History, Solution, Status, add_counts, raise_unless_converged
from parsample.engine.transition import FlatTransition, as_transition, flatten, ravel_state
from parsample.engine.window import Window, count_leading, count_nearly_leading, move, slide


def evaluate(
    transition: Callable[[PyTree, PyTree], PyTree],
    initial_state: PyTree,
    inputs: PyTree,
    *,
    method: str | methods.Method = "quasi_newton",
    window: int | None = None,
    atol: Any = 1e-4,
    rtol: float | None = None,
    norm: str = "max",
    accept_early: Any = 1.0,
    max_iterations: int | None = None,
    guess: PyTree | None = None,
    throw: bool = True,
    history: bool | str = False,
    damping: float = 0.0,
    projection: bool | None = None,
    clip: float | None = None,
    active_set: bool | int = False,
) -> Solution:
    """Evaluate a recursion x[t] = f(x[t-1], u[t]) for all steps at once.

    Works under `jit` and `vmap` (each chain of a batch has its own window), and is differentiable, forwards and in
    reverse, in the initial state, the inputs and whatever the transition holds or closes over.

    A step is accepted once it and every step before it are finite and have both their residual and their correction
    (what the linear system would still change) within atol + rtol * |state|. The first step that is not accepted takes
    the transition's value at the last accepted state, which is exact: every iteration gains at least one step.

    Args:
        transition: pure, `transition(state, input) -> state`.
        initial_state: step 0, any pytree of floating-point arrays of one dtype, real or complex, and of integers for a
            method that takes no derivative (jacobi, picard, secant, ...). Complex numbers are solved for as pairs of
            real ones, whose coupling "block_quasi_newton" and "newton" see. Not part of the output.
        inputs: any pytree of arrays with leading axis `steps`.
        method: a name in `METHODS` or an instance with its options, or "auto": time the candidates on this device and
            take the fastest (see `planner.choose`).
        window: how many steps are solved at a time; None, or more than there are, for all of them. A window of 1 is
            the sequential loop.
        atol: tolerance, in the units of the state; one number, or one for each step.
        rtol: tolerance relative to the state, dimensionless. None for 1e-3, or for states of half precision four of
            their roundings, which is more. The sequential loop needs no tolerance.
        norm: what has to be within tolerance: "max", every number of a state, or "rms", their root mean square.
        accept_early: in [0, 1]. A step is accepted before the ones after it only if it and all before it are within
            this share of the tolerance; otherwise all that are left are accepted together, once all of them are
            within it. 1 is best for recursions that forget, such as Markov chains. One that hands its errors on, such
            as a diffusion sampler, needs less: what an accepted step leaves is never mended. Dimensionless.
        max_iterations: None for as many as the chain has steps, within which every method ends.
        guess: a trajectory to start from, like the states; None to start every step from the initial state.
        throw: raise if the evaluation does not converge; otherwise return what was reached with its status.
        history: record what every iteration saw. Memory: three numbers for each of `max_iterations`. "steps" to record
            the residual of every step of the window as well. Memory: `window` numbers more for each. "states" to record
            the trajectory itself: every step's state for each. The sequential loop has no such things to record.
        damping: in [0, 1]; A is multiplied by 1 - damping. 1 is Jacobi.
        projection: project every A to spectral norm at most 1 (for a diagonal, clip it to [-1, 1]); None for what the
            method is best with, which is True for all but permutation, elk and quasi_elk.
        clip: clip the entries of A to [-clip, clip].
        active_set: evaluate again only the steps whose previous state has moved since they were last evaluated,
            gathered into batches of a fixed size: a number of steps, or True for a sixteenth of the window. For
            transitions that cost more than the scan over the whole window.

    Returns:
        A `Solution`.

    Raises:
        ValueError: an argument is not what it should be; the sentence says which and how to mend it.
        ConvergenceError: with `throw`, the evaluation did not converge, and was not asked for an approximation. Under
            `jit`, equinox.EquinoxRuntimeError.

    Cost: each iteration evaluates the transition, and what the method's matrices need, at `window` steps in parallel,
        and solves one linear dynamical system. Memory O(window dim) beside the states themselves.

    Source: Lim et al. 2024 (DEER), Gonzalez et al. 2024, Zoltowski et al. 2025. Ours: acceptance judges the returned
    states, never the ones before the last update; windows start at the first step that has not converged.
    """
    transition = as_transition(transition)
    automatic = isinstance(method, str) and method == "auto"
    found = methods.QuasiNewton() if automatic else methods.find(method)
    if found.needs_derivative:
        options.check_floating(initial_state, f"the method {type(found).__name__}")
    flat, initial, steps = flatten(transition, initial_state, inputs)
    rtol = options.default_rtol(initial.dtype) if rtol is None else rtol
    options.check_tolerances(atol, rtol, initial.dtype, steps, found)
    chosen = options.check(
        found, steps, window, max_iterations, history, damping, projection, clip, active_set, norm, accept_early
    )
    if guess is not None:
        guess = options.check_guess(guess, initial_state, steps)
    inputs = jax.tree.map(jnp.asarray, inputs)
    with jax.default_matmul_precision("highest"):
        if automatic:
            plan = planner.choose(evaluate, transition, initial_state, inputs, window=window, atol=atol, rtol=rtol)
            found, chosen = plan.method, chosen._replace(window=min(plan.window or steps, steps))
        tolerances = jnp.broadcast_to(jnp.asarray(atol, initial.dtype), (steps,)), jnp.asarray(rtol, initial.dtype)
        solution = _evaluate(flat, initial, inputs, guess, found, *tolerances, chosen)
    return raise_unless_converged(solution) if throw else solution


def evaluate_sequential(
    transition: Callable[[PyTree, PyTree], PyTree], initial_state: PyTree, inputs: PyTree, **keywords
) -> Solution:
    """Evaluate a recursion one step after the other: `evaluate` with method="sequential".

    Takes and returns what `evaluate` does; what does not concern a loop (window, tolerances, guess) changes nothing.
    """
    return evaluate(transition, initial_state, inputs, method="sequential", **keywords)


@eqx.filter_jit
def _evaluate(
    transition: FlatTransition,
    initial: Float[Array, " dim"],
    inputs: PyTree,
    guess: Float[Array, "steps dim"] | None,
    method: methods.Method,
    atol: Float[Array, " steps"],
    rtol: Float[Array, ""],
    chosen: Options,
) -> Solution:
    if isinstance(method, methods.Sequential):
        solution = run_loop(transition, initial, inputs, chosen)
    else:

        def tolerance(states: Array, atol: Array) -> Array:
            return transition.tolerance(states, atol[:, None], rtol)

        solution = _iterate(transition, initial, inputs, guess, method, atol, tolerance, chosen)
        states = differentiable(transition, solution.states, initial, inputs)
        solution = eqx.tree_at(lambda solution: solution.states, solution, states)
    solution = eqx.tree_at(lambda solution: solution.states, solution, jax.vmap(transition.unravel)(solution.states))
    if solution.history is None or solution.history.states is None:
        return solution
    seen = jax.vmap(jax.vmap(transition.unravel))(solution.history.states)
    return eqx.tree_at(lambda solution: solution.history.states, solution, seen)


def run_loop(transition: FlatTransition, initial: Float[Array, " dim"], inputs: PyTree, chosen: Options) -> Solution:
    """Run the sequential loop, with the transition's own carry, and judge its states like any others."""
    inner = transition.transition

    def step(carry, input):
        carry, _ = inner.advance(carry, input)
        return carry, ravel_state(inner.state_of(carry), initial.dtype)

    _, states = jax.lax.scan(step, inner.start(transition.unravel(initial)), inputs)
    steps = states.shape[0]
    finite = jnp.isfinite(states).all(1)
    converged, missing = finite.all(), jnp.full(steps, jnp.nan, states.dtype)
    return Solution(
        states=states,
        converged=converged,
        status=jnp.where(converged, Status.CONVERGED, Status.NOT_FINITE),
        iterations=jnp.asarray(steps),
        evaluations=jnp.asarray(steps),
        residual=jnp.where(finite, jnp.zeros(steps, states.dtype), jnp.nan),
        first_bad_step=jnp.where(converged, -1, jnp.argmin(finite)),
        is_within=finite,
        history=History(jnp.arange(steps), missing, missing) if chosen.history else None,
    )


class _Loop(NamedTuple):
    """What the loop carries from iteration to iteration.

    The buffers hold `window` rows beyond the end of the chain, so that a window always fits.
    """

    window: Window
    memory: Memory
    iterations: Int[Array, ""]
    evaluations: Int[Array, ""]
    stuck: Bool[Array, ""]
    states: Float[Array, "padded dim"]
    residual: Float[Array, " padded"]
    history: History | None


class _Chain(NamedTuple):
    """What does not change from iteration to iteration.

    Attributes:
        inputs: padded with `window` rows beyond the end of the chain.
        prepared: what the method prepared, padded alike.
        atol: of every step, padded alike.
        guesses: the guess, padded with twice as many; None where there is none.
        entering: what a method remembers of rows that enter the window.
        steps: of the chain.
    """

    inputs: PyTree
    prepared: PyTree
    atol: Float[Array, " padded"]
    guesses: Float[Array, "padded dim"] | None
    entering: PyTree
    steps: int


def _iterate(
    transition: FlatTransition,
    initial: Float[Array, " dim"],
    inputs: PyTree,
    guess: Float[Array, "steps dim"] | None,
    method: methods.Method,
    atol: Float[Array, " steps"],
    tolerance: Callable[[Array, Array], Array],
    chosen: Options,
) -> Solution:
    # The iterations are not differentiated: `differentiable` attaches the derivative to their result.
    transition, initial, inputs, guess, method = _stop_gradient((transition, initial, inputs, guess, method))
    steps, length = jax.tree.leaves(inputs)[0].shape[0], chosen.window
    prepared = method.prepare(transition, initial, inputs)
    guess = prepared.guess if guess is None else guess
    start = jnp.broadcast_to(initial, (steps, initial.size)) if guess is None else guess
    pad_all = lambda tree: jax.tree.map(lambda leaf: _pad(leaf, length), tree)  # noqa: E731
    chain = _Chain(
        inputs=pad_all(inputs),
        prepared=pad_all(prepared.per_step),
        atol=_pad(atol, length),
        guesses=None if guess is None else _pad(guess, 2 * length),
        entering=None,
        steps=steps,
    )
    window = Window(jnp.asarray(0), initial, start[:length])
    memory = method.start(transition, _around(window, jnp.asarray(0), chain, tolerance, chosen))
    chain = chain._replace(entering=memory.rows)
    loop = _Loop(
        window=window,
        memory=memory,
        iterations=jnp.asarray(0),
        evaluations=jnp.asarray(0),
        stuck=jnp.asarray(False),
        states=_pad(start, length),
        residual=jnp.full(steps + length, jnp.inf, initial.dtype),
        history=_empty_history(chosen, start) if chosen.history else None,
    )

    def going_on(loop: _Loop) -> Bool[Array, ""]:
        return (loop.window.first_step < steps) & (loop.iterations < chosen.max_iterations) & ~loop.stuck

    def iterate(loop: _Loop) -> _Loop:
        around = _around(loop.window, loop.iterations, chain, tolerance, chosen)
        return _accept(loop, around, method.iterate(transition, around, loop.memory), chain, chosen)

    loop = jax.lax.while_loop(going_on, iterate, loop)
    return _judge(loop, transition, initial, inputs, lambda states: tolerance(states, atol), chosen)


def _around(
    window: Window, iterations: Array, chain: _Chain, tolerance: Callable[[Array, Array], Array], chosen: Options
) -> Around:
    """Cut the window out of the chain."""
    cut = lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, window.first_step, chosen.window)  # noqa: E731
    return Around(
        boundary=window.boundary,
        guesses=window.guesses,
        inside=window.inside(chain.steps),
        inputs=jax.tree.map(cut, chain.inputs),
        prepared=jax.tree.map(cut, chain.prepared),
        tolerance=tolerance(window.guesses, cut(chain.atol)),
        rng_key=jax.random.fold_in(jax.random.key(0), iterations),
        conditioning=chosen.conditioning,
        capacity=chosen.capacity,
        accept_early=chosen.accept_early,
    )


def _accept(loop: _Loop, around: Around, update: Update, chain: _Chain, chosen: Options) -> _Loop:
    """Judge the states of an iteration, and move the window to the first step that has not converged."""
    window, length = loop.window, around.guesses.shape[0]
    states, values = update.states, update.values
    residual = states - values
    # A guess that is not finite would be within a tolerance that is not finite either.
    finite = jnp.isfinite(values) & jnp.isfinite(states)
    known = jnp.ones(length, bool) if update.waiting is None else ~update.waiting

    def count_within(tolerance: Array) -> Array:
        good = finite & (chosen.size(residual) <= tolerance) & (chosen.size(update.correction) <= tolerance)
        return count_leading(around.inside & known & good.all(1))

    verified = count_within(around.tolerance)
    if chosen.accept_early < 1:
        is_rest = window.first_step + verified == chain.steps
        verified = jnp.where(is_rest, verified, count_within(around.early()))
    row = jnp.arange(length)
    # The first row that is not verified has an accepted state before it, so the transition's value there is exact,
    # unless it waits for its evaluation. Where the whole window is verified there is no such row.
    exact = (row == verified) & known
    accepted = jnp.where(exact[:, None], values, states)
    stuck = jnp.any(exact & around.inside & ~jnp.isfinite(values).all(1))
    room = jnp.minimum(length, chain.steps - window.first_step)
    advance = jnp.minimum(jnp.where(exact.any() & ~stuck, verified + 1, verified), room)
    if chosen.mismatch:
        passable = around.inside & jnp.isfinite(values).all(1)
        fitting = finite & (chosen.size(residual) <= around.tolerance)
        farther = count_nearly_leading(fitting.all(1), passable, chosen.mismatch)
        # The new guesses are one iteration further; `_judge` measures what they are worth.
        accepted = jnp.where(farther > advance, update.guesses, accepted)
        advance = jnp.maximum(advance, farther)

    size = jnp.where(row < verified, jnp.abs(residual).max(1), jnp.where(exact, 0, jnp.inf))
    put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=window.first_step, axis=0)
    incoming = None
    if chain.guesses is not None:
        incoming = jax.lax.dynamic_slice_in_dim(chain.guesses, window.first_step + length, length)
    history = loop.history
    if history is not None:
        left = jnp.where((around.inside & known & (row >= verified))[:, None], residual, 0)
        seen = History(window.first_step, jnp.abs(left).max(), 0.5 * jnp.sum(left**2))
        if history.residual is not None:
            seen = seen._replace(residual=jnp.where(around.inside & known, jnp.abs(residual).max(1), jnp.nan))
        if history.states is not None:
            seen = seen._replace(states=put(loop.states, states)[: chain.steps])
        history = jax.tree.map(lambda old, new: old.at[loop.iterations].set(new), history, seen)
    return _Loop(
        window=move(window, accepted, update.guesses, incoming, advance),
        memory=update.memory._replace(rows=slide(update.memory.rows, chain.entering, advance)),
        iterations=loop.iterations + 1,
        evaluations=add_counts(loop.evaluations, update.evaluations),
        stuck=stuck,
        states=put(loop.states, jnp.where(((row < verified) | exact)[:, None], accepted, update.guesses)),
        residual=put(loop.residual, size),
        history=history,
    )


def _judge(
    loop: _Loop,
    transition: FlatTransition,
    initial: Float[Array, " dim"],
    inputs: PyTree,
    tolerance: Callable[[Array], Array],
    chosen: Options,
) -> Solution:
    """Turn the final loop into a solution whose residual is that of the returned states."""
    steps = jax.tree.leaves(inputs)[0].shape[0]
    states = loop.states[:steps]
    complete = (loop.window.first_step >= steps) & ~loop.stuck

    def measure() -> tuple[Array, Array]:
        before = jnp.concatenate([initial[None], states[:-1]])
        values = jax.lax.map(lambda step: transition(*step), (before, inputs), batch_size=chosen.window)
        residual = states - values
        is_within = jnp.isfinite(states) & (chosen.size(residual) <= tolerance(states))
        return jnp.abs(residual).max(1), is_within.all(1)

    # Only a chain that failed, or an approximate one, has states whose residual was not measured at their acceptance.
    known = loop.residual[:steps], jnp.ones(steps, bool)
    measured = jnp.asarray(True) if chosen.mismatch else ~complete
    residual, is_within = jax.lax.cond(measured, measure, lambda: known)
    if not chosen.mismatch:
        is_within |= jnp.arange(steps) < loop.window.first_step
    converged = complete & is_within.all()
    failed = jnp.where(loop.stuck, Status.NOT_FINITE, Status.MAX_ITERATIONS)
    # The loop is to go on from the first step that is not within tolerance, or else from the first that is not final.
    bad = jnp.minimum(jnp.where(is_within.all(), steps, jnp.argmin(is_within)), loop.window.first_step)
    return Solution(
        states=states,
        converged=converged,
        status=jnp.where(converged, Status.CONVERGED, jnp.where(complete, Status.APPROXIMATE, failed)),
        iterations=loop.iterations,
        evaluations=add_counts(loop.evaluations, jnp.where(measured, steps, 0)),
        residual=residual,
        first_bad_step=jnp.where(converged, -1, bad),
        is_within=is_within,
        history=loop.history,
    )


def _stop_gradient(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_array(leaf) else leaf, tree)


def _pad(rows: Array, length: int) -> Array:
    """Repeat the last row `length` times, so that padding is as well behaved as the end of the chain."""
    return jnp.concatenate([rows, jnp.broadcast_to(rows[-1:], (length, *rows.shape[1:]))])


def _empty_history(chosen: Options, start: Float[Array, "steps dim"]) -> History:
    rows = chosen.max_iterations
    missing = lambda *shape: jnp.full((rows, *shape), jnp.nan, start.dtype)  # noqa: E731
    residual = missing(chosen.window) if chosen.history == "steps" else None
    states = missing(*start.shape) if chosen.history == "states" else None
    return History(jnp.full(rows, -1), missing(), missing(), residual, states)
