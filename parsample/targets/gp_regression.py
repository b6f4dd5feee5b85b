"""Regression with a Gaussian process."""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from parsample.engine.arrays import to_jax
from parsample.targets import checks, json_data
from parsample.targets.base import Position, Target
from parsample.targets.densities import positive_normal_of_log

POSTERIOR = "gp_pois_regr-gp_regr"

# Of the gamma prior of the length scale.
SHAPE, RATE = 25.0, 4.0


class GPRegression(Target):
    """The hyperparameters of a Gaussian process, posteriordb's gp_regr; needs its file as `data`.

    y ~ N(0, C) with C_ij = alpha^2 exp(-(x_i - x_j)^2 / (2 rho^2)) + sigma [i = j]: sigma is a variance here. The
    length scale rho ~ Gamma(25, 4), alpha ~ HalfNormal(2), sigma ~ HalfNormal(1). Unconstrained are log_rho, log_alpha
    and log_sigma; in the trace are `rho`, `alpha` and `sigma`. The log density is the normalised joint one of
    parameters and data.

    Attributes:
        half_squares: (x_i - x_j)^2 / 2, in the squared units of x.
        observed: y.

    Source: posteriordb's gp_pois_regr-gp_regr.
    """

    name: ClassVar[str] = "gp_regression"
    half_squares: Float[Array, "points points"]
    observed: Float[Array, "points"]

    def __init__(self, data: Any = None) -> None:
        """Read the data.

        Args:
            data: a mapping or the path of a JSON file, with x and y, one number a point, and perhaps N.

        Raises:
            ValueError: no data are given, they cannot be read, an entry is missing or not finite, or sizes differ.
        """
        entries = json_data.read(data, POSTERIOR, "x", "y")
        x, y = json_data.real(entries, "x", "points"), json_data.real(entries, "y", "points")
        json_data.check_size(entries, "N", "y", y.size)
        checks.same_size("data['x']", x, "data['y']", y.size)
        dtype = checks.float_dtype(entries["x"], entries["y"])
        self.half_squares = to_jax((x[:, None] - x) ** 2 / 2, dtype)
        self.observed = to_jax(y, dtype)

    def logdensity(self, position: Position) -> Float[Array, ""]:
        """Return the log density at log_rho, log_alpha and log_sigma, scalars. Cost: O(points^3)."""
        self.check_position(position)
        log_rho, log_alpha, log_sigma = position["log_rho"], position["log_alpha"], position["log_sigma"]
        constant = SHAPE * math.log(RATE) - math.lgamma(SHAPE)
        log_prior = constant + SHAPE * log_rho - RATE * jnp.exp(log_rho)
        log_prior += positive_normal_of_log(log_alpha, 0.0, 2.0) + positive_normal_of_log(log_sigma, 0.0, 1.0)

        half_squares, observed = self.half_squares.astype(log_rho.dtype), self.observed.astype(log_rho.dtype)
        smooth = jnp.exp(2 * log_alpha - half_squares * jnp.exp(-2 * log_rho))
        root = jnp.linalg.cholesky(smooth + jnp.exp(log_sigma) * jnp.eye(observed.size, dtype=observed.dtype))
        white = jax.scipy.linalg.solve_triangular(root, observed, lower=True)
        log_determinant = jnp.sum(jnp.log(jnp.diagonal(root)))
        return log_prior - 0.5 * (white @ white) - log_determinant - 0.5 * observed.size * math.log(2 * math.pi)

    def constrain(self, position: Position) -> dict[str, Array]:
        """Return rho, alpha and sigma."""
        return {name: jnp.exp(position[f"log_{name}"]) for name in ("rho", "alpha", "sigma")}

    def position_template(self) -> Position:
        """Return zeros: log_rho, log_alpha and log_sigma, scalars."""
        zero = jnp.zeros((), self.observed.dtype)
        return {"log_rho": zero, "log_alpha": zero, "log_sigma": zero}
