"""Neal's funnel."""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from parsample.targets import checks
from parsample.targets.base import AbstractVector, Position
from parsample.targets.densities import normal_logpdf


class Funnel(AbstractVector):
    """Neal's funnel: a log variance v and, by default, nine variables x that have it.

    v ~ N(0, s^2) and x_i | v ~ N(0, e^v), with scale s = 3. The log density is normalised. The variables of the trace
    are `v` and `x`.

    Attributes:
        scale: s, above 0. Dimensionless.
        size: how many variables x has.

    Source: Neal 2003, "Slice sampling", section 8.
    """

    name: ClassVar[str] = "funnel"
    scale: Float[Array, ""]
    size: int = eqx.field(static=True)

    def __init__(self, scale: Any = 3.0, size: int = 9) -> None:
        """Check the parameters.

        Raises:
            ValueError: the scale is not above 0, or the size not an integer of at least 1.
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"size is {size!r}, expected an integer of at least 1.")
        self.scale = jnp.asarray(checks.positive("scale", scale), checks.float_dtype(scale))
        self.size = size

    def logdensity(self, position: Position) -> Float[Array, ""]:
        """Return the log density at `position["v"]`, a scalar, and `position["x"]`, shape (size,)."""
        self.check_position(position)
        v, x = position["v"], position["x"]
        # Scaling x before it is squared overflows later than scaling the sum of squares does.
        white = x * jnp.exp(-v / 2)
        rest = white @ white + self.size * (v + math.log(2 * math.pi))
        return normal_logpdf(v, 0.0, self.scale.astype(v.dtype)) - 0.5 * rest

    def position_template(self) -> Position:
        """Return zeros: v, a scalar, and x, shape (size,)."""
        return {"v": jnp.zeros((), self.scale.dtype), "x": jnp.zeros(self.size, self.scale.dtype)}

    def moments(self) -> dict[str, tuple[Array, Array]]:
        """Return means of 0, and s for v and exp(s^2 / 4) for x, since x has variance E[e^v] = exp(s^2 / 2)."""
        zero = jnp.zeros((), self.scale.dtype)
        spread = jnp.exp(self.scale**2 / 4)
        return {"v": (zero, self.scale), "x": (jnp.full(self.size, zero), jnp.full(self.size, spread))}
