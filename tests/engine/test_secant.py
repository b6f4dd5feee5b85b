"""Secant iteration: the secant formula in one dimension, no derivative, and its safeguards."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine import methods
from parsample.engine.evaluate import evaluate
from tests.engine import recursions
from tests.engine.recursions import STEPS, TIGHT, Problem, scan
from tests.tolerances import CONVERGED


@jax.custom_jvp
def no_derivative(state: Any) -> Any:
    """The hyperbolic tangent, which refuses to be differentiated."""
    return jnp.tanh(state)


@no_derivative.defjvp
def _refuse(primals: Any, tangents: Any) -> Any:
    raise AssertionError("the transition was differentiated")


def secant_by_hand(initial: float, inputs: np.ndarray, iterations: int, entry: float) -> np.ndarray:
    """x -> sin(0.9 x) + u in NumPy, with the first states exact as the driver has them: the guesses at the end."""
    steps = len(inputs)
    guesses, entries = np.full(steps, initial), np.full(steps, entry)
    last_states = last_values = None
    for iteration in range(iterations):
        before = np.concatenate([[initial], guesses[:-1]])
        values = np.sin(0.9 * before) + inputs
        if last_states is not None:
            moved = before != last_states
            quotient = (values - last_values)[moved] / (before - last_states)[moved]
            entries[moved] = quotient
        last_states, last_values = before, values
        slopes = np.clip(entries, -1, 1)
        state, updated = initial, np.empty(steps)
        for step in range(steps):
            updated[step] = values[step] + slopes[step] * (state - before[step])
            state = updated[step]
        # The driver accepts one step an iteration here: what is accepted is the value at the state before it.
        guesses = np.where(
            np.arange(steps) <= iteration, np.where(np.arange(steps) < iteration, guesses, values), updated
        )
    return guesses


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("initial", [1.0, 0.25])
def test_in_one_dimension_it_is_the_secant_formula(initial: float) -> None:
    problem = recursions.scalar_problem(np.float64)
    for iterations in (1, 2, 4):
        solution = evaluate(
            *problem, method=methods.Secant(initial), max_iterations=iterations, throw=False, atol=1e-15, rtol=1e-15
        )
        expected = secant_by_hand(0.3, np.asarray(problem.inputs), iterations, initial)
        np.testing.assert_allclose(solution.states, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("window", [None, 7])
def test_it_needs_no_derivative(window: int | None) -> None:
    problem = recursions.tanh_problem()
    weights = jnp.asarray(recursions.WEIGHTS, jnp.float32)
    opaque = problem._replace(transition=lambda state, input: no_derivative(weights @ state + input))
    solution = evaluate(*opaque, method="secant", window=window, **TIGHT[np.dtype(np.float32)])
    CONVERGED.check(solution.states, scan(*problem))
    with pytest.raises(AssertionError, match="was differentiated"):
        evaluate(*opaque, method="newton", window=window)


def test_it_is_nearer_to_newton_than_picard_is() -> None:
    """Where coordinates are not coupled the quotients are the derivative's."""
    problem = Problem(lambda state, input: jnp.sin(0.9 * state) + input, jnp.zeros(2), jnp.ones((200, 2)) * 0.1)
    iterations = {
        name: int(evaluate(*problem, method=name, atol=1e-5, rtol=0.0).iterations) for name in ("secant", "picard")
    }
    assert iterations["secant"] < iterations["picard"] < 200


def test_a_coordinate_that_does_not_move_keeps_its_entry() -> None:
    """The second coordinate is where it starts; its quotient would be 0 / 0."""
    problem = Problem(
        lambda state, input: jnp.stack([0.5 * state[0] + input, state[1]]),
        jnp.asarray([1.0, 3.0]),
        jnp.linspace(0, 1, STEPS),
    )
    solution = evaluate(*problem, method="secant", atol=1e-6, rtol=0.0)
    assert solution.iterations <= 4
    np.testing.assert_array_equal(solution.states[:, 1], 3.0)


@pytest.mark.parametrize("initial", [1.5, float("nan")])
def test_an_initial_entry_out_of_range_is_refused(initial: float) -> None:
    with pytest.raises(ValueError, match=rf"initial is {initial}, expected a number in \[-1, 1\]"):
        methods.Secant(initial)
