"""Matrices worked out once: a perfect surrogate, Jacobians along its chain, and what is done where none is given."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine import methods
from parsample.engine.evaluate import evaluate
from parsample.engine.guess import at_once, in_turn
from parsample.engine.iteration import Linearised
from parsample.engine.matrices import Dense, Diagonal
from parsample.engine.transition import as_transition, flatten
from parsample.samplers import SAMPLERS
from tests.engine import recursions
from tests.engine.recursions import TIGHT, Problem, scan, tanh_step
from tests.tolerances import CONVERGED, SAME_COMPUTATION

FLOAT32 = TIGHT[np.dtype(np.float32)]


def linear_step(state: Any, input: Any) -> Any:
    """A linear recursion whose matrix has norm 0.9, so that no projection changes it."""
    return jnp.asarray([[0.6, 0.3], [-0.5, 0.4]]) @ state + input


def linear_problem() -> Problem:
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(40, 2)), jnp.float32)
    return Problem(linear_step, jnp.asarray([1.0, -2.0]), inputs)


def nearby(state: Any, input: Any) -> Any:
    """A surrogate of `tanh_step`: linear, and nearly as strong."""
    return 0.8 * jnp.asarray(recursions.WEIGHTS, state.dtype) @ state + jnp.tanh(input)


@pytest.mark.parametrize(("start", "iterations"), [(True, 1), (False, 2)])
def test_the_transition_itself_as_its_own_surrogate_converges_at_once(start: bool, iterations: int) -> None:
    problem = linear_problem()
    method = methods.Surrogate(linear_step, structure="dense", start_from_it=start)
    solution = evaluate(*problem, method=method, atol=1e-5, rtol=0.0)
    # From its own chain there is nothing to do but verify it.
    assert solution.iterations == iterations
    CONVERGED.check(solution.states, scan(*problem))
    assert evaluate(*problem, method=methods.Surrogate(linear_step), atol=1e-5, rtol=0.0).iterations == 1


@pytest.mark.parametrize("structure", ["dense", "diagonal"])
def test_the_matrices_are_the_jacobians_along_the_surrogates_chain(structure: str) -> None:
    """A nonlinear surrogate, so that the place matters; the chain is a plain scan's."""
    problem = recursions.tanh_problem()
    flat, initial, _ = flatten(as_transition(nearby), *problem[1:])
    prepared = methods.Surrogate(tanh_step, structure).prepare(flat, initial, problem.inputs)
    chain = scan(*problem)
    SAME_COMPUTATION.check(prepared.guess, chain)
    before = jnp.concatenate([problem.initial_state[None], chain[:-1]])
    slope = 1 - np.asarray(chain, np.float64) ** 2
    jacobians = slope[:, :, None] * recursions.WEIGHTS
    SAME_COMPUTATION.check(jax.vmap(jax.jacfwd(tanh_step))(before, problem.inputs), jacobians)
    if structure == "dense":
        assert isinstance(prepared.per_step, Dense)
        SAME_COMPUTATION.check(prepared.per_step.entries, jacobians)
    else:
        assert isinstance(prepared.per_step, Diagonal)
        SAME_COMPUTATION.check(prepared.per_step.entries, np.diagonal(jacobians, axis1=1, axis2=2))


def test_without_a_surrogate_it_is_linearised_at_the_initial_state() -> None:
    problem = recursions.tanh_problem()
    flat, initial, _ = flatten(as_transition(tanh_step), *problem[1:])
    prepared = methods.Surrogate(structure="dense").prepare(flat, initial, problem.inputs)
    assert prepared.guess is None
    start = np.asarray(initial, np.float64)
    slope = 1 - recursions.tanh_step_numpy(start[None], np.asarray(problem.inputs, np.float64)) ** 2
    SAME_COMPUTATION.check(prepared.per_step.entries, slope[:, :, None] * recursions.WEIGHTS)


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("structure", ["dense", "diagonal"])
def test_another_surrogate_gives_the_same_chain(structure: str, window: int | None) -> None:
    problem = recursions.tanh_problem()
    solution = evaluate(*problem, method=methods.Surrogate(nearby, structure), window=window, **FLOAT32)
    CONVERGED.check(solution.states, scan(*problem))


def test_a_guess_that_is_given_comes_before_the_surrogates_chain() -> None:
    problem = linear_problem()
    method = methods.Surrogate(lambda state, input: 0 * state, structure="diagonal")
    right = scan(*problem)
    assert evaluate(*problem, method=method, guess=right, atol=1e-4, rtol=0.0).iterations == 1
    assert evaluate(*problem, method=method, atol=1e-4, rtol=0.0).iterations > 1


def test_no_iteration_takes_a_derivative() -> None:
    """The transition refuses to be differentiated; the surrogate does not."""

    @jax.custom_jvp
    def opaque(state: Any) -> Any:
        return jnp.tanh(state)

    @opaque.defjvp
    def _refuse(primals: Any, tangents: Any) -> Any:
        raise AssertionError("the transition was differentiated")

    problem = recursions.tanh_problem()
    weights = jnp.asarray(recursions.WEIGHTS, jnp.float32)
    refusing = problem._replace(transition=lambda state, input: opaque(weights @ state + input))
    solution = evaluate(*refusing, method=methods.Surrogate(nearby, "dense"), **FLOAT32)
    CONVERGED.check(solution.states, scan(*problem))


@pytest.mark.parametrize(
    ("sampler", "most"), [("mala", 12), ("hmc", 16), pytest.param("rwm", 100, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("structure", ["dense", "diagonal"])
def test_off_the_cpu_the_surrogates_chain_is_iterated(sampler: str, most: int, structure: str) -> None:
    """No step waits for the one before it; accept decisions, which a guess gets wrong at first, are those of the loop.

    A random walk is foreseen a few steps at a time only; nowhere does it take as many iterations as there are steps.
    """
    steps, calls = 200, []
    chain = SAMPLERS[sampler](lambda x: -0.5 * jnp.sum(x**2 * jnp.asarray([1.0, 2.0, 0.5])), 0.4)
    start = jnp.asarray([2.0, -1.0, 0.5])
    inputs = chain.draw_inputs(jax.random.key(4), steps, start)
    flat, initial, _ = flatten(chain.transition, start, inputs)
    method = methods.Surrogate(structure=structure)

    def model(state: Any, input: Any) -> Any:
        jax.debug.callback(lambda _: calls.append(1), state[0])
        return flat(state, input), method._matrix(flat, state, input)

    many = lambda steps: Linearised(*jax.vmap(model)(steps.previous, steps.inputs))  # noqa: E731
    expected, along = jax.jit(lambda *chain: in_turn(model, *chain))(initial, inputs)
    jax.effects_barrier()
    assert len(calls) == steps
    calls.clear()
    states, matrices = jax.jit(lambda state, inputs: at_once(many, state, inputs, steps))(initial, inputs)
    jax.effects_barrier()
    assert len(calls) / steps < most
    np.testing.assert_allclose(states, expected, atol=1e-2)
    for one, other in zip(jax.tree.leaves(matrices), jax.tree.leaves(along), strict=True):
        assert np.mean(np.abs(one - other) > 0.05) < 0.01


def test_a_loop_over_the_surrogates_chain_is_compiled_for_a_cpu_alone() -> None:
    problem = recursions.tanh_problem(steps=777)
    flat, initial, _ = flatten(as_transition(nearby), *problem[1:])
    prepare = jax.jit(lambda *chain: methods.Surrogate(tanh_step).prepare(flat, *chain))
    traced = prepare.trace(initial, problem.inputs)
    # Only a loop over steps writes its rows one by one.
    program = lambda platform: traced.lower(lowering_platforms=(platform,)).as_text()  # noqa: E731
    assert "dynamic_update_slice" in program("cpu")
    assert "dynamic_update_slice" not in program("cuda")


def test_an_unknown_structure_is_refused() -> None:
    with pytest.raises(ValueError, match="structure is 'block', expected one of 'diagonal', 'dense'"):
        methods.Surrogate(structure="block")
