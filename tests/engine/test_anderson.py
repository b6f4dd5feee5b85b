"""Anderson acceleration: it accelerates, and what is wrong later does not disturb what comes earlier."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine import methods
from parsample.engine.evaluate import evaluate
from parsample.engine.methods.anderson import LARGEST_WEIGHT, REGULARISATION, _weights
from tests.engine import recursions
from tests.engine.recursions import TIGHT, Problem, scan
from tests.tolerances import CONVERGED


def linear_problem() -> Problem:
    """A slow recursion in two coupled dimensions."""
    matrix = jnp.asarray([[0.9, 0.08], [-0.08, 0.85]])
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(60, 2)), jnp.float32)
    return Problem(lambda state, input: matrix @ state + input, jnp.asarray([1.0, -2.0]), inputs)


def test_it_is_faster_than_what_it_accelerates() -> None:
    problem = linear_problem()
    plain = evaluate(*problem, method="picard", atol=1e-4, rtol=0.0)
    for memory in (2, 3, 5):
        mixed = evaluate(*problem, method=methods.Anderson(memory=memory), atol=1e-4, rtol=0.0)
        CONVERGED.check(mixed.states, scan(*problem))
        assert mixed.iterations < plain.iterations < 60


@pytest.mark.parametrize("inner", [methods.QuasiNewton(estimator="exact"), methods.Newton(), methods.Secant()])
@pytest.mark.parametrize("window", [None, 7])
def test_any_method_may_be_accelerated(inner: methods.Method, window: int | None) -> None:
    problem = recursions.tanh_problem()
    solution = evaluate(*problem, method=methods.Anderson(inner), window=window, **TIGHT[np.dtype(np.float32)])
    CONVERGED.check(solution.states, scan(*problem))


@pytest.mark.usefixtures("x64")
def test_the_weights_of_a_step_are_those_of_least_squares_up_to_it() -> None:
    rng = np.random.default_rng(0)
    differences, corrections = rng.normal(size=(6, 3, 4)), rng.normal(size=(6, 4))
    found = np.asarray(_weights(jnp.asarray(differences), jnp.asarray(corrections)))
    for step in range(6):
        basis = np.moveaxis(differences[: step + 1], 1, 2).reshape(-1, 3)
        normal = basis.T @ basis
        expected = np.linalg.solve(
            normal + REGULARISATION * np.trace(normal) * np.eye(3), basis.T @ corrections[: step + 1].ravel()
        )
        np.testing.assert_allclose(found[step], expected, rtol=1e-9)


def test_wild_weights_are_left_out() -> None:
    """A difference that hardly explains a large correction would need a weight beyond what is trusted."""
    differences, corrections = jnp.ones((1, 1, 1)), jnp.asarray([[2 * LARGEST_WEIGHT]])
    np.testing.assert_array_equal(_weights(differences, corrections), [[0.0]])
    np.testing.assert_allclose(_weights(differences, corrections / 4), [[LARGEST_WEIGHT / 2]], rtol=1e-5)
    np.testing.assert_array_equal(_weights(jnp.zeros((2, 3, 1)), jnp.ones((2, 1))), np.zeros((2, 3)))


@pytest.mark.parametrize("iterations", [2, 4, 6])
def test_a_later_input_changes_no_earlier_guess(iterations: int) -> None:
    problem = recursions.tanh_problem()
    # A small change, so that the sum of the corrections, which starts the memory anew where it grows, tells the same.
    changed = problem.inputs.at[15].add(0.05)
    solve = lambda inputs: evaluate(  # noqa: E731
        problem.transition, problem.initial_state, inputs, method="anderson", max_iterations=iterations, throw=False
    )
    one, other = solve(problem.inputs), solve(changed)
    np.testing.assert_array_equal(one.states[:15], other.states[:15])
    assert np.any(one.states[15:] != other.states[15:])


@pytest.mark.parametrize("memory", [0, 17, True, -1])
def test_a_memory_out_of_range_is_refused(memory: int) -> None:
    with pytest.raises(
        ValueError, match=rf"memory is {memory}, expected a whole number from 1 to 16; for no mixing use"
    ):
        methods.Anderson(memory=memory)


@pytest.mark.parametrize("method", [methods.Sequential(), methods.Anderson()], ids=["sequential", "anderson"])
def test_what_does_not_iterate_by_itself_is_refused(method: Any) -> None:
    with pytest.raises(ValueError, match="expected an iterative method to accelerate, such as Picard"):
        methods.Anderson(method)


def test_a_batch_equals_a_loop_over_its_chains() -> None:
    problem = recursions.tanh_problem()
    solve = lambda initial: evaluate(problem.transition, initial, problem.inputs, method="anderson")  # noqa: E731
    initial_states = jnp.stack([problem.initial_state, -problem.initial_state])
    batch = jax.vmap(solve)(initial_states)
    np.testing.assert_array_equal(batch.iterations, [solve(initial).iterations for initial in initial_states])


@pytest.mark.slow
def test_a_step_is_mixed_from_what_lies_before_it_alone() -> None:
    """The first states of a chain do not depend on how long it is, in any iteration: what is later does not disturb."""
    noise = jnp.asarray(np.random.default_rng(0).normal(size=(60, 2)), jnp.float32)
    calm = jnp.full((60, 1), 0.7)
    wild = calm.at[20:].set(5.0)
    step = lambda state, input: input[0] * jnp.sin(state) + input[1]  # noqa: E731
    for iterations in range(2, 12):
        options: dict[str, Any] = {"method": methods.Anderson(methods.Jacobi()), "max_iterations": iterations}
        one, other = (
            evaluate(step, jnp.zeros(2), (gain, noise), throw=False, **options).states for gain in (calm, wild)
        )
        np.testing.assert_allclose(one[:20], other[:20], rtol=1e-6, atol=1e-6)
