"""Nested evaluation: coarse levels only make guesses, and their work is counted."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine.evaluate import evaluate
from parsample.engine.nested import _hold, evaluate_nested
from parsample.engine.solution import ConvergenceError, Status
from tests.engine.recursions import TIGHT, residuals, scan
from tests.tolerances import CONVERGED, SAME_COMPUTATION

STEPS, STEP_SIZE, DIM = 48, 0.02, 3
PULL = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 3.0]])
NOISE = np.random.default_rng(0).normal(size=(STEPS, DIM)).astype(np.float32)
START = jnp.asarray([0.5, -1.0, 2.0], jnp.float32)
FLOAT32 = TIGHT[np.dtype(np.float32)]


def euler(step_size: float) -> Any:
    """A nonlinear Langevin step."""
    return lambda state, noise: (
        state - step_size * jnp.tanh(jnp.asarray(PULL, state.dtype) @ state) + (2 * step_size) ** 0.5 * noise
    )


# Compiled programs are kept for as long as a transition is the same function.
TRANSITIONS = {factor: euler(factor * STEP_SIZE) for factor in (1, 3, 4, 12, 100)}


def coarsen(factor: int) -> tuple[Any, Any]:
    count = STEPS // factor
    noise = NOISE[: count * factor].reshape(count, factor, DIM).sum(1) / np.sqrt(factor)
    return TRANSITIONS[factor], jnp.asarray(noise)


@pytest.mark.slow
def test_the_last_level_is_the_chain_and_its_verdict_that_of_evaluate() -> None:
    levels = evaluate_nested(coarsen, START, (12, 3, 1), method="newton", **FLOAT32)
    loop = scan(TRANSITIONS[1], START, NOISE)
    assert len(levels) == 3
    CONVERGED.check(levels[-1].states, loop)
    step = lambda state, noise: state - STEP_SIZE * np.tanh(state @ PULL.T) + (2 * STEP_SIZE) ** 0.5 * noise  # noqa: E731
    true = residuals(START, levels[-1].states, NOISE, step)
    np.testing.assert_allclose(levels[-1].residual, true.max(1), rtol=0, atol=1e-6)
    assert [level.residual.shape[0] for level in levels] == [4, 16, 48]
    # Every level evaluates its own steps in every iteration, and nothing else.
    assert [int(level.evaluations) for level in levels] == [
        int(level.iterations) * level.residual.shape[0] for level in levels
    ]


def test_the_guess_of_a_level_is_the_level_before_it_held() -> None:
    levels = evaluate_nested(coarsen, START, (12, 1), method="jacobi", coarse={"method": "sequential"}, **FLOAT32)
    states = np.asarray(levels[0].states)
    # Row t is the state after t + 1 steps; a coarse state holds from its own time on.
    guess = np.stack([START if t + 1 < 12 else states[(t + 1) // 12 - 1] for t in range(STEPS)])
    again = evaluate(*_problem(), method="jacobi", guess=jnp.asarray(guess), **FLOAT32)
    assert levels[-1].iterations == again.iterations
    np.testing.assert_array_equal(levels[-1].states, again.states)
    # Levels need not divide each other: after 4 to 7 short steps one step of 3 has been made, after 6 two.
    held = _hold(jnp.zeros(()), 1.0 + jnp.arange(16.0), 3, 2, 24)
    np.testing.assert_array_equal(held, [(2 * t + 2) // 3 for t in range(24)])
    # Beyond the last coarse state that one is held.
    np.testing.assert_array_equal(_hold(jnp.zeros(()), jnp.ones(2), 3, 1, 8), [0, 0, 1, 1, 1, 1, 1, 1])


def _problem() -> tuple[Any, Any, Any]:
    return TRANSITIONS[1], START, jnp.asarray(NOISE)


def test_a_good_coarse_level_saves_iterations_on_the_fine_one() -> None:
    alone = evaluate(*_problem(), method="picard", **FLOAT32)
    levels = evaluate_nested(coarsen, START, (4, 1), method="picard", **FLOAT32)
    assert levels[-1].iterations < alone.iterations


def test_a_coarse_level_that_does_not_converge_is_still_a_guess() -> None:
    options: dict[str, Any] = {"method": "picard", **FLOAT32}
    levels = evaluate_nested(coarsen, START, (12, 3, 1), coarse={"max_iterations": 1}, **options)
    assert [int(level.iterations) for level in levels[:-1]] == [1, 1]
    assert [int(level.status) for level in levels] == [Status.MAX_ITERATIONS] * 2 + [Status.CONVERGED]
    CONVERGED.check(levels[-1].states, scan(*_problem()))
    with pytest.raises(ConvergenceError):
        evaluate_nested(coarsen, START, (12, 1), max_iterations=1, method="picard")
    assert not evaluate_nested(coarsen, START, (12, 1), max_iterations=1, method="picard", throw=False)[-1].converged


def test_a_coarse_level_that_is_not_finite_is_no_guess() -> None:
    def spoilt(factor: int) -> tuple[Any, Any]:
        transition, inputs = coarsen(factor)
        return transition, inputs.at[2:].set(jnp.nan) if factor > 1 else inputs

    levels = evaluate_nested(spoilt, START, (12, 1), method="newton", **FLOAT32)
    assert levels[0].status == Status.NOT_FINITE
    CONVERGED.check(levels[-1].states, scan(*_problem()))


def test_a_tree_a_guess_and_one_level() -> None:
    """With the factor 1 alone it is `evaluate`, for any tree of states."""
    tree = lambda state, noise: {"x": (TRANSITIONS[1](state["x"][0], noise),)}  # noqa: E731
    start = {"x": (START,)}
    right = {"x": (scan(*_problem()),)}
    (alone,) = evaluate_nested(lambda _: (tree, jnp.asarray(NOISE)), start, (1,), guess=right, atol=1e-3)
    assert alone.iterations == 1
    levels = evaluate_nested(lambda m: (tree, coarsen(m)[1]), start, (3, 1), guess=None, **FLOAT32)
    CONVERGED.check(levels[-1].states["x"][0], right["x"][0])


def test_a_batch_equals_a_loop_over_its_chains() -> None:
    noise = jnp.asarray(np.stack([NOISE, 2 * NOISE]))

    def solve(noise: Any) -> Any:
        def coarser(factor: int) -> tuple[Any, Any]:
            rows = noise.reshape(STEPS // factor, factor, DIM).sum(1) / np.sqrt(factor)
            return TRANSITIONS[factor], rows

        levels = evaluate_nested(coarser, START, (4, 1), method="newton", throw=False)
        return levels[-1].states, jnp.stack([level.iterations for level in levels])

    batch = jax.jit(jax.vmap(solve))(noise)
    for chain in range(2):
        states, iterations = solve(noise[chain])
        SAME_COMPUTATION.check(batch[0][chain], states)
        np.testing.assert_array_equal(batch[1][chain], iterations)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ((), "factors is ()"),
        ((4, 2), "expected falling numbers that end in 1"),
        ((2, 4, 1), "expected falling numbers that end in 1"),
        ((1, 1), "expected falling numbers that end in 1"),
        ((0, 1), "factors is 0, expected a whole number of at least 1; each is how many steps"),
        ((100, 1), r"coarsen\(100\) returned inputs of 0 steps, expected 1 to 1: the chain has 48"),
    ],
)
def test_levels_that_do_not_fit_are_refused(factors: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_nested(coarsen, START, factors)


def test_a_level_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"coarsen\(4\) returned inputs of 48 steps, expected 12 to 12"):
        evaluate_nested(lambda factor: (TRANSITIONS[factor], jnp.asarray(NOISE)), START, (4, 1))
