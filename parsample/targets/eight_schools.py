"""Eight schools, in the parametrisation that samples well."""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from parsample.engine.arrays import to_jax
from parsample.targets import checks
from parsample.targets.base import Position, Target
from parsample.targets.densities import half_cauchy_of_log, normal_logpdf

# Effects of coaching on SAT scores and their standard errors, in points: Rubin 1981.
EFFECTS = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
STANDARD_ERRORS = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)
SCHOOLS = (
    "Choate",
    "Deerfield",
    "Phillips Andover",
    "Phillips Exeter",
    "Hotchkiss",
    "Lawrenceville",
    "St. Paul's",
    "Mt. Hermon",
)


class AbstractEightSchools(Target):
    """What both parametrisations share: the data, the priors of mu and tau, the likelihood.

    Attributes:
        effects: shape (school,), in points.
        standard_errors: shape (school,), above 0, in points.
        schools: their names.
    """

    effects: eqx.AbstractVar[Float[Array, "school"]]
    standard_errors: eqx.AbstractVar[Float[Array, "school"]]
    schools: eqx.AbstractVar[tuple[str, ...]]

    def log_prior(self, mu: Float[Array, ""], log_tau: Float[Array, ""]) -> Float[Array, ""]:
        """Return the log density of mu and log tau, for mu ~ N(0, 5^2) and tau ~ HalfCauchy(5)."""
        return normal_logpdf(mu, 0.0, 5.0) + half_cauchy_of_log(log_tau, 5.0)

    def log_likelihood(self, theta: Float[Array, "school"]) -> Float[Array, ""]:
        """Return the log density of the observed effects, given the true ones."""
        effects, errors = self.effects.astype(theta.dtype), self.standard_errors.astype(theta.dtype)
        return jnp.sum(normal_logpdf(effects, theta, errors))

    @property
    def coords(self) -> dict[str, Sequence]:
        """Label the schools."""
        return {"school": list(self.schools)}


class EightSchools(AbstractEightSchools):
    """Eight schools, not centred: theta = mu + tau * theta_trans.

    y_j ~ N(theta_j, sigma_j^2), theta_trans_j ~ N(0, 1), mu ~ N(0, 5^2), tau ~ HalfCauchy(5). Unconstrained are mu,
    log_tau and theta_trans; in the trace are `mu`, `tau`, `theta` and `theta_trans`. The log density is the normalised
    joint one of parameters and data.

    Source: Rubin 1981; posteriordb's eight_schools-eight_schools_noncentered.
    """

    name: ClassVar[str] = "eight_schools"
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
        """Return the log density at mu and log_tau, scalars, and theta_trans, shape (school,)."""
        self.check_position(position)
        mu, log_tau, theta_trans = position["mu"], position["log_tau"], position["theta_trans"]
        theta = mu + jnp.exp(log_tau) * theta_trans
        return self.log_prior(mu, log_tau) + jnp.sum(normal_logpdf(theta_trans)) + self.log_likelihood(theta)

    def constrain(self, position: Position) -> dict[str, Array]:
        """Return mu, tau, theta and theta_trans."""
        tau = jnp.exp(position["log_tau"])
        theta = position["mu"] + tau * position["theta_trans"]
        return {"mu": position["mu"], "tau": tau, "theta": theta, "theta_trans": position["theta_trans"]}

    def position_template(self) -> Position:
        """Return zeros: mu and log_tau, scalars, and theta_trans, shape (school,)."""
        zeros = jnp.zeros_like(self.effects)
        return {"mu": zeros[0], "log_tau": zeros[0], "theta_trans": zeros}

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Name the dimension of the schools."""
        return {"theta": ("school",), "theta_trans": ("school",)}


def check_schools(effects: Any, standard_errors: Any, schools: Any) -> tuple[Array, Array, tuple[str, ...]]:
    """Return the data as arrays of equal size, and the names of the schools.

    Raises:
        ValueError: see `EightSchools`.
    """
    dtype = checks.float_dtype(effects, standard_errors)
    observed = checks.real_array("effects", effects, ("school",))
    errors = checks.positive("standard_errors", standard_errors, ("school",))
    checks.same_size("standard_errors", errors, "effects", observed.size)
    if schools is None:
        schools = SCHOOLS if tuple(observed) == EFFECTS else [str(j + 1) for j in range(observed.size)]
    names = checks.labels("schools", schools, observed.size)
    return to_jax(observed, dtype), to_jax(errors, dtype), names
