"""UniPC of third order: a predictor and a corrector that share their calls of the model."""

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from parsample.samplers.diffusion.affine import log_signal_to_noise
from parsample.samplers.diffusion.base import Process, StepInput, split
from parsample.samplers.diffusion.schedules import Level, Schedule

# Gauss-Legendre nodes for integrals of an exponential times a polynomial of second degree.
NODES, QUADRATURE = np.polynomial.legendre.leggauss(24)


class UniPC(Process):
    """Integrate the denoised sample exactly along the parabola through its last three values.

    The model is called once a step, at the predicted state; its answer first corrects that state, with the parabola
    that the new value completes, and then predicts the next. Both parabolas give third order; the corrector's error is
    the smaller. The state is (predicted x, last corrected x, the last two x0). The first steps, and the last one, to a
    clean sample, are of lower order.

    Args: those of `Process`.

    Source: Zhao et al. 2023, algorithms 1 and 2: the predictor of UniPC-3 with the corrector of UniPC-2, which is of
    third order like it and needs no older value. The weights are those of exact integration of the interpolating
    polynomial, which is their UniPC_v.
    """

    if TYPE_CHECKING:  # Type checkers would make one from the fields.
        __init__ = Process.__init__

    def start(self, x: Array) -> PyTree:
        """Return the state at the beginning."""
        return x, jnp.zeros_like(x), jnp.zeros_like(x), jnp.zeros_like(x)

    def sample(self, state: PyTree) -> Array:
        """Return the predicted x."""
        return state[0]

    def coefficients(self, levels: Level) -> tuple[np.ndarray, ...]:
        """Return the weights of the corrector (on x and three predictions) and of the predictor (alike)."""
        signal = log_signal_to_noise(levels)
        now, after = split(levels)
        steps = now.sigma.size
        corrector, predictor = np.zeros((steps, 4)), np.zeros((steps, 4))
        for i in range(steps):
            known = signal[max(i - 2, 0) : i + 1][::-1]
            if i > 0:
                corrector[i, 0] = levels.sigma[i] / levels.sigma[i - 1]
                corrector[i, 1 : 1 + known.size] = levels.alpha[i] * _integrals(known, signal[i - 1], signal[i])
            predictor[i, 0] = after.sigma[i] / now.sigma[i]
            if np.isfinite(signal[i + 1]):
                predictor[i, 1 : 1 + known.size] = after.alpha[i] * _integrals(known, signal[i], signal[i + 1])
            else:
                predictor[i, 1] = after.alpha[i]
        return corrector, predictor, np.arange(steps) == 0

    def step(self, state: PyTree, input: StepInput) -> PyTree:
        """Make one step."""
        x, last, first_x0, second_x0 = state
        corrector, predictor, is_first = input.coefficients
        x0 = self.denoise(x, input.now)

        def combine(weights: Array, x: Array) -> Array:
            return weights[0] * x + weights[1] * x0 + weights[2] * first_x0 + weights[3] * second_x0

        corrected = jnp.where(is_first > 0, x, combine(corrector, last))
        return combine(predictor, corrected), corrected, x0, first_x0

    def default_spacing(self, schedule: Schedule) -> str:
        """Return a spacing that starts at the noisiest level."""
        return "trailing" if schedule.discrete else "linspace"

    def needs_signal(self) -> bool:
        """Return True: steps are measured in log(alpha / sigma)."""
        return True


def _integrals(nodes: np.ndarray, start: float, end: float) -> np.ndarray:
    """Return for each node the integral from start to end of exp(l - end) times its Lagrange polynomial."""
    half = 0.5 * (end - start)
    at = start + half * (1 + NODES)
    weight = half * QUADRATURE * np.exp(at - end)
    found = []
    for j, node in enumerate(nodes):
        others = np.delete(nodes, j)
        found.append(np.sum(weight * np.prod((at[:, None] - others) / (node - others), axis=1)))
    return np.asarray(found)
