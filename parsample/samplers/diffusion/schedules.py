"""Noise schedules: how much signal and how much noise is left at a training time, and which times a sampler visits.

At time t a noisy sample is x = alpha(t) x0 + sigma(t) noise, with standard normal noise. Everything here is NumPy in
double precision, worked out once, before any state exists: schedule values reach a step as its inputs.
"""

import abc
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
        with np.errstate(divide="ignore"):  # a beta of 1 leaves no signal
            log_signal = np.cumsum(np.log1p(-self.betas()))[times]
        return Level(times, np.exp(0.5 * log_signal), np.sqrt(-np.expm1(log_signal)))

    def times(self, num_steps: int, spacing: str) -> np.ndarray:
        """Return training steps, spaced as the libraries of pretrained models do it."""
        check_spacing(spacing)
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
            if alpha[-1] <= 0:
                raise ValueError(
                    f"spacing is 'karras', even in a power of noise over signal, but {type(self).__name__} has no "
                    f"signal at training step {int(np.argmin(alpha))} (zero terminal SNR); expected "
                    "'leading', or 'trailing' for a model that predicts 'v' or 'x0', or times."
                )
            ratio = np.log(sigma / alpha)
            wanted = np.interp(np.log(karras(np.exp(ratio[-1]), np.exp(ratio[0]), num_steps)), ratio, np.arange(count))
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
        signal = np.cos((share + self.offset) / (1 + self.offset) * np.pi / 2) ** 2
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


def karras(largest: float, smallest: float, num_steps: int) -> np.ndarray:
    """Return falling noise levels, even in noise ** (1 / RHO)."""
    return np.linspace(largest ** (1 / RHO), smallest ** (1 / RHO), num_steps) ** RHO


def check_spacing(spacing: str) -> None:
    """Raise ValueError unless `spacing` is the name of one."""
    if spacing not in SPACINGS:
        raise ValueError(f"spacing is {spacing!r}, expected one of {', '.join(map(repr, SPACINGS))}.")


def _check_betas(first: Any, last: Any, num_train_steps: Any) -> None:
    whole("num_train_steps", num_train_steps, "a schedule has training steps")
    if not all(is_number(beta) and 0 < beta < 1 for beta in (first, last)):
        raise ValueError(f"betas run from {first} to {last}, expected numbers between 0 and 1, such as 1e-4 and 0.02.")
