"""Eight schools, in the parametrisation with the funnel."""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from parsample.targets.base import Position
from parsample.targets.densities import normal_logpdf
from parsample.targets.eight_schools import EFFECTS, STANDARD_ERRORS, AbstractEightSchools, check_schools


class EightSchoolsCentered(AbstractEightSchools):
    """Eight schools, centred: theta_j ~ N(mu, tau^2), a funnel where tau is small.

    The same posterior of mu, tau and theta as that of `eight_schools`, in coordinates that are hard to sample in:
    mu, log_tau and theta. In the trace are `mu`, `tau` and `theta`. The log density is the normalised joint one of
    parameters and data.

    Source: Rubin 1981; posteriordb's eight_schools-eight_schools_centered.
    """

    name: ClassVar[str] = "eight_schools_centered"
    effects: Float[Array, "school"]
    standard_errors: Float[Array, "school"]
    schools: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self, effects: Any = EFFECTS, standard_errors: Any = STANDARD_ERRORS, schools: Sequence[str] | None = None
    ) -> None:
        """Check the data.

        Args:
            effects: shape (school,), in points.
            standard_errors: shape (school,), in points.
            schools: their names; numbers from 1 for other data than the default.

        Raises:
            ValueError: a size does not fit, a value is not finite, or a standard error is not above 0.
        """
        self.effects, self.standard_errors, self.schools = check_schools(effects, standard_errors, schools)

    def logdensity(self, position: Position) -> Float[Array, ""]:
        """Return the log density at mu and log_tau, scalars, and theta, shape (school,)."""
        self.check_position(position)
        mu, log_tau, theta = position["mu"], position["log_tau"], position["theta"]
        log_theta = jnp.sum(normal_logpdf((theta - mu) * jnp.exp(-log_tau)) - log_tau)
        return self.log_prior(mu, log_tau) + log_theta + self.log_likelihood(theta)

    def constrain(self, position: Position) -> dict[str, Array]:
        """Return mu, tau and theta."""
        return {"mu": position["mu"], "tau": jnp.exp(position["log_tau"]), "theta": position["theta"]}

    def position_template(self) -> Position:
        """Return zeros: mu and log_tau, scalars, and theta, shape (school,)."""
        zeros = jnp.zeros_like(self.effects)
        return {"mu": zeros[0], "log_tau": zeros[0], "theta": zeros}

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Name the dimension of the schools."""
        return {"theta": ("school",)}
