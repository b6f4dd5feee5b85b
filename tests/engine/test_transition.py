"""Pytrees become flat vectors and come back, and a problem that does not fit is refused in one clear sentence."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from parsample.engine.evaluate import evaluate
from parsample.engine.transition import FunctionTransition, as_transition, flatten
from tests.engine.recursions import PROBLEMS, map_trees, tree_problem
from tests.engine.test_methods import Threshold
from tests.tolerances import SAME_COMPUTATION


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_flat_transition_is_the_same_function(name: str) -> None:
    transition, initial_state, inputs = PROBLEMS[name]()
    flat, vector, steps = flatten(as_transition(transition), initial_state, inputs)
    first = jax.tree.map(lambda leaf: leaf[0], inputs)
    assert steps == 23
    assert vector.shape == (sum(leaf.size for leaf in jax.tree.leaves(initial_state)),)
    map_trees(np.testing.assert_array_equal, flat.unravel(vector), initial_state)
    map_trees(SAME_COMPUTATION.check, flat.unravel(flat(vector, first)), transition(initial_state, first))


def test_a_transition_keeps_its_gate_and_diagonal_when_flat() -> None:
    flat, vector, _ = flatten(Threshold(), jnp.asarray([0.5, -2.0]), jnp.ones((3, 2)))
    value, diagonal, _ = flat.with_diagonal(vector, jnp.ones(2)) or (None, None, None)
    SAME_COMPUTATION.check(value, Threshold()(vector, jnp.ones(2)))
    assert diagonal is not None
    assert diagonal.shape == (2,)
    gated = flat.with_gate("straight_through").transition
    assert isinstance(gated, Threshold)
    assert gated.gate == "straight_through"


def test_a_plain_function_is_wrapped_once() -> None:
    wrapped = as_transition(lambda state, input: state)
    assert isinstance(wrapped, FunctionTransition)
    assert as_transition(wrapped) is wrapped
    assert wrapped.with_gate("frozen") is wrapped
    flat, vector, _ = flatten(wrapped, jnp.ones(2), jnp.ones(3))
    assert flat.with_diagonal(vector, jnp.asarray(1.0)) is None


@pytest.mark.parametrize(
    ("initial_state", "message"),
    [
        ({}, "initial_state holds no numbers, expected a pytree with at least one non-empty array"),
        (jnp.zeros(0), "initial_state holds no numbers"),
        (jnp.zeros(2, int), "initial_state has dtype int32, expected floating point, because the method QuasiNewton"),
        ({"a": jnp.zeros(2), "b": jnp.zeros(1, bool)}, r"initial_state\['b'\] has dtype bool, expected floating point"),
        ((jnp.zeros(2, jnp.float16), jnp.zeros(2)), "initial_state mixes the dtypes float16, float32, expected one"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(initial_state: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(lambda state, input: state, initial_state, jnp.arange(3))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (None, r"inputs must be a pytree of arrays with a leading axis `steps`, .*shapes \[\]; give at least one"),
        ({}, "inputs must be a pytree of arrays with a leading axis"),
        (jnp.asarray(3.0), r"inputs must be .*shapes \[\(\)\]"),
        ([1.0, 2.0], r"inputs must be .*shapes \[\(\), \(\)\]"),
        ((jnp.zeros(3), jnp.zeros((4, 2))), r"inputs have leading axes of \[3, 4\] steps, expected the same number"),
        (jnp.zeros((0, 2)), "inputs hold 0 steps, expected at least 1"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(lambda state, input: state, jnp.zeros(2), inputs)


@pytest.mark.parametrize(
    ("transition", "message"),
    [
        (
            lambda state, input: state[:1],
            r"transition returned float32\[1\], expected .* float32\[2\]; return the same",
        ),
        (lambda state, input: (state, state), r"transition returned \('float32\[2\]', 'float32\[2\]'\), expected"),
        (lambda state, input: state.astype(jnp.float16), r"transition returned float16\[2\], expected"),
        (lambda state, input: state + 1j, r"transition returned complex64\[2\], expected"),
        (lambda state, input: None, "transition returned None, expected"),
    ],
)
def test_a_transition_that_returns_something_else_is_refused(transition: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(transition, jnp.zeros(2), jnp.zeros(3))


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(ValueError, match="transition is a int, expected a function `transition"):
        # Without the run-time type checks of the tests, which would come first.
        inspect.unwrap(as_transition)(3)


def test_numpy_arrays_and_python_numbers_are_states_and_inputs() -> None:
    solution = evaluate(lambda state, input: 0.5 * state + input, 2.0, np.arange(4), method="newton")
    np.testing.assert_allclose(solution.states, [1.0, 1.5, 2.75, 4.375])


def test_trees_come_back_as_they_were_given() -> None:
    problem = tree_problem()
    states = evaluate(*problem).states
    assert str(jax.tree.structure(states)) == str(jax.tree.structure(problem.initial_state))
    shapes = jax.tree.map(lambda leaf: (23, *leaf.shape), problem.initial_state)
    assert jax.tree.map(jnp.shape, states) == shapes
    assert ravel_pytree(states)[0].dtype == jnp.float32
