"""Upper bounds of spectral norms that cost a few products of matrices, and no decomposition."""

import math

import jax.numpy as jnp
from jax.lax import Precision
from jaxtyping import Array, Float

# With fewer, matrices near the identity are shrunk by enough to cost iterations.
SQUARINGS = 5
# Up to these sizes a product is written as a sum: XLA calls a routine for each of many small matrices on a CPU, and
# reads transposed ones slowly.
SMALL_SQUARE, SMALL_GRAM = 7, 32


def spectral_norm_bound(entries: Float[Array, "*steps rows dim"]) -> Float[Array, "*steps"]:
    """Return an upper bound of the largest singular value of each matrix.

    1. The largest eigenvalue of A A^T is the k-th root of that of its k-th power. Here k is 2^5, by squaring.
    2. The largest of n eigenvalues is at most their mean and sqrt(n - 1) times their standard deviation, both of which
       a trace knows. That is exact for a multiple of the identity, for a matrix of rank one, and for n = 2.
    3. It is at most the largest sum of absolute values in a row, too, which is exact where A A^T is diagonal.

    The k-th root leaves of an excess by a factor c only c^(1 / 64) in the norm. In the worst case, where about half of
    the singular values are equal and the others 0, c is (1 + sqrt(n)) / 2: 1.1% for n = 10, 1.7% for 25, 2.7% for 100.
    With fewer squarings MALA on a logistic regression that is not whitened needs more iterations than with the norm
    itself. Times beside singular values: benchmarks/linear_systems.py.

    A matrix that is not finite has no bound: NaN, or infinite. The others do not notice.

    Cost: six products of matrices and as many sums of squares, all batched; O(rows^3) a matrix.

    Source: Wolkowicz & Styan 1980, "Bounds for eigenvalues using traces", theorem 2.1, for 2.
    """
    largest = jnp.abs(entries).max((-2, -1))
    size = jnp.where(largest > 0, largest, 1)
    rows = entries / size[..., None, None]
    if rows.shape[-2] <= SMALL_GRAM:
        gram = jnp.sum(rows[..., :, None, :] * rows[..., None, :, :], -1)
    else:
        gram = jnp.matmul(rows, jnp.swapaxes(rows, -1, -2), precision=Precision.HIGHEST)
    return size * jnp.sqrt(_largest_eigenvalue_bound(gram, SQUARINGS))


def _largest_eigenvalue_bound(matrix: Float[Array, "*steps dim dim"], squarings: int) -> Float[Array, "*steps"]:
    """Return an upper bound for symmetric matrices without negative eigenvalues."""
    dim = matrix.shape[-1]
    if squarings == 0 or dim <= 2:
        mean = jnp.trace(matrix, axis1=-2, axis2=-1) / dim
        # Not as a difference of two traces: of the identity's nothing but rounding would be left.
        centred = matrix - mean[..., None, None] * jnp.eye(dim, dtype=matrix.dtype)
        deviation = jnp.sqrt(jnp.sum(centred**2, (-2, -1)) / dim)
        return jnp.minimum(mean + math.sqrt(dim - 1) * deviation, jnp.abs(matrix).sum(-1).max(-1))
    # So that powers neither overflow nor vanish.
    norm = jnp.sqrt(jnp.sum(matrix**2, (-2, -1)))
    size = jnp.where(norm > 0, norm, 1)
    unit = matrix / size[..., None, None]
    if dim <= SMALL_SQUARE:
        square = jnp.sum(unit[..., :, None, :] * unit[..., None, :, :], -1)
    else:
        square = jnp.matmul(unit, unit, precision=Precision.HIGHEST)
    return size * jnp.sqrt(_largest_eigenvalue_bound(square, squarings - 1))


def two_by_two_norm(a: Array, b: Array | float, c: Array, d: Array) -> Array:
    """Return the spectral norm of [[a, b], [c, d]]: (|(a + d, c - b)| + |(a - d, b + c)|) / 2."""
    return (jnp.hypot(a + d, c - b) + jnp.hypot(a - d, b + c)) / 2
