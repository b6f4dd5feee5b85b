"""DPM-Solver++ of second order with the last prediction kept: 2M, and its SDE."""

from typing import TYPE_CHECKING, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from parsample.samplers.diffusion.affine import log_signal_to_noise
from parsample.samplers.diffusion.base import Process, StepInput, fresh_noise, split
from parsample.samplers.diffusion.schedules import Level, Schedule


class DPMSolverPP(Process):
    """Integrate the denoised sample exactly along a line through its last two values. The state is (x, last x0).

    The first step and the last one, to a clean sample, are of first order.

    Args: those of `Process`, and
        eta: in [0, 1]: 0 is the ODE (2M), 1 the SDE (SDE-2M).

    Source: Lu et al. 2022, "DPM-Solver++", algorithm 2, and appendix on SDEs.
    """

    if TYPE_CHECKING:  # Type checkers would make one from the fields.
        __init__ = Process.__init__

    noises: ClassVar[int] = 1
    option_rows: ClassVar = (("eta", 0.0, 0.0, 1.0),)

    def start(self, x: Array) -> PyTree:
        """Return the state at the beginning: there is no last prediction yet."""
        return x, jnp.zeros_like(x)

    def sample(self, state: PyTree) -> Array:
        """Return x."""
        return state[0]

    def coefficients(self, levels: Level) -> tuple[np.ndarray, ...]:
        """Return what x, the two predictions and noise are multiplied by."""
        now, after = split(levels)
        eta = self.options[0]
        signal = log_signal_to_noise(levels)
        h = np.diff(signal)
        slope = np.zeros_like(h)
        slope[1:] = 0.5 * h[1:] / h[:-1]
        # A step to a clean sample is infinitely long in log(alpha / sigma): nothing of x is kept, and no line helps.
        finite = np.isfinite(h)
        slope[~finite] = 0
        gain = -after.alpha * np.expm1(-(1 + eta) * h)
        length = eta * np.where(finite, h, 0)
        keep = after.sigma / now.sigma * np.exp(-length)
        noise = after.sigma * np.sqrt(-np.expm1(-2 * length))
        return keep, gain * (1 + slope), -gain * slope, noise

    def step(self, state: PyTree, input: StepInput) -> PyTree:
        """Make one step."""
        x, last = state
        keep, new, old, s = input.coefficients
        x0 = self.denoise(x, input.now)
        return keep * x + new * x0 + old * last + fresh_noise(s, input), x0

    def default_spacing(self, schedule: Schedule) -> str:
        """Return a spacing that starts at the noisiest level."""
        return "trailing" if schedule.discrete else "linspace"

    def needs_signal(self) -> bool:
        """Return True: steps are measured in log(alpha / sigma)."""
        return True
