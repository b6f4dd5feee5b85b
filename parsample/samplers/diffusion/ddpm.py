"""DDPM: ancestral sampling."""

from typing import TYPE_CHECKING

from parsample.samplers.diffusion.affine import Affine, ancestral_deviation
from parsample.samplers.diffusion.base import Process
from parsample.samplers.diffusion.schedules import Level


class DDPM(Affine):
    """Draw the next state from its normal distribution given this one and the denoised sample. The last step adds none.

    Args: those of `Process`.

    Source: Ho et al. 2020, algorithm 2 with the smaller of its two variances; over fewer steps as Nichol & Dhariwal
    2021.
    """

    if TYPE_CHECKING:  # Type checkers would make one from the fields.
        __init__ = Process.__init__

    def default_steps(self) -> int:
        """Return 1000: all training steps."""
        return 1000

    def weights(self, now: Level, next: Level) -> tuple:
        """Return the posterior's mean and deviation."""
        kept = now.alpha / next.alpha
        deviation = ancestral_deviation(now, next)
        added = now.sigma**2 - kept**2 * next.sigma**2
        return kept * next.sigma**2 / now.sigma**2, next.alpha * added / now.sigma**2, deviation
