"""Recursions to evaluate, each beside the textbook answer: a plain `lax.scan` and a residual in NumPy.

A compiled evaluation is kept for as long as its transition is the same function and its options and shapes are the
same. So the functions are defined here once, and tests share them with the same number of steps and the same windows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from parsample.engine.methods import METHODS
from parsample.engine.rules import Conditioning
from parsample.engine.solution import Solution, Status
from tests.tolerances import CONVERGED

# A new row in the table of methods is enrolled in every test that is parametrised by one of these.
ALL_METHODS = sorted(METHODS)
ITERATIVE = [name for name in ALL_METHODS if name != "sequential"]
# Every case compiles a program for a second or two. Where a test is about the driver and not about the matrices, the
# methods that differ in kind stand for all: no matrices, diagonal, dense, and those with an iteration of their own.
KINDS = ["jacobi", "quasi_newton", "newton", "elk", "anderson", "parareal", "sequential"]
ITERATIVE_KINDS = [name for name in KINDS if name != "sequential"]

STEPS = 23
WINDOWS = [None, 1, 7, STEPS, STEPS + 5]

UNPROJECTED = Conditioning(projection=False)

# Tolerances for the driver under which `tolerances.CONVERGED` holds.
TIGHT: dict[np.dtype, dict[str, Any]] = {
    np.dtype(np.float32): {"atol": 1e-5, "rtol": 1e-5},
    np.dtype(np.float64): {"atol": 1e-11, "rtol": 1e-11},
}
SHARP = TIGHT[np.dtype(np.float32)]


class Problem(NamedTuple):
    """A recursion with its arguments.

    Attributes:
        transition: the recursion.
        initial_state: step 0.
        inputs: leading axis `steps`.
    """

    transition: Callable[[PyTree, PyTree], PyTree]
    initial_state: PyTree
    inputs: PyTree


def scan(transition: Callable, initial_state: PyTree, inputs: PyTree) -> PyTree:
    """The oracle: one step after the other, with nothing of the package in it."""

    def step(state: PyTree, input: PyTree) -> tuple[PyTree, PyTree]:
        state = transition(state, input)
        return state, state

    return jax.lax.scan(step, initial_state, inputs)[1]


# Its spectral norm is 1.3, its spectral radius 0.7: it contracts in the long run and not at once.
WEIGHTS = np.array([[0.7, 0.6, 0.0], [-0.4, 0.5, 0.3], [0.2, -0.5, 0.6]])


def tanh_step(state: Array, input: Array) -> Array:
    """A nonlinear recursion in three coupled dimensions."""
    return jnp.tanh(jnp.asarray(WEIGHTS, state.dtype) @ state + input)


def tanh_step_numpy(state: np.ndarray, input: np.ndarray) -> np.ndarray:
    """The same in NumPy, for states with leading axes."""
    return np.tanh(state @ WEIGHTS.T + input)


def tanh_problem(dtype: Any = np.float32, steps: int = STEPS, seed: int = 0) -> Problem:
    noise = np.random.default_rng(seed).normal(size=(steps, 3))
    return Problem(tanh_step, jnp.asarray([0.5, -1.0, 2.0], dtype), jnp.asarray(noise, dtype))


def with_nan_at(bad: int, steps: int = STEPS) -> Problem:
    problem = tanh_problem(steps=steps)
    return problem._replace(inputs=problem.inputs.at[bad].set(jnp.nan))


def fragile_step(state: Array, input: Array) -> Array:
    """The same near the trajectory, and NaN far from it."""
    return jnp.where(jnp.abs(state).max() > 50, jnp.nan, tanh_step(state, input))


def rough_step(state: Array, input: Array) -> Array:
    """A recursion whose derivative is NaN at 0, and whose value is finite for an infinite state."""
    return jnp.tanh(0.5 * jnp.sqrt(state**2)) + input


def scalar_step(state: Array, input: Array) -> Array:
    """A recursion in one dimension, of shape ()."""
    return jnp.sin(0.9 * state) + input


def scalar_problem(dtype: Any = np.float32, steps: int = STEPS) -> Problem:
    noise = np.random.default_rng(1).normal(size=steps)
    return Problem(scalar_step, jnp.asarray(0.3, dtype), jnp.asarray(noise, dtype))


def tree_step(state: PyTree, input: PyTree) -> PyTree:
    """A recursion over arrays of several shapes, with an integer and a boolean among its inputs."""
    level = jnp.tanh(state["level"] + state["table"].mean())
    table = 0.5 * jnp.cos(state["table"]) * input["noise"][0] + state["pair"][0] * input["count"]
    pair = jnp.where(input["flip"], -state["pair"][1], 0.6 * state["pair"][1]) + input["noise"][1]
    return {"level": level, "table": table, "pair": (0.3 * level + 0 * state["pair"][0], pair)}


def tree_problem(dtype: Any = np.float32, steps: int = STEPS) -> Problem:
    rng = np.random.default_rng(2)
    initial_state = {
        "level": jnp.asarray(0.2, dtype),
        "table": jnp.asarray(rng.normal(size=(2, 3)), dtype),
        "pair": (jnp.asarray(1.0, dtype), jnp.asarray(rng.normal(size=2), dtype)),
    }
    inputs = {
        "noise": (jnp.asarray(rng.normal(size=(steps, 2, 3)), dtype), jnp.asarray(rng.normal(size=(steps, 2)), dtype)),
        "count": jnp.arange(steps) % 3,
        "flip": jnp.asarray(rng.random(steps) < 0.3),
    }
    return Problem(tree_step, initial_state, inputs)


PROBLEMS = {"tanh": tanh_problem, "scalar": scalar_problem, "tree": tree_problem}


def residuals(initial_state: Any, states: Any, inputs: Any, step: Callable = tanh_step_numpy) -> np.ndarray:
    """|x[t] - f(x[t-1], u[t])| of every component, computed in double precision by NumPy."""
    states = np.asarray(states, np.float64)
    before = np.concatenate([np.asarray(initial_state, np.float64)[None], states[:-1]])
    return np.abs(states - step(before, np.asarray(inputs, np.float64)))


def map_trees(check: Callable, actual: PyTree, expected: PyTree) -> None:
    """Apply a comparison to every pair of arrays of two trees of the same structure."""
    assert str(jax.tree.structure(actual)) == str(jax.tree.structure(expected))
    jax.tree.map(check, actual, expected)


def check_solved(solution: Solution, problem: Problem, dtype: Any = np.float32) -> None:
    """Assert that a solution is within tolerance, says so, and is the trajectory of the loop."""
    assert bool(solution.converged)
    assert solution.status == Status.CONVERGED
    assert solution.first_bad_step == -1
    assert 1 <= solution.iterations <= jax.tree.leaves(problem.inputs)[0].shape[0]
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(solution.states))
    map_trees(CONVERGED.check, solution.states, scan(*problem))
