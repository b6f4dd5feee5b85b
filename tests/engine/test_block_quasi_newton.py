"""Blocks of diagonals: exactly J for Langevin dynamics of a separable target, by one probe; and for any dim."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine import methods
from parsample.engine.evaluate import evaluate
from parsample.engine.iteration import Steps
from parsample.engine.transition import as_transition, flatten
from tests.engine import recursions
from tests.engine.recursions import TIGHT, UNPROJECTED, Problem, scan
from tests.tolerances import CONVERGED, SAME_COMPUTATION

STEP_SIZE, FRICTION = 0.3, 0.9


def leapfrog(state: Any, noise: Any) -> Any:
    """One leapfrog step of the separable target with log density -sum(x^4 / 4 + x^2 / 2), and a partial refreshment."""
    position, momentum = state
    force = lambda x: -(x**3) - x  # noqa: E731
    momentum = FRICTION * momentum + jnp.sqrt(1 - FRICTION**2) * noise
    momentum = momentum + 0.5 * STEP_SIZE * force(position)
    position = position + STEP_SIZE * momentum
    return position, momentum + 0.5 * STEP_SIZE * force(position)


def langevin(dim: int = 3, steps: int = 100) -> Problem:
    rng = np.random.default_rng(0)
    start = (jnp.asarray(rng.normal(size=dim), jnp.float32), jnp.asarray(rng.normal(size=dim), jnp.float32))
    return Problem(leapfrog, start, jnp.asarray(rng.normal(size=(steps, dim)), jnp.float32))


def blocks(method: methods.BlockQuasiNewton, problem: Problem, states: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    """The matrices written out, and the true Jacobians."""
    flat, _, _ = flatten(as_transition(problem.transition), *problem[1:])

    @jax.jit
    def both(states: Any) -> Any:
        values, matrix, _ = method.linearise(flat, Steps(states, problem.inputs, None, jax.random.key(0)))
        expected = jax.vmap(flat)(states, problem.inputs), jax.vmap(jax.jacfwd(flat))(states, problem.inputs)
        return values, matrix, matrix.dense(states.shape[1]), expected

    values, matrix, dense, (expected, true) = both(states)
    SAME_COMPUTATION.check(values, expected)
    return np.asarray(dense, np.float64), np.asarray(true, np.float64), matrix


@pytest.mark.parametrize("estimator", ["hutchinson", "exact"])
def test_for_a_separable_target_the_blocks_are_the_jacobian(estimator: str) -> None:
    problem = langevin(steps=20)
    states = jnp.asarray(np.random.default_rng(1).normal(size=(20, 6)), jnp.float32)
    found, true, matrix = blocks(methods.BlockQuasiNewton(estimator=estimator), problem, states)
    SAME_COMPUTATION.check(np.float32(found), true)
    assert matrix.entries.shape == (20, 2, 2, 3)


@pytest.mark.parametrize("which", ["tanh", "tree"])
def test_the_exact_blocks_are_those_of_the_jacobian(which: str) -> None:
    """For an odd dim too (3 and 10): the entries of J inside the blocks, and nothing outside."""
    problem = recursions.PROBLEMS[which]()
    _, initial, steps = flatten(as_transition(problem.transition), *problem[1:])
    states = jnp.asarray(np.random.default_rng(1).normal(size=(steps, initial.size)), jnp.float32)
    found, true, _ = blocks(methods.BlockQuasiNewton(estimator="exact"), problem, states)
    half = -(-initial.size // 2)
    row, column = np.meshgrid(np.arange(initial.size), np.arange(initial.size), indexing="ij")
    SAME_COMPUTATION.check(np.float32(found), np.where(row % half == column % half, true, 0))


def test_the_estimates_are_right_on_average() -> None:
    problem = recursions.tanh_problem(steps=1)
    many = problem._replace(inputs=jnp.tile(problem.inputs, (4000, 1)))
    states = jnp.tile(jnp.asarray([0.3, -0.2, 0.5], jnp.float32), (4000, 1))
    found, true, _ = blocks(methods.BlockQuasiNewton(num_probes=2), many, states)
    inside = np.asarray([[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    error = found.std(0) / np.sqrt(4000)
    assert np.all(np.abs(found.mean(0) - inside * true[0]) <= 4 * error + 1e-6)


@pytest.mark.parametrize("window", [None, 16])
def test_with_the_whole_jacobian_it_is_newton(window: int | None) -> None:
    problem = langevin()
    keywords: dict[str, Any] = {
        "window": window,
        "conditioning": UNPROJECTED,
        **TIGHT[np.dtype(np.float32)],
    }
    solution = evaluate(*problem, method="block_quasi_newton", **keywords)
    jax.tree.map(CONVERGED.check, solution.states, scan(*problem))
    newton = evaluate(*problem, method="newton", **keywords)
    assert abs(int(solution.iterations) - int(newton.iterations)) <= 1
    assert solution.iterations < evaluate(*problem, method=methods.QuasiNewton("exact"), **keywords).iterations


@pytest.mark.parametrize("steps", [1, 9])
def test_an_odd_dim(steps: int) -> None:
    problem = recursions.tanh_problem(steps=steps)
    solution = evaluate(*problem, method="block_quasi_newton", **TIGHT[np.dtype(np.float32)])
    CONVERGED.check(solution.states, scan(*problem))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"estimator": "finite"}, "estimator is 'finite', expected one of 'hutchinson', 'exact'"),
        ({"num_probes": 0}, "num_probes is 0, expected a whole number of at least 1"),
        ({"gate": "soft"}, "gate is 'soft', expected one of 'frozen', 'straight_through'"),
    ],
)
def test_bad_options_are_refused(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.BlockQuasiNewton(**keywords)
