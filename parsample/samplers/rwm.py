"""Random-walk Metropolis."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from parsample.samplers import metropolis
from parsample.samplers.base import PositionSampler, check_step_size
from parsample.samplers.mass import Mass
from parsample.samplers.metropolis import MetropolisInfo, MetropolisInput, MetropolisState


class RWM(PositionSampler):
    """Random-walk Metropolis: Gaussian increments, accepted or rejected so that the target is invariant. No gradient.

    A proposal is x + step_size M^-1/2 noise. One with a log density that is not finite is rejected. With noise that is
    0 but in one coordinate the step is one of Metropolis-within-Gibbs; the inputs are an argument, so a chain of such
    steps needs no other sampler.

    In parallel: an increment depends on the state through the decision alone, so with the frozen gate the Jacobian of
    a step is the identity, accepted or not, and Picard is Newton here. `method="picard"` with a window of K is the
    Online Picard algorithm with K processors: steps are final up to the first whose decision has changed.

    Args:
        logdensity_fn: position -> log density, up to a constant.
        step_size: standard deviation of an increment's coordinates where the mass matrix is the identity, in units of
            the position; that is BlackJAX's `normal_random_walk(sigma)`. (MALA's noise is sqrt(2 step_size).) About
            2.4 / sqrt(dim) standard deviations of the target mix best.
        inverse_mass_matrix: None (identity), (dim,) or (dim, dim), in the order of the ravelled position. Increments
            have the covariance step_size^2 M^-1.

    Raises:
        ValueError: the step size is not positive, or the matrix not positive definite.

    Cost: one log density a sequential step, two where only the position is known (a parallel evaluation).

    Source: Metropolis et al. 1953; Roberts, Gelman & Gilks 1997 for the acceptance of 0.234; Grazzi & Zanella 2025 for
    Online Picard.
    """

    target_acceptance: ClassVar[float] = 0.234
    power_of_length: ClassVar[float] = 1
    warm_up_by_mala: ClassVar[bool] = True

    logdensity_fn: Callable
    step_size: Float[Array, ""] | float
    mass: Mass

    def __init__(self, logdensity_fn: Callable, step_size: Any = 0.1, inverse_mass_matrix: Any = None):
        """Check the arguments and factor the mass matrix."""
        check_step_size(step_size)
        self.logdensity_fn, self.step_size, self.mass = logdensity_fn, step_size, Mass.of(inverse_mass_matrix)

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
        self.mass.check(vector.size)
        increment = self.step_size * self.mass.root_times(input.noise)
        proposal = self.init(unravel((vector + increment).astype(vector.dtype)))
        log_ratio = proposal.logdensity - state.logdensity
        return metropolis.decide(gate, input.log_uniform, log_ratio, proposal, state)

    def with_diagonal(self, unknowns: PyTree, input: MetropolisInput) -> tuple[tuple[Any, Any], PyTree]:
        """Return the step and ones: the Jacobian is the identity."""
        return self.step(self.init(unknowns), input), jax.tree.map(jnp.ones_like, unknowns)
