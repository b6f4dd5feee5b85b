"""Estimates of a posterior's covariance from draws and the gradients there, and the choice between them.

Of a normal distribution of covariance C and mean m the gradient of the log density is g = -C^-1 (x - m). So the
covariance G of gradients is C^-1 X C^-1 whatever the covariance X of the draws is, and the matrix M with M G M = X is
C, exactly, wherever the draws lie, as soon as they span the space: it does not wait until the chains have mixed. M is
the matrix in whose coordinates the Fisher divergence to a standard normal distribution is least.

Where draws are few or the posterior is far from normal, an estimate of many numbers may be worse than one of few. So
several are made of one half of the draws and judged by the other half, and the simplest of the good ones is taken.

Source: Seyboldt, Carlson & Carpenter 2026, "Preconditioning Hamiltonian Monte Carlo by minimizing Fisher divergence"
(nutpie), for M and the scale of a coordinate; Chen, Wiesel, Eldar & Hero 2010, "Shrinkage algorithms for MMSE
covariance estimation", equation 23, for the shrinkage, as scikit-learn's `oas` has it. Ours: X and G are both shrunk,
each by its own intensity, and the number of draws that the rule is given is that of the effective ones (scikit-learn
takes that of its rows); and the choice.
"""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

# What is added to the eigenvalues of X and G where they are hardly shrunk: directions that the draws do not span are
# then left as they are.
LEAST = 1e-6
# A simpler estimate is taken unless a better one needs this much less of the leapfrog steps for an effective draw.
WORTH = 1.1
# The largest eigenvalue of larger matrices is found by iteration, to this precision: estimates are compared by a tenth.
FEW_DIMENSIONS, ROUGHLY = 64, 1e-4
# Each half of the draws has at least so many, or the simplest estimate is taken.
FEWEST = 8


class Moments(NamedTuple):
    """Covariances of draws and of gradients, in coordinates of about unit scale.

    Attributes:
        draws: X, shape (dim, dim).
        gradients: G, shape (dim, dim).
        effective: how many independent draws they are worth.
    """

    draws: Float[np.ndarray, "dim dim"]
    gradients: Float[np.ndarray, "dim dim"]
    effective: float


def moments(rows: Float[np.ndarray, "draws dim"], pulls: Float[np.ndarray, "draws dim"], worth: float) -> Moments:
    """Return the covariances of draws and gradients; each of them is worth that share of an independent one."""
    x, g = (part - part.mean(0) for part in (rows, pulls))
    return Moments(x.T @ x / (len(x) - 1), g.T @ g / (len(g) - 1), max(2.0, worth * len(rows)))


def shrunk(covariance: Float[np.ndarray, "dim dim"], effective: float) -> Float[np.ndarray, "dim dim"]:
    """Return a covariance shrunk towards a multiple of the identity, by oracle-approximating shrinkage."""
    dim = len(covariance)
    mean = np.trace(covariance) / dim
    size = np.mean(covariance**2)
    spread = (effective + 1) * (size - mean**2 / dim)
    share = 1.0 if spread <= 0 else min(1.0, (size + mean**2) / spread)
    return (1 - share) * covariance + share * mean * np.eye(dim)


def _of_both(found: Moments) -> np.ndarray:
    return geometric_mean(*(part + LEAST * np.eye(len(part)) for part in found[:2]))


def _of_both_shrunk(found: Moments) -> np.ndarray:
    return geometric_mean(*(shrunk(part, found.effective) + LEAST * np.eye(len(part)) for part in found[:2]))


def _of_draws_shrunk(found: Moments) -> np.ndarray:
    return shrunk(found.draws, found.effective) + LEAST * np.eye(len(found.draws))


# From the simplest: name -> estimate of the covariance. In the coordinates of the diagonal scale that is the identity.
ESTIMATES: dict[str, Callable[[Moments], Float[np.ndarray, "dim dim"]]] = {
    "diagonal": lambda found: np.eye(len(found.draws)),
    "draws and gradients, shrunk": _of_both_shrunk,
    "draws and gradients": _of_both,
    "draws, shrunk": _of_draws_shrunk,
}


def choose(
    rows: Float[np.ndarray, "draws dim"],
    pulls: Float[np.ndarray, "draws dim"],
    is_first: Bool[np.ndarray, " draws"],
    worth: float,
    names: tuple[str, ...],
    finish: Callable[[np.ndarray], np.ndarray] = lambda matrix: matrix,
) -> tuple[str, Float[np.ndarray, "dim dim"]]:
    """Return the name and the value of the estimate that holds best on draws that it was not made of.

    Args:
        rows: draws, in coordinates of about unit scale.
        pulls: gradients of the log density there, in the same coordinates.
        is_first: which of them are of the first half of the segment.
        worth: share of an independent draw that each is worth.
        names: of the estimates to choose from, in `ESTIMATES`.
        finish: what becomes of an estimate before it is used, such as a low rank.

    Cost: O(draws dim^2 + estimates dim^3).
    """
    whole = moments(rows, pulls, worth)
    if len(names) == 1 or min(is_first.sum(), (~is_first).sum()) < FEWEST:
        return _usable(names[0], finish(ESTIMATES[names[0]](whole)), whole)
    halves = [moments(rows[which], pulls[which], worth) for which in (is_first, ~is_first)]
    costs = {}
    for name in names:
        made = [finish(ESTIMATES[name](half)) for half in halves]
        costs[name] = cost(made[0], halves[1]) * cost(made[1], halves[0])
    best = min(costs.values())
    chosen = next(name for name in names if costs[name] <= WORTH**2 * best)
    return _usable(chosen, finish(ESTIMATES[chosen](whole)), whole)


def _usable(name: str, matrix: np.ndarray, whole: Moments) -> tuple[str, np.ndarray]:
    """Return an estimate with its name, or the diagonal where rounding left it without a root."""
    return (name, matrix) if np.isfinite(cost(matrix, whole)) else ("diagonal", np.eye(len(matrix)))


def cost(matrix: Float[np.ndarray, "dim dim"], found: Moments) -> float:
    """Return how many leapfrog steps an effective draw needs, up to a factor, in the coordinates of a covariance.

    The steepest direction says how small a step must be, the longest how far a trajectory must go. Infinite for a
    matrix that is not positive definite.
    """
    try:
        root = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return np.inf
    steepest, longest = _largest(root.T, found.gradients), _largest(np.linalg.inv(root), found.draws)
    return float(np.sqrt(max(steepest, LEAST) * max(longest, LEAST)))


def _largest(outer: Float[np.ndarray, "dim dim"], inner: Float[np.ndarray, "dim dim"]) -> float:
    """Return the largest eigenvalue of outer inner outer^T; where they are large, by products with vectors."""
    if len(inner) > FEW_DIMENSIONS:
        from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

        whole = LinearOperator(inner.shape, lambda row: outer @ (inner @ (outer.T @ row)), dtype=inner.dtype)
        start = np.random.default_rng(0).normal(size=len(inner))
        with contextlib.suppress(ArpackError):  # a matrix of zeros is none of its
            return float(eigsh(whole, 1, which="LA", v0=start, tol=ROUGHLY, return_eigenvectors=False)[0])
    return float(np.linalg.eigvalsh(outer @ inner @ outer.T)[-1])


def geometric_mean(
    of_draws: Float[np.ndarray, "dim dim"], of_gradients: Float[np.ndarray, "dim dim"]
) -> Float[np.ndarray, "dim dim"]:
    """Return the positive definite M with M G M = X."""
    root = _root(of_gradients)
    # M = R^-T (R^T X R)^(1/2) R^-1 of any root R R^T = G.
    values, vectors = _positive_eigen(root.T @ of_draws @ root)
    half = np.linalg.solve(root.T, vectors * values**0.25)
    return half @ half.T


def _root(matrix: Float[np.ndarray, "dim dim"]) -> np.ndarray:
    """Return a root, Cholesky's where rounding left one, which is at hand soonest."""
    try:
        return np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        values, vectors = _positive_eigen(matrix)
        return vectors * np.sqrt(values)


def _positive_eigen(matrix: Float[np.ndarray, "dim dim"]) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    # Below this share of the largest they are rounding.
    return np.maximum(values, 1e-14 * values[-1]), vectors


def scale_of_coordinates(
    draws: Float[np.ndarray, "chain draws dim"], gradients: Float[np.ndarray, "chain draws dim"]
) -> Float[np.ndarray, " dim"]:
    """Return the scale of every coordinate for which draws and gradients vary alike: sqrt(sd(x) / sd(g)).

    Each chain tells it from its own draws, and the median of what they tell is taken: so it does not matter how far
    apart the chains still are, nor what one says that is in a place of another scale. What is NaN is left out; NaN
    where none tells anything.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        spread, slope = (_deviations(part) for part in (draws, gradients))
        # A chain that stands still has the spread of rounding.
        moves = spread > 1e-6 * np.fmax.reduce(np.abs(draws), 1)
        logs = np.where(moves & (slope > 0) & np.isfinite(slope), np.log(spread) - np.log(slope), np.nan) / 2
        return np.exp(_medians(logs))


def _deviations(rows: Float[np.ndarray, "chain draws dim"]) -> Float[np.ndarray, "chain dim"]:
    """Return the standard deviations of each chain's draws. As `np.nanstd`, which takes longer for so few."""
    known = ~np.isnan(rows)
    count = known.sum(1)
    means = np.where(known, rows, 0).sum(1) / count
    return np.sqrt((np.where(known, rows - means[:, None], 0) ** 2).sum(1) / count)


def _medians(rows: Float[np.ndarray, "chain dim"]) -> Float[np.ndarray, " dim"]:
    """Return the medians over chains of what is not NaN; NaN where nothing is."""
    ordered, count = np.sort(rows, 0), (~np.isnan(rows)).sum(0)
    middle = np.stack([np.maximum(count - 1, 0) // 2, count // 2 * (count > 0)])
    return np.take_along_axis(ordered, middle, 0).mean(0)


def typical(pulls: Float[np.ndarray, "draws dim"]) -> Bool[np.ndarray, " draws"]:
    """Say which gradients are no larger than ten times what is usual: chains on their way in have others."""
    size = (pulls**2).sum(-1)
    return size <= 100 * np.median(size)


def worth_of_draws(draws: Float[np.ndarray, "chain draws dim"]) -> float:
    """Return the share of an independent draw that each is worth, in a median coordinate.

    As in a first-order autoregression, whose correlation is that of successive draws.
    """
    centred = draws - draws.mean(1, keepdims=True)
    square = (centred**2).sum((0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        each = (centred[:, 1:] * centred[:, :-1]).sum((0, 1)) / square
    correlation = float(np.nanmedian(np.where(square > 0, each, np.nan))) if np.any(square > 0) else 1.0
    return min(1.0, max((1 - correlation) / (1 + correlation), 1 / draws.shape[1]))
