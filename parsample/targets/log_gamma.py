"""Logarithms of gamma variables: skewed, with known moments."""

from typing import Any, ClassVar

import jax.numpy as jnp
from jax.lax import Precision, digamma, lgamma, polygamma
from jaxtyping import Array, Float

from parsample.targets import checks
from parsample.targets.base import AbstractVector, Position, check_basis


class LogGamma(AbstractVector):
    """Independent logarithms of gamma variables: skewed to the left, with moments in closed form.

    The density of each coordinate is exp(a x - e^x) / Gamma(a) with concentration a: exp(x) has the gamma distribution
    with that concentration and rate 1. Small concentrations are the most skewed. The log density is normalised.
    The variable of the trace is `x`.

    Attributes:
        concentration: a, shape (dim,), above 0. Dimensionless.
    """

    name: ClassVar[str] = "log_gamma"
    concentration: Float[Array, "dim"]

    def __init__(self, concentration: Any = (0.5, 1.0, 3.0)) -> None:
        """Check the concentrations.

        Raises:
            ValueError: they are not a vector of numbers above 0.
        """
        values = checks.positive("concentration", concentration, ("dim",))
        self.concentration = jnp.asarray(values, checks.float_dtype(concentration))

    def logdensity(self, position: Position) -> Float[Array, ""]:
        """Return the log density at `position["x"]`, shape (dim,)."""
        self.check_position(position)
        x = position["x"]
        concentration = self.concentration.astype(x.dtype)
        return jnp.sum(concentration * x - jnp.exp(x) - lgamma(concentration))

    def hessian_diagonal(self, position: Position, basis: Float[Array, "dim k"]) -> Float[Array, "k"]:
        """Return the diagonal of B^T H B with H = -diag(e^x)."""
        self.check_position(position)
        check_basis(basis, self.concentration.size)
        x = position["x"]
        return -jnp.matmul(jnp.exp(x), basis.astype(x.dtype) ** 2, precision=Precision.HIGHEST)

    def position_template(self) -> Position:
        """Return zeros: x, shape (dim,)."""
        return {"x": jnp.zeros_like(self.concentration)}

    def moments(self) -> dict[str, tuple[Array, Array]]:
        """Return digamma(a) and the square root of trigamma(a)."""
        trigamma = polygamma(jnp.ones_like(self.concentration), self.concentration)
        return {"x": (digamma(self.concentration), jnp.sqrt(trigamma))}
