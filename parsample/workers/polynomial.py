"""What runs tell of the log density between them: the polynomial that fits them best.

The coordinates that warm-up makes are those in which chains mix well, which may be diagonal ones; to foresee whether a
proposal will be accepted takes the correlations too. Where the model has a gradient every run tells as many numbers as
there are dimensions, which is enough for the third order: how the curvature changes from place to place.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# The most runs that are looked at, the latest; and of these the share that the others are judged by.
MOST, HELD_OUT = 3000, 5
# Unknowns of a fit, at most, which takes O(unknowns^2 runs) operations.
LARGEST = 2000
# A fit is made anew when there are so many times as many runs as for the last.
OFTEN = 1.5
# Weights of the standard normal distribution, which a fit goes back to where runs say nothing.
WEIGHTS = (1e-3, 1e-2, 1e-1, 1.0)
# A further one for fits to gradients, which have many unknowns.
HEAVIER = 10.0


class Polynomial(NamedTuple):
    """What is added to the standard normal log density: tilt.z + z.bend z + twist[z, z, z].

    Attributes:
        tilt: of the first order.
        bend: of the second, symmetric.
        twist: of the third, symmetric; None where there is none.
    """

    tilt: Float[np.ndarray, " dim"]
    bend: Float[np.ndarray, "dim dim"]
    twist: Float[np.ndarray, "dim dim dim"] | None

    def moved(self, old: "Coordinates", new: "Coordinates") -> "Polynomial":
        """Return the same function, with the normal part in it, in other coordinates, a constant aside.

        1. The old coordinates are M z + s, with M = old_root^-1 root and s = old_root^-1 (center - old_center).
        2. In them the function is t.y + y.P y + C[y, y, y], with P = bend - I / 2; put y in.
        """
        turn, shift = np.linalg.solve(old.root, new.root), np.linalg.solve(old.root, new.center - old.center)
        whole, half = self.bend - np.eye(len(self.tilt)) / 2, np.eye(len(self.tilt)) / 2
        if self.twist is None:
            return Polynomial(turn.T @ (self.tilt + 2 * whole @ shift), turn.T @ whole @ turn + half, None)
        along = self.twist @ shift
        tilt = turn.T @ (self.tilt + 2 * whole @ shift + 3 * along @ shift)
        twist = np.einsum("abc,ai,bj,ck->ijk", self.twist, turn, turn, turn, optimize=True)
        return Polynomial(tilt, turn.T @ (whole + 3 * along) @ turn + half, twist)


class Coordinates(NamedTuple):
    """Coordinates z in which the posterior has about unit scale: a position is center + root z."""

    center: Float[np.ndarray, " dim"]
    root: Float[np.ndarray, "dim dim"]


class Seen:
    """Runs of a model, the last of them, and the polynomial that fitted them when it was made."""

    def __init__(self) -> None:
        """Begin with none."""
        self.count, self.fitted_at = 0, 0
        self.rows: list[tuple[np.ndarray, float, np.ndarray]] = []
        self.fitted: tuple[Coordinates, Polynomial] | None = None

    def add(self, vectors: np.ndarray, values: np.ndarray, gradients: np.ndarray) -> None:
        """Take runs that returned a log density."""
        for row in zip(vectors, values, gradients, strict=True):
            if np.isfinite(row[1]):
                self.rows.append(row)
                self.count += 1
        del self.rows[:-MOST]

    def fit(self, coordinates: Coordinates, has_gradient: bool) -> Polynomial | None:
        """Return what is added to a standard normal log density to fit the runs; None where nothing is.

        It is made anew when there are half as many runs again as there were.

        Args:
            coordinates: those of what is returned.
            has_gradient: whether the gradients are known.
        """
        if self.count >= OFTEN * self.fitted_at and self.rows:
            self.fitted_at = self.count
            vectors, values, gradients = (np.stack(column) for column in zip(*self.rows, strict=True))
            points = np.linalg.solve(coordinates.root, (vectors - coordinates.center).T).T
            found = fit(points, values, gradients @ coordinates.root if has_gradient else None)
            self.fitted = None if found is None else (coordinates, found)
        return None if self.fitted is None else self.fitted[1].moved(self.fitted[0], coordinates)


def nothing(dim: int, has_gradient: bool) -> Polynomial:
    """Return the polynomial of zeros, of the order that a fit has."""
    twist = np.zeros((dim, dim, dim)) if has_gradient and _has_products(dim) else None
    return Polynomial(np.zeros(dim), np.zeros((dim, dim)), twist)


def fit(
    points: np.ndarray, values: np.ndarray, gradients: np.ndarray | None, share: float | None = None
) -> Polynomial | None:
    """Return what is to be added to a standard normal log density to fit these runs.

    Of the third order with gradients, where that foresees runs which were held out better than the second; of the
    second without.

    Args:
        points: where the model was run, in coordinates of about unit scale, shape (runs, dim); of those far out, which
            tell of other places, nothing is taken.
        values: the log densities.
        gradients: of them; None where there are none.
        share: of the variance of the values, that a fit has to explain; points far out are taken, too. None for
            no such share.

    Returns:
        None where nothing fits better than the standard normal distribution, or well enough.

    Cost: O(runs unknowns^2), on the host, with 1 + dim + dim (dim + 1) / 2 unknowns, or 1 + 2 dim without gradients and
        1 + dim with them where those would be too many.
    """
    near = (points**2).sum(1) <= (reach(points.shape[1]) if share is None else np.inf)
    points, values = points[near].astype(float), values[near].astype(float)
    if len(points) < 2 * HELD_OUT:
        return None
    features = _features(points, gradients is not None)
    if gradients is None:
        target, sizes = (values + 0.5 * (points**2).sum(1))[:, None], [features.shape[1]]
    else:
        target, sizes = gradients[near] + points, sorted({1 + points.shape[1], features.shape[1]})
    held = np.arange(len(points)) % HELD_OUT == 0
    best, least = None, _error(target[held], target[~held])
    if share is not None:
        least = min(least, (1 - share) * float(np.var(values[held])))
    for size in sizes:
        for weight, found in _ridges(features[~held, :size], target[~held]):
            error = float(np.mean((features[held, :size] @ found - target[held]) ** 2))
            if error < least:
                best, least = (size, weight), error
    if best is None:
        return None
    found = next(found for weight, found in _ridges(features[:, : best[0]], target) if weight == best[1])
    return _of_gradients(found) if gradients is not None else _of_values(found[:, 0], points.shape[1])


def reach(dim: int) -> float:
    """Return the squared distance within which runs tell of each other: nearly all of a normal distribution."""
    return 3.0 * dim + 20


def _has_products(dim: int) -> bool:
    return dim * (dim + 3) / 2 < LARGEST


def _error(held: np.ndarray, others: np.ndarray) -> float:
    """Return the error of the standard normal distribution, a constant aside where values are fitted."""
    constant = others.mean(0) if others.shape[1] == 1 else 0.0
    return float(np.mean((held - constant) ** 2))


def _features(points: np.ndarray, has_gradient: bool) -> np.ndarray:
    """Return 1, the coordinates, and their products; where the products are too many squares, or nothing."""
    dim = points.shape[1]
    parts = [np.ones((len(points), 1)), points]
    if _has_products(dim):
        one, other = np.triu_indices(dim)
        parts.append(points[:, one] * points[:, other])
    elif not has_gradient:
        parts.append(points**2)
    return np.concatenate(parts, 1)


def _of_values(found: np.ndarray, dim: int) -> Polynomial:
    """Return the function of which these are the coefficients."""
    products = found[dim + 1 :]
    bend = np.diag(products) if len(products) == dim else _symmetric(products, dim)
    return Polynomial(found[1 : dim + 1], bend, None)


def _of_gradients(found: np.ndarray) -> Polynomial:
    """Return the function of whose gradients, one a column, these are the coefficients.

    The gradient of tilt.z + z.bend z + twist[z, z, z] is tilt + 2 bend z + 3 twist[z, z]. That the coefficients of one
    column agree with those of another, as derivatives do, was not asked of the fit: the mean of both is taken.
    """
    dim = found.shape[1]
    bend, twist = found[1 : dim + 1], nothing(dim, has_gradient=True).twist
    if len(found) > dim + 1:
        columns = np.stack([_symmetric(column, dim) for column in found[dim + 1 :].T])
        twist = (columns + columns.transpose(1, 0, 2) + columns.transpose(2, 1, 0)) / 9
    return Polynomial(found[0], (bend + bend.T) / 4, twist)


def _symmetric(products: np.ndarray, dim: int) -> np.ndarray:
    """Return the symmetric matrix A of which z.A z has these coefficients of the products of coordinates."""
    upper = np.zeros((dim, dim))
    upper[np.triu_indices(dim)] = products
    return (upper + upper.T) / 2


def _ridges(features: np.ndarray, target: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """Return the least squares for every weight of what is not free."""
    product, right = features.T @ features, features.T @ target
    holding = np.ones(len(product))
    holding[0] = 1e-9
    for weight in WEIGHTS + (HEAVIER,) * (target.shape[1] > 1):
        yield weight, np.linalg.solve(product + weight * np.diag(holding), right)
