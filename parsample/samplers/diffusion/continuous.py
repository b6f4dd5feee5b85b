"""Schedules in continuous time, and their forward processes."""

import abc
import math
from typing import Any

import equinox as eqx
import numpy as np

from parsample.engine.options import whole
from parsample.samplers.diffusion.schedules import Level, Schedule, check_spacing, karras


class Continuous(Schedule):
    """A schedule in continuous time; sampling goes from `largest_time` down to `smallest_time`."""

    largest_time: eqx.AbstractVar[Any]
    smallest_time: eqx.AbstractVar[Any]

    @abc.abstractmethod
    def level(self, times: Any, xp: Any = np) -> Level:
        """Return signal and noise at these times, worked out by NumPy or, for times that are traced, by jax.numpy."""

    @abc.abstractmethod
    def time_of(self, ratio: np.ndarray) -> np.ndarray:
        """Return the time at which sigma / alpha has this value."""

    def times(self, num_steps: int, spacing: str) -> np.ndarray:
        """Return times even in time ("linspace") or in a power of sigma / alpha ("karras")."""
        check_spacing(spacing)
        num_steps = whole("num_steps", num_steps, "there must be a step to take")
        if spacing in ("leading", "trailing"):
            raise ValueError(
                f"spacing is {spacing!r}, which picks training steps, but {type(self).__name__} has continuous time; "
                "expected 'linspace' or 'karras'."
            )
        if spacing == "linspace":
            return np.linspace(self.largest_time, self.smallest_time, num_steps)
        _, alpha, sigma = self.level(np.asarray([self.largest_time, self.smallest_time]))
        if not (alpha > 0).all() or not (sigma > 0).all():
            raise ValueError(
                f"spacing is 'karras', but {type(self).__name__} has no signal or no noise at one of its ends; "
                f"expected "
                "'linspace', or times between them."
            )
        largest, smallest = sigma / alpha
        times = self.time_of(karras(largest, smallest, num_steps))
        times[0], times[-1] = self.largest_time, self.smallest_time if num_steps > 1 else self.largest_time
        return times

    def prior_scale(self, time: Any) -> float:
        """Return 1: a normal distribution as it is."""
        return 1.0


class VP(Continuous):
    """The variance-preserving SDE: beta(t) on a line, alpha = exp(-1/2 of its integral), sigma^2 = 1 - alpha^2.

    Args:
        smallest_beta: at t = 0.
        largest_beta: at t = 1.
        smallest_time: where sampling ends, because the score is singular at 0.
        largest_time: where it starts.

    Source: Song et al. 2021, appendix C.
    """

    smallest_beta: Any = eqx.field(static=True, default=0.1)
    largest_beta: Any = eqx.field(static=True, default=20.0)
    smallest_time: Any = eqx.field(static=True, default=1e-3)
    largest_time: Any = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        """Check the ends."""
        _check_ends(self.smallest_beta, self.largest_beta, self.smallest_time, self.largest_time)

    def integral(self, times: Any) -> Any:
        """Return the integral of beta from 0."""
        return self.smallest_beta * times + 0.5 * (self.largest_beta - self.smallest_beta) * times**2

    def level(self, times: Any, xp: Any = np) -> Level:
        """Return signal and noise."""
        times = _real(times, xp)
        total = self.integral(times)
        return Level(times, xp.exp(-0.5 * total), xp.sqrt(-xp.expm1(-total)))

    def time_of(self, ratio: np.ndarray) -> np.ndarray:
        """Return the time: sigma^2 / alpha^2 = exp(integral) - 1, and the integral is a parabola."""
        total, slope = np.log1p(ratio**2), self.largest_beta - self.smallest_beta
        return 2 * total / (self.smallest_beta + np.sqrt(self.smallest_beta**2 + 2 * slope * total))

    def drift(self, times: Any) -> tuple[Any, Any]:
        """Return -beta / 2 and beta."""
        beta = self.smallest_beta + (self.largest_beta - self.smallest_beta) * np.asarray(times, np.float64)
        return -0.5 * beta, beta


class SubVP(Continuous):
    """The sub-VP SDE: alpha as for VP, sigma = 1 - alpha^2, so that there is less noise on the way.

    Args:
        smallest_beta: at t = 0.
        largest_beta: at t = 1.
        smallest_time: where sampling ends.
        largest_time: where it starts.

    Source: Song et al. 2021, equation 29.
    """

    smallest_beta: Any = eqx.field(static=True, default=0.1)
    largest_beta: Any = eqx.field(static=True, default=20.0)
    smallest_time: Any = eqx.field(static=True, default=1e-3)
    largest_time: Any = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        """Check the ends."""
        _check_ends(self.smallest_beta, self.largest_beta, self.smallest_time, self.largest_time)

    def _vp(self) -> VP:
        return VP(self.smallest_beta, self.largest_beta, self.smallest_time, self.largest_time)

    def level(self, times: Any, xp: Any = np) -> Level:
        """Return signal and noise."""
        time, alpha, sigma = self._vp().level(times, xp)
        return Level(time, alpha, sigma**2)

    def time_of(self, ratio: np.ndarray) -> np.ndarray:
        """Return the time: 1 - alpha^2 = ratio alpha is a quadratic equation for alpha."""
        alpha = 2 / (ratio + np.sqrt(ratio**2 + 4))
        return self._vp().time_of(np.sqrt((1 - alpha) * (1 + alpha)) / alpha)

    def drift(self, times: Any) -> tuple[Any, Any]:
        """Return -beta / 2 and beta (1 - alpha^4)."""
        f, beta = self._vp().drift(times)
        return f, -beta * np.expm1(-2 * self._vp().integral(np.asarray(times, np.float64)))


class VE(Continuous):
    """The variance-exploding SDE: alpha = 1, sigma a geometric curve in t from 0 to 1.

    Args:
        smallest_sigma: at t = 0, in the units of the data.
        largest_sigma: at t = 1.
        smallest_time: where sampling ends.
        largest_time: where it starts.

    Source: Song et al. 2021, appendix C, without the constant that makes sigma(0) = 0.
    """

    smallest_sigma: Any = eqx.field(static=True, default=0.01)
    largest_sigma: Any = eqx.field(static=True, default=50.0)
    smallest_time: Any = eqx.field(static=True, default=1e-5)
    largest_time: Any = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        """Check the ends."""
        _check_ends(self.smallest_sigma, self.largest_sigma, self.smallest_time, self.largest_time)

    def level(self, times: Any, xp: Any = np) -> Level:
        """Return signal and noise."""
        time = _real(times, xp)
        return Level(time, xp.ones_like(time), self.smallest_sigma * (self.largest_sigma / self.smallest_sigma) ** time)

    def time_of(self, ratio: np.ndarray) -> np.ndarray:
        """Return the time."""
        return np.log(ratio / self.smallest_sigma) / math.log(self.largest_sigma / self.smallest_sigma)

    def drift(self, times: Any) -> tuple[Any, Any]:
        """Return 0 and the derivative of sigma^2."""
        sigma = self.level(times).sigma
        return np.zeros_like(sigma), 2 * sigma**2 * math.log(self.largest_sigma / self.smallest_sigma)

    def prior_scale(self, time: Any) -> float:
        """Return sigma."""
        return float(self.level(time).sigma)


class Karras(Continuous):
    """EDM: alpha = 1, and the time is the noise level itself.

    Args:
        smallest_time: the smallest sigma, in the units of the data.
        largest_time: the largest.

    Source: Karras et al. 2022, table 1. The spacing of its steps is `spacing="karras"`.
    """

    smallest_time: Any = eqx.field(static=True, default=0.002)
    largest_time: Any = eqx.field(static=True, default=80.0)

    def __check_init__(self):
        """Check the ends."""
        _check_ends(0.0, 1.0, self.smallest_time, self.largest_time)

    def level(self, times: Any, xp: Any = np) -> Level:
        """Return signal and noise."""
        time = _real(times, xp)
        return Level(time, xp.ones_like(time), time)

    def time_of(self, ratio: np.ndarray) -> np.ndarray:
        """Return the ratio."""
        return np.array(ratio)

    def drift(self, times: Any) -> tuple[Any, Any]:
        """Return 0 and 2 sigma."""
        time = np.asarray(times, np.float64)
        return np.zeros_like(time), 2 * time

    def prior_scale(self, time: Any) -> float:
        """Return sigma."""
        return float(time)


class RectifiedFlow(Continuous):
    """Flow matching along straight lines: alpha = 1 - t, sigma = t.

    Args:
        smallest_time: where sampling ends before the last step to 0.
        largest_time: where it starts. At 1 there is no signal at all, which multistep solvers and the SDE cannot start
            from: give them a little less.

    Source: Liu et al. 2023; Lipman et al. 2023.
    """

    smallest_time: Any = eqx.field(static=True, default=1e-3)
    largest_time: Any = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        """Check the ends."""
        _check_ends(0.0, 1.0, self.smallest_time, self.largest_time)

    def level(self, times: Any, xp: Any = np) -> Level:
        """Return signal and noise."""
        time = _real(times, xp)
        return Level(time, 1 - time, time)

    def time_of(self, ratio: np.ndarray) -> np.ndarray:
        """Return the time."""
        return ratio / (1 + ratio)

    def drift(self, times: Any) -> tuple[Any, Any]:
        """Return -1 / (1 - t) and 2 t / (1 - t)."""
        time = np.asarray(times, np.float64)
        with np.errstate(divide="ignore"):
            return -1 / (1 - time), 2 * time / (1 - time)


def _real(times: Any, xp: Any) -> Any:
    return np.asarray(times, np.float64) if xp is np else xp.asarray(times)


def _check_ends(low: Any, high: Any, smallest_time: Any, largest_time: Any) -> None:
    for smallest, largest in ((low, high), (smallest_time, largest_time)):
        if not (0 <= smallest < largest < math.inf):
            raise ValueError(
                f"the schedule runs from {smallest} to {largest}, expected finite numbers of at least 0, the second "
                "above the first."
            )
