"""Predators and prey: the Lotka-Volterra equations, observed with noise."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from parsample.engine.arrays import to_jax
from parsample.targets import checks, json_data
from parsample.targets.base import Position, Target
from parsample.targets.densities import normal_logpdf, positive_normal_of_log

POSTERIOR = "hudson_lynx_hare-lotka_volterra"

# A population of prey and one of predators.
Populations = tuple[Float[Array, ""], Float[Array, ""]]


class LotkaVolterra(Target):
    """Prey and predators by the Lotka-Volterra equations, posteriordb's hudson_lynx_hare; needs its file as `data`.

    du/dt = (theta_1 - theta_2 v) u and dv/dt = (theta_4 u - theta_3) v from (u, v) = z_init at the time 0; each
    population is observed at the time 0 and at later times, log y ~ N(log z, sigma_k^2). Priors: theta_1 and theta_3 ~
    N(1, 0.5^2), theta_2 and theta_4 ~ N(0.05, 0.05^2), all above 0; log z_init ~ N(log 10, 1) and log sigma ~ N(-1, 1).
    Unconstrained are the logarithms log_theta, log_z_init and log_sigma; in the trace are `theta`, `z_init`, `sigma`.
    The log density is the normalised joint one of parameters and data.

    Attributes:
        log_observed: log y of prey and predators, the first row at the time 0.
        log_rates: a rough log theta, around which chains start.
        widths: the step of the solver in each interval between observations, in the units of time.
        num_steps: steps in an interval.

    Source: Carpenter 2018, "Predator-prey population dynamics: the Lotka-Volterra model in Stan"; posteriordb's
    hudson_lynx_hare-lotka_volterra.
    """

    name: ClassVar[str] = "lotka_volterra"
    log_observed: Float[Array, "times 2"]
    log_rates: Float[Array, "4"]
    widths: Float[Array, "intervals"]
    num_steps: int = eqx.field(static=True)

    def __init__(self, data: Any = None, largest_step: Any = 0.2) -> None:
        """Read the data.

        Args:
            data: a mapping or the path of a JSON file, with y, one row of prey and predators for each of the times ts,
                and y_init, the row at the time 0, and perhaps N.
            largest_step: of the solver, in the units of time; the step is the largest below it that ends at each
                observation. With the default, the logarithms of the populations are within 1.2e-4 of the solution at
                8,000 draws of posteriordb's posterior, where the noise is 0.25; of the log density that makes 6e-4.

        Raises:
            ValueError: no data are given, they cannot be read, an entry is missing or not finite, sizes differ, the
                times do not grow from above 0, or a population or the step is not above 0.
        """
        entries = json_data.read(data, POSTERIOR, "ts", "y_init", "y")
        times = json_data.positive(entries, "ts", "times")
        later, first = json_data.positive(entries, "y", "times", "2"), json_data.positive(entries, "y_init", "2")
        json_data.check_size(entries, "N", "y", len(later))
        checks.same_size("data['ts']", times, "data['y']", len(later))
        checks.same_size("data['y_init']", first, "each row", 2)
        if later.shape[1] != 2:
            raise ValueError(f"data['y'] has {later.shape[1]} columns, expected 2: prey and predators.")
        intervals = np.diff(times, prepend=0.0)
        if not np.all(intervals > 0):
            index = int(np.argmin(intervals > 0))
            raise ValueError(
                f"data['ts'][{index}] is {times[index]:g}, expected a later time than {times[index - 1]:g}, the one "
                "before it."
            )
        self.num_steps = math.ceil(intervals.max() / checks.positive("largest_step", largest_step))
        dtype = checks.float_dtype(entries["y"])
        log_observed = np.log(np.vstack([first, later]))
        self.log_observed = to_jax(log_observed, dtype)
        self.log_rates = to_jax(np.log(matched_rates(log_observed, intervals)), dtype)
        self.widths = to_jax(intervals / self.num_steps, dtype)

    def logdensity(self, position: Position) -> Float[Array, ""]:
        """Return the log density at log_theta, shape (4,), and log_z_init and log_sigma, shape (2,).

        Cost: 8 exponentials a step of the solver.
        """
        self.check_position(position)
        log_theta, log_z_init, log_sigma = position["log_theta"], position["log_z_init"], position["log_sigma"]
        log_prior = jnp.sum(positive_normal_of_log(log_theta[::2], 1.0, 0.5))
        log_prior += jnp.sum(positive_normal_of_log(log_theta[1::2], 0.05, 0.05))
        log_prior += jnp.sum(normal_logpdf(log_z_init, math.log(10.0))) + jnp.sum(normal_logpdf(log_sigma, -1.0))

        log_observed = self.log_observed.astype(log_theta.dtype)
        white = (log_observed - self.log_populations(log_theta, log_z_init)) * jnp.exp(-log_sigma)
        log_scales = log_sigma + 0.5 * math.log(2 * math.pi)
        return log_prior - 0.5 * jnp.sum(white**2) - len(white) * jnp.sum(log_scales) - jnp.sum(log_observed)

    def log_populations(self, log_theta: Float[Array, "4"], log_z_init: Float[Array, "2"]) -> Float[Array, "times 2"]:
        """Return the logarithms of the solution at the times of the observations, in the rows of `log_observed`."""
        theta = jnp.exp(log_theta)
        widths = jnp.repeat(self.widths.astype(theta.dtype), self.num_steps)

        def step(state: Populations, width: Float[Array, ""]) -> tuple[Populations, Populations]:
            state = runge_kutta(theta, state, width)
            return state, state

        # The step is written out because diffrax, at an error no larger, takes 50 times as long for a gradient in a
        # chain and 6 times in a batch: 640 and 34 us by diffeqsolve with Tsit5, DirectAdjoint and two steps a unit of
        # time, 12 and 5.4 us by this scan (20 times, one core, single precision). A scan of Tsit5.step takes 90 and 12.
        _, (prey, predators) = jax.lax.scan(step, (log_z_init[0], log_z_init[1]), widths)
        ends = jnp.stack([prey, predators], 1)[self.num_steps - 1 :: self.num_steps]
        return jnp.concatenate([log_z_init[None], ends])

    def initial_position(self, rng_key: Key[Array, ""]) -> Position:
        """Draw a start: rates and populations that the data suggest and sigma = 1 / e, their logarithms +- 0.5."""
        # Starts as wide as (-2, 2), and draws from the prior, end in another mode for one chain in four: there the
        # populations do not move and sigma is large. Its log density is 40 below that of the mode that counts.
        center = {
            "log_theta": self.log_rates,
            "log_z_init": self.log_observed[0],
            "log_sigma": jnp.full_like(self.log_observed[0], -1.0),
        }
        vector, unravel = ravel_pytree(center)
        return unravel(vector + jax.random.uniform(rng_key, vector.shape, vector.dtype, -0.5, 0.5))

    def constrain(self, position: Position) -> dict[str, Array]:
        """Return theta, z_init and sigma."""
        return {name: jnp.exp(position[f"log_{name}"]) for name in ("theta", "z_init", "sigma")}

    def position_template(self) -> Position:
        """Return zeros: log_theta, shape (4,), log_z_init and log_sigma, shape (2,)."""
        pair = jnp.zeros_like(self.log_observed[0])
        return {"log_theta": jnp.concatenate([pair, pair]), "log_z_init": pair, "log_sigma": pair}

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Name the dimensions of rates and populations."""
        return {"theta": ("rate",), "z_init": ("population",), "sigma": ("population",)}

    @property
    def coords(self) -> dict[str, Sequence]:
        """Label the rates and the populations."""
        rates = ["prey growth", "predation", "predator decline", "predator growth"]
        return {"rate": rates, "population": ["prey", "predators"]}


def matched_rates(log_observed: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """Return theta, shape (4,), by least squares on how the observations change, without solving the equations.

    Over an interval h, log u changes by about h (theta_1 - theta_2 v) and log v by h (theta_4 u - theta_3), with the
    geometric means of u and v at its ends. A rate below a hundredth of its prior mean, which the data contradict, is
    replaced by that mean.

    Args:
        log_observed: log u and log v, shape (intervals + 1, 2).
        intervals: h, shape (intervals,).
    """
    changes = np.diff(log_observed, axis=0)
    prey, predators = np.exp((log_observed[1:] + log_observed[:-1]) / 2).T
    growth, predation = np.linalg.lstsq(np.column_stack([intervals, -intervals * predators]), changes[:, 0])[0]
    decline, gain = np.linalg.lstsq(np.column_stack([-intervals, intervals * prey]), changes[:, 1])[0]
    rates = np.array([growth, predation, decline, gain])
    means = np.array([1.0, 0.05, 1.0, 0.05])
    return np.where(rates > means / 100, rates, means)


def runge_kutta(theta: Float[Array, "4"], state: Populations, width: Float[Array, ""]) -> Populations:
    """Return the logarithms of both populations after one classical Runge-Kutta step of fourth order.

    The equations are solved in logarithms, d(log u)/dt = theta_1 - theta_2 v and d(log v)/dt = theta_4 u - theta_3, so
    that no population falls to 0 or below, however coarse the step.
    """

    def slopes(prey: Array, predators: Array) -> Populations:
        return theta[0] - theta[1] * jnp.exp(predators), theta[3] * jnp.exp(prey) - theta[2]

    def moved(fraction: float, slope: Populations) -> Populations:
        return state[0] + fraction * width * slope[0], state[1] + fraction * width * slope[1]

    first = slopes(*state)
    second = slopes(*moved(0.5, first))
    third = slopes(*moved(0.5, second))
    fourth = slopes(*moved(1.0, third))
    mean = [(k1 + 2 * k2 + 2 * k3 + k4) / 6 for k1, k2, k3, k4 in zip(first, second, third, fourth, strict=True)]
    return moved(1.0, (mean[0], mean[1]))
