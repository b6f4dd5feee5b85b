"""Evaluate a recursion for all steps at once: the door to the driver, and the verdict about what it leaves."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from parsample._former import takes_former
from parsample.engine import methods, options, planner
from parsample.engine.arrays import to_jax, with_arrays
from parsample.engine.block import SHORTEST, Rows
from parsample.engine.derivative import differentiable
from parsample.engine.driver import Trajectory, solve
from parsample.engine.host import calls_host
from parsample.engine.loop import after_the_loop, run_loop
from parsample.engine.options import Options
from parsample.engine.rules import Conditioning, Stopping
from parsample.engine.solution import Solution, Status, add_counts, raise_unless_converged
from parsample.engine.transition import (
    FlatTransition,
    as_transition,
    first_row,
    flat_problem,
    ravel_state,
)
from parsample.engine.window import cut, put


@takes_former(
    **dict.fromkeys(("norm", "accept_early", "finish"), ("stopping", Stopping)),
    **dict.fromkeys(("damping", "projection", "clip"), ("conditioning", Conditioning)),
)
def evaluate(
    transition: Callable[[PyTree, PyTree], PyTree],
    initial_state: PyTree,
    inputs: PyTree,
    *,
    method: str | methods.Method = "quasi_newton",
    window: int | None = None,
    atol: Any = 1e-4,
    rtol: Any = None,
    max_iterations: int | None = None,
    guess: PyTree | None = None,
    throw: bool = True,
    history: bool | str = False,
    stopping: Stopping = Stopping(),
    conditioning: Conditioning = Conditioning(),
    active_set: bool | int = False,
    chains: bool = False,
    details: bool = False,
) -> Solution:
    """Evaluate a recursion x[t] = f(x[t-1], u[t]) for all steps at once.

    Works under `jit` and `vmap`, and is differentiable, forwards and in reverse, in the initial state, the inputs and
    whatever the transition holds or closes over. Chains of a batch (`chains`) each have a window of their own.

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
            take the fastest (see `planner.choose`). "deer" and "quasi_deer" are "newton" and "quasi_newton".
        window: how many steps are solved at a time; None, or more than there are, for all of them. A window of 1 is
            the sequential loop.
        atol: tolerance, in the units of the state; one number, or one for each step.
        rtol: tolerance relative to the state, dimensionless. None for 1e-3, or for states of half precision four of
            their roundings, which is more. The sequential loop needs no tolerance.
        max_iterations: None for as many as the chain has steps, or gradients with lifted Newton's method, within which
            every method ends.
        guess: a trajectory to start from, like the states; None to start every step from the initial state.
        throw: raise if the evaluation does not converge; otherwise return what was reached with its status.
        history: record what every iteration saw. Memory: three numbers for each of `max_iterations`. "steps" to record
            the residual of every step of the window as well. Memory: `window` numbers more for each. "states" to record
            the trajectory itself: every step's state for each. Where that is more than a gigabyte, `max_iterations` has
            to be given. The sequential loop has no such things to record.
        stopping: more about when steps are accepted, `parsample.Stopping(norm="rms", accept_early=0.0)`, and whether
            the loop takes over where `max_iterations` were not enough, `parsample.Stopping(finish=True)`.
        conditioning: of the matrices A, such as `parsample.Conditioning(damping=0.1, projection=False)`.
        active_set: evaluate again only the steps whose previous state has moved since they were last evaluated,
            gathered into batches of a fixed size: a number of steps, or True for a sixteenth of the window. For
            transitions that cost more than the scan over the whole window.
        chains: whether `initial_state`, `inputs` and `guess` have a leading axis of chains, as then all of the solution
            has. On a CPU one chain is evaluated after the other, since the steps of a window fill the machine.
        details: keep what the transition tells of every step beside its state (for a sampler the draw, its log density
            and diagnostics), from the very evaluation by which the step was accepted.

    Returns:
        A `Solution`.

    Raises:
        ValueError: an argument is not what it should be; the sentence says which and how to mend it.
        ConvergenceError: with `throw`, the evaluation did not converge, and was not asked for an approximation. Under
            `jit`, JAX's JaxRuntimeError with the same sentence.

    Cost: each iteration evaluates the transition, and what the method's matrices need, at `window` steps in parallel,
        and solves one linear dynamical system. Memory O(window dim) beside the states themselves.

    Source: Lim et al. 2024 (DEER), Gonzalez et al. 2024, Zoltowski et al. 2025. Ours: acceptance judges the returned
    states, never the ones before the last update; windows start at the first step that has not converged.
    """
    transition = as_transition(transition)
    automatic = isinstance(method, str) and method == "auto"
    found = methods.QuasiNewton() if automatic else methods.find(method, or_auto=True)
    if chains:
        _check_chains(initial_state, inputs)
    state, rows = jax.eval_shape(first_row, (initial_state, inputs)) if chains else (initial_state, inputs)
    if found.needs_derivative:
        options.check_floating(state, f"the method {type(found).__name__}")
    flat, form, steps = flat_problem(transition, state, rows, details)
    rtol = options.default_rtol(form.dtype) if rtol is None else rtol
    options.check_tolerances(atol, rtol, form.dtype, steps, found)
    rules: dict[str, Any] = {"active_set": active_set, "stopping": stopping, "conditioning": conditioning}
    check = functools.partial(options.check, steps=steps, max_iterations=max_iterations, history=history, **rules)
    chosen = check(method=found, window=window, turns=found.turns(flat, form, rows))
    if guess is not None:
        guess = options.check_guess(guess, initial_state, steps, chains)
    initial_state, inputs = jax.tree.map(jnp.asarray, (initial_state, inputs))
    if automatic:
        first, begun = (initial_state, inputs), guess
        if chains:
            first, begun = first_row((first, begun))
        begun = None if begun is None else jax.vmap(flat.unravel)(begun)
        rules |= {"atol": atol, "rtol": rtol, "guess": begun}
        choice = planner.choose(evaluate, transition, *first, window=window, options=rules)
        found, chosen = choice.method, check(method=choice.method, window=choice.window)
    if history and max_iterations is None and not isinstance(found, methods.Sequential):
        options.check_history(chosen, np.shape(jax.tree.leaves(inputs)[0])[0] if chains else 1, steps, form)
    found = with_arrays(found, methods.Method)
    tolerances = _number(atol, form.dtype), _number(rtol, form.dtype)
    solution = _evaluate(flat, (initial_state, inputs, guess), found, tolerances, chosen, chains)
    return raise_unless_converged(solution) if throw else solution


def evaluate_sequential(
    transition: Callable[[PyTree, PyTree], PyTree], initial_state: PyTree, inputs: PyTree, **keywords
) -> Solution:
    """Evaluate a recursion one step after the other: `evaluate` with method="sequential".

    Takes and returns what `evaluate` does; what does not concern a loop (window, tolerances, guess) changes nothing.
    """
    return evaluate(transition, initial_state, inputs, method="sequential", **keywords)


def _check_chains(initial_state: PyTree, inputs: PyTree) -> None:
    """Raise ValueError unless the leading axes are those of one batch."""
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves((initial_state, inputs))]
    if any(len(shape) == 0 for shape in shapes) or len({shape[0] for shape in shapes}) != 1 or shapes[0][0] == 0:
        raise ValueError(
            f"chains is True, but initial_state and inputs have leaves of the shapes {shapes}, expected the same "
            "leading axis of at least 1 for all, one row a chain."
        )


def _number(value: Any, dtype: jnp.dtype) -> Array:
    return jnp.asarray(value, dtype) if isinstance(value, jax.Array) else to_jax(value, dtype)


@eqx.filter_jit
def _evaluate(
    transition: FlatTransition,
    problem: tuple[PyTree, PyTree, Float[Array, "*chain steps dim"] | None],
    method: methods.Method,
    tolerances: tuple[Float[Array, "*steps"], Float[Array, ""]],
    chosen: Options,
    chains: bool,
) -> Solution:
    """Evaluate a batch of chains, or one, of initial state, inputs and guess: here, where the axis costs no program."""
    if not chains:
        problem = jax.tree.map(lambda leaf: leaf[None], problem)
    initial_state, inputs, guess = problem
    atol, rtol = tolerances
    initial = jax.vmap(lambda state: ravel_state(state, rtol.dtype))(initial_state)
    steps = jax.tree.leaves(inputs)[0].shape[1]
    found = _evaluate_batch(
        transition, initial, inputs, guess, method, (jnp.broadcast_to(atol, (steps,)), rtol), chosen
    )
    return found if chains else first_row(found)


def _evaluate_batch(
    transition: FlatTransition,
    initial: Float[Array, "chain dim"],
    inputs: PyTree,
    guess: Float[Array, "chain steps dim"] | None,
    method: methods.Method,
    tolerances: tuple[Float[Array, " steps"], Float[Array, ""]],
    chosen: Options,
) -> Solution:
    # The iterations are not differentiated: `differentiable` attaches the derivative to their result.
    frozen, iterated, *given = _stop_gradient((transition, method, initial, inputs, guess))

    def some(given: tuple) -> Solution:
        initial, inputs, _ = given
        if isinstance(iterated, methods.Sequential):
            states, details = run_loop(frozen, initial, inputs)
            return after_the_loop(states, details, bool(chosen.history), jnp.isfinite(states).all(-1))
        found = solve(frozen, iterated, chosen, tolerances, *given)
        return _judged(frozen, chosen, tolerances, initial, inputs, found)

    # On a CPU the steps of one window already fill the machine; one chain after the other, none waits for a slower one.
    # What calls the host is elsewhere, and is to have all chains in one call.
    one_by_one = jax.default_backend() == "cpu" and not isinstance(method, methods.Sequential)
    first = jax.tree.map(lambda leaf: leaf[0, 0], inputs)
    if one_by_one and initial.shape[0] > 1 and not calls_host(frozen, initial[0], first):
        groups = jax.tree.map(lambda leaf: leaf[:, None], tuple(given))
        solution = jax.tree.map(lambda leaf: leaf[:, 0], jax.lax.map(some, groups))
    else:
        solution = some(tuple(given))
    states = jax.vmap(lambda *chain: differentiable(transition, *chain))(solution.states, initial, inputs)
    states = jax.vmap(jax.vmap(transition.unravel))(states)
    solution = eqx.tree_at(lambda solution: solution.states, solution, states)
    if solution.history is None or solution.history.states is None:
        return solution
    seen = jax.vmap(jax.vmap(jax.vmap(transition.unravel)))(solution.history.states)
    return eqx.tree_at(lambda solution: solution.history.states, solution, seen)


def _judged(
    transition: FlatTransition,
    chosen: Options,
    tolerances: tuple[Array, Array],
    initial: Float[Array, "chain dim"],
    inputs: PyTree,
    found: Trajectory,
) -> Solution:
    """Turn what the driver left into a solution whose residual is that of the returned states."""
    place, steps = found.place, found.rows.residual.shape[1]
    complete = place.done >= steps
    within = jnp.isfinite(found.rows.states).all(-1) & (jnp.arange(steps) < place.done[:, None])
    # Only a chain that failed, or an approximate one, has states whose residual was not measured at their acceptance.
    measured = ~complete | bool(chosen.mismatch)
    rows = found.rows
    # What the loop finishes is complete: the program has no need of one more evaluation.
    if chosen.mismatch or not chosen.stopping.finish:
        rows, seen = _measured(transition, chosen, tolerances, initial, inputs, rows, measured)
        within = jnp.where(measured[:, None], seen | (within & (not chosen.mismatch)), within)
    converged = complete & within.all(-1)
    finite = jnp.isfinite(rows.states).all((-1, -2))
    failed = jnp.where(place.stuck, Status.NOT_FINITE, Status.MAX_ITERATIONS)
    passed = jnp.where(finite, Status.APPROXIMATE, Status.NOT_FINITE)
    # The loop is to go on from the first step that is not within tolerance, or else from the first that is not final.
    bad = jnp.minimum(jnp.where(within.all(-1), steps, jnp.argmin(within, -1)), place.done)
    return Solution(
        states=rows.states,
        converged=converged,
        status=jnp.where(converged, Status.CONVERGED, jnp.where(complete, passed, failed)),
        iterations=place.iterations,
        evaluations=add_counts(place.evaluations, jnp.where(measured.any(), steps, 0) + jnp.zeros_like(place.done)),
        residual=rows.residual,
        first_bad_step=jnp.where(converged, -1, bad),
        converged_steps=within,
        history=found.history,
        details=rows.details,
        finished=place.finished,
    )


def _measured(
    transition: FlatTransition,
    chosen: Options,
    tolerances: tuple[Array, Array],
    initial: Float[Array, "chain dim"],
    inputs: PyTree,
    rows: Rows,
    asked: Bool[Array, " chain"],
) -> tuple[Rows, Bool[Array, "chain steps"]]:
    """Evaluate the returned states once more, if that is asked of any chain, and say which are within tolerance.

    A loop over stretches that ends at once where nothing is asked: under `vmap` a branch would be paid for by all.
    """
    (atol, rtol), steps = tolerances, rows.residual.shape[1]
    length = min(steps, max(chosen.window, SHORTEST))

    def stretch(carry: tuple[Array, Rows, Array]) -> tuple[Array, Rows, Array]:
        number, rows, within = carry
        begin = jnp.minimum(number * length, steps - length)
        some = lambda tree: cut(tree, begin, length, axis=1)  # noqa: E731
        before = jnp.where(begin == 0, initial, rows.states[:, begin - 1])
        states = some(rows.states)
        previous = jnp.concatenate([before[:, None], states[:, :-1]], 1)
        # The number of the stretch keeps the compiler from evaluating ahead of the loop what depends on inputs alone.
        given, _ = jax.lax.optimization_barrier((some(inputs), number))
        values, details = jax.vmap(jax.vmap(transition.with_details))(previous, given)
        residual = states - values
        tolerance = transition.tolerance(states, cut(atol, begin, length)[:, None], rtol)
        good = jnp.isfinite(states) & (jax.vmap(chosen.stopping.size)(residual) <= tolerance)

        def put_in(old: Array, new: Array) -> Array:
            new = jnp.where(asked.reshape(-1, *[1] * (new.ndim - 1)), new, some(old))
            return put(old, new, begin, axis=1)

        rows = jax.tree.map(put_in, rows, Rows(states, jnp.abs(residual).max(-1), details))
        return number + 1, rows, put(within, good.all(-1), begin, axis=1)

    going = lambda carry: asked.any() & (carry[0] * length < steps)  # noqa: E731
    nothing = jnp.zeros(rows.residual.shape, bool)
    _, rows, within = jax.lax.while_loop(going, stretch, (jnp.asarray(0), rows, nothing))
    return rows, within


def _stop_gradient(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_array(leaf) else leaf, tree)
