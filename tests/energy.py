"""The energy distance of two sets of draws, in any number of dimensions."""

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

SHUFFLES = 200


class Energy(NamedTuple):
    """An energy distance, and how large it is where both sets have one law: mean and deviation over shuffles."""

    distance: float
    usual: float
    deviation: float


def energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| without bias: 0 on average for one law, so that it may be negative."""
    return float(2 * cdist(x, y).mean() - _within(x).mean() - _within(y).mean())


def energy_test(x: np.ndarray, y: np.ndarray) -> Energy:
    """Compare two sets of draws with the same draws shuffled between them."""
    rng, both = np.random.default_rng(0), np.concatenate([x, y])
    apart, first = cdist(both, both), len(x)

    def distance(order: np.ndarray) -> float:
        one, two = order[:first], order[first:]
        means = [apart[np.ix_(one, two)].mean()]
        means += [apart[np.ix_(rows, rows)].sum() / (len(rows) * (len(rows) - 1)) for rows in (one, two)]
        return float(2 * means[0] - means[1] - means[2])

    shuffled = [distance(rng.permutation(len(both))) for _ in range(SHUFFLES)]
    return Energy(energy_distance(x, y), float(np.mean(shuffled)), float(np.std(shuffled)))


def energy_shift(x: np.ndarray, y: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Return how much farther x is from the truth than y, where x[i] and y[i] are a pair, and the standard error."""
    shares = [2 * (cdist(rows, truth).mean(1) - _within(rows)) for rows in (x, y)]
    shift = energy_distance(x, truth) - energy_distance(y, truth)
    return shift, float((shares[0] - shares[1]).std() / np.sqrt(len(x)))


def _within(x: np.ndarray) -> np.ndarray:
    """The mean distance of each row to the others."""
    return np.asarray(cdist(x, x).sum(1) / (len(x) - 1))
