"""The trust regions of ELK: no step goes on from a larger residual, where Newton's iterates leave every range."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine import methods
from parsample.engine.evaluate import evaluate
from parsample.engine.iteration import Around
from parsample.engine.methods.elk import LARGEST, SMALLEST
from parsample.engine.transition import as_transition, flatten
from tests.covering import each_once
from tests.engine import recursions
from tests.engine.recursions import STEPS, TIGHT, UNPROJECTED, Problem, scan
from tests.tolerances import CONVERGED

FLOAT64 = TIGHT[np.dtype(np.float64)]


def expanding_step(state: Any, input: Any) -> Any:
    """A recursion whose slopes are up to 1.3, so that products of many of them leave every range."""
    return jnp.sin(1.3 * state) + input


def expanding_problem() -> Problem:
    noise = np.random.default_rng(0).normal(size=(100, 2))
    return Problem(expanding_step, jnp.zeros(2), jnp.asarray(noise))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("method", "newton"), [("elk", "newton"), ("quasi_elk", "quasi_newton")])
def test_it_converges_where_newton_unprojected_blows_up(method: str, newton: str) -> None:
    problem = expanding_problem()
    keywords: dict[str, Any] = {"conditioning": UNPROJECTED, "history": True, **FLOAT64}
    plain = evaluate(*problem, method=newton, **keywords)
    trusted = evaluate(*problem, method=method, **keywords)
    assert plain.history is not None
    assert trusted.history is not None
    assert np.nanmax(plain.history.merit) > 1e10 * plain.history.merit[0]
    # Candidates that are dropped may be worse, and are soon better: the penalty grows tenfold.
    assert np.nanmax(trusted.history.merit) < 10 * trusted.history.merit[0]
    assert trusted.iterations < 0.8 * plain.iterations
    CONVERGED.check(trusted.states, scan(*problem))


def around_of(problem: Problem, guesses: Any, done: int = 0, begin: int = 0, end: int | None = None) -> Around:
    """What ELK sees of the window from `begin` to `end`, of which the first `done` steps are final."""
    cut = slice(begin, end)
    states = jnp.concatenate([problem.initial_state[None], guesses])
    return Around(
        boundary=states[begin],
        guesses=guesses[cut],
        open=jnp.arange(guesses[cut].shape[0]) >= done,
        latest=states[begin + done],
        inputs=problem.inputs[cut],
        prepared=None,
        tolerance=jnp.zeros_like(guesses[cut]),
        rng_key=jax.random.key(0),
        conditioning=UNPROJECTED,
        capacity=None,
    )


def size(rows: Any) -> Any:
    return np.sum(np.asarray(rows) ** 2, -1)


def value_of(state: Any, input: Any) -> Any:
    return np.sin(1.3 * np.asarray(state)) + np.asarray(input)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", ["elk", "quasi_elk"])
def test_a_step_is_taken_from_where_its_residual_is_smaller(method: str) -> None:
    """Iterated by hand on a window over the whole chain, of which two steps become final each time; the rule in NumPy.

    What is remembered with a step is the value at the very state that was taken before it, whichever that was.
    """
    problem = expanding_problem()
    flat, initial, steps = flatten(as_transition(expanding_step), *problem[1:])
    trusted = methods.find(method)
    iterate = jax.jit(lambda guesses, done, memory: trusted.iterate(flat, around_of(problem, guesses, done), memory))
    guesses = jnp.zeros((steps, 2))
    memory, mixed = trusted.start(flat, around_of(problem, guesses)), 0
    true = scan(*problem)
    for iteration in range(20):
        done = 2 * iteration
        guesses = guesses.at[:done].set(true[:done])
        last = np.asarray(memory.rows[0])
        memory_before = memory
        update = iterate(guesses, done, memory)
        memory = update.memory
        before, states, values, taken = np.asarray(initial), [], [], []
        for step in range(steps):
            value = value_of(before, problem.inputs[step])
            keep = step >= done and size(last[step] - value) < size(np.asarray(guesses[step]) - value)
            before = last[step] if keep else np.asarray(guesses[step])
            states.append(before)
            values.append(value)
            taken.append(not keep)
        CONVERGED.check(memory.rows[0], np.asarray(states))
        CONVERGED.check(memory.rows[1], np.asarray(values))
        factor = np.asarray(memory.rows[3] / memory_before.rows[3])
        assert np.all((factor < 1) | ~np.asarray(taken) | (memory.rows[3] == SMALLEST))
        assert np.all((factor > 1) | np.asarray(taken) | (memory.rows[3] == LARGEST))
        mixed += int(0 < np.sum(taken[done:]) < steps - done)
        guesses = update.guesses
    assert mixed > 3, "the trajectories were never merged"


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", ["elk", "quasi_elk"])
def test_what_is_final_does_not_move_and_the_step_after_it_is_exact(method: str) -> None:
    """Whatever the penalty: a smoother that may correct final states leaves some of the first residual to them."""
    problem = expanding_problem()
    flat, _, steps = flatten(as_transition(expanding_step), *problem[1:])
    guesses = scan(*problem).at[10:].add(0.5)
    trusted = methods.find(method)
    around = around_of(problem, guesses, done=10)
    memory = trusted.start(flat, around)
    for penalty in (SMALLEST, LARGEST):
        rows = (*memory.rows[:3], jnp.full(steps, penalty))
        update = trusted.iterate(flat, around, memory._replace(rows=rows))
        np.testing.assert_array_equal(update.guesses[:10], guesses[:10])
        np.testing.assert_allclose(update.guesses[10], value_of(guesses[9], problem.inputs[10]), rtol=1e-14)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", ["elk", "quasi_elk"])
def test_steps_that_enter_the_window_are_not_compared_with_what_is_not_known(method: str) -> None:
    problem = expanding_problem()
    flat, _, _ = flatten(as_transition(expanding_step), *problem[1:])
    trusted = methods.find(method)
    guesses = jnp.zeros((100, 2))
    around = around_of(problem, guesses, end=40)
    entering = trusted.start(flat, around)
    memory = trusted.iterate(flat, around, entering).memory
    rows = jax.tree.map(lambda old, new: jnp.concatenate([old[5:], new[:5]]), memory.rows, entering.rows)
    rng = np.random.default_rng(1)
    guesses = jnp.asarray(rng.normal(size=(100, 2)))
    # The last step that is known stays as it was, so that the value of the first that entered is not known.
    guesses = guesses.at[39].set(100.0)
    update = trusted.iterate(flat, around_of(problem, guesses, begin=5, end=45), memory._replace(rows=rows))
    states, values = update.memory.rows[:2]
    np.testing.assert_array_equal(states[34], rows[0][34])
    np.testing.assert_array_equal(states[35:], guesses[40:45])
    assert not np.isfinite(values[35]).any()
    CONVERGED.check(values[36:], value_of(guesses[40:44], problem.inputs[41:45]))
    assert np.isfinite(update.guesses).all()


@pytest.mark.slow
def test_rounding_does_not_hold_up_a_chain_that_is_nearly_right() -> None:
    """In single precision a residual at its rounding is as often larger as smaller than the last one."""
    problem = Problem(expanding_step, jnp.zeros(2, jnp.float32), jnp.asarray(expanding_problem().inputs, jnp.float32))
    noise = np.random.default_rng(2).normal(size=(100, 2))
    guess = scan(*problem) * (1 + 1e-6 * jnp.asarray(noise, jnp.float32))
    for method in ("elk", "quasi_elk"):
        solution = evaluate(*problem, method=method, guess=guess, atol=3e-6, rtol=0.0)
        assert solution.iterations <= 6, method


def jump_step(state: Any, input: Any) -> Any:
    """A recursion that contracts, and whose drift turns where the state changes its sign."""
    return 0.9 * state + jnp.where(state > 0, -0.3, 0.3) * jnp.abs(input[:2]) + 0.5 * input[2:]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", ["elk", "quasi_elk"])
def test_a_step_that_is_hard_to_foresee_does_not_hold_up_the_others(method: str) -> None:
    """Like accept/reject, a jump makes any large step of the whole chain worse somewhere."""
    noise = jnp.asarray(np.random.default_rng(3).normal(size=(400, 4)))
    problem = Problem(jump_step, jnp.zeros(2), noise)
    solution = evaluate(*problem, method=method, **FLOAT64)
    newton = evaluate(*problem, method="newton", **FLOAT64)
    CONVERGED.check(solution.states, scan(*problem))
    assert solution.iterations < 0.8 * newton.iterations
    # With one decision and one penalty for the whole window it takes all 400.
    assert solution.iterations < 90


@pytest.mark.parametrize(("window", "method"), each_once([None, 1, 7], ["elk", "quasi_elk"]))
def test_windows_give_the_same_chain(method: str, window: int | None) -> None:
    problem = recursions.tanh_problem()
    solution = evaluate(*problem, method=method, window=window, **TIGHT[np.dtype(np.float32)])
    CONVERGED.check(solution.states, scan(*problem))
    assert solution.iterations <= STEPS


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_near_the_chain_it_is_newton() -> None:
    """The penalty falls to its smallest value, so that the last iterations converge as fast as Newton's."""
    problem = recursions.tanh_problem(np.float64)
    elk = evaluate(*problem, method="elk", **FLOAT64)
    newton = evaluate(*problem, method="newton", conditioning=UNPROJECTED, **FLOAT64)
    assert elk.iterations <= newton.iterations + 4
