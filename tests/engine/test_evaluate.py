"""What `evaluate` returns: the trajectory of the sequential loop, its counts, and its history."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from parsample.engine import methods
from parsample.engine.evaluate import evaluate, evaluate_sequential
from parsample.engine.methods import Method
from parsample.engine.rules import Conditioning
from tests.covering import each_once
from tests.engine import recursions
from tests.engine.recursions import (
    ALL_METHODS,
    ITERATIVE_KINDS,
    KINDS,
    SHARP,
    STEPS,
    TIGHT,
    UNPROJECTED,
    Problem,
    check_solved,
    map_trees,
    scan,
)
from tests.engine.test_methods import Threshold
from tests.tolerances import CONVERGED, SAME_COMPUTATION

OPTIONS: dict[str, dict[str, Any]] = {
    "clip": {"method": "newton", "conditioning": Conditioning(clip=0.3)},
    "clip a diagonal": {"method": "quasi_newton", "conditioning": Conditioning(clip=0.3)},
    "damping": {"method": "newton", "conditioning": Conditioning(damping=0.4)},
    "no projection": {"method": "newton", "conditioning": UNPROJECTED},
    "all": {"method": "quasi_newton", "conditioning": Conditioning(clip=0.5, damping=0.1, projection=False)},
    "probes": {"method": methods.QuasiNewton(estimator="hutchinson", num_probes=3)},
    "exact": {"method": methods.QuasiNewton(estimator="exact")},
    "negative scale": {"method": methods.ScaledIdentity(-0.5)},
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("method", "window"), each_once(KINDS, [None, 7]))
def test_double_precision_equals_the_loop(method: str, window: int | None) -> None:
    problem = recursions.tanh_problem(np.float64)
    solution = evaluate(*problem, method=method, window=window, **TIGHT[np.dtype(np.float64)])
    check_solved(solution, problem, np.float64)
    # Far below the tolerance of the comparison: the computation itself is in double precision.
    np.testing.assert_allclose(solution.states, scan(*problem), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", recursions.PROBLEMS)
def test_the_loop_equals_a_plain_scan(name: str) -> None:
    problem = recursions.PROBLEMS[name]()
    map_trees(SAME_COMPUTATION.check, evaluate_sequential(*problem).states, scan(*problem))


@pytest.mark.parametrize("method", ALL_METHODS)
def test_one_step(method: str) -> None:
    problem = recursions.scalar_problem(steps=1)
    for window in (None, 1, 3):
        solution = evaluate(*problem, method=method, window=window)
        assert solution.iterations == solution.evaluations == 1
        SAME_COMPUTATION.check(solution.states, scan(*problem))


@pytest.mark.parametrize("case", OPTIONS)
def test_the_options_change_the_way_and_not_the_answer(case: str) -> None:
    problem = recursions.tanh_problem()
    check_solved(evaluate(*problem, window=7, **{**OPTIONS[case], **SHARP}), problem)


@pytest.mark.parametrize(("window", "method"), each_once([None, 7], ITERATIVE_KINDS))
def test_the_trajectory_is_a_fixed_point(method: str, window: int | None) -> None:
    problem = recursions.tanh_problem()._replace(transition=recursions.fragile_step)
    solution = evaluate(*problem, method=method, window=window, guess=scan(*problem))
    assert solution.iterations == -(-STEPS // (window or STEPS))
    SAME_COMPUTATION.check(solution.states, scan(*problem))
    assert np.max(solution.residual) < 1e-6


def seldom_step(state: Array, moves: Array) -> Array:
    return jnp.where(moves, state + 1, state)


@pytest.mark.parametrize(("window", "method"), each_once([1, 7], ITERATIVE_KINDS))
def test_a_chain_that_stays_where_it_is_loses_no_step(method: str, window: int) -> None:
    """Guesses are often right, so that a whole window is verified at once; the step after it still counts."""
    moves = jnp.asarray(np.random.default_rng(0).random(40) < 0.1)
    problem = Problem(seldom_step, jnp.zeros(2), moves)
    solution = evaluate(*problem, method=method, window=window, atol=1e-6, rtol=1e-6)
    CONVERGED.check(solution.states, scan(*problem))
    assert np.isfinite(solution.residual).all()


def linear(matrix: np.ndarray, steps: int = 64) -> Problem:
    weights = jnp.asarray(matrix, jnp.float32)
    dim = weights.shape[-1]
    noise = jnp.asarray(np.random.default_rng(0).normal(size=(steps, dim)), jnp.float32)
    return Problem(lambda state, input: weights @ state + input, jnp.ones(dim), noise)


AT_ONCE: dict[str, tuple[Problem, str | Method, dict[str, Any]]] = {
    "linear, newton": (linear(0.6 * recursions.WEIGHTS), "newton", {}),
    "linear of norm above 1, newton": (
        linear(recursions.WEIGHTS),
        "newton",
        {"conditioning": UNPROJECTED},
    ),
    "diagonal, quasi_newton": (linear(np.diag([0.9, -0.5, 0.1])), methods.QuasiNewton(estimator="exact"), {}),
    "diagonal, one probe": (linear(np.diag([0.9, -0.5, 0.1])), methods.QuasiNewton(estimator="hutchinson"), {}),
    "scaled identity": (linear(0.7 * np.eye(2)), methods.ScaledIdentity(0.7), {}),
    "sum, picard": (linear(np.eye(2)), "picard", {}),
    "no memory, jacobi": (linear(np.zeros((2, 2))), "jacobi", {}),
}


@pytest.mark.parametrize("case", AT_ONCE)
def test_a_recursion_that_a_method_describes_exactly_is_solved_at_once(case: str) -> None:
    problem, method, keywords = AT_ONCE[case]
    solution = evaluate(*problem, method=method, **keywords)
    # One iteration solves, one verifies.
    assert solution.iterations <= 2
    SAME_COMPUTATION.check(solution.residual, np.zeros(64))
    np.testing.assert_allclose(solution.states, scan(*problem), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["newton", "quasi_newton", "picard", "scaled_identity"])
def test_full_damping_is_jacobi(method: str) -> None:
    problem = recursions.tanh_problem()
    jacobi = evaluate(*problem, method="jacobi", window=11, max_iterations=4, throw=False, history=True)
    damped = evaluate(
        *problem,
        method=method,
        window=11,
        max_iterations=4,
        throw=False,
        history=True,
        conditioning=Conditioning(damping=1.0),
    )
    assert damped.iterations == jacobi.iterations
    SAME_COMPUTATION.check(damped.states, jacobi.states)
    jax.tree.map(SAME_COMPUTATION.check, damped.history, jacobi.history)


def first_update(problem: Problem, **keywords: Any) -> np.ndarray:
    """The states after one iteration from the zero guess; the first is exact, the others are the method's."""
    guess = jnp.zeros((problem.inputs.shape[0], problem.initial_state.size))
    solution = evaluate(*problem, guess=guess, max_iterations=1, throw=False, **keywords)
    return np.asarray(solution.states)


def one_step_by_hand(problem: Problem, matrix: np.ndarray) -> np.ndarray:
    """x_new[t] = f(x[t-1]) + A (x_new[t-1] - x[t-1]) from x = 0, except that step 0 is known."""
    weights = np.asarray(jax.jacfwd(problem.transition)(problem.initial_state, problem.inputs[0]))
    inputs = np.asarray(problem.inputs)
    states = [weights @ np.asarray(problem.initial_state) + inputs[0]]
    for input in inputs[1:]:
        states.append(input + matrix @ states[-1])
    return np.stack(states)


STEEP = 2 * recursions.WEIGHTS


def projected(matrix: np.ndarray) -> np.ndarray:
    """What `Dense.project` promises of a matrix whose norm is above 1."""
    norm = np.linalg.norm(matrix, ord=2)
    assert norm > 1
    return matrix / (1 + 2 * (norm - 1))


CONDITIONED: dict[str, tuple[str | Method, dict[str, Any], np.ndarray]] = {
    "projected": ("newton", {}, projected(STEEP)),
    "not projected": ("newton", {"conditioning": UNPROJECTED}, STEEP),
    "clipped": ("newton", {"conditioning": Conditioning(projection=False, clip=0.5)}, np.clip(STEEP, -0.5, 0.5)),
    "damped": ("newton", {"conditioning": Conditioning(damping=0.25)}, 0.75 * projected(STEEP)),
    "clipped, projected, damped": (
        "newton",
        {"conditioning": Conditioning(clip=1.0, damping=0.25)},
        0.75 * projected(np.clip(STEEP, -1, 1)),
    ),
    "diagonal projected": (methods.QuasiNewton("exact"), {}, np.diag(np.clip(np.diag(STEEP), -1, 1))),
    "diagonal not projected": (
        methods.QuasiNewton("exact"),
        {"conditioning": UNPROJECTED},
        np.diag(np.diag(STEEP)),
    ),
}


@pytest.mark.parametrize("case", CONDITIONED)
def test_an_iteration_is_the_formula_with_the_conditioned_matrix(case: str) -> None:
    method, keywords, matrix = CONDITIONED[case]
    problem = linear(STEEP, steps=8)
    found, expected = first_update(problem, method=method, **keywords), one_step_by_hand(problem, matrix)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_beyond_the_window_the_guess_is_where_the_window_ends() -> None:
    # The chain jumps to 7 and stays: only the first window has anything to find.
    inputs = jnp.zeros(21).at[0].set(7.0)
    problem = Problem(lambda state, input: jnp.maximum(state, input), jnp.zeros(1), inputs)
    solution = evaluate(*problem, method="picard", window=7)
    np.testing.assert_array_equal(solution.states, np.full((21, 1), 7.0))
    # One iteration takes the first step exactly and finds the others; three windows of 7 verify the 20 that are left.
    assert solution.iterations == 4


def test_a_guess_serves_the_steps_beyond_the_window() -> None:
    problem = recursions.tanh_problem()
    # Without memory, Jacobi finds a window in one iteration and verifies it, and the step after it, in the next.
    problem = Problem(lambda state, input: 0 * state + input, jnp.zeros(3), problem.inputs)
    # Wrong up to row 8: two iterations take 5 rows, twice; the 13 rows that are left take 4 windows of 4.
    solution = evaluate(*problem, method="jacobi", window=4, guess=problem.inputs.at[:9].set(0.0))
    np.testing.assert_array_equal(solution.states, problem.inputs)
    assert solution.iterations == 4 + 4
    assert evaluate(*problem, method="jacobi", window=4).iterations == 10


class Counting(Threshold):
    """A transition whose sequential loop carries what it reuses: the state and its hyperbolic tangent."""

    def start(self, state: Array) -> Any:
        return {"state": state, "cached": jnp.tanh(state)}

    def advance(self, carry: Any, input: Array) -> tuple[Any, None]:
        # Wrong on purpose without the cache, so that the test sees that it is used.
        state = carry["cached"] + input
        return {"state": state, "cached": jnp.tanh(state)}, None

    def state_of(self, carry: Any) -> Array:
        return carry["state"]


def test_the_loop_uses_the_carry_of_the_transition() -> None:
    problem = recursions.tanh_problem()
    plain = scan(lambda state, input: jnp.tanh(state) + input, problem.initial_state, problem.inputs)
    SAME_COMPUTATION.check(evaluate_sequential(Counting(), problem.initial_state, problem.inputs).states, plain)


@pytest.mark.parametrize("method", ["newton", "quasi_newton", "sequential"])
def test_random_keys_are_inputs(method: str) -> None:
    keys = jax.random.split(jax.random.key(1), 20)
    problem = Problem(lambda state, key: 0.5 * state + jax.random.normal(key, (2,)), jnp.zeros(2), keys)
    check_solved(evaluate(*problem, method=method, window=6, **SHARP), problem)


@pytest.mark.parametrize("method", ITERATIVE_KINDS)
def test_history_tells_what_every_iteration_saw(method: str) -> None:
    problem = recursions.tanh_problem()
    plain = evaluate(*problem, method=method, window=7)
    solution = evaluate(*problem, method=method, window=7, history=True)
    assert plain.history is None
    np.testing.assert_array_equal(plain.states, solution.states)
    history, done = solution.history, int(solution.iterations)
    assert history is not None
    assert all(field.shape == (STEPS,) for field in history[:3])
    assert history.residual is None
    first = np.asarray(history.first_step)
    assert first[0] == 0
    assert np.all(np.diff(first[:done]) >= 1)
    assert STEPS - 7 <= first[done - 1] < STEPS
    np.testing.assert_array_equal(first[done:], -1)
    for field in (history.largest_residual, history.merit):
        assert np.all(np.asarray(field)[:done] >= 0)
        assert np.isnan(field[done:]).all()
    if method == "parareal":
        return  # it judges the states that its segments run through
    # The first iteration looks at the guess: every step at the initial state.
    guess = jnp.broadcast_to(problem.initial_state, (7, 3))
    seen = np.asarray(guess - jax.vmap(problem.transition)(guess, problem.inputs[:7]))
    np.testing.assert_allclose(history.largest_residual[0], np.abs(seen).max(), rtol=1e-5)
    np.testing.assert_allclose(history.merit[0], 0.5 * np.sum(seen**2), rtol=1e-5)


@pytest.mark.parametrize("method", ["newton", "quasi_newton"])
def test_history_ends_within_the_tolerance(method: str) -> None:
    problem = recursions.tanh_problem()
    history = evaluate(*problem, method=method, atol=1e-4, rtol=0.0, history=True).history
    assert history is not None
    largest = np.asarray(history.largest_residual)
    assert largest[~np.isnan(largest)][-1] <= 1e-4


@pytest.mark.parametrize("method", ["quasi_newton", "anderson"])
def test_history_of_the_steps_is_that_of_the_iterations(method: str) -> None:
    problem = recursions.tanh_problem()
    solution = evaluate(*problem, method=method, window=7, history="steps")
    history, done = solution.history, int(solution.iterations)
    assert history is not None
    assert history.residual is not None
    residual, first = np.asarray(history.residual), np.asarray(history.first_step)
    assert residual.shape == (STEPS, 7)
    assert np.isnan(residual[done:]).all()
    # NaN where the window reaches beyond the end of the chain, and only there.
    inside = first[:done, None] + np.arange(7) < STEPS
    np.testing.assert_array_equal(np.isnan(residual[:done]), ~inside)
    guess = jnp.broadcast_to(problem.initial_state, (7, 3))
    seen = np.asarray(guess - jax.vmap(problem.transition)(guess, problem.inputs[:7]))
    np.testing.assert_allclose(residual[0], np.abs(seen).max(1), rtol=1e-5)
    # The largest is over the steps that are not accepted; these start where the next window does, or just before.
    for i in range(done - 1):
        left = residual[i, max(first[i + 1] - first[i] - 1, 0) :]
        np.testing.assert_allclose(history.largest_residual[i], np.nanmax(left), rtol=1e-6)


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("method", ["quasi_newton", "anderson", "parareal"])
def test_history_of_the_states_is_the_way_to_the_solution(method: str, window: int | None) -> None:
    problem = recursions.tanh_problem()
    solution = evaluate(*problem, method=method, window=window, history="states")
    history, done = solution.history, int(solution.iterations)
    assert history is not None
    seen = np.asarray(history.states)
    assert seen.shape == (STEPS, STEPS, 3)
    assert np.isnan(seen[done:]).all()
    assert np.isfinite(seen[:done]).all()
    # The last iteration may still make its first step that is not within tolerance exact.
    differs = np.abs(seen[done - 1] - np.asarray(solution.states)).max(1) > 1e-4
    assert differs.sum() <= 1
    # What is accepted stays as it is.
    for i in range(done - 1):
        first = int(history.first_step[i])
        np.testing.assert_array_equal(seen[i + 1][:first], seen[i][:first])
    if method != "parareal":
        np.testing.assert_array_equal(seen[0], np.broadcast_to(problem.initial_state, (STEPS, 3)))
    # What is in the window of an iteration is what its residual is of.
    for i in range(done):
        rows = slice(int(history.first_step[i]), int(history.first_step[i]) + (window or STEPS))
        before = np.concatenate([np.asarray(problem.initial_state)[None], seen[i][:-1]])
        error = np.asarray(seen[i] - jax.vmap(problem.transition)(before, problem.inputs))[rows]
        assert np.abs(error).max() >= float(history.largest_residual[i]) * (1 - 1e-5)


def test_history_of_states_that_are_pytrees() -> None:
    def transition(state: dict[str, Array], noise: Array) -> dict[str, Array]:
        return {"x": jnp.tanh(state["x"]) + noise, "y": 0.5 * state["y"] + state["x"][0]}

    start = {"x": jnp.zeros(2), "y": jnp.zeros(())}
    history = evaluate(transition, start, jnp.ones((9, 2)), max_iterations=5, history="states", throw=False).history
    assert history is not None
    assert jax.tree.map(jnp.shape, history.states) == {"x": (5, 9, 2), "y": (5, 9)}


def test_history_of_the_loop() -> None:
    history = evaluate_sequential(*recursions.tanh_problem(), history=True).history
    assert history is not None
    np.testing.assert_array_equal(history.first_step, np.arange(STEPS))


def test_the_loop_takes_what_evaluate_takes() -> None:
    problem = recursions.tanh_problem()
    keywords: dict[str, Any] = {"window": 3, "atol": 1e-2, "rtol": 0.0, "max_iterations": 2, "throw": True}
    keywords |= {"guess": jnp.ones((STEPS, 3)), "conditioning": Conditioning(damping=0.5, projection=False, clip=1.0)}
    solution = evaluate_sequential(*problem, **keywords)
    np.testing.assert_array_equal(solution.states, evaluate_sequential(*problem).states)
