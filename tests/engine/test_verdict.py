"""`converged` speaks of the returned states: it is recomputed here, in double precision and without the package."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine.evaluate import evaluate, evaluate_sequential
from parsample.engine.rules import Conditioning
from parsample.engine.solution import ConvergenceError, Status
from tests.covering import each_once
from tests.engine import recursions
from tests.engine.recursions import ITERATIVE_KINDS, KINDS, STEPS, UNPROJECTED, Problem, scan, with_nan_at
from tests.tolerances import CONVERGED, SAME_COMPUTATION


@pytest.mark.parametrize("method", ["jacobi", "newton"])
def test_one_iteration_short_is_not_converged(method: str) -> None:
    problem = recursions.tanh_problem()
    needed = int(evaluate(*problem, method=method).iterations)
    assert bool(evaluate(*problem, method=method, max_iterations=needed).converged)
    short = evaluate(*problem, method=method, max_iterations=needed - 1, throw=False)
    assert not bool(short.converged)
    assert short.status == Status.MAX_ITERATIONS


def test_a_state_near_a_step_but_far_from_its_past_is_not_accepted() -> None:
    """A slow recursion: every residual of the first guess is within tolerance, and the guess is far from the chain."""
    problem = Problem(lambda state, input: 0.999 * state + input, jnp.zeros(1), jnp.full(2000, 9e-4))
    for window in (None, 100):
        solution = evaluate(*problem, method="newton", atol=1e-3, rtol=0.0, window=window)
        expected = 0.9 * (1 - 0.999 ** np.arange(1, 2001))
        np.testing.assert_allclose(solution.states[:, 0], expected, atol=0.02)


@pytest.mark.parametrize("method", KINDS)
def test_an_overflow_is_found_where_the_loop_finds_it(method: str) -> None:
    problem = Problem(lambda state, input: 10 * state, jnp.ones(2), jnp.arange(60.0))
    solution = evaluate(*problem, method=method, throw=False, window=11)
    assert solution.status == Status.NOT_FINITE
    # Float32 ends at 3.4e38.
    assert solution.first_bad_step == 38
    assert np.isfinite(solution.states[:38]).all()


@pytest.mark.parametrize("method", ["newton", "sequential"])
def test_a_recursion_that_forgets_a_nan_is_not_finite_all_the_same(method: str) -> None:
    problem = with_nan_at(5)
    forgets = problem._replace(transition=lambda state, input: problem.transition(jnp.nan_to_num(state), input))
    solution = evaluate(*forgets, method=method, throw=False)
    assert solution.status == Status.NOT_FINITE
    assert solution.first_bad_step == 5


@pytest.mark.parametrize(("window", "method"), each_once([None, 7], ITERATIVE_KINDS))
def test_nan_at_a_wild_guess_spoils_nothing(method: str, window: int | None) -> None:
    problem = recursions.tanh_problem()._replace(transition=recursions.fragile_step)
    wild = jnp.where(jnp.arange(STEPS)[:, None] % 3 == 1, 100.0, jnp.zeros((STEPS, 3)))
    solution = evaluate(*problem, method=method, window=window, guess=wild, atol=1e-5, rtol=1e-5)
    assert solution.iterations <= STEPS
    CONVERGED.check(solution.states, scan(*problem))


@pytest.mark.parametrize("method", ITERATIVE_KINDS)
def test_a_guess_that_is_not_finite_under_jit_is_never_accepted(method: str) -> None:
    """Under `jit` its values cannot be refused, and an infinite state would be within an infinite tolerance."""
    problem = recursions.tanh_problem()._replace(transition=recursions.rough_step)
    solve = jax.jit(lambda guess: evaluate(*problem, method=method, guess=guess, atol=1e-5, rtol=1e-5, throw=False))
    for value in (jnp.nan, jnp.inf, 1e38):
        solution = solve(jnp.full((STEPS, 3), value))
        assert bool(solution.converged)
        CONVERGED.check(solution.states, scan(*problem))


@pytest.mark.parametrize("method", KINDS)
def test_an_infinite_start_that_the_first_step_leaves(method: str) -> None:
    problem = Problem(recursions.rough_step, jnp.full(2, jnp.inf), jnp.linspace(0, 1, STEPS))
    solution = evaluate(*problem, method=method, atol=1e-5, rtol=1e-5)
    CONVERGED.check(solution.states, scan(*problem))


@pytest.mark.parametrize("method", ITERATIVE_KINDS)
def test_a_derivative_that_is_not_finite_stops_nothing(method: str) -> None:
    # The guess is 0 everywhere, where there is no derivative.
    problem = Problem(recursions.rough_step, jnp.zeros(2), jnp.linspace(0, 1, STEPS))
    solution = evaluate(*problem, method=method, atol=1e-5, rtol=1e-5)
    CONVERGED.check(solution.states, scan(*problem))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("method", "way"), each_once(["newton", "picard", "quasi_newton"], [(False, 7), (True, None), (False, None)])
)
def test_a_chaotic_recursion_ends_in_as_many_iterations_as_steps(method: str, way: tuple[bool, int | None]) -> None:
    projection, window = way
    problem = Problem(lambda state, input: input * state * (1 - state), jnp.asarray([0.2, 0.7]), jnp.full(30, 3.8))
    solution = evaluate(
        *problem, method=method, conditioning=Conditioning(projection=projection), window=window, atol=1e-14, rtol=1e-14
    )
    assert solution.iterations <= 30
    # An error of 1e-14 grows by e^0.43 a step.
    np.testing.assert_allclose(solution.states, scan(*problem), atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("method", ITERATIVE_KINDS)
def test_iterates_that_overflow_do_not_spoil_the_trajectory(method: str) -> None:
    """x -> x^4 far from the trajectory, which stays below 1: the iterates leave the range of float32."""
    problem = Problem(lambda state, input: state**4 + input, jnp.asarray([0.1, -0.2]), jnp.linspace(-0.3, 0.5, 40))
    guess = jnp.full((40, 2), 1e6)
    solution = evaluate(*problem, method=method, conditioning=UNPROJECTED, guess=guess, atol=1e-6, rtol=0.0)
    assert solution.iterations <= 40
    CONVERGED.check(solution.states, scan(*problem))


def test_a_failure_is_raised_with_its_explanation() -> None:
    problem = recursions.tanh_problem()
    with pytest.raises(
        ConvergenceError, match=r"of 23 steps converged in 2 iterations; .* Raise max_iterations"
    ) as caught:
        evaluate(*problem, method="jacobi", max_iterations=2)
    solution = caught.value.solution
    assert solution.status == Status.MAX_ITERATIONS
    kept = evaluate(*problem, method="jacobi", max_iterations=2, throw=False)
    np.testing.assert_array_equal(solution.states, kept.states)


@pytest.mark.parametrize("method", ["newton", "sequential"])
def test_a_value_that_is_not_finite_is_raised_with_its_explanation(method: str) -> None:
    with pytest.raises(
        ConvergenceError, match=r"the state after 7 of 23 steps is not finite\. The sequential loop meets"
    ):
        evaluate(*with_nan_at(6), method=method)


@pytest.mark.parametrize("method", ["jacobi", "sequential"])
@pytest.mark.parametrize("compile", [jax.jit, eqx.filter_jit])
def test_under_jit_a_failure_is_raised_when_the_program_runs(method: str, compile: Any) -> None:
    problem = with_nan_at(6)
    solve = compile(lambda inputs: evaluate(problem.transition, problem.initial_state, inputs, method=method).states)
    with pytest.raises(RuntimeError, match=r"ConvergenceError: the state after 7 of 23 steps is not finite\. .* use a"):
        jax.block_until_ready(solve(problem.inputs))
    right = recursions.tanh_problem()
    CONVERGED.check(solve(right.inputs), scan(*right))


def test_the_loop_judges_as_the_others_do() -> None:
    problem = with_nan_at(6)
    loop, newton = evaluate_sequential(*problem, throw=False), evaluate(*problem, method="newton", throw=False)
    assert (loop.status, loop.first_bad_step, loop.converged) == (
        newton.status,
        newton.first_bad_step,
        newton.converged,
    )
    np.testing.assert_array_equal(loop.residual[:6], np.zeros(6))
    SAME_COMPUTATION.check(loop.states[:6], scan(*problem)[:6])
