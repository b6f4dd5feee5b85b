"""Processes whose step is a fixed combination of the state, the denoised sample and noise."""

import abc
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Array, PyTree

from parsample.samplers.diffusion.base import Process, StepInput, fresh_noise, split
from parsample.samplers.diffusion.schedules import Level


class Affine(Process):
    """x_next = a x + b x0(x) + s noise, with a, b and s from the schedule, worked out in double precision."""

    noises: ClassVar[int] = 1

    @abc.abstractmethod
    def weights(self, now: Level, next: Level) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a, b and s of every step, from the levels before and after it; those of the last do not count."""

    def coefficients(self, levels: Level) -> tuple[np.ndarray, ...]:
        """Return a, b and s."""
        now, after = split(levels)
        return ending(self.weights(now, after), after)

    def step(self, state: PyTree, input: StepInput) -> Array:
        """Make one step."""
        a, b, s = input.coefficients
        return a * state + b * self.denoise(state, input.now) + fresh_noise(s, input)


def ending(weights: tuple[np.ndarray, ...], after: Level) -> tuple[np.ndarray, ...]:
    """Return a, b and s, in a step to a clean sample 0, 1 and 0: the denoised sample, to which no noise is added."""
    return tuple(np.where(after.sigma == 0, end, row) for row, end in zip(weights, (0.0, 1.0, 0.0), strict=True))


def ancestral_deviation(now: Level, next: Level) -> Any:
    """Return the standard deviation of the next state given this one and the clean sample; 0 where it is clean."""
    kept = now.alpha / next.alpha
    added = np.maximum(now.sigma**2 - kept**2 * next.sigma**2, 0)
    return next.sigma * np.sqrt(added) / now.sigma


def log_signal_to_noise(level: Level) -> np.ndarray:
    """Return log(alpha / sigma), infinite for a clean sample."""
    with np.errstate(divide="ignore"):
        return np.log(level.alpha) - np.log(level.sigma)
