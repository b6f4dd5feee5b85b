"""Predictor-corrector: a Langevin step at every level of the reverse SDE."""

from typing import TYPE_CHECKING, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from parsample.engine.unit import unit
from parsample.samplers.diffusion.affine import ending
from parsample.samplers.diffusion.base import Process, StepInput, split
from parsample.samplers.diffusion.continuous import VE
from parsample.samplers.diffusion.euler_maruyama import euler_weights
from parsample.samplers.diffusion.schedules import Level, Schedule


class PredictorCorrector(Process):
    """A Langevin step that keeps the law of its level, then a step of Euler-Maruyama to the next.

    In the last step, from the smallest time, the sample is denoised after the Langevin step.

    Args: those of `Process`, with a schedule in continuous time (VE by default), and
        snr: in (0, 1]: how far the Langevin step goes, as a ratio of the lengths of its drift and its noise.

    Cost: two calls of the model a step, one after the other.

    Source: Song et al. 2021, algorithms 2 and 4; Jolicoeur-Martineau et al. 2021 for the last step. The lengths are
    those of the sample at hand, not means over a batch.
    """

    if TYPE_CHECKING:  # Type checkers would make one from the fields.
        __init__ = Process.__init__

    evaluations_per_step: ClassVar[int] = 2
    noises: ClassVar[int] = 2
    option_rows: ClassVar = (("snr", 0.16, 1e-3, 1.0),)

    def default_schedule(self) -> Schedule:
        """Return VE."""
        return VE()

    def default_steps(self) -> int:
        """Return 1000."""
        return 1000

    def coefficients(self, levels: Level) -> tuple[np.ndarray, ...]:
        """Return the predictor's weights and the factor of the corrector's step."""
        now, after = split(levels)
        return (*ending(euler_weights(self.schedule, now, after, 1.0), after), (now.alpha / after.alpha) ** 2)

    def step(self, state: PyTree, input: StepInput) -> Array:
        """Make one step."""
        a, b, s, factor = input.coefficients
        now, (first, second) = input.now, input.noise
        score = (now.alpha * self.denoise(state, now) - state) / now.sigma**2
        # Of the lengths, not of their squares, which overflow in half precision.
        length = 2 * factor * (self.options[0] * unit(first)[1] / unit(score)[1]) ** 2
        x = state + length * score + jnp.sqrt(2 * length) * first
        return a * x + b * self.denoise(x, now) + s * second

    def jacobians(self, deviation: float | None = None) -> Float[Array, "steps 1 1"]:
        """Return the Jacobian of every step with the lengths as they are on average for normal data."""
        levels, deviation = self.levels, self.sigma_data if deviation is None else deviation
        now, _ = split(levels)
        a, b, _, factor = self.coefficients(levels)
        variance = (now.alpha * deviation) ** 2 + now.sigma**2
        # |noise|^2 / |score|^2 is the variance, and the score -x / variance.
        corrector = 1 - 2 * factor * self.options[0] ** 2
        return jnp.asarray(corrector * (a + b * now.alpha * deviation**2 / variance))[:, None, None]

    def needs_signal(self) -> bool:
        """Return True: the SDE cannot start without signal."""
        return True
