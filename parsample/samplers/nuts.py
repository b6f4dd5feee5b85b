"""The no-U-turn sampler, which BlackJAX makes: for comparison, and for the loop alone."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, UInt32

from parsample.engine import options
from parsample.samplers.base import PositionSampler, check_step_size
from parsample.samplers.langevin import LangevinState, state_at
from parsample.samplers.mass import Mass


class NUTSInfo(NamedTuple):
    """Diagnostics of a step.

    Attributes:
        acceptance_rate: the mean probability of acceptance over the tree, which steers the step size.
        is_accepted: whether the chain moved.
        is_divergent: whether the energy rose by more than 1,000 somewhere in the tree.
        energy: of the draw with its momentum.
        num_integration_steps: leapfrog steps of the tree, one gradient each.
        tree_depth: how many times the tree was doubled.
    """

    acceptance_rate: Float[Array, ""]
    is_accepted: Bool[Array, ""]
    is_divergent: Bool[Array, ""]
    energy: Float[Array, ""]
    num_integration_steps: Int[Array, ""]
    tree_depth: Int[Array, ""]


class NUTS(PositionSampler):
    """No-U-turn sampler: Hamiltonian trajectories that are doubled until they turn back, BlackJAX's kernel.

    How many gradients a step takes is known when it has taken them, and chains that are evaluated together wait for the
    longest tree. A parallel evaluation over steps cannot foresee the trees, so only the loop evaluates this sampler:
    `method="auto"` takes it, any other is refused. Here it is the sampler that most people know, to compare with; "hmc"
    is what the package is made for.

    Args:
        logdensity_fn: position -> log density, up to a constant.
        step_size: of the leapfrog integrator, in units of the position where the mass matrix is the identity.
        inverse_mass_matrix: None (identity), (dim,) or (dim, dim), in the order of the ravelled position.
        max_num_doublings: of a tree, which has up to 2 to this power of leapfrog steps; 10 as in Stan and NumPyro.

    Raises:
        ValueError: an argument is out of its range, or the matrix not positive definite.

    Cost: one gradient a leapfrog step, usually 3 to 63 of them.

    Source: Hoffman & Gelman 2014, with the multinomial sampling of Betancourt 2017 (appendix A.2), as BlackJAX's `nuts`
    has them. Ours: a step is given its random key as data, drawn in advance like every other input, so that the chain
    does not depend on segments or on how it was resumed.
    """

    target_acceptance: ClassVar[float] = 0.8
    power_of_length: ClassVar[float] = 1
    holds_gradient: ClassVar[bool] = True
    loop_only: ClassVar[bool] = True

    logdensity_fn: Callable
    step_size: Float[Array, ""] | float
    mass: Mass
    max_num_doublings: int = eqx.field(static=True)

    def __init__(
        self,
        logdensity_fn: Callable,
        step_size: Any = 0.1,
        inverse_mass_matrix: Any = None,
        max_num_doublings: Any = 10,
    ):
        """Check the arguments and factor the mass matrix."""
        check_step_size(step_size)
        self.logdensity_fn, self.step_size, self.mass = logdensity_fn, step_size, Mass.of(inverse_mass_matrix)
        remedy = "a tree has up to 2 to that power of leapfrog steps"
        self.max_num_doublings = options.whole("max_num_doublings", max_num_doublings, remedy)

    def init(self, position: PyTree, rng_key: Key[Array, ""] | None = None) -> LangevinState:
        """Return the state at a position, with its log density and gradient."""
        return state_at(self.logdensity_fn, position)

    def draw_block(
        self, rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype
    ) -> UInt32[Array, "steps words"]:
        """Draw a random key a step, as the numbers that it is made of."""
        return jax.random.key_data(jax.random.split(rng_key, num_steps))

    def step(
        self, state: LangevinState, input: UInt32[Array, " words"], gate: str = "frozen"
    ) -> tuple[LangevinState, NUTSInfo]:
        """Grow a tree, and draw from it.

        Raises:
            ValueError: the gate is not "frozen".
        """
        if gate != "frozen":
            raise ValueError(f"gate is {gate!r}, but a tree of NUTS has no one decision to relax; use gate='frozen'.")
        # BlackJAX takes as long to import as JAX itself.
        from blackjax.mcmc import hmc, nuts

        vector, unravel = ravel_pytree(state.position)
        # The kernel computes in JAX's default precision, the log density in that of the position.
        wide = lambda tree: jax.tree.map(lambda leaf: leaf.astype(jnp.result_type(float)), tree)  # noqa: E731
        density = lambda point: wide(self.logdensity_fn(unravel(point.astype(vector.dtype))))  # noqa: E731
        here = hmc.HMCState(*wide((vector, state.logdensity, state.gradient)))
        key, covariance = jax.random.wrap_key_data(input), wide(self.mass.like(vector).inverse(vector))
        step_size = wide(jnp.asarray(self.step_size))
        end, info = nuts.build_kernel()(key, here, density, step_size, covariance, self.max_num_doublings)
        moved, logdensity, gradient, energy, rate = jax.tree.map(
            lambda leaf: leaf.astype(vector.dtype), (*end, info.energy, info.acceptance_rate)
        )
        return LangevinState(unravel(moved), logdensity, gradient), NUTSInfo(
            # A mean of probabilities, which rounding takes above 1.
            acceptance_rate=jnp.minimum(rate, 1),
            is_accepted=jnp.any(moved != vector),
            is_divergent=info.is_divergent,
            energy=energy,
            num_integration_steps=info.num_integration_steps,
            tree_depth=info.num_trajectory_expansions,
        )

    def with_diagonal(self, unknowns: PyTree, input: UInt32[Array, " words"]) -> None:
        """Return None: nothing is known of the Jacobian of a tree."""
        return None
