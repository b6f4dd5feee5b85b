"""The unadjusted Langevin algorithm."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from parsample.samplers.base import PositionSampler, SamplerTransition, check_step_size
from parsample.samplers.langevin import LangevinState, drift_diagonal, propose, state_at
from parsample.samplers.mass import Mass
from parsample.samplers.noise import draw_normal


class ULAInput(NamedTuple):
    """What a step of ULA is given: standard normal `noise` of shape (dim,)."""

    noise: Float[Array, " dim"]


class ULAInfo(NamedTuple):
    """Diagnostics of a step: every step is accepted."""

    acceptance_rate: Float[Array, ""]
    is_accepted: Array


class ULA(PositionSampler):
    """Unadjusted Langevin algorithm: gradient steps without accept/reject.

    A step is x + step_size M^-1 grad + sqrt(2 step_size) M^-1/2 noise. Its invariant law is only near the target, the
    nearer the smaller the step: for a Gaussian of variance s^2 and identity mass the variance is
    s^2 / (1 - step_size / (2 s^2)).

    Args:
        logdensity_fn: position -> log density, up to a constant.
        step_size: BlackJAX's, in squared units of the position where the mass matrix is the identity.
        inverse_mass_matrix: None (identity), (dim,) or (dim, dim), in the order of the ravelled position.

    Raises:
        ValueError: the step size is not positive, or the matrix not positive definite.

    Cost: one gradient a step.

    Source: Roberts & Tweedie 1996, section 1.4.1.
    """

    target_acceptance: ClassVar[None] = None
    power_of_length: ClassVar[float] = 2

    logdensity_fn: Callable
    step_size: Float[Array, ""] | float
    mass: Mass

    def __init__(self, logdensity_fn: Callable, step_size: Any = 0.1, inverse_mass_matrix: Any = None):
        """Check the arguments and factor the mass matrix."""
        check_step_size(step_size)
        self.logdensity_fn, self.step_size, self.mass = logdensity_fn, step_size, Mass.of(inverse_mass_matrix)

    def init(self, position: PyTree, rng_key: Key[Array, ""] | None = None) -> LangevinState:
        """Return the state at a position, with its gradient."""
        return state_at(self.logdensity_fn, position)

    def draw_block(self, rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype) -> ULAInput:
        """Draw the noise of `num_steps` steps."""
        return ULAInput(draw_normal(rng_key, num_steps, dim, dtype))

    def step(self, state: LangevinState, input: ULAInput, gate: str = "frozen") -> tuple[LangevinState, ULAInfo]:
        """Make one step. There is no decision, so `gate` changes nothing."""
        state = self.init(propose(state, input.noise, self.step_size, self.mass))
        return state, ULAInfo(jnp.ones_like(state.logdensity), jnp.asarray(True))

    def coarsen(self, inputs: ULAInput, factor: int) -> tuple[SamplerTransition, ULAInput]:
        """Return the same dynamics in steps `factor` times as long, and the noise of those steps.

        A long step gets the sum of the noise of the steps it covers, over sqrt(factor); steps at the end that fill no
        long one are left out. For `parsample.evaluate_nested`.

        Raises:
            ValueError: the factor is below 1, or there are fewer steps.
        """
        steps, dim = inputs.noise.shape
        if not 1 <= factor <= steps:
            raise ValueError(f"factor is {factor}, expected a whole number from 1 to {steps}, the number of steps.")
        count = steps // factor
        noise = inputs.noise[: count * factor].reshape(count, factor, dim).sum(1) / factor**0.5
        longer = eqx.tree_at(lambda sampler: sampler.step_size, self, factor * self.step_size)
        return longer.transition, ULAInput(noise.astype(inputs.noise.dtype))

    def with_diagonal(self, unknowns: PyTree, input: ULAInput) -> tuple[tuple[Any, Any], PyTree] | None:
        """Return the step and the diagonal of I + step_size M^-1 H, if the log density knows that of H."""
        diagonal = drift_diagonal(self.logdensity_fn, unknowns, self.step_size, self.mass)
        if diagonal is None:
            return None
        return self.step(self.init(unknowns), input), ravel_pytree(unknowns)[1](diagonal)
