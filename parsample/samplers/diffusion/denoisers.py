"""Surrogates of a model, where none may be called: the clean sample from a noisy one, by a formula."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from parsample.engine.options import whole

# Directions that `fit` keeps at most unless told otherwise.
RANK = 64
# The least variance of a direction, as a share of the mean variance: a constant pixel has none.
LEAST = 1e-6


class Denoiser(eqx.Module):
    """A surrogate of a model: it gives the clean sample from signal and noise."""

    @abc.abstractmethod
    def __call__(self, x: Array, alpha: Array, sigma: Array) -> Array:
        """Return the clean sample for x = alpha x0 + sigma noise."""


class HeldDenoiser(Denoiser):
    """The same clean sample whatever x is: the last answer of a model, held."""

    x0: Array

    def __call__(self, x: Array, alpha: Array, sigma: Array) -> Array:
        """Return the clean sample."""
        return self.x0


class GaussianDenoiser(Denoiser):
    """The exact mean of x0 given x for normal data of mean 0, the same in all directions.

    Args:
        sigma_data: standard deviation of the data, in its units.
    """

    sigma_data: float = eqx.field(static=True)

    def __call__(self, x: Array, alpha: Array, sigma: Array) -> Array:
        """Return alpha s^2 / (alpha^2 s^2 + sigma^2) x."""
        return _gain(self.sigma_data**2, alpha, sigma) * x


class NormalDenoiser(Denoiser):
    """The exact mean of x0 given x for normal data with a mean and principal directions of their own variances.

    While noise is large a trained model does much the same, so that it makes a good guess of a trajectory.

    Args:
        mean: of the data, of a sample's shape, in its units.
        vectors: principal directions of the flat data, orthonormal columns, shape (dim, rank).
        variances: of the data along them, above 0, shape (rank,), in squared units.
        rest: variance in every other direction, above 0.

    Raises:
        ValueError: shapes that do not fit, or variances that are not above 0.

    Cost: O(dim rank) a call.

    Source: Wang & Vastola 2024, "The unreasonable effectiveness of Gaussian score approximation for diffusion models";
        the one variance for all the rest is that of probabilistic principal components (Tipping & Bishop 1999).
    """

    mean: Float[Array, " dim"]
    vectors: Float[Array, "dim rank"]
    variances: Float[Array, " rank"]
    rest: float = eqx.field(static=True)

    def __init__(self, mean: Any, vectors: Any, variances: Any, rest: Any):
        """Check the arguments."""
        self.mean, self.vectors, self.variances = jnp.ravel(mean), jnp.asarray(vectors), jnp.asarray(variances)
        dim, rank = self.mean.size, self.variances.size
        if self.vectors.shape != (dim, rank) or self.variances.ndim != 1:
            raise ValueError(
                f"vectors has shape {self.vectors.shape} and variances {self.variances.shape}, expected ({dim}, rank) "
                f"and (rank,), because mean holds {dim} numbers."
            )
        smallest = min(float(rest), float(self.variances.min(initial=jnp.inf)))
        if not 0 < smallest < float("inf"):
            raise ValueError(f"variances and rest go down to {smallest:.3g}, expected finite numbers above 0.")
        self.rest = float(rest)

    @classmethod
    def fit(cls, data: Any, rank: int | None = None) -> "NormalDenoiser":
        """Return the one with the mean and the covariance of data.

        Args:
            data: samples along the leading axis, in the units that the model was trained in.
            rank: principal directions to keep; the others get the mean of their variances. None for as many as the
                data have, at most 64.

        Raises:
            ValueError: fewer than two samples, numbers that are not finite, all samples alike, or more directions than
                the data have.

        Cost: O(samples dim min(samples, dim)), in double precision.
        """
        try:
            data = np.asarray(data, np.float64)
        except (TypeError, ValueError):
            raise ValueError(
                f"data is a {type(data).__name__} that holds more than numbers, expected an array of samples."
            ) from None
        if data.ndim < 2 or len(data) < 2 or data[0].size == 0:
            raise ValueError(f"data has shape {data.shape}, expected at least two samples along the leading axis.")
        rows = data.reshape(len(data), -1)
        if not np.isfinite(rows).all():
            bad = int(np.argmin(np.isfinite(rows).all(1)))
            raise ValueError(f"data holds a number that is not finite in sample {bad}; leave it out.")
        count, dim = rows.shape
        most = min(count - 1, dim)
        rank = min(RANK, most) if rank is None else whole("rank", rank, "it is how many directions are kept")
        if rank > most:
            raise ValueError(f"rank is {rank}, expected at most {most}: {count} samples of {dim} numbers have no more.")
        mean = rows.mean(0)
        _, sizes, directions = np.linalg.svd((rows - mean) / np.sqrt(count - 1), full_matrices=False)
        total = float(np.sum(sizes**2))
        if total == 0:
            raise ValueError("data holds the same sample throughout, expected samples that differ.")
        sizes = np.maximum(sizes[:most] ** 2, LEAST * total / dim)
        dtype = jnp.result_type(float)
        kept = [jnp.asarray(value, dtype) for value in (mean, directions[:most].T, sizes)]
        return cls(kept[0], kept[1], kept[2], LEAST * total / dim).keep(rank)

    def keep(self, rank: int) -> "NormalDenoiser":
        """Return the one with only so many directions, the first; the others get the mean of their variances.

        Raises:
            ValueError: there are fewer directions.
        """
        dim, known = self.vectors.shape
        if not 1 <= whole("rank", rank, "it is how many directions are kept") <= known:
            raise ValueError(f"rank is {rank}, expected at most {known}, the directions that are known.")
        left = float(self.variances[rank:].sum()) + (dim - known) * self.rest
        rest = left / (dim - rank) if rank < dim else self.rest
        return NormalDenoiser(self.mean, self.vectors[:, :rank], self.variances[:rank], rest)

    def __call__(self, x: Array, alpha: Array, sigma: Array) -> Array:
        """Return mean + gain (x - alpha mean), with a gain of its own in every direction."""
        if x.size != self.mean.size:
            raise ValueError(
                f"surrogate was made for samples of {self.mean.size} numbers, but they have shape {x.shape}; fit it to "
                "data of that shape."
            )
        mean, vectors, variances = (value.astype(x.dtype) for value in (self.mean, self.vectors, self.variances))
        away = x.reshape(-1) - alpha * mean
        rest = _gain(self.rest, alpha, sigma)
        found = mean + rest * away + vectors @ ((_gain(variances, alpha, sigma) - rest) * (vectors.T @ away))
        return found.reshape(x.shape)


def _gain(variance: Any, alpha: Array, sigma: Array) -> Array:
    # The quotient alpha / (alpha^2 + ...) has no 0 / 0 for a clean sample, where sigma is 0 and alpha is not.
    return alpha * variance / (alpha**2 * variance + sigma**2)
