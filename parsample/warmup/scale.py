"""The scale of a posterior, estimated from draws and gradients: the root that standardised coordinates are made with.

Three structures: "diagonal"; "dense"; and "low_rank", a diagonal and the directions along which the posterior is far
from it. By default the draws say whether more than the diagonal is worth it.
"""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from parsample.engine.arrays import to_jax
from parsample.engine.names import unknown
from parsample.warmup.coordinates import LARGEST_DENSE, Standardised, StandardNormal
from parsample.warmup.covariance import ESTIMATES, choose, scale_of_coordinates, typical, worth_of_draws
from parsample.warmup.low_rank import LowRank

MASSES = ("auto", "diagonal", "low_rank", "dense")
# Directions whose variance is within this factor of what the diagonal says are left to the diagonal (nutpie's number).
CUTOFF = 2.0
# The most directions that are stretched, and the most that are looked at.
RANK, SUBSPACE = 256, 512


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
    ones = to_jax(np.ones(dim), dtype)
    root: Any = ones
    if chosen == "dense":
        root = to_jax(np.eye(dim), dtype)
    elif chosen == "low_rank":
        rank = min(dim, RANK)
        root = LowRank(ones, to_jax(np.eye(dim, rank), dtype), to_jax(np.ones(rank), dtype))
    return Standardised(density.target, density.center, root, density.unravel, StandardNormal())


def standardise(
    density: Standardised,
    draws: Float[np.ndarray, "chain draws dim"],
    gradients: Float[np.ndarray, "chain draws dim"],
    mass: str = "auto",
) -> Standardised:
    """Return the coordinates in which these draws have unit scale.

    Args:
        density: the coordinates so far. The new root has the form of theirs, which `unscaled` makes; a coordinate of
            which the draws tell nothing keeps its scale.
        draws: flat positions of a segment.
        gradients: of the log density there; draws that are not finite, or at which they are not, are left out.
        mass: the structure of the estimate, one of `MASSES`; "auto" is a choice between the diagonal and, up to 256
            dimensions, dense ones, above them those of low rank.

    Cost: on the host, in double precision, O(draws dim^2 + dim^3), where at most 512 directions are looked at; see
        `covariance.choose`.
    """
    draws, gradients = np.asarray(draws, float), np.asarray(gradients, float)
    known = np.isfinite(gradients).all(-1) & np.isfinite(draws).all(-1)
    if not known.any():
        return density
    center = draws[known].mean(0)
    scale = scale_of_coordinates(*(np.where(known[..., None], part, np.nan) for part in (draws, gradients)))
    scale = np.where(np.isfinite(scale), scale, scale_of(density))
    known[known] = typical((gradients * scale)[known])
    rows, pulls = ((draws - center) / scale)[known], (gradients * scale)[known]
    rank = density.root.stretch.size if isinstance(density.root, LowRank) else 0
    if mass == "diagonal" or len(rows) < 2:
        return _with_root(density, center, scale)
    basis = _leading(rows, pulls) if rank else np.eye(draws.shape[-1])
    is_first = np.broadcast_to(np.arange(draws.shape[1]) < draws.shape[1] // 2, known.shape)[known]

    def finish(matrix: np.ndarray) -> np.ndarray:
        if not rank:
            return matrix
        directions, stretch = _stretched(matrix, np.eye(len(matrix)), rank)
        return np.eye(len(matrix)) + directions * (stretch**2 - 1) @ directions.T

    names = tuple(ESTIMATES) if mass == "auto" else tuple(ESTIMATES)[1:]
    worth = worth_of_draws(np.where(known[..., None], draws, center))
    _, matrix = choose(rows @ basis, pulls @ basis, is_first, worth, names, finish)
    return _with_root(density, center, scale, matrix, basis)


def scale_of(density: Standardised) -> Float[np.ndarray, " dim"]:
    """Return the scale of every coordinate: the standard deviation that it has where the coordinates fit."""
    if isinstance(density.root, LowRank):
        return density.root.deviations()
    matrix = np.asarray(density.root, float)
    return np.abs(matrix) if matrix.ndim == 1 else np.linalg.norm(matrix, axis=1)


def _with_root(
    density: Standardised,
    center: np.ndarray,
    scale: Float[np.ndarray, " dim"],
    matrix: Float[np.ndarray, "directions directions"] | None = None,
    basis: Float[np.ndarray, "dim directions"] | None = None,
) -> Standardised:
    """Return coordinates of this center, scale, and covariance along a basis; the root has the form of `density`'s."""
    dim, dtype = len(scale), density.center.dtype
    root: Any = scale
    if isinstance(density.root, LowRank):
        rank = density.root.stretch.size
        parts = (np.eye(dim, rank), np.ones(rank))
        if matrix is not None and basis is not None:
            parts = _stretched(matrix, basis, rank)
        root = LowRank(*(to_jax(part, dtype) for part in (scale, *parts)))
    elif density.root.ndim == 2:
        root = np.diag(scale) if matrix is None else scale[:, None] * np.linalg.cholesky(matrix)
    root = root if isinstance(root, LowRank) else to_jax(root, dtype)
    return Standardised(density.target, to_jax(center, dtype), root, density.unravel, StandardNormal())


def with_covariance(density: Standardised, center: Float[Array, " dim"], covariance: np.ndarray) -> Standardised:
    """Return coordinates in which a normal distribution is standard; the root is like that of `density` in structure.

    Of a covariance that the structure cannot hold the diagonal and the directions farthest from it are kept.
    """
    scale = np.sqrt(np.diagonal(covariance))
    return _with_root(density, np.asarray(center), scale, covariance / np.outer(scale, scale), np.eye(len(scale)))


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


def _leading(rows: np.ndarray, pulls: np.ndarray) -> np.ndarray:
    """Return orthonormal columns that span what is looked at: everything, or the leading eigenvectors of both."""
    dim = rows.shape[1]
    if dim <= SUBSPACE:
        return np.eye(dim)
    leading = [np.linalg.svd(part, full_matrices=False)[2][: SUBSPACE // 2] for part in (rows, pulls)]
    return np.linalg.qr(np.concatenate(leading).T)[0]


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
