"""EDM: Heun's method with churn."""

import math
from typing import TYPE_CHECKING, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from parsample.samplers.diffusion.base import Process, StepInput, fresh_noise, split
from parsample.samplers.diffusion.continuous import Continuous
from parsample.samplers.diffusion.heun import AbstractHeun, second_level
from parsample.samplers.diffusion.schedules import Level


class EDM(AbstractHeun):
    """Add a little noise, then make Heun's step from the higher level.

    Args: those of `Process`, with a schedule in continuous time, and
        churn: at least 0: how much noise over all steps. 0 is `Heun`; 40 is usual.
        least_churned: the smallest sigma / alpha that is churned.
        most_churned: the largest.
        inflation: of the added noise's standard deviation.

    Cost: two calls of the model a step, one after the other.

    Source: Karras et al. 2022, algorithm 2.
    """

    if TYPE_CHECKING:  # Type checkers would make one from the fields.
        __init__ = Process.__init__

    noises: ClassVar[int] = 1
    option_rows: ClassVar = (
        ("churn", 40.0, 0.0, math.inf),
        ("least_churned", 0.05, 0.0, math.inf),
        ("most_churned", 50.0, 0.0, math.inf),
        ("inflation", 1.003, 0.0, 2.0),
    )

    def coefficients(self, levels: Level) -> tuple[np.ndarray, ...]:
        """Return the churned level, alpha before it, the level of the second call, and the deviation of the noise."""
        if not isinstance(self.schedule, Continuous):
            raise ValueError(
                f"schedule is {type(self.schedule).__name__}, expected one in continuous time, because churn needs "
                "levels between the steps; use Heun or DDIM with this one."
            )
        now, _ = split(levels)
        churn, least, most, inflation = self.options
        s = now.sigma / now.alpha
        share = np.where((s >= least) & (s <= most), min(churn / self.num_steps, math.sqrt(2) - 1), 0)
        time = np.where(share > 0, self.schedule.time_of(s * (1 + share)), now.time)
        churned = self.schedule.level(time)
        deviation = inflation * s * np.sqrt(share * (2 + share))
        return (*churned, now.alpha, *second_level(levels), deviation)

    def step(self, state: PyTree, input: StepInput) -> Array:
        """Make one step."""
        time, alpha, sigma, before, alpha_then, sigma_then, deviation = input.coefficients
        x = alpha * (state / before + fresh_noise(deviation, input))
        is_last = input.next.sigma == 0
        second = Level(
            jnp.where(is_last, time, input.next.time),
            jnp.where(is_last, alpha, alpha_then),
            jnp.where(is_last, sigma, sigma_then),
        )
        return self.heun(x, Level(time, alpha, sigma), input, second)
