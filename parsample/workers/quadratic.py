"""What runs tell of the log density between them: the quadratic function that fits them best.

The coordinates that warm-up makes are those in which chains mix well, which may be diagonal ones; to foresee whether a
proposal will be accepted takes the correlations too.
"""

from collections.abc import Iterator

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

# What is added to the standard normal log density: tilt.z + z.bend z.
Tilt = Float[np.ndarray, " dim"]
Bend = Float[np.ndarray, "dim dim"]


class Seen:
    """Runs of a model, the last of them, and the quadratic function that fitted them when it was made."""

    def __init__(self) -> None:
        """Begin with none."""
        self.count, self.fitted_at = 0, 0
        self.rows: list[tuple[np.ndarray, float, np.ndarray]] = []
        # In the coordinates (center, root) in which it was made.
        self.fitted: tuple[np.ndarray, np.ndarray, Tilt, Bend] | None = None

    def add(self, vectors: np.ndarray, values: np.ndarray, gradients: np.ndarray) -> None:
        """Take runs that returned a log density."""
        for row in zip(vectors, values, gradients, strict=True):
            if np.isfinite(row[1]):
                self.rows.append(row)
                self.count += 1
        del self.rows[:-MOST]

    def fit(self, center: np.ndarray, root: np.ndarray, has_gradient: bool) -> tuple[Tilt, Bend] | None:
        """Return what is added to a standard normal log density to fit the runs; None where nothing is.

        It is made anew when there are half as many runs again as there were.

        Args:
            center: of coordinates z in which the posterior has about unit scale: a position is center + root z.
            root: shape (dim, dim).
            has_gradient: whether the gradients are known.
        """
        if self.count >= OFTEN * self.fitted_at and self.rows:
            self.fitted_at = self.count
            vectors, values, gradients = (np.stack(column) for column in zip(*self.rows, strict=True))
            points = np.linalg.solve(root, (vectors - center).T).T
            found = fit(points, values, gradients @ root if has_gradient else None)
            self.fitted = None if found is None else (center, root, *found)
        return None if self.fitted is None else moved(*self.fitted, center, root)


def moved(
    old_center: np.ndarray, old_root: np.ndarray, tilt: Tilt, bend: Bend, center: np.ndarray, root: np.ndarray
) -> tuple[Tilt, Bend]:
    """Return the same quadratic function in other coordinates, a constant aside.

    1. The old coordinates are M z + s, with M = old_root^-1 root and s = old_root^-1 (center - old_center).
    2. In them the function is t.y + y.P y, with P = bend - I / 2; put y in.
    """
    turn, shift = np.linalg.solve(old_root, root), np.linalg.solve(old_root, center - old_center)
    whole = bend - np.eye(len(tilt)) / 2
    return turn.T @ (tilt + 2 * whole @ shift), turn.T @ whole @ turn + np.eye(len(tilt)) / 2


def fit(
    points: np.ndarray, values: np.ndarray, gradients: np.ndarray | None, share: float | None = None
) -> tuple[Tilt, Bend] | None:
    """Return what is to be added to a standard normal log density to fit these runs.

    Args:
        points: where the model was run, in coordinates of about unit scale, shape (runs, dim); of those far out, which
            tell of other places, nothing is taken.
        values: the log densities.
        gradients: of them; None where there are none.
        share: of the variance of the values, that a fit has to explain; points far out are taken, too. None for
            no such share.

    Returns:
        None where nothing fits better than the standard normal distribution, or well enough.

    Cost: O(runs unknowns^2), on the host: dim unknowns with gradients, dim^2 / 2 without, or 2 dim where those would be
        too many.
    """
    dim = points.shape[1]
    near = (points**2).sum(1) <= (3 * dim + 20 if share is None else np.inf)
    points, values = points[near].astype(float), values[near].astype(float)
    if len(points) < 2 * HELD_OUT:
        return None
    if gradients is None:
        features, target = _features(points), (values + 0.5 * (points**2).sum(1))[:, None]
    else:
        features, target = np.c_[np.ones(len(points)), points], gradients[near] + points
    held = np.arange(len(points)) % HELD_OUT == 0
    best, least = None, _error(target[held], target[~held])
    if share is not None:
        least = min(least, (1 - share) * float(np.var(values[held])))
    for weights, found in _ridges(features[~held], target[~held]):
        error = float(np.mean((features[held] @ found - target[held]) ** 2))
        if error < least:
            best, least = weights, error
    if best is None:
        return None
    found = next(found for weights, found in _ridges(features, target) if weights == best)
    if gradients is not None:
        return found[0], (found[1:] + found[1:].T) / 4
    return found[1 : dim + 1, 0], _bend(found[dim + 1 :, 0], dim)


def _error(held: np.ndarray, others: np.ndarray) -> float:
    """Return the error of the standard normal distribution, a constant aside where values are fitted."""
    constant = others.mean(0) if others.shape[1] == 1 else 0.0
    return float(np.mean((held - constant) ** 2))


def _features(points: np.ndarray) -> np.ndarray:
    """Return 1, the coordinates, and their products, or squares where the products are too many."""
    dim = points.shape[1]
    one, other = np.triu_indices(dim) if dim * (dim + 3) / 2 < LARGEST else np.diag_indices(dim)
    return np.c_[np.ones(len(points)), points, points[:, one] * points[:, other]]


def _bend(found: np.ndarray, dim: int) -> Bend:
    if len(found) == dim:
        return np.diag(found)
    upper = np.zeros((dim, dim))
    upper[np.triu_indices(dim)] = found
    return (upper + upper.T) / 2


def _ridges(features: np.ndarray, target: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """Return the least squares for every weight of what is not free."""
    product, right = features.T @ features, features.T @ target
    holding = np.ones(len(product))
    holding[0] = 1e-9
    for weight in WEIGHTS:
        yield weight, np.linalg.solve(product + weight * np.diag(holding), right)
