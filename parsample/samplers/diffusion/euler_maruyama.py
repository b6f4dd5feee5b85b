"""Euler-Maruyama of the reverse SDE, and Euler of the probability-flow ODE."""

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from parsample.samplers.diffusion.affine import Affine
from parsample.samplers.diffusion.base import Process
from parsample.samplers.diffusion.continuous import VP
from parsample.samplers.diffusion.schedules import Level, Schedule


class EulerMaruyama(Affine):
    """x + dt (f x - (1 + eta^2) / 2 g^2 score) + eta g sqrt(-dt) noise: the reverse equation by Euler's method.

    The last step, from the smallest time, is the denoised sample.

    Args: those of `Process`, with a schedule in continuous time (VP by default), and
        eta: in [0, 1]: 1 is the reverse SDE, 0 the probability-flow ODE. All have the same marginal laws.

    Source: Song et al. 2021, "Score-based generative modeling through stochastic differential equations", section 4;
    Jolicoeur-Martineau et al. 2021 for the last step; the family between the two is Karras et al. 2022, equation 6.
    """

    if TYPE_CHECKING:  # Type checkers would make one from the fields.
        __init__ = Process.__init__

    option_rows: ClassVar = (("eta", 1.0, 0.0, 1.0),)

    def default_schedule(self) -> Schedule:
        """Return VP."""
        return VP()

    def default_steps(self) -> int:
        """Return 1000."""
        return 1000

    def weights(self, now: Level, next: Level) -> tuple:
        """Return Euler's step, with score = (alpha x0 - x) / sigma^2."""
        return euler_weights(self.schedule, now, next, self.options[0])

    def needs_signal(self) -> bool:
        """Whether the schedule must have some signal: f is infinite without."""
        return True


def euler_weights(schedule: Schedule, now: Level, next: Level, eta: float) -> tuple:
    """Return a, b and s of Euler's step of the reverse equation."""
    f, g2 = schedule.drift(now.time)
    dt = next.time - now.time
    pull = -dt * 0.5 * (1 + eta**2) * g2 / now.sigma**2
    return 1 + dt * f - pull, pull * now.alpha, eta * np.sqrt(-dt * g2)
