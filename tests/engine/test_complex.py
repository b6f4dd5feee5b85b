"""Complex states: solved for as pairs of real numbers, returned as they are."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsample as ps
from parsample.engine.transition import as_transition, flatten
from tests.engine.recursions import scan
from tests.tolerances import CONVERGED, SAME_COMPUTATION

STEPS, DIM = 24, 3
ROTATION = (0.8 * np.exp(1j * np.linspace(0.3, 2.0, DIM))).astype(np.complex64)
INPUTS = jax.random.normal(jax.random.key(0), (STEPS, DIM), jnp.complex64)
START = jnp.ones(DIM, jnp.complex64)


def linear(state: Any, input: Any) -> Any:
    """A linear recurrent unit."""
    return ROTATION * state + input


def bent(state: Any, input: Any) -> Any:
    """One that is not holomorphic."""
    return ROTATION * state + 0.2 * jnp.tanh(state.real) + input


def mixed(state: Any, input: Any) -> Any:
    """Complex numbers beside real ones, each driving the other."""
    wave, level = state["wave"], state["level"]
    return {"level": 0.5 * level + 0.1 * jnp.abs(wave).sum(), "wave": bent(wave, input) + 0.1j * level}


MIXED = {"level": jnp.zeros(()), "wave": START}


@pytest.mark.parametrize("method", ["quasi_newton", "newton", "sequential"])
@pytest.mark.parametrize(("transition", "start"), [(bent, START), (mixed, MIXED)])
def test_methods_find_the_loops_states(transition: Any, start: Any, method: str) -> None:
    options: dict[str, Any] = {"atol": 1e-6, "rtol": 1e-6, "window": 8 if method == "newton" else None}
    found, loop = ps.evaluate(transition, start, INPUTS, method=method, **options), scan(transition, start, INPUTS)
    assert found.converged
    assert jax.tree.map(jnp.result_type, found.states) == jax.tree.map(jnp.result_type, loop)
    jax.tree.map(lambda a, b: CONVERGED.check(np.abs(a - b), np.zeros(b.shape, np.float32)), found.states, loop)


def test_a_rotation_is_a_block_of_two() -> None:
    """In a linear unit the blocks are all there is of the Jacobian: one iteration solves, one verifies."""
    found = ps.evaluate(linear, START, INPUTS, method="block_quasi_newton", atol=1e-5, rtol=1e-5)
    assert found.iterations <= 2
    assert ps.evaluate(linear, START, INPUTS, method="quasi_newton", atol=1e-5, rtol=1e-5).iterations > 4


def test_derivatives_through_complex_states() -> None:
    def loss(states: Any) -> Any:
        return jnp.sum(jnp.abs(states[-1]) ** 2)

    def solved(start: Any, inputs: Any) -> Any:
        return loss(ps.evaluate(bent, start, inputs, method="newton", atol=1e-6, rtol=1e-6).states)

    found = jax.grad(solved, argnums=(0, 1))(START, INPUTS)
    expected = jax.grad(lambda start, inputs: loss(scan(bent, start, inputs)), argnums=(0, 1))(START, INPUTS)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_flat_and_back() -> None:
    state = {"a": jnp.asarray([1 + 2j, 3 - 1j], jnp.complex64), "b": jnp.asarray([5.0]), "n": jnp.asarray(7)}
    flat, vector, _ = flatten(as_transition(lambda state, input: state), state, jnp.zeros(1))
    np.testing.assert_array_equal(vector, [1, 3, 5, 7, 2, -1])
    assert jax.tree.map(lambda x: x.tolist(), flat.unravel(vector)) == jax.tree.map(lambda x: x.tolist(), state)
    bound = flat.tolerance(vector, jnp.asarray(1.0), jnp.asarray(0.0))
    np.testing.assert_array_equal(bound, [1, 1, 1, 0.25, 1, 1])


def test_a_guess_and_what_is_left_to_the_loop() -> None:
    loop = scan(bent, START, INPUTS)
    assert ps.evaluate(bent, START, INPUTS, guess=loop, method="jacobi").iterations == 1
    whole = ps.evaluate(bent, START, INPUTS, max_iterations=2, stopping=ps.Stopping(finish=True))
    assert whole.finished > 0
    SAME_COMPUTATION.check(np.asarray(whole.states[-1]).view(np.float32), np.asarray(loop[-1]).view(np.float32))


def test_precisions_that_differ_are_refused() -> None:
    state = {"a": jnp.zeros(1, jnp.complex64), "b": jnp.zeros(1, jnp.float16)}
    with pytest.raises(ValueError, match=r"initial_state mixes the dtypes float16, float32"):
        ps.evaluate(lambda state, input: state, state, jnp.zeros(3))
