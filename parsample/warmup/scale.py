"""The scale of a posterior, estimated from draws: the root that standardised coordinates are made with.

Three structures: "diagonal"; "dense", which up to 100 dimensions is the default; and "low_rank", a diagonal and the
directions along which the posterior is far from it, which is the default above.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from parsample.engine.names import unknown
from parsample.samplers.base import BLOCK
from parsample.warmup.coordinates import LARGEST_DENSE, Standardised, StandardNormal
from parsample.warmup.low_rank import LowRank

MASSES = ("auto", "diagonal", "low_rank", "dense")
# Directions whose variance is within this factor of what the diagonal says are left to the diagonal (nutpie's number).
CUTOFF = 2.0
# The most directions that are stretched, and the most that are looked at.
RANK, SUBSPACE = 256, 512
# The most draws at which gradients are taken for them.
ROWS = 2048


def check_mass(mass: Any) -> None:
    """Raise ValueError unless `mass` is the name of a structure."""
    if mass not in MASSES:
        raise unknown("mass", str(mass), MASSES)


def unscaled(density: Standardised, mass: str) -> Standardised:
    """Return coordinates with root 1 and a root of the structure that warm-up will estimate.

    They have a surrogate although nothing is known of the scale: so a program that is compiled for them serves those
    that follow.
    """
    dim, dtype = density.center.size, density.center.dtype
    chosen = _structure(mass, dim)
    ones = jnp.ones(dim, dtype)
    root: Any = ones
    if chosen == "dense":
        root = jnp.eye(dim, dtype=dtype)
    elif chosen == "low_rank":
        rank = min(dim, RANK)
        root = LowRank(ones, jnp.eye(dim, rank, dtype=dtype), jnp.ones(rank, dtype))
    return Standardised(density.target, density.center, root, density.unravel, StandardNormal())


def standardise(
    density: Standardised, draws: Float[Array | np.ndarray, "draws dim"], mass: str = "auto"
) -> Standardised:
    """Return the coordinates in which these draws have unit scale.

    Args:
        density: any coordinates of the target.
        draws: flat positions.
        mass: the structure of the root, one of `MASSES`; "auto" is "dense" up to 100 dimensions and "low_rank" above.

    Cost: on the host, in double precision, O(draws dim^2) where it is dense; "low_rank" takes a gradient at each of at
        most 2,048 draws, and O(min(dim, 512)^3).

    Source: Stan's regularisation (Stan reference manual, "HMC algorithm parameters"), which adds 0.001 with the weight
    of five draws, and so takes a posterior of a much smaller scale for a wide one; here it is 0.001 of each variance.
    For "low_rank" see `_low_rank_root`.
    """
    chosen, dtype = _structure(mass, draws.shape[1]), draws.dtype
    if chosen == "low_rank":
        kept = draws[:: -(-len(draws) // ROWS)]
        found = _low_rank_root(np.asarray(kept, float), np.asarray(_gradients(density, jnp.asarray(kept)), float))
    else:
        found = _root_of_draws(np.asarray(draws, float), chosen == "dense", float(jnp.finfo(dtype).eps))
    center, *parts = (jnp.asarray(part, dtype) for part in found)
    root: Any = LowRank(*parts) if chosen == "low_rank" else parts[0]
    return Standardised(density.target, center, root, density.unravel, StandardNormal())


def with_covariance(density: Standardised, center: Float[Array, " dim"], covariance: np.ndarray) -> Standardised:
    """Return coordinates in which a normal distribution is standard; the root is like that of `density` in structure.

    Of a covariance that the structure cannot hold the diagonal and the directions farthest from it are kept.
    """
    dtype, scale = density.center.dtype, np.sqrt(np.diagonal(covariance))
    if isinstance(density.root, LowRank):
        parts = scale, *_stretched(covariance / np.outer(scale, scale), np.eye(len(scale)), density.root.stretch.size)
        root: Any = LowRank(*(jnp.asarray(part, dtype) for part in parts))
    else:
        root = jnp.asarray(scale if density.root.ndim == 1 else np.linalg.cholesky(covariance), dtype)
    return Standardised(density.target, jnp.asarray(center, dtype), root, density.unravel, StandardNormal())


def trimmed(density: Standardised) -> Standardised:
    """Return the same coordinates without the directions that a low-rank root does not stretch.

    Where it stretches none, the root is a diagonal.
    """
    if not isinstance(density.root, LowRank):
        return density
    used = np.flatnonzero(np.asarray(density.root.stretch) != 1)
    root: Any = density.root.scale
    if used.size:
        root = LowRank(density.root.scale, density.root.directions[:, used], density.root.stretch[used])
    return eqx.tree_at(lambda density: density.root, density, root)


def _structure(mass: str, dim: int) -> str:
    if mass != "auto":
        return mass
    return "dense" if dim <= LARGEST_DENSE else "low_rank"


def _root_of_draws(draws: Float[np.ndarray, "draws dim"], dense: bool, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean, and the root of the regularised covariance; `eps` is the rounding error of a position."""
    num_draws = len(draws)
    weight = num_draws / (num_draws + 5)
    center = draws.mean(0)
    centred = draws - center
    # Chains that all stand still have no variance: then the rounding errors of a position are the scale.
    smallest = (eps * (1 + np.abs(center))) ** 2
    variances = centred.var(0, ddof=1) + smallest
    floor = 1e-3 * (1 - weight) * variances
    if not dense:
        return center, np.sqrt(weight * variances + floor)
    covariance = weight * (centred.T @ centred) / (num_draws - 1) + np.diag(floor + smallest)
    try:
        return center, np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        # Chains that have hardly moved can leave a covariance that is singular to working precision.
        return center, np.diag(np.sqrt(np.diagonal(covariance)))


@eqx.filter_jit
def _gradients(density: Standardised, draws: Float[Array, "draws dim"]) -> Float[Array, "draws dim"]:
    """Return the gradient of the log density at flat positions, a block at a time."""
    gradient: Callable = jax.grad(lambda vector: density.target.logdensity(density.unravel(vector)))
    return jax.lax.map(gradient, draws, batch_size=min(BLOCK, len(draws)))


def _low_rank_root(draws: np.ndarray, gradients: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the mean of draws, and the parts of a root from their covariance X and that of their gradients, G.

    1. The scale of a coordinate is that for which the draws and the gradients vary alike: sd(x) / sd(g), squared units.
    2. In these coordinates the matrix M with M G M = X is the geometric mean of X and G^-1. For a normal distribution M
       is its covariance, exactly, wherever the draws lie, as soon as they span the space: g = -C^-1 (x - m) gives
       G = C^-1 X C^-1. So it does not wait until the chains have mixed.
    3. Its eigenvectors of eigenvalues beyond `CUTOFF` are stretched.

    X and G each have a little of the identity added, the more, the fewer draws there are for a dimension, so that M is
    the identity where nothing is known. Above `SUBSPACE` dimensions this is done in the space of the leading
    eigenvectors of X and of G.

    Source: nutpie's low-rank adaptation (Seyboldt, Carlson & Carpenter 2026, "Preconditioning Hamiltonian Monte Carlo
    by minimizing Fisher divergence"). Here draws and gradients come from all chains and only between segments, what is
    added depends on the number of draws, and the rank has a bound.
    """
    known = np.isfinite(gradients).all(1)
    center = draws.mean(0)
    draws, gradients = draws - center, (gradients - gradients[known].mean(0) if known.any() else gradients)[known]
    dim = draws.shape[1]
    eps = float(np.finfo(np.float32).eps)
    spread = draws.std(0) + eps * (1 + np.abs(center))
    slope = gradients.std(0) if len(gradients) > 1 else np.zeros(dim)
    scale = np.where(slope > 0, np.sqrt(spread / np.where(slope > 0, slope, 1)), spread)
    rank = min(dim, RANK)
    directions, stretch = np.eye(dim, rank), np.ones(rank)
    if len(gradients) > 1:
        rows, pulls = draws[known] / scale, gradients * scale
        basis = _leading(rows, pulls)
        added = max(0.1 * min(1.0, dim / len(rows)) ** 4, 1e-6) * np.eye(basis.shape[1])
        spans = [part @ basis for part in (rows, pulls)]
        of_draws, of_gradients = (part.T @ part / (len(part) - 1) + added for part in spans)
        directions, stretch = _stretched(_geometric_mean(of_draws, of_gradients), basis, rank)
    return center, scale, directions, stretch


def _leading(rows: np.ndarray, pulls: np.ndarray) -> np.ndarray:
    """Return orthonormal columns that span what is looked at: everything, or the leading eigenvectors of both."""
    dim = rows.shape[1]
    if dim <= SUBSPACE:
        return np.eye(dim)
    leading = [np.linalg.svd(part, full_matrices=False)[2][: SUBSPACE // 2] for part in (rows, pulls)]
    return np.linalg.qr(np.concatenate(leading).T)[0]


def _geometric_mean(of_draws: np.ndarray, of_gradients: np.ndarray) -> np.ndarray:
    """Return the positive definite M with M G M = X."""

    def power(matrix: np.ndarray, exponent: float) -> np.ndarray:
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        return vectors * np.maximum(values, np.finfo(float).tiny) ** exponent @ vectors.T

    root, inverse = power(of_gradients, 0.5), power(of_gradients, -0.5)
    found = inverse @ power(root @ of_draws @ root, 0.5) @ inverse
    return (found + found.T) / 2


def _stretched(matrix: np.ndarray, basis: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvectors of a matrix that are to be stretched, and by how much.

    Those that are left to the diagonal are columns of zeros, so that all roots of a run have one shape.
    """
    values, vectors = np.linalg.eigh(matrix)
    far = np.argsort(-np.abs(np.log(values)))[:rank]
    far = far[np.abs(np.log(values[far])) > np.log(CUTOFF)]
    missing = rank - len(far)
    directions = np.pad(basis @ vectors[:, far], ((0, 0), (0, missing)))
    return directions, np.pad(np.sqrt(values[far]), (0, missing), constant_values=1)
