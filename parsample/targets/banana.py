"""The banana: a twisted normal distribution."""

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from parsample.engine.arrays import to_jax
from parsample.targets import checks
from parsample.targets.base import AbstractVector, Position
from parsample.targets.densities import normal_logpdf


class Banana(AbstractVector):
    """Banana in the plane: a twisted normal distribution.

    x_0 ~ N(0, s^2) and x_1 | x_0 ~ N(c (x_0^2 - s^2), 1), with scale s and curvature c. (It is not the polynomial of
    Rosenbrock's, though papers call it so.) The log density is normalised. The variable of the trace is `x`.

    Attributes:
        curvature: c, in inverse units of x.
        scale: s, above 0, in the units of x.

    Source: Haario, Saksman and Tamminen 1999; these defaults are those of the Inference Gym, and so of the HMC
    experiment of Zoltowski et al. 2025.
    """

    name: ClassVar[str] = "banana"
    curvature: Float[Array, ""]
    scale: Float[Array, ""]

    def __init__(self, curvature: Any = 0.03, scale: Any = 10.0) -> None:
        """Check the parameters.

        Raises:
            ValueError: one is not a finite number, or the scale is not above 0.
        """
        dtype = checks.float_dtype(curvature, scale)
        self.curvature = to_jax(checks.real_array("curvature", curvature, ()), dtype)
        self.scale = to_jax(checks.positive("scale", scale), dtype)

    def logdensity(self, position: Position) -> Float[Array, ""]:
        """Return the log density at `position["x"]`, shape (2,)."""
        self.check_position(position)
        x = position["x"]
        curvature, scale = self.curvature.astype(x.dtype), self.scale.astype(x.dtype)
        return normal_logpdf(x[0], 0.0, scale) + normal_logpdf(x[1], curvature * (x[0] ** 2 - scale**2), 1.0)

    def position_template(self) -> Position:
        """Return zeros: x, shape (2,)."""
        return {"x": jnp.zeros(2, self.scale.dtype)}

    def moments(self) -> dict[str, tuple[Array, Array]]:
        """Return means of 0, and s and sqrt(1 + 2 c^2 s^4), since x_0^2 has variance 2 s^4."""
        second = jnp.sqrt(1 + 2 * self.curvature**2 * self.scale**4)
        return {"x": (jnp.zeros(2, self.scale.dtype), jnp.stack([self.scale, second]))}
