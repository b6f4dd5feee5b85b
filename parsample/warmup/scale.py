"""The scale of a posterior, estimated from draws and gradients: the root that standardised coordinates are made with.

Three structures: "diagonal"; "dense"; and "low_rank", a diagonal and the directions along which the posterior is far
from it. By default the draws say whether more than the diagonal is worth it.
"""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float

from parsample.engine.arrays import to_jax
from parsample.engine.names import unknown
from parsample.warmup.coordinates import LARGEST_DENSE, Standardised, StandardNormal
from parsample.warmup.covariance import ESTIMATES, choose, scale_of_coordinates, typical, worth_of_draws
from parsample.warmup.low_rank import LowRank

MASSES = ("auto", "diagonal", "low_rank", "dense")
# Directions whose variance is within this factor of what the diagonal says are left to the diagonal (nutpie's number).
CUTOFF = 2.0
# How many directions a root has room for: programs are compiled for these numbers, and a step costs as many products.
ROOMS = (16, 64, 256)
# In more dimensions than `LARGEST_DENSE` draws are first asked for so many directions; so many are few; and where they
# are not, this is the most that are looked at.
GLANCE, FEW, SUBSPACE = 16, 8, 512


def check_mass(mass: Any) -> None:
    """Raise ValueError unless `mass` is the name of a structure."""
    if mass not in MASSES:
        raise unknown("mass", str(mass), MASSES)


def unscaled(density: Standardised, mass: str) -> Standardised:
    """Return coordinates with root 1, dense if that is the structure that warm-up will estimate, else a diagonal.

    They have a surrogate although nothing is known of the scale: so a program that is compiled for them serves those
    that follow, until there are directions to stretch.
    """
    dim, dtype = density.center.size, density.center.dtype
    root = to_jax((np.eye if _structure(mass, dim) == "dense" else np.ones)(dim), dtype)
    return Standardised(density.target, density.center, root, density.unravel, StandardNormal())


def standardise(
    density: Standardised,
    draws: Float[np.ndarray, "chain draws dim"],
    gradients: Float[np.ndarray, "chain draws dim"],
    mass: str = "auto",
) -> Standardised:
    """Return the coordinates in which these draws have unit scale.

    Args:
        density: the coordinates so far. The new root is dense where theirs is, as `unscaled` makes it; a coordinate of
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
    structure = "dense" if _is_dense(density) else _structure(mass, len(scale))
    if "diagonal" in (mass, structure) or len(rows) < 2:
        return _with_root(density, center, scale)
    is_dense = structure == "dense"
    is_first = np.broadcast_to(np.arange(draws.shape[1]) < draws.shape[1] // 2, known.shape)[known]
    basis = _looked_at(rows, pulls, is_first)
    if not basis.size:
        return _with_root(density, center, scale)

    def finish(matrix: np.ndarray) -> np.ndarray:
        if is_dense or not np.any(matrix - np.diag(np.diagonal(matrix))):
            return matrix
        directions, stretch = _stretched(matrix, np.eye(len(matrix)))
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
    """Return coordinates of this center and scale, and this covariance along a basis; dense where `density`'s are."""
    dtype = density.center.dtype
    parts: tuple[np.ndarray, ...] = (scale,)
    if _is_dense(density):
        parts = (np.diag(scale) if matrix is None else scale[:, None] * np.linalg.cholesky(matrix),)
    elif matrix is not None and basis is not None:
        directions, stretch = _stretched(matrix, basis)
        parts = (scale, directions, stretch) if stretch.size else parts
    arrays = [to_jax(part, dtype) for part in parts]
    root: Any = arrays[0] if len(arrays) == 1 else LowRank(*arrays)
    return Standardised(density.target, to_jax(center, dtype), root, density.unravel, StandardNormal())


def with_covariance(
    density: Standardised, center: Float[Array, " dim"], covariance: np.ndarray, mass: str
) -> Standardised:
    """Return coordinates in which a normal distribution is standard, with a root of this structure.

    Of a covariance that the structure cannot hold the diagonal and the directions farthest from it are kept.
    """
    scale, density = np.sqrt(np.diagonal(covariance)), unscaled(density, mass)
    if _structure(mass, len(scale)) == "diagonal":
        return _with_root(density, np.asarray(center), scale)
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


def _is_dense(density: Standardised) -> bool:
    return not isinstance(density.root, LowRank) and density.root.ndim == 2


def _looked_at(
    rows: Float[np.ndarray, "draws dim"], pulls: Float[np.ndarray, "draws dim"], is_first: Bool[np.ndarray, " draws"]
) -> Float[np.ndarray, "dim directions"]:
    """Return orthonormal columns that span what an estimate is made of.

    Up to `LARGEST_DENSE` dimensions that is everything. In more, one half of draws or gradients shows directions, and
    those count along which the other half varies far more than along a coordinate: of thousands of coordinates and
    fewer draws most of what a half shows is chance. Where there is none, the diagonal says all. Where they are few they
    are what is looked at, unless draws span the space, of which a normal distribution is found exactly. Else the
    leading directions of all draws and gradients are.
    """
    dim = rows.shape[1]
    found = [np.empty((dim, 0))]
    for part in (rows, pulls) if dim > LARGEST_DENSE else ():
        halves = [half - half.mean(0) for half in (part[is_first], part[~is_first]) if len(half) > 1]
        for one, other in (halves, halves[::-1]) if len(halves) == 2 else ():
            directions = _longest(one, GLANCE)
            _, size, turned = np.linalg.svd(other @ directions, full_matrices=False)
            found.append(directions @ turned[size**2 > CUTOFF * len(other) * np.mean(other**2)].T)
    most = max(part.shape[1] for part in found)
    if dim > LARGEST_DENSE and (most == 0 or (most <= FEW and len(rows) < dim)):
        return np.linalg.qr(np.concatenate(found, 1))[0]
    if dim <= SUBSPACE:
        return np.eye(dim)
    return np.linalg.qr(np.concatenate([_longest(part, SUBSPACE // 2) for part in (rows, pulls)], 1))[0]


def _longest(rows: Float[np.ndarray, "draws dim"], count: int) -> Float[np.ndarray, "dim directions"]:
    """Return orthonormal columns, the directions along which rows vary most: by products, cheaper than an SVD."""
    from scipy.linalg import eigh

    inner = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    size, vectors = eigh(inner, subset_by_index=(max(0, len(inner) - count), len(inner) - 1))
    is_known = size > 1e-9 * size[-1]
    size, vectors = size[is_known], vectors[:, is_known]
    return rows.T @ vectors / np.sqrt(size) if len(rows) < rows.shape[1] else vectors


def _stretched(matrix: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvectors of a matrix that are to be stretched, and by how much; none where it is near to 1.

    Room that is left is columns of zeros, so that few programs serve all roots of a run.
    """
    values, vectors = np.linalg.eigh(matrix)
    far = np.argsort(-np.abs(np.log(values)))[: ROOMS[-1]]
    far = far[np.abs(np.log(values[far])) > np.log(CUTOFF)]
    room = next(room for room in ROOMS if room >= len(far)) if far.size else 0
    missing = min(room, len(basis)) - len(far)
    directions = np.pad(basis @ vectors[:, far], ((0, 0), (0, missing)))
    return directions, np.pad(np.sqrt(values[far]), (0, missing), constant_values=1)
