"""The Metropolis-adjusted Langevin algorithm."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from parsample.engine.lifted import numbered
from parsample.samplers import metropolis
from parsample.samplers.base import PositionSampler, check_step_size
from parsample.samplers.langevin import LangevinState, drift_diagonal, propose, state_at
from parsample.samplers.mass import Mass
from parsample.samplers.metropolis import MetropolisInfo, MetropolisInput


class MALA(PositionSampler):
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
    power_of_length: ClassVar[float] = 2
    holds_gradient: ClassVar[bool] = True

    logdensity_fn: Callable
    step_size: Float[Array, ""] | float
    mass: Mass

    def __init__(self, logdensity_fn: Callable, step_size: Any = 0.1, inverse_mass_matrix: Any = None):
        """Check the arguments and factor the mass matrix."""
        check_step_size(step_size)
        self.logdensity_fn, self.step_size, self.mass = logdensity_fn, step_size, Mass.of(inverse_mass_matrix)

    def init(self, position: PyTree, rng_key: Key[Array, ""] | None = None) -> LangevinState:
        """Return the state at a position, with its log density and gradient."""
        return state_at(self.logdensity_fn, position)

    def draw_block(self, rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype) -> MetropolisInput:
        """Draw the noise and the uniform numbers of `num_steps` steps."""
        return metropolis.draw_inputs(rng_key, num_steps, dim, dtype)

    def step(
        self, state: LangevinState, input: MetropolisInput, gate: str = "frozen"
    ) -> tuple[LangevinState, MetropolisInfo]:
        """Propose, then accept or reject."""
        position = propose(state, input.noise, self.step_size, self.mass)
        proposal = state_at(numbered(self.logdensity_fn, 1), position)
        log_ratio = self._log_ratio(state, proposal, input.noise)
        return metropolis.decide(gate, input.log_uniform, log_ratio, proposal, state)

    @property
    def points(self) -> Callable[[LangevinState, MetropolisInput], Float[Array, "points dim"]]:
        """The proposal."""
        return lambda state, input: ravel_pytree(propose(state, input.noise, self.step_size, self.mass))[0][None]

    def _log_ratio(self, state: LangevinState, proposal: LangevinState, noise: Array) -> Float[Array, ""]:
        # 1. The noise n' of the reverse move solves x = x' + h M^-1 g' + sqrt(2 h) L n', with L L^T = M^-1.
        # 2. Put in x' - x = h M^-1 g + sqrt(2 h) L n:  n' = -(n + sqrt(h / 2) s), with s = L^T (g + g').
        # 3. log q(x | x') - log q(x' | x) = (|n|^2 - |n'|^2) / 2 = -sqrt(h / 2) n.s - (h / 4) |s|^2.
        pull = self.mass.root_transpose_times(state.gradient + proposal.gradient)
        reverse = -jnp.sqrt(self.step_size / 2) * jnp.vdot(noise, pull) - self.step_size / 4 * jnp.vdot(pull, pull)
        return proposal.logdensity - state.logdensity + reverse

    def with_diagonal(self, unknowns: PyTree, input: MetropolisInput) -> tuple[tuple[Any, Any], PyTree] | None:
        """Return the step and the diagonal of I + step_size M^-1 H, if the log density knows that of H."""
        diagonal = drift_diagonal(self.logdensity_fn, unknowns, self.step_size, self.mass)
        if diagonal is None:
            return None
        state, info = self.step(self.init(unknowns), input)
        return (state, info), ravel_pytree(unknowns)[1](jnp.where(info.is_accepted, diagonal, 1))
