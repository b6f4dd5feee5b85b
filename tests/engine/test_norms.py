"""Bounds of spectral norms: above the norm that NumPy finds, by little, at every size and scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine.norms import SQUARINGS, spectral_norm_bound

# Singular values of the matrices, given how many.
SPECTRA = {
    "random": lambda rng, dim: rng.uniform(size=dim),
    "all equal": lambda rng, dim: np.ones(dim),
    "one": lambda rng, dim: np.eye(dim)[0],
    "half": lambda rng, dim: 1.0 * (np.arange(dim) % 2 == 0),
    "falling": lambda rng, dim: 0.5 ** np.arange(dim),
    "near the identity": lambda rng, dim: 1 + 0.01 * rng.normal(size=dim),
}


def matrices(spectrum: str, dim: int) -> np.ndarray:
    rng = np.random.default_rng(dim)
    left, right = (np.linalg.qr(rng.normal(size=(3, dim, dim)))[0] for _ in range(2))
    return left * SPECTRA[spectrum](rng, dim) @ right


@pytest.mark.parametrize("dim", [1, 2, 3, 7, 10, 25, 40])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_it_is_above_the_norm_by_no_more_than_promised(spectrum: str, dim: int) -> None:
    # Step 2 of its docstring at its worst, with a share of the eigenvalues equal and the others 0.
    worst = (1 + np.sqrt(dim)) / 2 if dim > 2 else 1.0
    for scale in (1e-30, 1e-3, 1.0, 1e30):
        entries = (matrices(spectrum, dim) * scale).astype(np.float32)
        # In double precision, and of numbers near 1: the norm of NumPy would underflow.
        norms = np.linalg.norm(entries.astype(np.float64) / scale, ord=2, axis=(-2, -1))
        ratio = np.asarray(jax.jit(spectral_norm_bound)(jnp.asarray(entries)), np.float64) / scale / norms
        assert np.all(ratio >= 1 - 2e-6), scale
        assert np.all(ratio <= worst ** (0.5 / 2**SQUARINGS) + 2e-6), scale


@pytest.mark.parametrize("matrix", [np.eye(12), np.roll(np.eye(12), 3, 0), np.diag(np.arange(12) % 2)], ids=str)
def test_it_is_exact_where_rows_do_not_mix(matrix: np.ndarray) -> None:
    assert float(spectral_norm_bound(jnp.asarray(matrix, jnp.float32))) == pytest.approx(1, abs=1e-6)


def test_wide_matrices_zero_and_what_is_not_finite() -> None:
    wide = np.random.default_rng(0).normal(size=(3, 20)).astype(np.float32)
    assert 1 <= float(spectral_norm_bound(jnp.asarray(wide))) / np.linalg.norm(wide, 2) <= 1.01
    stack = np.broadcast_to(np.eye(4, dtype=np.float32), (4, 4, 4)).copy()
    stack[1, 0, 1], stack[2, 0, 1], stack[3] = np.nan, np.inf, 0
    bound = np.asarray(spectral_norm_bound(jnp.asarray(stack)))
    assert bound[0] == pytest.approx(1)
    assert not np.isfinite(bound[1:3]).any()
    assert bound[3] == 0
