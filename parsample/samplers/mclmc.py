"""Microcanonical Langevin Monte Carlo: a particle of constant speed, steered by the gradient."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Key, PyTree

from parsample.engine import options
from parsample.engine.unit import unit
from parsample.samplers.base import Sampler, check_step_size, value_and_gradient
from parsample.samplers.isokinetic import Isokinetic, advance, check_dim
from parsample.samplers.noise import draw_normal


class MCLMCUnknowns(NamedTuple):
    """What the engine solves for.

    Attributes:
        position: any pytree.
        direction: of the velocity, a flat vector of length 1.
    """

    position: PyTree
    direction: Float[Array, " dim"]


class MCLMCState(NamedTuple):
    """Position and direction with what the next step reuses.

    Attributes:
        position: any pytree.
        direction: of the velocity, a flat vector of length 1.
        logdensity: log density of the position.
        gradient: of the log density, as a flat vector, in inverse units of the position.
    """

    position: PyTree
    direction: Float[Array, " dim"]
    logdensity: Float[Array, ""]
    gradient: Float[Array, " dim"]


class MCLMCInput(NamedTuple):
    """What a step is given: standard normal `noise` of shape (2, dim), for the directions before and after it."""

    noise: Float[Array, "2 dim"]


class MCLMCInfo(NamedTuple):
    """Diagnostics of a step: every step is accepted.

    Attributes:
        acceptance_rate: 1.
        is_accepted: True.
        energy_change: error of the integrator over the step, 0 in the limit of small steps.
    """

    acceptance_rate: Float[Array, ""]
    is_accepted: Bool[Array, ""]
    energy_change: Float[Array, ""]


class MCLMC(Sampler):
    """Microcanonical Langevin Monte Carlo, without accept/reject.

    The velocity is a direction u of length 1. The gradient turns it, and noise keeps it from going round for ever:

        dx = u dt        du = (I - u u^T) grad log p(x) / (dim - 1) dt + noise

    A step is BlackJAX's: u is refreshed over half a step, u <- (u + s n) / |u + s n|, where s^2 is
    (exp(step_size / L) - 1) / dim; McLachlan's integrator makes a step; u is refreshed again. The law of the positions
    is near the target, the nearer the smaller the step.

    The engine's iterates leave the sphere, which is no linear space. `resume` puts their direction back to length 1;
    the chain itself is on the sphere, so that the solution is the same.

    Args:
        logdensity_fn: position -> log density, up to a constant.
        step_size: length of the way of a step, in units of the position. On a standard normal about sqrt(dim) / 4.
        L: length of the way over which the direction is forgotten, in units of the position; None for sqrt(dim), which
            suits standardised coordinates.

    Raises:
        ValueError: step size or L is not positive, or the position holds a single number, which has no direction to
            turn to.

    Cost: two gradients a step, one more where only the unknowns are known.

    Source: Robnik, De Luca, Silverstein & Seljak 2023; Robnik & Seljak 2024 for the noise; Ver Steeg & Galstyan 2021
    for the exact kick. BlackJAX draws a new direction where a step leaves the finite numbers; here the chain ends there
    and the engine says so.
    """

    target_acceptance: ClassVar[None] = None
    power_of_length: ClassVar[float] = 1
    # A step of length h moves a coordinate by h / sqrt(dim).
    beside_mala: ClassVar[tuple[float, float]] = (0.5, 0.5)

    logdensity_fn: Callable
    step_size: Float[Array, ""] | float
    L: Float[Array, ""] | float | None

    def __init__(self, logdensity_fn: Callable, step_size: Any = 0.1, L: Any = None):
        """Check the arguments."""
        check_step_size(step_size)
        known = not (L is None or isinstance(L, jax.core.Tracer))
        if known and not (options.is_number(L) and L > 0):
            raise ValueError(f"L is {L!r}, expected a number above 0, or None for the root of the dimension.")
        self.logdensity_fn, self.step_size, self.L = logdensity_fn, step_size, L

    def init(self, position: PyTree, rng_key: Key[Array, ""] | None = None) -> MCLMCState:
        """Return the state at a position, with a direction drawn with `rng_key`, or that of equal parts without one."""
        vector, _ = ravel_pytree(position)
        drawn = jnp.ones_like(vector) if rng_key is None else jax.random.normal(rng_key, vector.shape, vector.dtype)
        return self.resume(MCLMCUnknowns(position, drawn))

    def unknowns(self, state: MCLMCState) -> MCLMCUnknowns:
        """Return position and direction."""
        return MCLMCUnknowns(state.position, state.direction)

    def resume(self, unknowns: MCLMCUnknowns) -> MCLMCState:
        """Return the state with this position and direction, put back to length 1.

        Raises:
            ValueError: the position holds a single number.
        """
        position, direction = unknowns
        check_dim(direction.size, "mclmc", "underdamped_langevin")
        return MCLMCState(position, unit(direction)[0], *value_and_gradient(self.logdensity_fn, position))

    def draw_block(self, rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype) -> MCLMCInput:
        """Draw the noise of `num_steps` steps."""
        return MCLMCInput(draw_normal(rng_key, num_steps, 2 * dim, dtype).reshape(num_steps, 2, dim))

    def step(self, state: MCLMCState, input: MCLMCInput, gate: str = "frozen") -> tuple[MCLMCState, MCLMCInfo]:
        """Make one step. There is no decision, so `gate` changes nothing."""
        vector, unravel = ravel_pytree(state.position)
        step_size = jnp.asarray(self.step_size, vector.dtype)
        length = jnp.asarray(vector.size**0.5 if self.L is None else self.L, vector.dtype)
        spread = jnp.sqrt(jnp.expm1(step_size / length) / vector.size)

        direction, _ = unit(state.direction + spread * input.noise[0])
        before = Isokinetic(vector, direction, state.logdensity, state.gradient)
        after, energy_change = advance(lambda x: value_and_gradient(self.logdensity_fn, unravel(x)), before, step_size)
        direction, _ = unit(after.direction + spread * input.noise[1])
        info = MCLMCInfo(jnp.ones_like(energy_change), jnp.asarray(True), energy_change)
        return MCLMCState(unravel(after.vector), direction, after.logdensity, after.gradient), info

    def with_diagonal(self, unknowns: MCLMCUnknowns, input: MCLMCInput) -> None:
        """Return None: length 1 couples all coordinates of the direction."""
        return None
