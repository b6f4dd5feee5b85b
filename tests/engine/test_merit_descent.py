"""Descent on the merit: its gradient by JAX, its step by a line search, and a merit that always falls."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine import methods
from parsample.engine.evaluate import evaluate
from parsample.engine.iteration import Around, Memory
from parsample.engine.rules import Conditioning
from parsample.engine.transition import as_transition, flatten
from tests.engine import recursions
from tests.engine.recursions import STEPS, TIGHT, Problem, scan
from tests.tolerances import CONVERGED, SAME_COMPUTATION


def around_of(problem: Problem, guesses: Any, inside: Any) -> tuple[Any, Around]:
    flat, initial, _ = flatten(as_transition(problem.transition), *problem[1:])
    nothing = jnp.zeros_like(guesses)
    key = jax.random.key(0)
    return flat, Around(initial, guesses, inside, initial, problem.inputs, None, nothing, key, Conditioning(), None)


def residual_of(problem: Problem, states: Any) -> Any:
    before = jnp.concatenate([problem.initial_state[None], states[:-1]])
    return states - jax.vmap(problem.transition)(before, problem.inputs)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("inside", [STEPS, 9])
def test_a_step_goes_down_the_gradient_to_the_minimum_of_the_linearised_merit(inside: int) -> None:
    """With rows that are not open, which have nothing to go down, too."""
    problem = recursions.tanh_problem(np.float64)
    states = jnp.asarray(np.random.default_rng(0).normal(size=(STEPS, 3)))
    flat, around = around_of(problem, states, jnp.arange(STEPS) < inside)
    update = methods.MeritDescent().iterate(flat, around, Memory())

    residual = lambda states: residual_of(problem, states)[:inside]  # noqa: E731
    gradient = jax.grad(lambda states: 0.5 * jnp.sum(residual(states) ** 2))(states)
    moved = np.asarray(update.correction)
    step = -np.sum(moved * gradient) / np.sum(gradient**2)
    np.testing.assert_allclose(moved, -step * gradient, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(update.guesses, states + moved, rtol=1e-12)
    np.testing.assert_array_equal(moved[inside:], 0)
    # The derivative of |r - s J g|^2 in s is 0 at the step that was taken.
    pushed = jax.jvp(residual, (states,), (gradient,))[1]
    np.testing.assert_allclose(step, np.sum(residual(states) * pushed) / np.sum(pushed**2), rtol=1e-10)
    assert step > 0


@pytest.mark.usefixtures("x64")
def test_the_merit_falls_in_every_iteration() -> None:
    """With a linear recursion the linearised merit is the merit, so that the minimum along the gradient is below it."""
    matrix = jnp.asarray([[0.5, 0.4], [-0.3, 0.6]])
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(STEPS, 2)))
    problem = Problem(lambda state, input: matrix @ state + input, jnp.ones(2), inputs)
    solution = evaluate(*problem, method="merit_descent", history=True, **TIGHT[np.dtype(np.float64)])
    assert solution.history is not None
    merit = np.asarray(solution.history.merit)[: int(solution.iterations)]
    assert np.all(np.diff(merit) < 0)
    CONVERGED.check(solution.states, scan(*problem))
    first = 0.5 * np.sum(np.square(residual_of(problem, jnp.ones((STEPS, 2)))))
    SAME_COMPUTATION.check(merit[0], first)


def test_what_is_not_finite_moves_nothing() -> None:
    problem = recursions.tanh_problem()._replace(transition=recursions.fragile_step)
    states = jnp.zeros((STEPS, 3)).at[4].set(100.0)
    flat, around = around_of(problem, states, jnp.ones(STEPS, bool))
    update = methods.MeritDescent().iterate(flat, around, Memory())
    assert np.isnan(update.values[5]).all()
    assert np.isfinite(update.guesses).all()
    np.testing.assert_array_equal(update.correction[5], 0)


@pytest.mark.parametrize("keywords", [{"damping": 0.5}, {"clip": 1.0}, {"projection": True}])
def test_it_has_no_matrices_to_condition(keywords: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the method MeritDescent has no matrices for them to work on"):
        evaluate(*recursions.tanh_problem(), method="merit_descent", conditioning=Conditioning(**keywords))
