"""The Barker proposal."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from parsample.samplers import metropolis
from parsample.samplers.base import PositionSampler, check_step_size
from parsample.samplers.gate import choose
from parsample.samplers.langevin import LangevinState, state_at
from parsample.samplers.mass import Mass
from parsample.samplers.metropolis import MetropolisInfo
from parsample.samplers.noise import draw_uniforms, log_uniform, logistic, normal


class BarkerInput(NamedTuple):
    """What a step is given.

    Attributes:
        noise: standard normal, shape (dim,): how far each coordinate moves.
        logistic: standard logistic, shape (dim,): which way. The logit of a uniform number.
        log_uniform: the logarithm of a uniform number; a proposal is accepted if its log ratio is above it.
    """

    noise: Float[Array, " dim"]
    logistic: Float[Array, " dim"]
    log_uniform: Float[Array, ""]


class Barker(PositionSampler):
    """Metropolis with the Barker proposal: the gradient turns the increments, and does not stretch them.

    With M^-1 = L L^T and c = L^T grad, coordinate i of z = step_size noise keeps its sign with probability
    sigmoid(z_i c_i), and turns it otherwise; a proposal is x + L z, accepted or rejected so that the target is
    invariant. A gradient that is far too large only makes the sign certain, so steps stay stable where MALA's do not.

    In parallel: an increment depends on the state through its signs and the decision, so with the frozen gate the
    Jacobian is the identity and Picard is Newton, as for RWM. The straight-through gate covers the signs, too: there
    the Jacobian contracts where the target's curvature does.

    Args:
        logdensity_fn: position -> log density, up to a constant.
        step_size: BlackJAX's: standard deviation of z. In units of the position where the mass matrix is the identity.
        inverse_mass_matrix: None (identity), (dim,) or (dim, dim), in the order of the ravelled position. Increments
            have about the covariance step_size^2 M^-1, so that the posterior's covariance is what to give, as for every
            sampler here. (BlackJAX 1.7 scales its Barker increments by M^1/2: give it the inverse.)

    Raises:
        ValueError: the step size is not positive, or the matrix not positive definite.

    Cost: one gradient a sequential step, two where only the position is known (a parallel evaluation).

    Source: Livingstone & Zanella 2022, section 3, and appendix G for the mass matrix; Vogrinc, Livingstone & Zanella
    2023 for the acceptance of 0.57 (0.4, as in the first paper, gave fewer effective draws on the targets here).
    Whether a sign is kept is written as logistic < z c: a number fixed in advance against one that the state decides.
    """

    target_acceptance: ClassVar[float] = 0.57
    power_of_length: ClassVar[float] = 1
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

    def draw_block(self, rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype) -> BarkerInput:
        """Draw the noise, the logistic and the uniform numbers of `num_steps` steps."""
        noise, signs, uniform = draw_uniforms(rng_key, dtype, (num_steps, dim), (num_steps, dim), (num_steps,))
        return BarkerInput(normal(noise), logistic(signs), log_uniform(uniform))

    def step(
        self, state: LangevinState, input: BarkerInput, gate: str = "frozen"
    ) -> tuple[LangevinState, MetropolisInfo]:
        """Propose, then accept or reject."""
        vector, unravel = ravel_pytree(state.position)
        self.mass.check(vector.size)
        pull = self._pull(state)
        size = self.step_size * input.noise
        log_odds = size * pull - input.logistic
        move = choose(gate, log_odds > 0, log_odds, size, -size)
        proposal = self.init(unravel((vector + self.mass.root_times(move)).astype(vector.dtype)))

        # 1. Up to what is the same in both directions q(x' | x) is the product over i of sigmoid(move_i c_i), and the
        #    reverse move is -move: log q(x | x') - log q(x' | x) = sum log sigmoid(-move c') - log sigmoid(move c).
        # 2. log sigmoid(y) = -softplus(-y).
        there, back = jax.nn.softplus(-move * pull), jax.nn.softplus(move * self._pull(proposal))
        log_ratio = proposal.logdensity - state.logdensity + jnp.sum(there - back)
        return metropolis.decide(gate, input.log_uniform, log_ratio, proposal, state)

    def _pull(self, state: LangevinState) -> Float[Array, " dim"]:
        return self.mass.root_transpose_times(state.gradient)

    def with_diagonal(self, unknowns: PyTree, input: BarkerInput) -> tuple[tuple[Any, Any], PyTree]:
        """Return the step and ones: with the signs and the decision fixed the Jacobian is the identity."""
        return self.step(self.init(unknowns), input), jax.tree.map(jnp.ones_like, unknowns)
