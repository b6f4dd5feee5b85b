"""The Metropolis-adjusted Langevin algorithm."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Key, PyTree

from parsample.samplers.base import Mass, Sampler, check_step_size, draw_normal
from parsample.samplers.gate import choose
from parsample.samplers.langevin import LangevinState, drift_diagonal, propose, state_at


class MALAInput(NamedTuple):
    """What a step of MALA is given.

    Attributes:
        noise: standard normal, shape (dim,).
        log_uniform: the logarithm of a uniform number; a proposal is accepted if its log ratio is above it.
    """

    noise: Float[Array, " dim"]
    log_uniform: Float[Array, ""]


class MALAInfo(NamedTuple):
    """Diagnostics of a step.

    Attributes:
        acceptance_rate: the probability with which the proposal was to be accepted.
        is_accepted: whether it was.
    """

    acceptance_rate: Float[Array, ""]
    is_accepted: Bool[Array, ""]


class MALA(Sampler):
    """Metropolis-adjusted Langevin algorithm: gradient proposals, accepted or rejected so that the target is invariant.

    A proposal with a log density or gradient that is not finite is rejected.

    Args:
        logdensity_fn: position -> log density, up to a constant.
        step_size: BlackJAX's: proposals move by step_size M^-1 grad + sqrt(2 step_size) M^-1/2 noise.
        inverse_mass_matrix: None (identity), (dim,) or (dim, dim), in the order of the ravelled position.

    Raises:
        ValueError: the step size is not positive, or the matrix not positive definite.

    Cost: one gradient a sequential step, two where only the position is known (a parallel evaluation).

    Source: Roberts & Tweedie 1996, section 1.4.2; Roberts & Rosenthal 1998 for the acceptance of 0.574. The log ratio
    is written in the noise, so that nothing large cancels.
    """

    target_acceptance: ClassVar[float] = 0.574

    logdensity_fn: Callable
    step_size: Float[Array, ""] | float
    mass: Mass

    def __init__(self, logdensity_fn: Callable, step_size: Any = 0.1, inverse_mass_matrix: Any = None):
        """Check the arguments and factor the mass matrix."""
        check_step_size(step_size)
        self.logdensity_fn, self.step_size, self.mass = logdensity_fn, step_size, Mass.of(inverse_mass_matrix)

    def init(self, position: PyTree) -> LangevinState:
        """Return the state at a position, with its log density and gradient."""
        return state_at(self.logdensity_fn, position)

    def draw_block(self, rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype) -> MALAInput:
        """Draw the noise and the uniform numbers of `num_steps` steps."""
        key_noise, key_uniform = jax.random.split(rng_key)
        # An exponential number is minus the logarithm of a uniform one, and never infinite.
        log_uniform = -jax.random.exponential(key_uniform, (num_steps,), dtype)
        return MALAInput(draw_normal(key_noise, num_steps, dim, dtype), log_uniform)

    def step(self, state: LangevinState, input: MALAInput, gate: str = "frozen") -> tuple[LangevinState, MALAInfo]:
        """Propose, then accept or reject."""
        proposal = self.init(propose(state, input.noise, self.step_size, self.mass))
        log_ratio = self._log_ratio(state, proposal, input.noise)
        # A proposal with a density or gradient that is not finite has no chance. The ratio is constant there, so that
        # no NaN gets into the derivative of a relaxed gate. A comparison with NaN is False.
        has_chance = jnp.isfinite(proposal.logdensity) & (log_ratio > -jnp.inf)
        log_ratio = jnp.where(has_chance, log_ratio, -jnp.inf)
        is_accepted = input.log_uniform < log_ratio
        state = choose(gate, is_accepted, log_ratio - input.log_uniform, proposal, state)
        return state, MALAInfo(jnp.exp(jnp.minimum(log_ratio, 0)), is_accepted)

    def _log_ratio(self, state: LangevinState, proposal: LangevinState, noise: Array) -> Float[Array, ""]:
        # 1. The noise n' of the reverse move solves x = x' + h M^-1 g' + sqrt(2 h) L n', with L L^T = M^-1.
        # 2. Put in x' - x = h M^-1 g + sqrt(2 h) L n:  n' = -(n + sqrt(h / 2) s), with s = L^T (g + g').
        # 3. log q(x | x') - log q(x' | x) = (|n|^2 - |n'|^2) / 2 = -sqrt(h / 2) n.s - (h / 4) |s|^2.
        pull = self.mass.root_transpose_times(state.gradient + proposal.gradient)
        reverse = -jnp.sqrt(self.step_size / 2) * jnp.vdot(noise, pull) - self.step_size / 4 * jnp.vdot(pull, pull)
        return proposal.logdensity - state.logdensity + reverse

    def with_diagonal(self, position: PyTree, input: MALAInput) -> tuple[PyTree, PyTree] | None:
        """Return the next position and the diagonal of I + step_size M^-1 H, if the log density knows that of H."""
        diagonal = drift_diagonal(self.logdensity_fn, position, self.step_size, self.mass)
        if diagonal is None:
            return None
        state, info = self.step(self.init(position), input)
        return state.position, ravel_pytree(position)[1](jnp.where(info.is_accepted, diagonal, 1))
