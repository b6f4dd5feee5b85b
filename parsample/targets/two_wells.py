"""Two wells: a mixture of two normal distributions with a barrier between them."""

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from parsample.engine.arrays import to_jax
from parsample.targets import checks
from parsample.targets.base import AbstractVector, Position
from parsample.targets.densities import normal_logpdf


class TwoWells(AbstractVector):
    """Two wells in the plane: a mixture of two normal distributions about (-1.4, 0) and (1.6, 0).

    The density is w N(m_0, diag v_0) + (1 - w) N(m_1, diag v_1). The log density is normalised. The variable of the
    trace is `x`.

    Attributes:
        weight: w of the first well, between 0 and 1. Dimensionless.
        means: m, shape (2, dim), in the units of x.
        variances: v, shape (2, dim), in squared units of x.

    Source: Gonzalez et al. 2025, "Predictability enables parallelization of nonlinear state space models", whose
    two-well experiment has these defaults.
    """

    name: ClassVar[str] = "two_wells"
    weight: Float[Array, ""]
    means: Float[Array, "2 dim"]
    variances: Float[Array, "2 dim"]

    def __init__(
        self,
        weight: Any = 0.49,
        means: Any = ((-1.4, 0.0), (1.6, 0.0)),
        variances: Any = ((0.45, 0.45), (0.54, 0.45)),
    ) -> None:
        """Check the parameters.

        Raises:
            ValueError: a shape does not fit, a variance is not above 0, or the weight is not between 0 and 1.
        """
        dtype = checks.float_dtype(weight, means, variances)
        share = checks.real_array("weight", weight, ())
        if not 0 < share < 1:
            raise ValueError(f"weight is {float(share):g}, expected a number between 0 and 1, both excluded.")
        centers = checks.real_array("means", means, ("2", "dim"))
        checks.same_size("means", centers, "the mixture", 2)
        spreads = checks.positive("variances", variances, ("2", "dim"))
        if spreads.shape != centers.shape:
            raise ValueError(f"variances has shape {spreads.shape}, expected {centers.shape}, the shape of means.")
        self.weight = to_jax(share, dtype)
        self.means = to_jax(centers, dtype)
        self.variances = to_jax(spreads, dtype)

    def logdensity(self, position: Position) -> Float[Array, ""]:
        """Return the log density at `position["x"]`, shape (dim,)."""
        self.check_position(position)
        x = position["x"]
        weight, means, variances = (p.astype(x.dtype) for p in (self.weight, self.means, self.variances))
        first, second = jnp.sum(normal_logpdf(x, means, jnp.sqrt(variances)), axis=1)
        return jnp.logaddexp(jnp.log(weight) + first, jnp.log1p(-weight) + second)

    def position_template(self) -> Position:
        """Return zeros: x, shape (dim,)."""
        return {"x": jnp.zeros_like(self.means[0])}

    def moments(self) -> dict[str, tuple[Array, Array]]:
        """Return mean and standard deviation: the wells' variances, and the spread of their means."""
        shares = jnp.stack([self.weight, 1 - self.weight])
        mean = shares @ self.means
        return {"x": (mean, jnp.sqrt(shares @ (self.variances + (self.means - mean) ** 2)))}
