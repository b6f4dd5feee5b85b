"""Preconditioned Crank-Nicolson."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from parsample.samplers import metropolis
from parsample.samplers.base import PositionSampler, check_step_size
from parsample.samplers.metropolis import MetropolisInfo, MetropolisInput, MetropolisState
from parsample.samplers.reference import Reference, log_gain


class PCN(PositionSampler):
    """Preconditioned Crank-Nicolson: proposals that leave a Gaussian invariant, corrected for the target. No gradient.

    With the reference N(mean, L L^T) a proposal is mean + exp(-h) (x - mean) + sqrt(1 - exp(-2h)) L noise, h being the
    step size, accepted with the ratio of target to reference: where they are the same every proposal is. That does not
    depend on the dimension, so neither does the step size that a target wants which resembles a Gaussian. One whose
    tails are much heavier than the reference's holds the chain there for long: give it a wider covariance.

    In parallel: with the frozen gate the Jacobian of a step is exp(-h) I where it is accepted and I where not, which
    quasi-Newton has exactly: it is Newton here.

    Args:
        logdensity_fn: position -> log density of the target, up to a constant; a prior that is the reference included.
        step_size: h, dimensionless; any number above 0. The usual beta is sqrt(1 - exp(-2h)), from 0 to 1, and for
            small ones sqrt(2h), as in the noise of MALA; far above 1 proposals are independent draws of the reference.
        mean: of the reference: None (0), a number or (dim,), in the order of the ravelled position.
        covariance: of the reference: None (identity), (dim,) or (dim, dim).

    Raises:
        ValueError: the step size is not positive, the mean not finite, or the covariance not positive definite.

    Cost: one log density a sequential step, two where only the position is known (a parallel evaluation).

    Source: Cotter et al. 2013, section 4; Neal 1998. The form in h, the exact step of an
    Ornstein-Uhlenbeck process over the time h, is ours: every step size is legal. The log ratio is written in the
    change, so that nothing large cancels.
    """

    target_acceptance: ClassVar[float] = 0.4
    power_of_length: ClassVar[float] = 0
    warm_up_by_mala: ClassVar[bool] = True

    logdensity_fn: Callable
    step_size: Float[Array, ""] | float
    reference: Reference

    def __init__(self, logdensity_fn: Callable, step_size: Any = 0.1, mean: Any = None, covariance: Any = None):
        """Check the arguments and factor the covariance."""
        check_step_size(step_size)
        self.logdensity_fn, self.step_size, self.reference = logdensity_fn, step_size, Reference.of(mean, covariance)

    @classmethod
    def at_length(cls, logdensity_fn: Callable, step_size: Any, length: Array | float) -> "PCN":
        """Return the sampler of a target `length` times as wide: with a reference as wide, and the same step size."""
        return eqx.tree_at(lambda sampler: sampler.reference.length, cls(logdensity_fn, step_size), length)

    def init(self, position: PyTree, rng_key: Key[Array, ""] | None = None) -> MetropolisState:
        """Return the state at a position, with its log density."""
        return MetropolisState(position, self.logdensity_fn(position))

    def draw_block(self, rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype) -> MetropolisInput:
        """Draw the noise and the uniform numbers of `num_steps` steps."""
        return metropolis.draw_inputs(rng_key, num_steps, dim, dtype)

    def step(
        self, state: MetropolisState, input: MetropolisInput, gate: str = "frozen"
    ) -> tuple[MetropolisState, MetropolisInfo]:
        """Propose, then accept or reject."""
        vector, unravel = ravel_pytree(state.position)
        whitened = self.reference.whiten(vector)
        change = jnp.expm1(-self.step_size) * whitened + jnp.sqrt(-jnp.expm1(-2 * self.step_size)) * input.noise
        proposal = self.init(unravel(self.reference.move(vector, change)))
        log_ratio = proposal.logdensity - state.logdensity + log_gain(whitened, change)
        return metropolis.decide(gate, input.log_uniform, log_ratio, proposal, state)

    def with_diagonal(self, unknowns: PyTree, input: MetropolisInput) -> tuple[tuple[Any, Any], PyTree]:
        """Return the step and the diagonal of the Jacobian: exp(-step_size) where accepted, otherwise 1."""
        state, info = self.step(self.init(unknowns), input)
        vector, unravel = ravel_pytree(unknowns)
        factor = jnp.where(info.is_accepted, jnp.exp(-self.step_size), 1)
        return (state, info), unravel(jnp.full_like(vector, factor))
