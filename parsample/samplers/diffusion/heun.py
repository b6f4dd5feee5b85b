"""Heun's method for the probability-flow ODE."""

from typing import TYPE_CHECKING, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from parsample.samplers.diffusion.base import Process, StepInput, split
from parsample.samplers.diffusion.continuous import Karras
from parsample.samplers.diffusion.schedules import Level, Schedule


class AbstractHeun(Process):
    """Second order in y = x / alpha over s = sigma / alpha, where dy/ds = (y - x0) / s for every schedule.

    The last step, to a clean sample, is Euler's, with no second call that counts for anything.
    """

    evaluations_per_step: ClassVar[int] = 2

    def default_schedule(self) -> Schedule:
        """Return EDM's."""
        return Karras()

    def default_spacing(self, schedule: Schedule) -> str:
        """Return Karras's spacing."""
        return "trailing" if schedule.discrete else "karras"

    def needs_signal(self) -> bool:
        """Return True: y = x / alpha."""
        return True

    def heun(self, x: Array, now: Level, input: StepInput, second: Level) -> Array:
        """Make a step from `now` to the next level; `second` is where the model is called again."""
        y, s = x / now.alpha, now.sigma / now.alpha
        s_next = input.next.sigma / input.next.alpha
        x0 = self.denoise(x, now)
        slope = (y - x0) / s
        is_last = input.next.sigma == 0
        # To a clean sample s_next is 0; written out, x0 comes out to the last digit.
        euler = jnp.where(is_last, x0, y + (s_next - s) * slope)
        there = jnp.where(is_last, x, input.next.alpha * euler)
        s_there = second.sigma / second.alpha
        slope_there = (there / second.alpha - self.denoise(there, second)) / s_there
        return input.next.alpha * jnp.where(is_last, euler, y + (s_next - s) * 0.5 * (slope + slope_there))


class Heun(AbstractHeun):
    """Heun's method without noise.

    Args: those of `Process`.

    Cost: two calls of the model a step, one after the other.

    Source: Karras et al. 2022, algorithm 1.
    """

    if TYPE_CHECKING:  # Type checkers would make one from the fields.
        __init__ = Process.__init__

    def coefficients(self, levels: Level) -> tuple[np.ndarray, ...]:
        """Return the level of the second call: the next one, but in the last step the present one again."""
        return second_level(levels)

    def step(self, state: PyTree, input: StepInput) -> Array:
        """Make one step."""
        alpha, sigma = input.coefficients
        time = jnp.where(input.next.sigma == 0, input.now.time, input.next.time)
        return self.heun(state, input.now, input, Level(time, alpha, sigma))


def second_level(levels: Level) -> tuple[np.ndarray, np.ndarray]:
    """Return alpha and sigma where the model is called for the second time."""
    now, after = split(levels)
    clean = after.sigma == 0
    return np.where(clean, now.alpha, after.alpha), np.where(clean, now.sigma, after.sigma)
