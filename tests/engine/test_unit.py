"""Vectors at length 1, over the whole range of the numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine.unit import unit

DIRECTION = np.array([[0.48, 0.0], [-0.36, 0.8]])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("share", [-0.7, -0.5, 0.0, 0.5, 0.95])
def test_every_length_that_has_a_number_is_taken_out(dtype, share):
    """Where its square is 0 or infinite, too."""
    size = float(jnp.finfo(dtype).max) ** share
    vector = jnp.asarray(size * DIRECTION, dtype)
    exact = np.asarray(vector, np.float64)
    direction, length = jax.jit(unit)(vector)
    rounding = 4 * float(jnp.finfo(dtype).eps)
    assert direction.dtype == length.dtype == dtype
    np.testing.assert_allclose(np.asarray(length, np.float64), np.linalg.norm(exact), rtol=rounding)
    np.testing.assert_allclose(np.asarray(direction, np.float64), exact / np.linalg.norm(exact), atol=rounding)


def test_a_length_beyond_the_numbers_still_has_a_direction():
    direction, length = unit(jnp.full(4, 3e38))
    np.testing.assert_allclose(direction, 0.5, rtol=1e-6)
    assert length == np.inf


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_does_not_become_so(value):
    direction, length = unit(jnp.asarray([1.0, value, 2.0]))
    assert not np.isfinite(direction).all()
    assert not np.isfinite(length)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_derivatives_are_those_of_the_textbook(scale):
    vector = scale * np.array([1.0, -2.0, 0.5])
    length = np.linalg.norm(vector)
    of_direction, of_length = jax.jacfwd(unit)(jnp.asarray(vector, jnp.float32))
    toward = vector / length
    np.testing.assert_allclose(of_direction * length, np.eye(3) - np.outer(toward, toward), atol=1e-6)
    np.testing.assert_allclose(of_length, toward, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: unit(x)[1])(jnp.asarray(vector, jnp.float32)), toward, rtol=1e-6)


def test_at_zero_there_is_no_direction_and_derivatives_are_finite():
    direction, length = unit(jnp.zeros(3))
    np.testing.assert_array_equal(direction, 0)
    assert length == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.jacrev(unit)(jnp.zeros(3))))
