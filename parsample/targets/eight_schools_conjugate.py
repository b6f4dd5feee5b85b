"""Eight schools with conjugate priors and unknown variances: every conditional distribution is known."""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array, Float, Key

from parsample.targets import checks
from parsample.targets.base import Position, Target
from parsample.targets.densities import normal_logpdf
from parsample.targets.eight_schools import EFFECTS, STANDARD_ERRORS, check_schools

# The priors: mean of mu and its weight in observations; degrees of freedom and scale of tau^2 and of sigma^2.
MEAN, MEAN_WEIGHT = 0.0, 0.1
BETWEEN_FREEDOM, BETWEEN_SCALE = 0.1, 100.0
WITHIN_FREEDOM, WITHIN_SCALE = 0.1, 10.0


class EightSchoolsConjugate(Target):
    """Eight schools with students: unknown variances and conjugate priors, for Gibbs sampling.

    With n students a school, whose results y have the mean and the standard error that the data say:

        y_ij ~ N(theta_j, sigma_j^2),  theta_j ~ N(mu, tau^2),  mu ~ N(0, tau^2 / 0.1),
        tau^2 ~ scaled-inverse-chi^2(0.1, 100),  sigma_j^2 ~ scaled-inverse-chi^2(0.1, 10)

    Unconstrained are theta, log_sigma, mu and log_tau: 18 numbers. In the trace are `theta`, `sigma`, `mu` and `tau`.
    The log density is the normalised joint one of parameters and data. The `conditional_updates` are written so that
    all randomness comes before: normal numbers, and logarithms of gamma numbers of fixed shape.

    Attributes:
        effects: shape (school,), means of the results, in points.
        standard_errors: shape (school,), above 0, in points: of these means.
        schools: their names.
        students: n, of every school.

    Source: the repository of Zoltowski et al. 2025 (parallel-mcmc, examples/run_gibbs_eight_schools.py), with
    logarithms of the scales in place of the variances; the data are those of Rubin 1981.
    """

    name: ClassVar[str] = "eight_schools_conjugate"
    effects: Float[Array, "school"]
    standard_errors: Float[Array, "school"]
    schools: tuple[str, ...] = eqx.field(static=True)
    students: int = eqx.field(static=True)

    def __init__(
        self,
        effects: Any = EFFECTS,
        standard_errors: Any = STANDARD_ERRORS,
        schools: Sequence[str] | None = None,
        students: int = 20,
    ) -> None:
        """Check the data.

        Args:
            effects: shape (school,), in points.
            standard_errors: shape (school,), in points.
            schools: their names; numbers from 1 for other data than the default.
            students: of every school, at least 1.

        Raises:
            ValueError: a size does not fit, a value is not finite, a standard error is not above 0, or there is no
                student.
        """
        self.effects, self.standard_errors, self.schools = check_schools(effects, standard_errors, schools)
        self.students = int(checks.positive("students", students))

    def logdensity(self, position: Position) -> Float[Array, ""]:
        """Return the log density at theta and log_sigma, shape (school,), and mu and log_tau, scalars."""
        self.check_position(position)
        theta, log_sigma, mu, log_tau = (position[name] for name in ("theta", "log_sigma", "mu", "log_tau"))
        priors = (
            normal_logpdf(mu, MEAN, jnp.exp(log_tau) / math.sqrt(MEAN_WEIGHT))
            + jnp.sum(normal_logpdf(theta, mu, jnp.exp(log_tau)))
            + _log_scale_logpdf(log_tau, BETWEEN_FREEDOM, BETWEEN_SCALE)
            + jnp.sum(_log_scale_logpdf(log_sigma, WITHIN_FREEDOM, WITHIN_SCALE))
        )
        normaliser = self.students * (log_sigma + 0.5 * math.log(2 * math.pi))
        return priors - jnp.sum(normaliser + 0.5 * self._squares(theta) * jnp.exp(-2 * log_sigma))

    def _squares(self, theta: Float[Array, "school"]) -> Float[Array, "school"]:
        """Return the sum over students of (y - theta)^2: n (n se^2 + (mean - theta)^2)."""
        effects, errors = self.effects.astype(theta.dtype), self.standard_errors.astype(theta.dtype)
        return self.students * (self.students * errors**2 + (effects - theta) ** 2)

    @property
    def conditional_updates(self) -> tuple[tuple[str, Callable, Callable], ...]:
        """The conditional distributions of tau, mu, theta and sigma given the rest: (block, update, draw)."""
        return (
            ("log_tau", self._update_log_tau, self._draw_log_tau),
            ("mu", self._update_mu, self._draw_mu),
            ("theta", self._update_theta, self._draw_theta),
            ("log_sigma", self._update_log_sigma, self._draw_log_sigma),
        )

    def _draw_log_tau(self, rng_key: Key[Array, ""], num_steps: int, dtype: jnp.dtype) -> Float[Array, "steps"]:
        return jax.random.loggamma(rng_key, (BETWEEN_FREEDOM + self.effects.size + 1) / 2, (num_steps,), dtype)

    def _update_log_tau(self, position: Position, log_gamma: Float[Array, ""]) -> Float[Array, ""]:
        # tau^2 is inverse gamma: a scale over a gamma number whose shape does not depend on the state.
        spread = jnp.sum((position["theta"] - position["mu"]) ** 2)
        prior = BETWEEN_FREEDOM * BETWEEN_SCALE + MEAN_WEIGHT * (position["mu"] - MEAN) ** 2
        return 0.5 * (jnp.log(0.5 * (prior + spread)) - log_gamma)

    def _draw_mu(self, rng_key: Key[Array, ""], num_steps: int, dtype: jnp.dtype) -> Float[Array, "steps"]:
        return jax.random.normal(rng_key, (num_steps,), dtype)

    def _update_mu(self, position: Position, noise: Float[Array, ""]) -> Float[Array, ""]:
        weight = MEAN_WEIGHT + self.effects.size
        mean = (MEAN_WEIGHT * MEAN + jnp.sum(position["theta"])) / weight
        return mean + jnp.exp(position["log_tau"]) / math.sqrt(weight) * noise

    def _draw_theta(self, rng_key: Key[Array, ""], num_steps: int, dtype: jnp.dtype) -> Float[Array, "steps school"]:
        return jax.random.normal(rng_key, (num_steps, self.effects.size), dtype)

    def _update_theta(self, position: Position, noise: Float[Array, "school"]) -> Float[Array, "school"]:
        within = self.students * jnp.exp(-2 * position["log_sigma"])
        between = jnp.exp(-2 * position["log_tau"])
        mean = (within * self.effects.astype(noise.dtype) + between * position["mu"]) / (within + between)
        return mean + noise / jnp.sqrt(within + between)

    def _draw_log_sigma(
        self, rng_key: Key[Array, ""], num_steps: int, dtype: jnp.dtype
    ) -> Float[Array, "steps school"]:
        shape = (num_steps, self.effects.size)
        return jax.random.loggamma(rng_key, (WITHIN_FREEDOM + self.students) / 2, shape, dtype)

    def _update_log_sigma(self, position: Position, log_gamma: Float[Array, "school"]) -> Float[Array, "school"]:
        squares = WITHIN_FREEDOM * WITHIN_SCALE + self._squares(position["theta"])
        return 0.5 * (jnp.log(0.5 * squares) - log_gamma)

    def constrain(self, position: Position) -> dict[str, Array]:
        """Return theta, sigma, mu and tau."""
        sigma, tau = jnp.exp(position["log_sigma"]), jnp.exp(position["log_tau"])
        return {"theta": position["theta"], "sigma": sigma, "mu": position["mu"], "tau": tau}

    def position_template(self) -> Position:
        """Return zeros: theta and log_sigma, shape (school,), mu and log_tau, scalars."""
        zeros = jnp.zeros_like(self.effects)
        return {"theta": zeros, "log_sigma": zeros, "mu": zeros[0], "log_tau": zeros[0]}

    def initial_position(self, rng_key: Key[Array, ""]) -> Position:
        """Draw a start near the data: two units about the origin are far from variances in the thousands."""
        noise = super().initial_position(rng_key)
        return {
            "theta": self.effects + noise["theta"] * self.standard_errors,
            "log_sigma": jnp.log(math.sqrt(self.students) * self.standard_errors) + noise["log_sigma"] / 2,
            "mu": jnp.mean(self.effects) + noise["mu"] * jnp.mean(self.standard_errors) / 2,
            "log_tau": 1 + noise["log_tau"],
        }

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Name the dimension of the schools."""
        return {"theta": ("school",), "sigma": ("school",)}

    @property
    def coords(self) -> dict[str, Sequence]:
        """Label the schools."""
        return {"school": list(self.schools)}


def _log_scale_logpdf(log_scale: Array, freedom: float, squared: float) -> Array:
    """Return the log density of log s, where s^2 is scaled-inverse-chi^2 with these degrees of freedom and scale."""
    # s^2 is inverse gamma with shape a and scale b; the Jacobian of s^2 in log s is 2 s^2.
    a, b = freedom / 2, freedom * squared / 2
    log_normaliser = a * math.log(b) - gammaln(a) + math.log(2)
    return log_normaliser - 2 * a * log_scale - b * jnp.exp(-2 * log_scale)
