"""Noise schedules: how much signal and how much noise is left at a training time, and which times a sampler visits.

At time t a noisy sample is x = alpha(t) x0 + sigma(t) noise, with standard normal noise. Everything here is NumPy in
double precision, worked out once, before any state exists: schedule values reach a step as its inputs.
"""

import abc
import math
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import numpy as np

from parsample.engine.options import is_number, whole

SPACINGS = ("leading", "linspace", "trailing", "karras")
# The curvature of Karras's spacing: steps are even in noise ** (1 / RHO).
RHO = 7.0


class Level(NamedTuple):
    """Where on the schedule a state is.

    Attributes:
        time: training time index, noise level or continuous time: what the model is given.
        alpha: of the signal, dimensionless.
        sigma: standard deviation of the noise, in the units of the data.
    """

    time: Any
    alpha: Any
    sigma: Any


class Schedule(eqx.Module):
    """A noise schedule."""

    # Whether times are training indices, whole numbers from 0 up.
    discrete: ClassVar[bool] = False

    @abc.abstractmethod
    def level(self, times: Any) -> Level:
        """Return signal and noise at these times."""

    @abc.abstractmethod
    def times(self, num_steps: int, spacing: str) -> np.ndarray:
        """Return `num_steps` falling times, the noisiest first.

        Raises:
            ValueError: there are not that many, or the spacing is not one for this schedule.
        """

    @abc.abstractmethod
    def prior_scale(self, time: Any) -> float:
        """Return the standard deviation of the normal distribution that sampling starts from at a time."""

    def drift(self, times: Any) -> tuple[Any, Any]:
        """Return f and g^2 of the forward process dx = f x dt + g dw.

        Raises:
            ValueError: the schedule has no continuous time.
        """
        raise ValueError(
            f"schedule is {type(self).__name__}, which has no continuous time and so no differential equation; "
            f"expected "
            "VP, SubVP, VE, Karras or RectifiedFlow, or use DDIM, DDPM or DPM-Solver++ with this one."
        )


class Discrete(Schedule):
    """Betas of the training steps 0, 1, ...: alpha^2 is the product of 1 - beta up to a step, sigma^2 the rest."""

    discrete: ClassVar[bool] = True

    @abc.abstractmethod
    def betas(self) -> np.ndarray:
        """Return the variance that each training step adds."""

    def level(self, times: Any) -> Level:
        """Return signal and noise after training steps."""
        times = np.asarray(times)
        # 1 - prod(1 - beta) by expm1: in plain arithmetic the first steps would lose half their digits.
        log_signal = np.cumsum(np.log1p(-self.betas()))[times]
        return Level(times, np.exp(0.5 * log_signal), np.sqrt(-np.expm1(log_signal)))

    def times(self, num_steps: int, spacing: str) -> np.ndarray:
        """Return training steps, spaced as the libraries of pretrained models do it."""
        _check_spacing(spacing)
        count = self.betas().size
        num_steps = whole("num_steps", num_steps, f"the schedule has {count} training steps to choose from")
        if num_steps > count:
            raise ValueError(
                f"num_steps is {num_steps}, but the schedule has {count} training steps; expected at most {count}."
            )
        times: Any
        if spacing == "leading":
            times = np.arange(num_steps)[::-1] * (count // num_steps)
        elif spacing == "linspace":
            times = np.linspace(0, count - 1, num_steps).round()[::-1]
        elif spacing == "trailing":
            times = np.round(np.arange(count, 0, -count / num_steps))[:num_steps] - 1
        else:
            _, alpha, sigma = self.level(np.arange(count))
            ratio = np.log(sigma / alpha)
            wanted = np.interp(np.log(_karras(np.exp(ratio[-1]), np.exp(ratio[0]), num_steps)), ratio, np.arange(count))
            # Two that would round to the same training step move apart, without leaving the schedule.
            times = np.maximum(np.round(wanted), np.arange(num_steps)[::-1])
            for i in range(1, num_steps):
                times[i] = min(times[i], times[i - 1] - 1)
        return times.astype(np.int64)

    def prior_scale(self, time: Any) -> float:
        """Return 1: a normal distribution as it is."""
        return 1.0


class LinearBetas(Discrete):
    """Betas on a line: DDPM's schedule.

    Args:
        first: beta of training step 0.
        last: beta of the last.
        num_train_steps: how many.

    Raises:
        ValueError: betas outside (0, 1), or fewer than one step.

    Source: Ho et al. 2020, section 4.
    """

    first: Any = eqx.field(static=True, default=1e-4)
    last: Any = eqx.field(static=True, default=0.02)
    num_train_steps: int = eqx.field(static=True, default=1000)

    def __check_init__(self):
        """Check the betas."""
        _check_betas(self.first, self.last, self.num_train_steps)

    def betas(self) -> np.ndarray:
        """Return the betas."""
        return np.linspace(self.first, self.last, self.num_train_steps)


class CosineBetas(Discrete):
    """Betas that make alpha^2 a squared cosine of the time.

    Args:
        offset: keeps the first betas above 0.
        largest: beta allowed.
        num_train_steps: how many.

    Source: Nichol & Dhariwal 2021, section 3.2.
    """

    offset: Any = eqx.field(static=True, default=0.008)
    largest: Any = eqx.field(static=True, default=0.999)
    num_train_steps: int = eqx.field(static=True, default=1000)

    def __check_init__(self):
        """Check the betas."""
        _check_betas(self.largest, self.largest, self.num_train_steps)

    def betas(self) -> np.ndarray:
        """Return the betas."""
        share = np.arange(self.num_train_steps + 1) / self.num_train_steps
        signal = np.cos((share + self.offset) / (1 + self.offset) * math.pi / 2) ** 2
        return np.minimum(1 - signal[1:] / signal[:-1], self.largest)


class SigmoidBetas(Discrete):
    """Betas on a logistic curve.

    Args:
        first: beta where the curve starts.
        last: where it ends.
        num_train_steps: how many.

    Source: Xu et al. 2022 (GeoDiff).
    """

    first: Any = eqx.field(static=True, default=1e-4)
    last: Any = eqx.field(static=True, default=0.02)
    num_train_steps: int = eqx.field(static=True, default=1000)

    def __check_init__(self):
        """Check the betas."""
        _check_betas(self.first, self.last, self.num_train_steps)

    def betas(self) -> np.ndarray:
        """Return the betas."""
        curve = 1 / (1 + np.exp(-np.linspace(-6, 6, self.num_train_steps)))
        return self.first + (self.last - self.first) * curve


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
        _check_spacing(spacing)
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
        times = self.time_of(_karras(largest, smallest, num_steps))
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


def check_times(times: Any, schedule: Schedule) -> tuple[Any, ...]:
    """Return times that a caller gave, as a tuple.

    Raises:
        ValueError: they are not numbers that fall strictly, or lie outside the schedule.
    """
    found = np.asarray(times, np.float64)
    if found.ndim != 1 or found.size == 0 or not np.isfinite(found).all():
        raise ValueError(f"times has shape {found.shape}, expected a list of finite numbers, the noisiest time first.")
    rising = np.flatnonzero(np.diff(found) >= 0)
    if rising.size:
        k = int(rising[0])
        raise ValueError(
            f"times[{k}] is {found[k]:g} and times[{k + 1}] is {found[k + 1]:g}, expected times that fall strictly; "
            "sort them, the noisiest first."
        )
    if isinstance(schedule, Discrete):
        count = schedule.betas().size
        if (found != found.round()).any() or found[-1] < 0 or found[0] >= count:
            raise ValueError(
                f"times run from {found[0]:g} to {found[-1]:g}, expected whole numbers from {count - 1} down to 0: the "
                f"schedule has {count} training steps."
            )
        return tuple(int(time) for time in found)
    if found[-1] < 0:
        raise ValueError(f"times end at {found[-1]:g}, expected at least 0.")
    return tuple(float(time) for time in found)


def _real(times: Any, xp: Any) -> Any:
    return np.asarray(times, np.float64) if xp is np else xp.asarray(times)


def _karras(largest: float, smallest: float, num_steps: int) -> np.ndarray:
    """Return falling noise levels, even in noise ** (1 / RHO)."""
    return np.linspace(largest ** (1 / RHO), smallest ** (1 / RHO), num_steps) ** RHO


def _check_spacing(spacing: str) -> None:
    if spacing not in SPACINGS:
        raise ValueError(f"spacing is {spacing!r}, expected one of {', '.join(map(repr, SPACINGS))}.")


def _check_betas(first: Any, last: Any, num_train_steps: Any) -> None:
    whole("num_train_steps", num_train_steps, "a schedule has training steps")
    if not all(is_number(beta) and 0 < beta < 1 for beta in (first, last)):
        raise ValueError(f"betas run from {first} to {last}, expected numbers between 0 and 1, such as 1e-4 and 0.02.")


def _check_ends(low: Any, high: Any, smallest_time: Any, largest_time: Any) -> None:
    for smallest, largest in ((low, high), (smallest_time, largest_time)):
        if not (0 <= smallest < largest < math.inf):
            raise ValueError(
                f"the schedule runs from {smallest} to {largest}, expected finite numbers of at least 0, the second "
                "above the first."
            )
