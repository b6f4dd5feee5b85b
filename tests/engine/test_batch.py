"""Batches by `vmap`, compiled by `jit`, within the memory of a window, and nothing left behind in JAX's settings."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from parsample.engine.evaluate import evaluate, evaluate_sequential
from parsample.engine.solution import Solution, Status
from tests.covering import each_once
from tests.engine import recursions
from tests.engine.recursions import ALL_METHODS, KINDS, STEPS, map_trees, scan, tanh_step
from tests.tolerances import CONVERGED, SAME_COMPUTATION

CHAINS = 3


def chains() -> tuple[Array, Array]:
    """Initial states and inputs: one chain with little noise, one as the others are, one with much."""
    problems = [recursions.tanh_problem(seed=seed) for seed in range(CHAINS)]
    size = jnp.asarray([0.01, 1.0, 3.0])[:, None, None]
    return jnp.stack([p.initial_state for p in problems]), size * jnp.stack([p.inputs for p in problems])


def solver(**keywords: Any) -> Any:
    return lambda initial_state, inputs: evaluate(tanh_step, initial_state, inputs, throw=False, **keywords)


@pytest.mark.parametrize(("window", "method"), each_once([None, 7], KINDS))
def test_a_batch_equals_a_loop_over_its_chains(method: str, window: int | None) -> None:
    solve = solver(method=method, window=window)
    batch = jax.vmap(solve)(*chains())
    one_by_one = [solve(*chain) for chain in zip(*chains(), strict=True)]
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one)
    assert batch.converged.all()
    np.testing.assert_array_equal(batch.iterations, expected.iterations)
    np.testing.assert_array_equal(batch.evaluations, expected.evaluations)
    SAME_COMPUTATION.check(batch.states, expected.states)
    np.testing.assert_allclose(batch.residual, expected.residual, atol=1e-6)


def test_every_chain_has_its_own_window() -> None:
    batch = jax.vmap(solver(method="newton", window=7, history=True))(*chains())
    assert len(set(batch.iterations.tolist())) > 1
    for chain, done in enumerate(batch.iterations.tolist()):
        first = batch.history.first_step[chain]
        assert np.all(np.diff(first[:done]) >= 1)
        np.testing.assert_array_equal(first[done:], -1)


ROWS = [pytest.param(name, 7, marks=() if name in KINDS else pytest.mark.slow) for name in ALL_METHODS]


@pytest.mark.parametrize(("method", "window"), [*ROWS, ("newton", None), ("elk", None)])
def test_a_chain_that_fails_leaves_the_others_alone(method: str, window: int | None) -> None:
    initial_states, inputs = chains()
    bad = jax.vmap(solver(method=method, window=window))(initial_states, inputs.at[1, 9].set(jnp.nan))
    good = jax.vmap(solver(method=method, window=window))(initial_states, inputs)
    np.testing.assert_array_equal(bad.converged, [True, False, True])
    np.testing.assert_array_equal(bad.status, [Status.CONVERGED, Status.NOT_FINITE, Status.CONVERGED])
    np.testing.assert_array_equal(bad.first_bad_step, [-1, 9, -1])
    for chain in (0, 2):
        np.testing.assert_array_equal(bad.states[chain], good.states[chain])
        assert bad.iterations[chain] == good.iterations[chain]
    CONVERGED.check(bad.states[1, :9], scan(tanh_step, initial_states[1], inputs[1])[:9])
    assert bad.explain().startswith("Chain 1: the state after 10 of 23 steps is not finite")


def test_chains_that_run_out_of_iterations_are_told_apart() -> None:
    initial_states, inputs = chains()
    enough = jax.vmap(solver(method="newton"))(initial_states, inputs)
    few = int(enough.iterations.min())
    assert few < enough.iterations.max()
    batch = jax.vmap(solver(method="newton", max_iterations=few))(initial_states, inputs)
    np.testing.assert_array_equal(batch.converged, enough.iterations == few)
    np.testing.assert_array_equal(batch.iterations, few)


def test_a_failing_chain_of_a_batch_is_raised() -> None:
    initial_states, inputs = chains()
    solve = jax.vmap(lambda initial_state, inputs: evaluate(tanh_step, initial_state, inputs).states)
    with pytest.raises(RuntimeError, match=r"ConvergenceError: the state after 10 of 23 steps is not finite"):
        jax.block_until_ready(solve(initial_states, inputs.at[1, 9].set(jnp.nan)))


def test_what_is_shared_need_not_be_batched() -> None:
    initial_states, inputs = chains()
    solve = solver(method="newton", window=7)
    shared = jax.vmap(solve, in_axes=(0, None))(initial_states, inputs[1])
    for chain in range(CHAINS):
        CONVERGED.check(shared.states[chain], scan(tanh_step, initial_states[chain], inputs[1]))


def test_batches_of_batches() -> None:
    initial_states, inputs = chains()
    twice = jax.vmap(jax.vmap(solver(method="newton", window=7)))(initial_states[None], inputs[None])
    once = jax.vmap(solver(method="newton", window=7))(initial_states, inputs)
    map_trees(SAME_COMPUTATION.check, jax.tree.map(lambda leaf: leaf[0], twice), once)


@pytest.mark.parametrize("method", ["newton", "sequential"])
def test_jit_changes_nothing(method: str) -> None:
    problem = recursions.tree_problem()
    solve = lambda initial_state, inputs: evaluate(problem.transition, initial_state, inputs, method=method)  # noqa: E731
    eager, jitted = solve(*problem[1:]), jax.jit(solve)(*problem[1:])
    assert isinstance(jitted, Solution)
    map_trees(SAME_COMPUTATION.check, jitted, eager)


def test_an_evaluation_is_compiled_once() -> None:
    calls = 0

    def counting(state: Array, input: Array) -> Array:
        nonlocal calls
        calls += 1
        return tanh_step(state, input)

    problem = recursions.tanh_problem()
    evaluate(counting, *problem[1:])
    first = calls
    for tolerance in (1e-3, 1e-5):
        evaluate(counting, *problem[1:], atol=tolerance, guess=None)
    # At most the check of what the transition returns looks at it again.
    assert calls <= first + 2


def temporaries(steps: int, window: int | None, dim: int = 16) -> int:
    """Bytes that a compiled evaluation by Newton holds beside its arguments and its result."""
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(dim, dim)) / dim, jnp.float32)
    step = lambda state, input: jnp.tanh(weights @ state + input)  # noqa: E731
    solve = lambda inputs: evaluate(step, jnp.zeros(dim), inputs, method="newton", window=window, throw=False)  # noqa: E731
    program = jax.jit(solve).lower(jax.ShapeDtypeStruct((steps, dim), jnp.float32)).compile()
    analysis: Any = program.memory_analysis()
    return analysis.temp_size_in_bytes


def test_a_window_bounds_the_memory() -> None:
    dim, short, long = 16, 256, 1024
    states = 4 * dim * (long - short)
    # The states grow with the chain; Jacobians, of 16 states each, do not.
    assert temporaries(long, window=8) - temporaries(short, window=8) < 4 * states
    # The measure is sound: it sees them where every step has one.
    assert temporaries(long, window=None) - temporaries(short, window=None) > dim * states


@pytest.fixture(params=[None, "bfloat16"])
def settings(request: pytest.FixtureRequest) -> Iterator[Any]:
    with jax.default_matmul_precision(request.param):
        yield request.param


def read_settings() -> list[Any]:
    names = ("jax_default_matmul_precision", "jax_enable_x64", "jax_default_prng_impl")
    return [getattr(jax.config, name) for name in names]


@pytest.mark.parametrize("method", ["quasi_newton", "sequential"])
def test_no_setting_is_left_behind(settings: Any, method: str) -> None:
    before = read_settings()
    problem = recursions.tanh_problem()
    evaluate(*problem, method=method)
    assert read_settings() == before
    with pytest.raises(RuntimeError):
        evaluate(*problem._replace(inputs=problem.inputs.at[3].set(jnp.nan)), method=method)
    assert read_settings() == before


@pytest.mark.parametrize("method", KINDS)
def test_the_linear_systems_are_solved_in_full_precision_and_the_transition_keeps_the_callers(method: str) -> None:
    """The network of the transition has 5 hidden numbers, which no product of the linear systems has."""
    problem = recursions.tanh_problem()
    into, out = (jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32) for shape in ((5, 3), (3, 5)))

    def step(state: Array, input: Array) -> Array:
        return 0.3 * out @ jnp.tanh(into @ state) + input

    def total(initial_state: Array) -> Array:
        return jnp.sum(evaluate(step, initial_state, problem.inputs, method=method, throw=False).states)

    def precisions(program: Any) -> tuple[list[str], list[str]]:
        text = jax.jit(program).lower(problem.initial_state).as_text()
        products = [line for line in text.splitlines() if "dot_general" in line]
        is_ours = ["5x" not in line and "x5" not in line for line in products]
        return [x for x, ours in zip(products, is_ours, strict=True) if ours], [
            x for x, ours in zip(products, is_ours, strict=True) if not ours
        ]

    for program in (total, jax.grad(total)):
        ours, theirs = precisions(program)
        assert all("HIGHEST, HIGHEST" in line for line in ours)
        assert theirs
        assert not any("HIGHEST" in line for line in theirs)
    assert precisions(jax.grad(total))[0]
    with jax.default_matmul_precision("highest"):
        assert all("HIGHEST, HIGHEST" in line for lines in precisions(total) for line in lines)


@pytest.mark.parametrize(("method", "window"), each_once(KINDS, [None, 7]))
def test_single_precision_stays_single_where_double_is_enabled(method: str, window: int | None) -> None:
    problem = recursions.tanh_problem()
    plain = evaluate(*problem, method=method, window=window, atol=1e-5, rtol=1e-5)
    with jax.enable_x64(True):
        solution = evaluate(*problem, method=method, window=window, atol=1e-5, rtol=1e-5, history=True)
        assert solution.states.dtype == solution.residual.dtype == jnp.float32
        assert solution.history is not None
        assert method == "sequential" or solution.history.merit.dtype == jnp.float32
        SAME_COMPUTATION.check(solution.states, plain.states)
        assert solution.iterations == plain.iterations


def test_the_loop_is_batched_too() -> None:
    initial_states, inputs = chains()
    solve = lambda *chain: evaluate_sequential(tanh_step, *chain)  # noqa: E731
    batch = jax.vmap(solve)(initial_states, inputs)
    np.testing.assert_array_equal(batch.iterations, np.full(CHAINS, STEPS))
    for chain in range(CHAINS):
        SAME_COMPUTATION.check(batch.states[chain], scan(tanh_step, initial_states[chain], inputs[chain]))


def test_what_calls_the_host_gets_all_chains_at_once() -> None:
    """On a CPU too, where other chains are solved one after the other: the work is elsewhere."""
    shapes: list[tuple[int, ...]] = []

    def on_host(state: Array, input: Array) -> np.ndarray:
        shapes.append(state.shape)
        return np.tanh(0.5 * np.asarray(state) + np.asarray(input))

    def step(state: Array, input: Array) -> Array:
        like = jax.ShapeDtypeStruct(state.shape, state.dtype)
        # Inside of a function and a branch, as a model may be.
        call = jax.jit(lambda *given: jax.pure_callback(on_host, like, *given, vmap_method="broadcast_all"))
        return jax.lax.cond(True, call, lambda state, input: state, state, input)

    initial_states, inputs = chains()
    found = evaluate(step, initial_states, inputs, method="picard", chains=True)
    expected = evaluate(lambda x, u: jnp.tanh(0.5 * x + u), initial_states, inputs, method="sequential", chains=True)
    CONVERGED.check(found.states, expected.states)
    assert set(shapes) == {(CHAINS, STEPS, *initial_states.shape[1:])}
    assert len(shapes) == found.iterations.max()
