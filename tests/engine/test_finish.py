"""What an evaluation left undone is finished by the loop, from exactly where it stopped."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine.evaluate import evaluate
from parsample.engine.finish import finish_sequentially
from parsample.engine.solution import Solution, Status
from parsample.engine.transition import as_transition
from parsample.samplers import MALA
from tests.engine.recursions import STEPS, Problem, scan, tanh_problem
from tests.tolerances import CONVERGED, SAME_COMPUTATION

TIGHT: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}


def finish(problem: Problem, solution: Solution) -> Solution:
    return finish_sequentially(as_transition(problem.transition), problem.initial_state, problem.inputs, solution)


def stopped(problem: Problem, iterations: int = 2) -> Solution:
    """An evaluation that had too few iterations."""
    solution = evaluate(*problem, method="jacobi", max_iterations=iterations, throw=False, **TIGHT)
    assert not bool(solution.converged)
    return solution


def spoiled(solution: Solution) -> Solution:
    """The same with NaN in every row that is not to be used."""
    unused = jnp.arange(solution.residual.shape[0]) >= solution.first_bad_step
    states = jax.tree.map(
        lambda rows: jnp.where(jnp.expand_dims(unused, range(1, rows.ndim)), jnp.nan, rows), solution.states
    )
    return eqx.tree_at(lambda s: s.states, solution, states)


def test_the_rest_is_the_loop_and_the_beginning_stays() -> None:
    problem = tanh_problem()
    solution = spoiled(stopped(problem))
    first = int(solution.first_bad_step)
    assert 0 < first < STEPS
    whole = finish(problem, solution)
    CONVERGED.check(whole.states, scan(*problem))
    np.testing.assert_array_equal(whole.states[:first], solution.states[:first])
    np.testing.assert_array_equal(whole.residual[:first], solution.residual[:first])
    np.testing.assert_array_equal(whole.residual[first:], np.zeros(STEPS - first))
    assert (bool(whole.converged), int(whole.status), int(whole.first_bad_step)) == (True, Status.CONVERGED, -1)


def test_the_loop_goes_on_from_the_last_step_that_converged() -> None:
    problem = tanh_problem()
    solution = stopped(problem)
    first = int(solution.first_bad_step)
    moved = eqx.tree_at(lambda s: s.states, solution, solution.states.at[first - 1].add(0.25))
    rest = scan(problem.transition, moved.states[first - 1], problem.inputs[first:])
    SAME_COMPUTATION.check(finish(problem, moved).states[first:], rest)


def test_steps_of_the_loop_are_evaluations_and_no_iterations() -> None:
    problem = tanh_problem()
    solution = stopped(problem)
    whole = finish(problem, solution)
    assert int(whole.evaluations) == int(solution.evaluations) + STEPS - int(solution.first_bad_step)
    assert int(whole.iterations) == int(solution.iterations) == 2


@pytest.mark.parametrize("first", [0, STEPS - 1])
def test_from_the_first_step_and_from_the_last(first: int) -> None:
    problem = tanh_problem()
    solution = evaluate(*problem, **TIGHT)
    solution = eqx.tree_at(
        lambda s: (s.converged, s.first_bad_step), solution, (jnp.asarray(False), jnp.asarray(first))
    )
    whole = finish(problem, spoiled(solution))
    CONVERGED.check(whole.states, scan(*problem))
    assert int(whole.evaluations) == int(solution.evaluations) + STEPS - first


def test_a_solution_that_converged_is_left_as_it_is() -> None:
    problem = tanh_problem()
    solution = evaluate(*problem, **TIGHT)
    whole = finish(problem, solution)
    for name in ("states", "residual", "evaluations", "iterations", "converged", "status", "first_bad_step"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(solution, name))


def test_a_state_that_is_not_finite_is_reported() -> None:
    problem = tanh_problem()
    problem = problem._replace(inputs=problem.inputs.at[15].set(jnp.nan))
    whole = finish(problem, stopped(problem))
    assert (bool(whole.converged), int(whole.status), int(whole.first_bad_step)) == (False, Status.NOT_FINITE, 15)
    SAME_COMPUTATION.check(whole.states[:15], scan(*problem)[:15])
    np.testing.assert_array_equal(np.isnan(whole.residual), np.arange(STEPS) >= 15)


def test_each_chain_of_a_batch_from_where_it_stopped() -> None:
    problem = tanh_problem()
    solutions = [
        spoiled(stopped(problem, 2)),
        spoiled(stopped(problem, 6)),
        evaluate(*problem, method="jacobi", **TIGHT),
    ]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *solutions)
    whole = jax.jit(jax.vmap(lambda solution: finish(problem, solution)))(batch)
    CONVERGED.check(whole.states, np.stack([scan(*problem)] * 3))
    left = [STEPS - int(solution.first_bad_step) for solution in solutions[:2]]
    np.testing.assert_array_equal(whole.evaluations - batch.evaluations, [*left, 0])


def test_a_pytree_and_a_sampler_that_caches_its_gradient() -> None:
    """The cache has to belong to the state that the loop starts from, not to the initial one."""
    sampler = MALA(lambda x: -0.5 * x["a"] @ x["a"] - 0.1 * x["b"] ** 4, step_size=0.5)
    start = {"a": jnp.asarray([1.0, -1.0]), "b": jnp.asarray(0.5)}
    inputs = sampler.draw_inputs(jax.random.key(0), 40, start)
    solution = evaluate(sampler.transition, start, inputs, max_iterations=4, throw=False, window=8, **TIGHT)
    assert 0 < int(solution.first_bad_step) < 40
    whole = finish_sequentially(sampler.transition, start, inputs, spoiled(solution))
    jax.tree.map(CONVERGED.check, whole.states, scan(sampler.transition, start, inputs))
