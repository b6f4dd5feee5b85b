"""Generalised Hamiltonian Monte Carlo: underdamped Langevin dynamics with accept/reject."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from parsample.engine import options
from parsample.samplers import metropolis
from parsample.samplers.base import check_step_size
from parsample.samplers.hmc import HMCInfo
from parsample.samplers.langevin import LangevinState
from parsample.samplers.leapfrog import integrate
from parsample.samplers.mass import Mass
from parsample.samplers.metropolis import MetropolisInput
from parsample.samplers.momentum import Phase, PhaseSampler, PhaseState


class GHMC(PhaseSampler):
    """Generalised HMC: refresh the momentum in part, follow a short leapfrog trajectory, accept or reject its end.

    With the momentum w of `leapfrog.py` and fresh noise n a step starts from

        w = sqrt(1 - alpha) w + sqrt(alpha) n

    accepts the end (x', w') of the trajectory with probability min(1, exp(E - E')), E = |w|^2 / 2 - log p(x), and is at
    (x, -w) if it rejects it: the flip keeps the law of (x, w) invariant. Every rejection turns the chain round, so the
    best acceptance rate is higher than HMC's: at 0.9 it goes on for some ten steps, and with an alpha of 0.3 the
    momentum is forgotten over about as many.

    Args:
        logdensity_fn: position -> log density, up to a constant.
        step_size: of the leapfrog integrator, as in `HMC`: time, in units of the position where the mass matrix is the
            identity.
        inverse_mass_matrix: None (identity), (dim,) or (dim, dim), in the order of the ravelled position.
        alpha: in (0, 1], the share of fresh noise in the momentum's variance, BlackJAX's; 1 is HMC. Underdamped
            Langevin dynamics with a friction has 1 - exp(-2 friction time of a trajectory).
        num_integration_steps: leapfrog steps of a trajectory.

    Raises:
        ValueError: an argument is out of its range, or the matrix not positive definite.

    Cost: num_integration_steps gradients a step, one more where only the unknowns are known.

    Source: Horowitz 1991; Neal 2011, section 5.3. Accept/reject takes a fresh uniform number a step, as there; BlackJAX
    has Neal's 2020 slice variable, which persists, and would be one more unknown.
    """

    target_acceptance: ClassVar[float] = 0.9
    power_of_length: ClassVar[float] = 1

    logdensity_fn: Callable
    step_size: Float[Array, ""] | float
    mass: Mass
    alpha: Float[Array, ""] | float
    num_integration_steps: int = eqx.field(static=True)

    def __init__(
        self,
        logdensity_fn: Callable,
        step_size: Any = 0.1,
        inverse_mass_matrix: Any = None,
        alpha: Any = 0.3,
        num_integration_steps: int = 1,
    ):
        """Check the arguments and factor the mass matrix."""
        check_step_size(step_size)
        self.logdensity_fn, self.step_size, self.mass = logdensity_fn, step_size, Mass.of(inverse_mass_matrix)
        if not (isinstance(alpha, jax.core.Tracer) or (options.is_number(alpha) and 0 < alpha <= 1)):
            raise ValueError(
                f"alpha is {alpha!r}, expected a number in (0, 1]; 1 draws the momentum of every step afresh, "
                "and at 0 the chain would stay near one energy."
            )
        self.alpha = alpha
        remedy = "a trajectory is that many leapfrog steps"
        self.num_integration_steps = options.whole("num_integration_steps", num_integration_steps, remedy)

    def draw_block(self, rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype) -> MetropolisInput:
        """Draw the noise and the uniform numbers of `num_steps` steps."""
        return metropolis.draw_inputs(rng_key, num_steps, dim, dtype)

    def step(self, state: PhaseState, input: MetropolisInput, gate: str = "frozen") -> tuple[PhaseState, HMCInfo]:
        """Refresh the momentum in part and follow a trajectory, then accept its end or turn round."""
        alpha = jnp.asarray(self.alpha, state.momentum.dtype)
        momentum = jnp.sqrt(1 - alpha) * state.momentum + jnp.sqrt(alpha) * input.noise
        here = LangevinState(state.position, state.logdensity, state.gradient)
        trajectory = integrate(
            self.logdensity_fn, self.mass, here, momentum, self.step_size, self.num_integration_steps
        )
        end = trajectory.state
        proposal = PhaseState(end.position, trajectory.momentum, end.logdensity, end.gradient)
        turned = state._replace(momentum=-momentum)
        before = jnp.vdot(momentum, momentum) / 2 - state.logdensity
        state, info = metropolis.decide(gate, input.log_uniform, trajectory.log_ratio, proposal, turned)
        return state, HMCInfo(
            acceptance_rate=info.acceptance_rate,
            is_accepted=info.is_accepted,
            is_divergent=trajectory.is_divergent,
            energy=jnp.where(info.is_accepted, before - trajectory.log_ratio, before),
            num_integration_steps=jnp.asarray(self.num_integration_steps, jnp.int32),
        )

    def with_diagonal(self, unknowns: Phase, input: MetropolisInput) -> None:
        """Return None: the Jacobian has blocks of 2 x 2, of which a diagonal is little."""
        return None
