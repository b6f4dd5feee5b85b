"""An autoregressive time series."""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from parsample.targets import checks, json_data
from parsample.targets.base import Position
from parsample.targets.densities import half_cauchy_of_log, normal_logpdf
from parsample.targets.linear_likelihood import AbstractLinearRegression, LinearLikelihood

POSTERIOR = "arK-arK"


class Autoregressive(AbstractLinearRegression):
    """An autoregressive time series of order K, posteriordb's arK; needs its file as `data`.

    y_t ~ N(alpha + beta_1 y_(t-1) + ... + beta_K y_(t-K), sigma^2) from the time K + 1 on, given the first K values;
    alpha and beta_k ~ N(0, 10^2), sigma ~ HalfCauchy(2.5). Unconstrained are alpha, beta and log_sigma; in the trace
    are `alpha`, `beta` and `sigma`. The log density is the normalised joint one of parameters and data.

    Attributes:
        likelihood: of the values that have K before them.

    Source: posteriordb's arK-arK.
    """

    name: ClassVar[str] = "autoregressive"
    likelihood: LinearLikelihood

    def __init__(self, data: Any = None) -> None:
        """Read the data.

        Args:
            data: a mapping or the path of a JSON file, with the series y and its order K, and perhaps T.

        Raises:
            ValueError: no data are given, they cannot be read, an entry is missing or not finite, the length is not T,
                or the series is not longer than K.
        """
        entries = json_data.read(data, POSTERIOR, "K", "y")
        series, order = json_data.real(entries, "y", "times"), json_data.whole(entries, "K")
        json_data.check_size(entries, "T", "y", series.size)
        if series.size <= order:
            raise ValueError(f"data['y'] has {series.size} entries, expected more than data['K'], which is {order}.")
        lags = [series[order - lag : series.size - lag] for lag in range(1, order + 1)]
        design = np.column_stack([np.ones(series.size - order), *lags])
        self.likelihood = LinearLikelihood(design, series[order:], checks.float_dtype(entries["y"]))

    def coefficients(self, position: Position) -> Float[Array, " columns"]:
        """Return alpha and beta."""
        return jnp.concatenate([position["alpha"][None], position["beta"]])

    def log_prior(self, position: Position) -> Float[Array, ""]:
        """Return the log density of the priors of alpha, beta and log_sigma."""
        coefficients = jnp.sum(normal_logpdf(self.coefficients(position), 0.0, 10.0))
        return coefficients + half_cauchy_of_log(position["log_sigma"], 2.5)

    def constrain(self, position: Position) -> dict[str, Array]:
        """Return alpha, beta and sigma."""
        return {"alpha": position["alpha"], "beta": position["beta"], "sigma": jnp.exp(position["log_sigma"])}

    def position_template(self) -> Position:
        """Return zeros: alpha and log_sigma, scalars, and beta, shape (K,)."""
        zeros = jnp.zeros_like(self.likelihood.triangle[0])
        return {"alpha": zeros[0], "beta": zeros[2:], "log_sigma": zeros[0]}

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Name the dimension of beta."""
        return {"beta": ("lag",)}

    @property
    def coords(self) -> dict[str, Sequence]:
        """Number the lags from 1."""
        return {"lag": range(1, self.likelihood.triangle.shape[1] - 1)}
