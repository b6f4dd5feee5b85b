"""What log densities tell of the scale of a posterior whose model has no gradient.

A random walk covers its posterior slowly: the covariance of a segment's draws is that of the few places where chains
were. But every run tells a log density, whatever became of the proposal; the quadratic function that fits them is that
of the whole posterior, if that is about normal. Its gradients then take the place of the model's.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from parsample.warmup.covariance import LEAST, shrunk, worth_of_draws
from parsample.workers.polynomial import MOST, fit

# The share of the variance of log densities that a quadratic function explains, or it is not taken: the posterior is
# not normal enough.
SHARE = 0.5


class Levels(NamedTuple):
    """Places where the model was run, and the log density there."""

    vectors: Float[np.ndarray, "place dim"]
    values: Float[np.ndarray, " place"]

    def gradients(self, draws: Float[np.ndarray, "chain draws dim"], typical: float) -> Float[np.ndarray, "..."]:
        """Return gradients at draws, shape (chain, draws, dim), by the normal distribution that fits these runs best.

        Where none fits well it is that of the draws: their covariance within chains, which need not have met yet,
        shrunk as befits so many draws.

        Args:
            draws: flat positions of a segment.
            typical: log density of where chains are: what is far below is not looked at.

        Cost: O(runs unknowns^2), as `polynomial.fit`.
        """
        inside = draws - draws.mean(1, keepdims=True)
        scale = inside.std((0, 1))
        # A coordinate that never moved tells nothing.
        known = scale > 1e-6 * np.abs(draws).max((0, 1))
        gradients = np.zeros(draws.shape)
        if not known.any():
            return gradients
        rows = (inside[..., known] / scale[known]).reshape(-1, known.sum())
        effective = max(2.0, worth_of_draws(draws) * len(rows))
        root = np.linalg.cholesky(shrunk(rows.T @ rows / len(rows), effective) + LEAST * np.eye(known.sum()))
        center = draws.mean((0, 1))

        def white(vectors: np.ndarray) -> np.ndarray:
            return np.linalg.solve(root, ((vectors - center)[..., known] / scale[known]).T).T

        found = None
        if known.all():
            vectors, values = self._near(typical)
            found = fit(white(vectors), values, None, SHARE) if len(values) else None
        if found is None:
            pulls = -np.linalg.solve(root, rows.T).T
        else:
            points = white(draws.reshape(-1, draws.shape[-1]))
            pulls = found.tilt + 2 * points @ found.bend - points
        gradients[..., known] = (np.linalg.solve(root.T, pulls.T).T / scale[known]).reshape(*draws.shape[:2], -1)
        return gradients

    def _near(self, typical: float) -> tuple[np.ndarray, np.ndarray]:
        """Return places such as a normal distribution has its draws in, each once, in one order, some of very many."""
        _, first = np.unique(self.vectors, axis=0, return_index=True)
        vectors, values = self.vectors[first], self.values[first]
        # Log densities of a normal distribution lie dim / 2 below the highest, give or take sqrt(dim / 2).
        half = vectors.shape[1] / 2
        near = np.flatnonzero(np.isfinite(values) & (values >= typical - half - 3 * np.sqrt(half)))
        some = near[np.argsort(values[near], kind="stable")][:: -(-len(near) // MOST) or 1]
        return vectors[some].astype(float), values[some].astype(float)


def joined(parts: list[Levels]) -> Levels:
    """Return all of these."""
    return Levels(*(np.concatenate(column) for column in zip(*parts, strict=True)))
