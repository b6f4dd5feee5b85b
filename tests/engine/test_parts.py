"""The laws of matrices between like parts of a state: all are those of the dense form, written out by NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine.matrices import ScaledIdentity, Zero
from parsample.engine.parts import Parts
from tests.tolerances import SAME_COMPUTATION

STEPS, PARTS, SIZE = 4, 3, 5


@pytest.fixture
def entries(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(2, STEPS, PARTS, PARTS)).astype(np.float32)


def written_out(entries: np.ndarray) -> np.ndarray:
    return np.stack([np.kron(row, np.eye(SIZE, dtype=np.float32)) for row in entries])


def test_it_is_its_dense_form(entries: np.ndarray, rng: np.random.Generator) -> None:
    matrix, dense = Parts(jnp.asarray(entries[0])), written_out(entries[0])
    vector = rng.normal(size=(STEPS, PARTS * SIZE)).astype(np.float32)
    SAME_COMPUTATION.check(matrix.dense(PARTS * SIZE), dense)
    SAME_COMPUTATION.check(matrix.apply(jnp.asarray(vector)), np.einsum("tij,tj->ti", dense, vector))
    SAME_COMPUTATION.check(matrix.scale(0.5).dense(PARTS * SIZE), 0.5 * dense)
    SAME_COMPUTATION.check(matrix.clip(0.3).dense(PARTS * SIZE), np.clip(dense, -0.3, 0.3))


def test_composition_is_the_product(entries: np.ndarray) -> None:
    later, earlier = (Parts(jnp.asarray(row)) for row in entries)
    product = written_out(entries[0]) @ written_out(entries[1])
    SAME_COMPUTATION.check((later @ earlier).dense(PARTS * SIZE), product)
    SAME_COMPUTATION.check((later @ ScaledIdentity(jnp.asarray(2.0))).dense(PARTS * SIZE), 2 * written_out(entries[0]))
    assert isinstance(later @ Zero(), Zero)


def test_projection_is_to_the_unit_ball(entries: np.ndarray) -> None:
    small, large = 0.01 * entries[0], 10 * entries[0]
    SAME_COMPUTATION.check(Parts(jnp.asarray(small)).project().entries, small)
    norms = np.linalg.norm(large, ord=2, axis=(-2, -1), keepdims=True)
    projected = np.asarray(Parts(jnp.asarray(large)).project().entries)
    assert np.all(np.linalg.norm(projected, ord=2, axis=(-2, -1)) <= 1 + 1e-6)
    np.testing.assert_allclose(projected, large / (1 + 2 * (norms - 1)), rtol=5e-3)


def test_what_is_not_finite_is_found_and_dropped(entries: np.ndarray) -> None:
    entries[0, 2, 1, 0] = np.nan
    matrix = Parts(jnp.asarray(entries[0]))
    np.testing.assert_array_equal(matrix.isfinite(), [True, True, False, True])
    kept = matrix.where(matrix.isfinite())
    np.testing.assert_array_equal(kept.entries[2], 0)
    np.testing.assert_array_equal(kept.entries[1], entries[0, 1])
