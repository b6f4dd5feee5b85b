"""Evaluating only the steps whose input has moved: the same chain, an honest verdict, and every call counted."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine import active, methods
from parsample.engine.evaluate import evaluate
from parsample.engine.iteration import Around, Memory, Update, update_of
from parsample.engine.matrices import Zero
from parsample.engine.methods.base import Prepared
from parsample.engine.rules import Conditioning, Stopping
from parsample.engine.solution import Status
from tests.covering import each_once
from tests.engine import recursions
from tests.engine.recursions import STEPS, TIGHT, UNPROJECTED, residuals, scan, tanh_step
from tests.tolerances import CONVERGED, SAME_COMPUTATION

ACTIVE = ["jacobi", "picard", "quasi_newton", "newton", "surrogate", "anderson"]
# (active_set, window): chosen by the driver; not a divisor of the window; the whole window at once.
CHOICES = [(True, None), (4, 7), (STEPS, None)]
ROUNDING = 1e-6
LOOSE: dict[str, Any] = {"atol": 1e-2, "rtol": 1e-2}


@pytest.mark.parametrize(("choice", "method"), each_once(CHOICES, ACTIVE))
def test_the_chain_is_the_loops_and_the_residual_that_of_its_states(
    method: str, choice: tuple[bool | int, int | None]
) -> None:
    active_set, window = choice
    problem = recursions.tanh_problem()
    solution = evaluate(*problem, method=method, active_set=active_set, window=window, **TIGHT[np.dtype(np.float32)])
    assert bool(solution.converged)
    CONVERGED.check(solution.states, scan(*problem))
    loose = evaluate(*problem, method=method, active_set=active_set, window=window, **LOOSE)
    for found, tolerance in [(solution, 1e-5), (loose, 1e-2)]:
        true = residuals(problem.initial_state, found.states, problem.inputs)
        np.testing.assert_allclose(found.residual, true.max(1), rtol=0, atol=ROUNDING)
        assert np.all(true <= tolerance * (1 + np.abs(found.states)) + ROUNDING)


@pytest.mark.parametrize(
    ("choice", "method"),
    each_once([(True, 2, None), (4, 4, 7), (3, 3, None)], ["jacobi", "quasi_newton", "newton", "anderson"]),
)
def test_the_evaluations_are_the_calls(method: str, choice: tuple[bool | int, int, int | None]) -> None:
    active_set, capacity, window = choice
    calls = 0

    def count(_: Any) -> Any:
        nonlocal calls
        calls += 1
        return np.float32(0)

    def counting(state: Any, input: Any) -> Any:
        # As it depends on the input alone, it has no derivative; where a value is not used, it is not called.
        zero = jax.pure_callback(count, jax.ShapeDtypeStruct((), np.float32), input[0], vmap_method="sequential")
        return tanh_step(state, input) + zero

    problem = recursions.tanh_problem()._replace(transition=counting)
    solution = evaluate(*problem, method=method, active_set=active_set, window=window)
    jax.block_until_ready(solution)
    assert solution.evaluations == calls
    assert calls % capacity == 0
    # A capacity that does not divide the window fills its last batch up.
    assert STEPS <= calls < solution.iterations * -(-(window or STEPS) // capacity) * capacity


def test_a_recursion_that_forgets_at_once_is_evaluated_twice() -> None:
    """Every step is evaluated at the first guess; then all but the first at another state, and never again."""
    problem = recursions.Problem(lambda state, input: 0 * state + input, jnp.zeros(1), 1 + jnp.arange(8.0))
    solution = evaluate(*problem, method="jacobi", active_set=1)
    assert solution.iterations == 2
    assert solution.evaluations == 8 + 7
    np.testing.assert_array_equal(solution.states[:, 0], 1 + np.arange(8.0))


def test_one_step_an_iteration_moves_one_step() -> None:
    """By Jacobi a sum gains a step an iteration; only the steps that are not done yet are evaluated."""
    problem = recursions.Problem(lambda state, input: state + input, jnp.zeros(1), jnp.ones(8))
    solution = evaluate(*problem, method="jacobi", active_set=1, atol=1e-6, rtol=0.0)
    # Iteration i changes the states from i on, and accepts step i; each makes the steps after it active.
    assert solution.iterations == 8
    assert solution.evaluations == sum(range(1, 9))


@pytest.mark.parametrize("method", ["jacobi", "newton", "anderson"])
def test_a_batch_equals_a_loop_over_its_chains(method: str) -> None:
    problems = [recursions.tanh_problem(seed=seed) for seed in range(3)]
    initial_states, inputs = (jnp.stack(leaves) for leaves in list(zip(*problems, strict=True))[1:])
    inputs = inputs * jnp.asarray([0.01, 1.0, 3.0])[:, None, None]
    solve = lambda *chain: evaluate(tanh_step, *chain, method=method, active_set=4, window=7)  # noqa: E731
    batch = jax.vmap(solve)(initial_states, inputs)
    for chain in range(3):
        alone = solve(initial_states[chain], inputs[chain])
        assert batch.iterations[chain] == alone.iterations
        assert batch.evaluations[chain] == alone.evaluations
        SAME_COMPUTATION.check(batch.states[chain], alone.states)
    assert method == "anderson" or len(set(batch.evaluations.tolist())) > 1


@pytest.mark.parametrize(("choice", "method"), each_once(CHOICES, ACTIVE))
def test_nan_is_found_where_the_loop_meets_it(method: str, choice: tuple[bool | int, int | None]) -> None:
    active_set, window = choice
    problem = recursions.tanh_problem()
    for bad in (0, 7, STEPS - 1):
        inputs = problem.inputs.at[bad].set(jnp.nan)
        solution = evaluate(
            tanh_step, problem.initial_state, inputs, method=method, active_set=active_set, window=window, throw=False
        )
        assert solution.status == Status.NOT_FINITE
        assert solution.first_bad_step == bad
        assert np.isnan(solution.residual[bad])
        CONVERGED.check(solution.states[:bad], scan(*problem)[:bad])


@pytest.mark.parametrize("method", ACTIVE)
def test_one_step(method: str) -> None:
    problem = recursions.tanh_problem(steps=1)
    solution = evaluate(*problem, method=method, active_set=True)
    assert (solution.iterations, solution.evaluations) == (1, 1)
    SAME_COMPUTATION.check(solution.states, scan(*problem))


def test_an_unfinished_trajectory_is_judged_by_its_own_states() -> None:
    problem = recursions.tanh_problem()
    solution = evaluate(*problem, method="jacobi", active_set=4, max_iterations=2, throw=False)
    assert solution.status == Status.MAX_ITERATIONS
    true = residuals(problem.initial_state, solution.states, problem.inputs)
    np.testing.assert_allclose(solution.residual, true.max(1), rtol=0, atol=ROUNDING)


def bistable(state: Any, noise: Any) -> Any:
    """A recursion that jumps between two states, so that a wrong guess has to be mended step by step."""
    return jnp.tanh(2 * state) + 0.5 * noise


def bistable_problem(steps: int = 300) -> recursions.Problem:
    noise = np.random.default_rng(3).normal(size=(steps, 2)).astype(np.float32)
    return recursions.Problem(bistable, jnp.zeros(2), jnp.asarray(noise))


def test_waiting_saves_evaluations_and_changes_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = bistable_problem()
    found = evaluate(*problem, method="newton", active_set=1)
    step = lambda state, noise: np.tanh(2 * state) + 0.5 * noise  # noqa: E731
    true = residuals(problem.initial_state, found.states, problem.inputs, step)
    np.testing.assert_allclose(found.residual, true.max(1), rtol=0, atol=ROUNDING)
    assert np.all(true <= 1e-4 + 1e-3 * np.abs(found.states) + ROUNDING)
    monkeypatch.setattr(active, "MUCH", 0.0)
    patient = evaluate(lambda *step: bistable(*step), *problem[1:], method="newton", active_set=1)
    assert found.evaluations < 0.8 * patient.evaluations


@pytest.mark.parametrize("method", ["quasi_newton", "newton"])
def test_steps_stay_where_all_are_accepted_together(method: str) -> None:
    step = lambda state, noise: 0.97 * state + 0.03 * jnp.sin(2 * state) + 0.1 * noise  # noqa: E731
    noise = jnp.asarray(np.random.default_rng(0).normal(size=(256, 4)), jnp.float32)
    more: dict[str, Any] = {"method": method, "stopping": Stopping(accept_early=0.0), "atol": 1e-3, "rtol": 0.0}
    every = evaluate(step, jnp.zeros(4), noise, **more)
    found = evaluate(step, jnp.zeros(4), noise, active_set=4, **more)
    assert bool(found.converged)
    assert found.iterations <= every.iterations
    assert found.evaluations < 0.8 * every.evaluations
    true = residuals(jnp.zeros(4), found.states, noise, lambda x, u: 0.97 * x + 0.03 * np.sin(2 * x) + 0.1 * u)
    assert np.all(true <= 1e-3 + ROUNDING)


def test_which_steps_wait() -> None:
    """Against a loop: a step waits while one of the steps before it has moved much further, in tolerances."""
    rows, rng = 150, np.random.default_rng(0)
    before = rng.normal(size=(rows + 1, 2))
    tolerance = 0.1 + rng.random((rows, 2))
    moves = 10.0 ** rng.uniform(-4, 1, size=(rows, 1)) * np.array([1.0, 0.3])
    moves[rng.random(rows) < 0.3] = 0
    at = before[:-1] - moves
    at[[5, 90]] = np.nan
    around = Around(
        jnp.asarray(before[0]), jnp.asarray(before[1:]), jnp.ones(rows, bool), jnp.asarray(before[0]), None, None,
        jnp.asarray(tolerance),
        jax.random.key(0), Conditioning(), 1,
    )  # fmt: skip
    found = active.waits(around, active.Evaluated(jnp.asarray(at), jnp.zeros((rows, 2)), Zero(), None))
    sizes = (moves / np.concatenate([tolerance[:1], tolerance[:-1]])).max(1)
    sizes[[5, 90]] = 0
    most = [max(sizes[max(0, row - active.SHADOW) : row], default=0) for row in range(rows)]
    expected = (sizes < active.MUCH * np.array(most)) & ~np.isin(np.arange(rows), [5, 90])
    np.testing.assert_array_equal(found, expected)
    assert 0 < expected.sum() < rows
    assert not found[0]


class Delayed(methods.Method):
    """Jacobi's iteration that knows only every third open row of the window, and says so."""

    def prepare(self, transition: Any, initial_state: Any, inputs: Any) -> Prepared:
        return Prepared()

    def start(self, transition: Any, around: Around) -> Memory:
        return Memory()

    def iterate(self, transition: Any, around: Around, memory: Memory) -> Update:
        steps = around.steps()
        waiting = around.open & ((jnp.cumsum(around.open) - 1) % 3 != 0)
        values = jax.vmap(transition)(steps.previous, steps.inputs)
        # What a row that waits has for a value looks perfect, and is not the transition's.
        values = jnp.where(waiting[:, None], around.guesses, values)
        return update_of(around, values, values - around.guesses, values, None)._replace(waiting=waiting)


@pytest.mark.parametrize("window", [None, 7])
def test_a_row_that_waits_is_not_accepted(window: int | None) -> None:
    problem = recursions.tanh_problem()
    solution = evaluate(*problem, method=Delayed(), window=window, **TIGHT[np.dtype(np.float32)])
    assert bool(solution.converged)
    CONVERGED.check(solution.states, scan(*problem))
    stopped = evaluate(*problem, method=Delayed(), window=window, max_iterations=4, throw=False)
    assert stopped.first_bad_step <= 4
    true = residuals(problem.initial_state, stopped.states, problem.inputs)
    np.testing.assert_allclose(stopped.residual, true.max(1), rtol=0, atol=ROUNDING)


def test_a_state_with_a_wide_tolerance_before_one_with_a_narrow_one() -> None:
    """What a large state may leave undone is too much for a small one after it; it must not be left undone for good."""
    inputs = jnp.asarray(np.tile([100.0, -50.0], 100), jnp.float32)
    problem = recursions.Problem(lambda state, input: 0.5 * state + input, jnp.zeros(()), inputs)
    method = methods.ScaledIdentity(0.45)
    whole = evaluate(*problem, method=method, conditioning=UNPROJECTED)
    chosen = evaluate(*problem, method=method, conditioning=UNPROJECTED, active_set=1)
    assert chosen.iterations <= 2 * whole.iterations
    true = residuals(problem.initial_state, chosen.states, inputs, lambda state, input: 0.5 * state + input)
    assert np.all(true <= 1e-4 + 1e-3 * np.abs(chosen.states) + ROUNDING)


@pytest.mark.parametrize(
    ("method", "active_set", "message"),
    [
        ("newton", 0, "active_set is 0, expected a whole number of at least 1; .* True chooses it"),
        ("secant", True, "active_set is True, but the method Secant evaluates a whole window at a time"),
        (methods.Parareal(), 4, "active_set is 4, but the method Parareal evaluates a whole window at a time"),
    ],
)
def test_what_cannot_be_is_refused(method: Any, active_set: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(*recursions.tanh_problem(), method=method, active_set=active_set)
