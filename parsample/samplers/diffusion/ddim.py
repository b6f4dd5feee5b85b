"""DDIM: from deterministic to ancestral sampling."""

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from parsample.samplers.diffusion.affine import Affine, ancestral_deviation
from parsample.samplers.diffusion.base import Process
from parsample.samplers.diffusion.schedules import Level


class DDIM(Affine):
    """Denoise, and put back the model's own noise, a part of it fresh.

    Args: those of `Process`, and
        eta: in [0, 1]: the share of the ancestral deviation that is fresh noise. 0 is deterministic (for rectified flow
            it is Euler's step along the velocity), 1 is DDPM.

    Source: Song et al. 2021, "Denoising diffusion implicit models", equation 12.
    """

    if TYPE_CHECKING:  # Type checkers would make one from the fields.
        __init__ = Process.__init__

    option_rows: ClassVar = (("eta", 0.0, 0.0, 1.0),)

    def weights(self, now: Level, next: Level) -> tuple:
        """Return the combination of x and x0 that keeps the noise's direction."""
        fresh = self.options[0] * ancestral_deviation(now, next) if self.options[0] else np.zeros_like(now.sigma)
        kept = np.sqrt(next.sigma**2 - fresh**2) / now.sigma
        return kept, next.alpha - kept * now.alpha, fresh

    def needs_signal(self) -> bool:
        """Whether alpha is divided by: for fresh noise it is."""
        return super().needs_signal() or self.options[0] > 0
