"""What an evaluation leaves undone is finished by the loop, for that chain alone, from exactly where it stopped."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine.evaluate import evaluate
from parsample.engine.rules import Stopping
from parsample.engine.solution import Solution, Status
from parsample.samplers import MALA
from tests.covering import each_once
from tests.engine.recursions import STEPS, Problem, scan, tanh_problem, tanh_step
from tests.tolerances import CONVERGED, SAME_COMPUTATION

TIGHT: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}


def run(problem: Problem, finish: bool, iterations: int = 2, **keywords: Any) -> Solution:
    options = {"method": "jacobi", "max_iterations": iterations, "throw": False, **TIGHT, **keywords}
    return evaluate(*problem, stopping=Stopping(finish=finish), **options)


@pytest.mark.parametrize("window", [None, 7, 1])
def test_the_rest_is_the_loop_and_the_beginning_stays(window: int | None) -> None:
    problem = tanh_problem()
    solution, whole = run(problem, False, window=window), run(problem, True, window=window)
    first = int(solution.first_bad_step)
    assert 0 < first < STEPS
    CONVERGED.check(whole.states, scan(*problem))
    np.testing.assert_array_equal(whole.states[:first], solution.states[:first])
    rest = scan(problem.transition, whole.states[first - 1], problem.inputs[first:])
    SAME_COMPUTATION.check(whole.states[first:], rest)
    np.testing.assert_array_equal(whole.residual[first:], np.zeros(STEPS - first))
    assert (bool(whole.converged), int(whole.status), int(whole.first_bad_step)) == (True, Status.CONVERGED, -1)
    assert int(whole.iterations) == int(solution.iterations) == 2
    assert int(whole.finished) == STEPS - first
    # Two iterations and the steps of the loop: nothing is measured again.
    assert int(whole.evaluations) == 2 * (window or STEPS) + STEPS - first


def test_a_solution_that_converged_is_left_as_it_is() -> None:
    problem = tanh_problem()
    for one, other in zip(*(jax.tree.leaves(run(problem, finish, STEPS)) for finish in (True, False)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("window", [None, 4])
def test_a_state_that_is_not_finite_is_reported(window: int | None) -> None:
    problem = tanh_problem()
    problem = problem._replace(inputs=problem.inputs.at[15].set(jnp.nan))
    for iterations in (2, STEPS):
        whole = run(problem, True, iterations, window=window)
        assert (bool(whole.converged), int(whole.status), int(whole.first_bad_step)) == (False, Status.NOT_FINITE, 15)
        CONVERGED.check(whole.states[:15], scan(*problem)[:15])
        np.testing.assert_array_equal(np.isnan(whole.residual), np.arange(STEPS) >= 15)


LONG = 700


@pytest.mark.parametrize(("batched", "window"), each_once(["chains", "vmap"], [None, 8, 100]))
def test_each_chain_of_a_batch_from_where_it_stopped(batched: str, window: int | None) -> None:
    """One that runs out of iterations in the middle, and two that do not; blocks of the long chains come and go."""
    problem = tanh_problem()
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(3, LONG, 3)) * np.array([0.0, 1.0, 3.0])[:, None, None], jnp.float32)
    starts = jnp.stack([problem.initial_state] * 3)
    options: dict[str, Any] = {
        "window": window,
        "max_iterations": {None: 100, 8: 480, 100: 200}[window],
        "stopping": Stopping(finish=True),
        **TIGHT,
    }
    if batched == "chains":
        whole = evaluate(tanh_step, starts, inputs, method="quasi_newton", chains=True, **options)
    else:
        one = lambda start, inputs: evaluate(tanh_step, start, inputs, method="quasi_newton", **options)  # noqa: E731
        whole = jax.vmap(one)(starts, inputs)
    expected = np.stack([scan(tanh_step, *chain) for chain in zip(starts, inputs, strict=True)])
    CONVERGED.check(whole.states, expected)
    np.testing.assert_array_equal(whole.finished > 0, [True, False, False])
    assert whole.converged.all()


def test_a_pytree_and_a_sampler_that_caches_its_gradient() -> None:
    """The cache has to belong to the state that the loop starts from, not to the initial one."""
    sampler = MALA(lambda x: -0.5 * x["a"] @ x["a"] - 0.1 * x["b"] ** 4, step_size=0.5)
    start = {"a": jnp.asarray([1.0, -1.0]), "b": jnp.asarray(0.5)}
    inputs = sampler.draw_inputs(jax.random.key(0), 40, start)
    whole = evaluate(
        sampler.transition,
        start,
        inputs,
        max_iterations=4,
        stopping=Stopping(finish=True),
        window=8,
        details=True,
        **TIGHT,
    )
    assert 0 < int(whole.finished) < 40
    jax.tree.map(CONVERGED.check, whole.states, scan(sampler.transition, start, inputs))
    jax.tree.map(CONVERGED.check, whole.details.position, whole.states)
