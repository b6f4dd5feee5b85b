"""Unadjusted underdamped (kinetic) Langevin dynamics, by BAOAB or by the randomised midpoint."""

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Key, PyTree

from parsample.engine import options
from parsample.engine.names import unknown
from parsample.samplers.base import check_step_size, value_and_gradient
from parsample.samplers.mass import Mass
from parsample.samplers.momentum import Phase, PhaseSampler, PhaseState
from parsample.samplers.noise import draw_normal

SCHEMES = ("baoab", "randomized_midpoint")


class UnderdampedLangevinInput(NamedTuple):
    """What a step is given.

    Attributes:
        noise: standard normal, shape (1, dim) for BAOAB; (4, dim) for the randomised midpoint, the momentum and the
            position before it, then the momentum and the position after it.
        midpoint: uniform on (0, 1), the share of the step at which the gradient is taken; None for BAOAB.
    """

    noise: Float[Array, "number dim"]
    midpoint: Float[Array, ""] | None = None


class UnderdampedLangevinInfo(NamedTuple):
    """Diagnostics of a step: every step is accepted. `energy` is that of the point of phase space where it ends."""

    acceptance_rate: Float[Array, ""]
    is_accepted: Bool[Array, ""]
    energy: Float[Array, ""]


class UnderdampedLangevin(PhaseSampler):
    """Underdamped Langevin dynamics without accept/reject: a momentum that persists, with friction and noise.

    With M^-1 = L L^T and the momentum w, standard normal under the invariant law, the dynamics are

        dx = L w dt        dw = L^T grad log p(x) dt - friction w dt + sqrt(2 friction) dW

    "baoab" is half a kick, half a drift, the exact solution for friction and noise over the step, half a drift, half a
    kick. On a Gaussian the positions have the right law at every stable step size, and each component of the momentum
    the variance 1 - (step_size / (2 s))^2 where the standard deviation is s in the coordinates of w.

    "randomized_midpoint" solves the dynamics exactly for a gradient taken at a random time within the step.

    Args:
        logdensity_fn: position -> log density, up to a constant.
        step_size: time: x moves by step_size L w, in units of the position where the mass matrix is the identity. On a
            Gaussian BAOAB is stable below 2 s.
        inverse_mass_matrix: None (identity), (dim,) or (dim, dim), in the order of the ravelled position.
        friction: inverse time. The momentum is forgotten over 1 / friction.
        scheme: "baoab" or "randomized_midpoint".

    Raises:
        ValueError: step size or friction is not positive, the scheme is unknown, or the matrix not positive definite.

    Cost: one gradient a step for BAOAB, two for the randomised midpoint; one more where only the unknowns are known.

    Source: Leimkuhler & Matthews 2013, section 2, for BAOAB; Shen & Lee 2019, algorithm 1, for the randomised midpoint,
    with any friction instead of theirs of 2. Its three correlated increments are ours composed of those of the two
    parts of the step, each of which takes two independent standard normal vectors.
    """

    target_acceptance: ClassVar[None] = None
    power_of_length: ClassVar[float] = 1
    # MALA's proposal is a leapfrog step of sqrt(2 step_size); this is half of that.
    beside_mala: ClassVar[tuple[float, float]] = (0.7, 0.0)

    logdensity_fn: Callable
    step_size: Float[Array, ""] | float
    mass: Mass
    friction: Float[Array, ""] | float
    scheme: str = eqx.field(static=True)

    def __init__(
        self,
        logdensity_fn: Callable,
        step_size: Any = 0.1,
        inverse_mass_matrix: Any = None,
        friction: Any = 1.0,
        scheme: str = "baoab",
    ):
        """Check the arguments and factor the mass matrix."""
        check_step_size(step_size)
        self.logdensity_fn, self.step_size, self.mass = logdensity_fn, step_size, Mass.of(inverse_mass_matrix)
        known = not isinstance(friction, jax.core.Tracer)
        if known and not (options.is_number(friction) and 0 < friction < math.inf):
            raise ValueError(
                f"friction is {friction!r}, expected one finite number above 0, such as 1.0; ghmc has a sampler's "
                "exact law."
            )
        if scheme not in SCHEMES:
            raise unknown("scheme", scheme, SCHEMES)
        self.friction, self.scheme = friction, scheme

    def draw_block(
        self, rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype
    ) -> UnderdampedLangevinInput:
        """Draw the noise of `num_steps` steps, and the midpoints if the scheme has them."""
        if self.scheme == "baoab":
            return UnderdampedLangevinInput(draw_normal(rng_key, num_steps, dim, dtype)[:, None])
        key_noise, key_midpoint = jax.random.split(rng_key)
        noise = draw_normal(key_noise, num_steps, 4 * dim, dtype).reshape(num_steps, 4, dim)
        # Neither end, where the root of a variance of 0 has no derivative.
        edge = float(jnp.finfo(dtype).eps)
        midpoint = jax.random.uniform(key_midpoint, (num_steps,), dtype, edge, 1 - edge)
        return UnderdampedLangevinInput(noise, midpoint)

    def step(
        self, state: PhaseState, input: UnderdampedLangevinInput, gate: str = "frozen"
    ) -> tuple[PhaseState, UnderdampedLangevinInfo]:
        """Make one step. There is no decision, so `gate` changes nothing."""
        vector, unravel = ravel_pytree(state.position)
        mass = self.mass.like(vector)
        step_size, friction = (jnp.asarray(number, vector.dtype) for number in (self.step_size, self.friction))

        def moved(displacement: Array) -> PyTree:
            return unravel(vector + mass.root_times(displacement))

        def force(position: PyTree) -> tuple[Array, Array, Array]:
            value, gradient = value_and_gradient(self.logdensity_fn, position)
            return value, gradient, mass.root_transpose_times(gradient)

        first = mass.root_transpose_times(state.gradient)
        if self.scheme == "baoab":
            momentum = state.momentum + step_size / 2 * first
            refreshed = jnp.exp(-friction * step_size) * momentum
            refreshed += jnp.sqrt(-jnp.expm1(-2 * friction * step_size)) * input.noise[0]
            position = moved(step_size / 2 * (momentum + refreshed))
            value, gradient, last = force(position)
            momentum = refreshed + step_size / 2 * last
        else:
            assert input.midpoint is not None
            before, after = input.midpoint * step_size, (1 - input.midpoint) * step_size
            free = free_flight(jnp.zeros_like(vector), state.momentum, before, friction, input.noise[:2])
            # A constant force over t moves by (t - (1 - exp(-friction t)) / friction) / friction.
            pushed = (before - _reach(before, friction)) / friction * first
            _, _, middle = force(moved(free[0] + pushed))
            displacement, momentum = free_flight(*free, after, friction, input.noise[2:])
            position = moved(displacement + step_size * _reach(after, friction) * middle)
            momentum += step_size * jnp.exp(-friction * after) * middle
            value, gradient, _ = force(position)
        energy = jnp.vdot(momentum, momentum) / 2 - value
        info = UnderdampedLangevinInfo(jnp.ones_like(value), jnp.asarray(True), energy)
        return PhaseState(position, momentum, value, gradient), info

    def with_diagonal(self, unknowns: Phase, input: UnderdampedLangevinInput) -> None:
        """Return None: the Jacobian has blocks of 2 x 2, of which a diagonal is little."""
        return None


def _reach(time: Array, friction: Array) -> Array:
    """Return how far a unit of momentum gets in a time: (1 - exp(-friction time)) / friction."""
    return -jnp.expm1(-friction * time) / friction


def free_flight(
    displacement: Array, momentum: Array, time: Array, friction: Array, noise: Float[Array, "2 dim"]
) -> tuple[Array, Array]:
    """Solve the dynamics without a force exactly.

    With u = friction time and a = 1 - exp(-u), the increments of momentum and displacement have the variances a (2 - a)
    and 2 (u - a - a^2 / 2) / friction^2 and the covariance a^2 / friction. Given the momentum's, the displacement's has
    the mean a / (2 - a) / friction = tanh(u / 2) / friction times it and the variance 4 (y - tanh y) / friction^2 with
    y = u / 2.
    """
    y = friction * time / 2
    kicked = jnp.sqrt(-jnp.expm1(-4 * y)) * noise[0]
    spread = 2 * jnp.sqrt(_y_minus_tanh(y)) / friction
    moved = displacement + _reach(time, friction) * momentum + jnp.tanh(y) / friction * kicked + spread * noise[1]
    return moved, jnp.exp(-2 * y) * momentum + kicked


def _y_minus_tanh(y: Array) -> Array:
    """Return y - tanh(y) for y > 0, by its series where the difference would leave few digits."""
    z = y * y
    series = y * z * (1 / 3 - z * (2 / 15 - z * (17 / 315 - z * (62 / 2835 - z * 1382 / 155925))))
    return jnp.where(y < 0.1, series, y - jnp.tanh(y))
