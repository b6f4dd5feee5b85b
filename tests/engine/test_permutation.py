"""Permutations in compact form: word problems in one pass, signs and scales, and no dim x dim matrix anywhere."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine import matrices, methods
from parsample.engine.evaluate import evaluate
from parsample.engine.iteration import Steps
from parsample.engine.transition import as_transition, flatten
from tests.engine.recursions import Problem

S5 = np.asarray(list(itertools.permutations(range(5))))


def apply_word(state: Any, permutation: Any) -> Any:
    return state[permutation]


def word_problem(state: Any, steps: int = 1000) -> Problem:
    """A random word of the group of all 120 permutations of five points, which acts on a vector."""
    word = S5[np.random.default_rng(0).integers(len(S5), size=steps)]
    return Problem(apply_word, jnp.asarray(state, jnp.float32), jnp.asarray(word))


@pytest.mark.parametrize("state", [[1, 0, 0, 0, 0], [0.5, -3, 2, 7, 11]], ids=["one_hot", "vector"])
def test_a_word_problem_takes_one_iteration_and_one_to_verify(state: list[float]) -> None:
    problem = word_problem(state)
    solution = evaluate(*problem, method="permutation")
    assert solution.iterations == 2
    # By hand: the word composed in NumPy.
    found, expected = np.asarray(state, np.float32), []
    for permutation in np.asarray(problem.inputs):
        found = found[permutation]
        expected.append(found)
    np.testing.assert_array_equal(solution.states, expected)
    quasi_newton = evaluate(*problem, method="quasi_newton", max_iterations=100, throw=False)
    assert not bool(quasi_newton.converged), "a diagonal would do as well"


@pytest.mark.parametrize("window", [None, 9])
def test_signs_and_scales_are_found(window: int | None) -> None:
    rng = np.random.default_rng(1)
    index = S5[rng.integers(120, size=50)]
    factor = rng.choice([-1.0, 1.0, 0.5, -1.25, 0.0], size=(50, 5), p=[0.3, 0.3, 0.2, 0.18, 0.02])
    step = lambda state, input: input[1] * state[input[0]] + 1  # noqa: E731
    problem = Problem(step, jnp.arange(5.0), (jnp.asarray(index), jnp.asarray(factor, jnp.float32)))
    flat, initial, steps = flatten(as_transition(step), *problem[1:])
    states = jnp.asarray(rng.normal(size=(50, 5)), jnp.float32)
    found: Any = methods.Permutation().linearise(flat, Steps(states, problem.inputs, None, jax.random.key(0))).matrices
    np.testing.assert_allclose(found.factor, factor, rtol=1e-6)
    np.testing.assert_array_equal(np.where(factor == 0, index, found.index), index)
    np.testing.assert_allclose(found.dense(5), jax.vmap(jax.jacfwd(flat))(states, problem.inputs), rtol=1e-6)
    solution = evaluate(*problem, method="permutation", window=window)
    # A window moves on by a step when its first iteration ends, and by all of its steps when its second does.
    assert solution.iterations == (2 if window is None else 10)
    assert (initial.size, steps) == (5, 50)


def arrays_of(jaxpr: Any) -> list[Any]:
    """The shapes of everything that a program computes, its loops and branches included."""
    shapes = []
    for equation in jaxpr.eqns:
        shapes += [variable.aval.shape for variable in equation.outvars]
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                shapes += arrays_of(inner)
    return shapes


@pytest.mark.parametrize(("method", "compact"), [("permutation", True), ("newton", False)])
def test_no_matrix_is_written_out(method: str, compact: bool) -> None:
    steps, dim = 30, 70
    rng = np.random.default_rng(2)
    word = jnp.asarray(rng.permuted(np.broadcast_to(np.arange(dim), (steps, dim)), axis=1))
    solve = lambda inputs: evaluate(apply_word, jnp.zeros(dim), inputs, method=method, throw=False).states  # noqa: E731
    largest = max(np.prod(shape) for shape in arrays_of(jax.make_jaxpr(solve)(word).jaxpr))
    assert (largest < 4 * steps * dim) == compact
    assert compact or largest >= steps * dim**2


def test_rows_with_more_entries_are_still_solved() -> None:
    """Where J is no permutation the form is only an approximation, and the answer is the loop's all the same."""
    matrix = jnp.asarray([[0.3, 0.2], [0.1, 0.4]])
    problem = Problem(lambda state, input: matrix @ state + input, jnp.ones(2), jnp.ones((20, 2)))
    solution = evaluate(*problem, method="permutation", atol=1e-6, rtol=0.0)
    np.testing.assert_allclose(solution.states[-1], np.linalg.solve(np.eye(2) - matrix, np.ones(2)), rtol=1e-5)


def test_compositions_stay_compact() -> None:
    one = matrices.Permutation(jnp.asarray([1, 2, 0]), jnp.asarray([2.0, -1.0, 0.5]))
    assert isinstance(one @ one, matrices.Permutation)
    np.testing.assert_allclose((one @ one).dense(3), one.dense(3) @ one.dense(3))
