"""The four sources of the scale, each by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine import matrices, methods
from parsample.engine.evaluate import evaluate
from parsample.engine.iteration import Steps
from parsample.engine.transition import as_transition, flatten
from tests.engine import recursions
from tests.engine.recursions import STEPS, TIGHT, scan, tanh_step
from tests.tolerances import CONVERGED, SAME_COMPUTATION, check_mean

FLOAT32 = TIGHT[np.dtype(np.float32)]


def scales(method: methods.ScaledIdentity, transition: Any, states: Any, inputs: Any, initial: Any) -> np.ndarray:
    flat, vector, _ = flatten(as_transition(transition), initial, inputs)
    prepared = method.prepare(flat, vector, inputs).per_step
    values, matrix, _ = method.linearise(flat, Steps(states, inputs, prepared, jax.random.key(0)))
    assert isinstance(matrix, matrices.ScaledIdentity)
    SAME_COMPUTATION.check(values, jax.vmap(transition)(states, inputs))
    return np.asarray(matrix.factor)


def points(steps: int = STEPS) -> Any:
    return jnp.asarray(np.random.default_rng(3).normal(size=(steps, 3)), jnp.float32)


def traces(states: Any, inputs: Any) -> np.ndarray:
    """tr(J) / D of the recursion, in NumPy."""
    slope = 1 - recursions.tanh_step_numpy(np.asarray(states, np.float64), np.asarray(inputs, np.float64)) ** 2
    return (slope * np.diagonal(recursions.WEIGHTS)).mean(1)


def test_given_numbers() -> None:
    problem, states = recursions.tanh_problem(), points()
    one_each = np.linspace(-1, 1, STEPS).astype(np.float32)
    for scale, expected in [
        (0.25, np.full(STEPS, 0.25)),
        (-1, np.full(STEPS, -1.0)),
        (one_each, one_each),
        (jnp.asarray(one_each), one_each),
    ]:
        found = scales(methods.ScaledIdentity(scale), tanh_step, states, problem.inputs, problem.initial_state)
        np.testing.assert_array_equal(found, expected.astype(np.float32))


@pytest.mark.parametrize("window", [None, 7])
def test_a_schedule_is_of_the_step_of_the_chain_and_not_of_the_window(window: int | None) -> None:
    problem, states = recursions.tanh_problem(), points()
    schedule = lambda step: 1 / (1 + step)  # noqa: E731
    found = scales(methods.ScaledIdentity(schedule), tanh_step, states, problem.inputs, problem.initial_state)
    np.testing.assert_allclose(found, 1 / (1 + np.arange(STEPS)), rtol=1e-6)
    # x[t] = x[t-1] / (1 + t) + u[t]: with the right scale at every step it is exact.
    linear = problem._replace(
        transition=lambda state, input: schedule(input[0]) * state + input[1],
        inputs=(jnp.arange(STEPS), problem.inputs),
    )
    solution = evaluate(*linear, method=methods.ScaledIdentity(schedule), window=window, **FLOAT32)
    CONVERGED.check(solution.states, scan(*linear))
    assert solution.iterations == (2 if window is None else 2 * 3)


def test_the_trace_is_right_on_average() -> None:
    problem = recursions.tanh_problem(steps=1)
    states, inputs = jnp.tile(points(1), (4000, 1)), jnp.tile(problem.inputs, (4000, 1))
    for num_probes in (1, 4):
        method = methods.ScaledIdentity("trace", num_probes=num_probes)
        found = np.float64(scales(method, tanh_step, states, inputs, problem.initial_state))
        check_mean(found.mean(), traces(states, inputs)[0], found.std() / np.sqrt(4000))
        # v . J v / D is off by the sum over i < j of v_i v_j (J_ij + J_ji) / D.
        slope = 1 - recursions.tanh_step_numpy(np.asarray(states[0]), np.asarray(inputs[0])) ** 2
        jacobian = slope[:, None] * recursions.WEIGHTS
        variance = np.sum(np.tril(jacobian + jacobian.T, -1) ** 2) / 9
        np.testing.assert_allclose(found.var() * num_probes, variance, rtol=0.15)


def test_the_trace_of_a_diagonal_jacobian_needs_one_probe() -> None:
    problem, states = recursions.tanh_problem(), points()
    found = scales(methods.ScaledIdentity("trace"), lambda x, u: jnp.sin(x) + u, states, problem.inputs, states[0])
    np.testing.assert_allclose(found, np.cos(np.asarray(states, np.float64)).mean(1), rtol=1e-5)


def test_of_a_surrogate() -> None:
    """tr(J) / D along the surrogate's chain, and without one of the transition itself at the initial state."""
    problem, states = recursions.tanh_problem(), points()
    arguments = states, problem.inputs, problem.initial_state
    other = lambda state, input: 0.5 * state + input  # noqa: E731
    chain = np.asarray(scan(*problem))
    before = np.concatenate([np.asarray(problem.initial_state)[None], chain[:-1]])
    found = scales(methods.ScaledIdentity("surrogate", surrogate=tanh_step), other, *arguments)
    np.testing.assert_allclose(found, traces(before, problem.inputs), rtol=1e-4, atol=1e-6)
    found = scales(methods.ScaledIdentity("surrogate"), tanh_step, *arguments)
    start = np.broadcast_to(np.asarray(problem.initial_state), (STEPS, 3))
    np.testing.assert_allclose(found, traces(start, problem.inputs), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("scale", ["trace", "surrogate", np.linspace(-1, 1, STEPS)])
def test_every_source_gives_the_same_chain(scale: Any, window: int | None) -> None:
    problem = recursions.tanh_problem()
    solution = evaluate(*problem, method=methods.ScaledIdentity(scale), window=window, **FLOAT32)
    CONVERGED.check(solution.states, scan(*problem))


@pytest.mark.parametrize("length", [1, STEPS - 1, STEPS + 1])
def test_an_array_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=rf"scale has shape \({length},\), expected \(23,\): one number for each step"):
        evaluate(*recursions.tanh_problem(), method=methods.ScaledIdentity(np.zeros(length)))


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (1.5, r"scale is 1.5, expected a number in \[-1, 1\]; 1 is Picard and 0 is Jacobi"),
        (float("nan"), r"scale is nan, expected a number in \[-1, 1\]"),
        (
            np.asarray([0.0, -1.01]),
            r"scale is an array of shape \(2,\) with values from -1.01 to 0, expected one number",
        ),
        (np.asarray([0.0, np.nan]), "scale is an array of shape .* expected one number in"),
        (np.zeros((2, 2)), r"scale is an array of shape \(2, 2\)"),
        ("tracee", "scale is 'tracee', expected one of 'trace', 'surrogate', a number"),
    ],
)
def test_a_scale_that_would_amplify_errors_is_refused(scale: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.ScaledIdentity(scale)
