"""The laws of matrices written out in a subspace: all are those of the dense form, written out by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from parsample.engine.matrices import Matrix, ScaledIdentity, Zero
from parsample.engine.parts import Parts
from parsample.engine.scan import solve_lds
from parsample.engine.subspace import Subspace, written_out_in
from tests.tolerances import SAME_COMPUTATION, Tolerance

STEPS, PARTS, SIZE, RANK = 4, 2, 6, 2
DIM = PARTS * SIZE
# Products of three matrices with entries of size about one.
PRODUCTS = Tolerance(float32=(2e-4, 2e-4), float64=(1e-11, 1e-11))


def orthonormal(rng: np.random.Generator) -> np.ndarray:
    """Rows that span the same directions of every part, and are the same in every step."""
    directions = np.linalg.qr(rng.normal(size=(SIZE, RANK)))[0].T
    return np.broadcast_to(np.kron(np.eye(PARTS), directions), (STEPS, PARTS * RANK, DIM)).astype(np.float32)


@pytest.fixture(params=["scaled identity", "parts"])
def pair(request: pytest.FixtureRequest, rng: np.random.Generator) -> list[tuple[Subspace, np.ndarray]]:
    """Two matrices on one subspace, and the same written out."""
    basis, found = orthonormal(rng), []
    for _ in range(2):
        excess = rng.normal(size=basis.shape).astype(np.float32)
        rest: Matrix
        if request.param == "parts":
            entries = rng.normal(size=(STEPS, PARTS, PARTS)).astype(np.float32)
            rest, dense = Parts(jnp.asarray(entries)), np.stack([np.kron(row, np.eye(SIZE)) for row in entries])
        else:
            factor = rng.normal(size=STEPS).astype(np.float32)
            rest, dense = ScaledIdentity(jnp.asarray(factor)), factor[:, None, None] * np.eye(DIM)
        matrix = Subspace(rest, jnp.asarray(basis), jnp.asarray(excess))
        found.append((matrix, (dense + np.einsum("tri,trj->tij", excess, basis)).astype(np.float32)))
    return found


def test_it_is_its_dense_form(pair: list[tuple[Subspace, np.ndarray]], rng: np.random.Generator) -> None:
    matrix, dense = pair[0]
    vector = rng.normal(size=(STEPS, DIM)).astype(np.float32)
    PRODUCTS.check(matrix.dense(DIM), dense)
    PRODUCTS.check(matrix.apply(jnp.asarray(vector)), np.einsum("tij,tj->ti", dense, vector))
    PRODUCTS.check(matrix.scale(0.5).dense(DIM), 0.5 * dense)
    factors = np.arange(STEPS, dtype=np.float32)
    PRODUCTS.check(matrix.scale(jnp.asarray(factors)).dense(DIM), factors[:, None, None] * dense)
    clipped = matrix.clip(0.3)
    assert float(jnp.abs(clipped.excess).max()) == pytest.approx(0.3)
    assert float(jnp.abs(clipped.rest.dense(DIM)).max()) == pytest.approx(0.3)


def test_images_are_written_out(rng: np.random.Generator) -> None:
    basis, images = orthonormal(rng), rng.normal(size=(STEPS, PARTS * RANK, DIM)).astype(np.float32)
    matrix = written_out_in(ScaledIdentity(jnp.full(STEPS, 0.7)), jnp.asarray(basis), jnp.asarray(images))
    for row in range(PARTS * RANK):
        PRODUCTS.check(matrix.apply(jnp.asarray(basis[:, row])), images[:, row])
    outside = rng.normal(size=DIM) @ (np.eye(DIM) - basis[0].T @ basis[0])
    PRODUCTS.check(matrix.apply(jnp.asarray(np.tile(outside, (STEPS, 1)), jnp.float32))[0], 0.7 * outside)


def test_composition_is_the_product_and_associative(pair: list[tuple[Subspace, np.ndarray]]) -> None:
    (later, dense_later), (earlier, dense_earlier) = pair
    product = later @ earlier
    assert isinstance(product, Subspace)
    assert product.basis.shape == later.basis.shape
    PRODUCTS.check(product.dense(DIM), dense_later @ dense_earlier)
    PRODUCTS.check(((later @ earlier) @ later).dense(DIM), (later @ (earlier @ later)).dense(DIM))
    twice = ScaledIdentity(jnp.asarray(2.0))
    PRODUCTS.check((later @ twice).dense(DIM), 2 * dense_later)
    PRODUCTS.check((twice @ later).dense(DIM), 2 * dense_later)
    assert isinstance(later @ Zero(), Zero)
    assert isinstance(Zero() @ later, Zero)


def test_projection_divides_by_a_bound_of_the_norm(pair: list[tuple[Subspace, np.ndarray]]) -> None:
    matrix, dense = pair[0]
    norms = np.linalg.norm(dense, ord=2, axis=(-2, -1))
    assert norms.min() > 1
    projected = np.asarray(matrix.project().dense(DIM))
    factors = np.sum(projected * dense, (-2, -1)) / np.sum(dense**2, (-2, -1))
    PRODUCTS.check(projected, (factors[:, None, None] * dense).astype(np.float32))
    # Divided by 1 + 2 (bound - 1).
    bounds = (1 / factors + 1) / 2
    assert np.all(bounds >= norms * (1 - 1e-5))
    assert np.all(bounds <= norms * 1.43)
    small = matrix.scale(jnp.asarray(0.69 / norms))
    PRODUCTS.check(small.project().dense(DIM), small.dense(DIM))


def test_projection_is_tight_where_the_subspace_is_kept(pair: list[tuple[Subspace, np.ndarray]]) -> None:
    matrix, _ = pair[0]
    # Images within the span, and a rest that is the largest thing there is.
    inside = jnp.einsum("tij,tjd->tid", jnp.einsum("tid,tjd->tij", matrix.excess, matrix.basis), matrix.basis)
    for kept in (
        Subspace(matrix.rest, matrix.basis, 20 * inside),
        Subspace(ScaledIdentity(jnp.full(STEPS, 5.0)), matrix.basis, -5.0 * matrix.basis),
    ):
        norms = np.linalg.norm(kept.dense(DIM), ord=2, axis=(-2, -1))
        factors = np.asarray(kept.project().excess / kept.excess)
        np.testing.assert_allclose(1 / factors[:, 0, 0], 1 + 2 * (norms - 1), rtol=1e-2)


def test_what_is_not_finite_is_found_and_dropped(pair: list[tuple[Subspace, np.ndarray]]) -> None:
    matrix, dense = pair[0]
    broken = Subspace(matrix.rest, matrix.basis, matrix.excess.at[2, 1, 0].set(jnp.nan))
    np.testing.assert_array_equal(broken.isfinite(), [True, True, False, True])
    kept = broken.where(broken.isfinite())
    SAME_COMPUTATION.check(kept.dense(DIM)[2], np.zeros((DIM, DIM)))
    PRODUCTS.check(kept.dense(DIM)[1], dense[1])
    projected = broken.project()
    np.testing.assert_array_equal(projected.isfinite(), [True, True, False, True])
    SAME_COMPUTATION.check(projected.dense(DIM)[3], matrix.project().dense(DIM)[3])


def test_a_basis_that_is_only_broadcast_is_never_copied_for_every_step() -> None:
    steps, rank, dim = 500, 8, 40

    def solve(factor: Array, basis: Array, excess: Array, offsets: Array) -> Array:
        matrices = Subspace(ScaledIdentity(factor), jnp.broadcast_to(basis, excess.shape), excess)
        return solve_lds(matrices, offsets, offsets[0])

    shapes = ((steps,), (rank, dim), (steps, rank, dim), (steps, dim))
    compiled = jax.jit(solve).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).compile()
    used = compiled.memory_analysis()
    assert used is not None
    assert used.temp_size_in_bytes < steps * rank * dim
