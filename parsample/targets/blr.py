"""Bayesian linear regression."""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from parsample.targets import checks, json_data
from parsample.targets.base import Position
from parsample.targets.densities import normal_logpdf, positive_normal_of_log
from parsample.targets.linear_likelihood import AbstractLinearRegression, LinearLikelihood

POSTERIOR = "sblrc-blr"


class BLR(AbstractLinearRegression):
    """Bayesian linear regression with normal priors, posteriordb's sblrc-blr; needs its file as `data`.

    y ~ N(X beta, sigma^2), beta_j ~ N(0, 10^2), sigma ~ HalfNormal(10), without an intercept. Unconstrained are beta
    and log_sigma; in the trace are `beta` and `sigma`. The log density is the normalised joint one of parameters and
    data.

    Attributes:
        likelihood: of the observations.

    Source: posteriordb's sblrc-blr.
    """

    name: ClassVar[str] = "blr"
    likelihood: LinearLikelihood

    def __init__(self, data: Any = None) -> None:
        """Read the data.

        Args:
            data: a mapping or the path of a JSON file, with X, one row an observation, and y, and perhaps N and D.

        Raises:
            ValueError: no data are given, they cannot be read, an entry is missing or not finite, or sizes differ.
        """
        entries = json_data.read(data, POSTERIOR, "X", "y")
        design, observed = json_data.real(entries, "X", "rows", "features"), json_data.real(entries, "y", "rows")
        json_data.check_size(entries, "N", "y", observed.size)
        checks.same_size("data['X']", design, "data['y']", observed.size)
        json_data.check_size(entries, "D", "X", design.shape[1], "columns")
        self.likelihood = LinearLikelihood(design, observed, checks.float_dtype(entries["X"], entries["y"]))

    def coefficients(self, position: Position) -> Float[Array, "features"]:
        """Return beta."""
        return position["beta"]

    def log_prior(self, position: Position) -> Float[Array, ""]:
        """Return the log density of the priors of beta and log_sigma."""
        beta = jnp.sum(normal_logpdf(position["beta"], 0.0, 10.0))
        return beta + positive_normal_of_log(position["log_sigma"], 0.0, 10.0)

    def initial_position(self, rng_key: Key[Array, ""]) -> Position:
        """Draw a start: beta uniform on (-2, 2), and sigma as large as the residuals are there."""
        # Such beta leave residuals of hundreds. With a sigma of about 1 the density is so steep there that warm-up
        # ends with steps too small to move.
        start = super().initial_position(rng_key)
        return {**start, "log_sigma": self.likelihood.log_spread(start["beta"])}

    def constrain(self, position: Position) -> dict[str, Array]:
        """Return beta and sigma."""
        return {"beta": position["beta"], "sigma": jnp.exp(position["log_sigma"])}

    def position_template(self) -> Position:
        """Return zeros: beta, shape (features,), and log_sigma, a scalar."""
        zeros = jnp.zeros_like(self.likelihood.triangle[0])
        return {"beta": zeros[1:], "log_sigma": zeros[0]}

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Name the dimension of beta."""
        return {"beta": ("feature",)}

    @property
    def coords(self) -> dict[str, Sequence]:
        """Number the features from 1."""
        return {"feature": [f"feature_{j}" for j in range(1, self.likelihood.triangle.shape[1])]}
