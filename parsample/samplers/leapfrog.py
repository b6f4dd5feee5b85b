"""Leapfrog trajectories: what the samplers with a momentum share, by a loop or in parallel over their steps.

In coordinates where the mass matrix is the identity. With M^-1 = L L^T, the momentum here is w = L^T p, standard normal
where p ~ N(0, M), and a displacement q moves the position by L q:

    dq/dt = w        dw/dt = L^T grad log p(x + L q)        energy = |w|^2 / 2 - log p
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from parsample.engine.evaluate import evaluate
from parsample.engine.lifted import numbered
from parsample.engine.methods import Method
from parsample.engine.rules import Conditioning
from parsample.samplers.base import value_and_gradient
from parsample.samplers.langevin import LangevinState, state_at
from parsample.samplers.mass import Mass

# A trajectory whose energy has risen by more than this has left the stable region of the integrator.
DIVERGENCE = 1000.0
# The tolerance of a trajectory in parallel, in rounding errors of its dtype: tight, because the error of the energy
# decides about acceptance, and loose enough to be reached.
TOLERANCE_IN_ROUNDING_ERRORS = 16


class Leapfrog(eqx.Module):
    """The drift over a whole step and then the kick over a whole step, from (displacement, momentum) to the next.

    Started half a kick ahead it is the leapfrog (velocity Verlet) integrator with neighbouring half kicks merged. It
    takes one gradient, and its Jacobian [[I, h I], [h H, I + h^2 H]] is made of diagonals where the Hessian H is one.
    """

    logdensity_fn: Callable
    mass: Mass
    origin: Float[Array, " dim"]
    unravel: Callable = eqx.field(static=True)
    step_size: Float[Array, ""]

    def vector(self, displacement: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Return the flat position at a displacement."""
        return self.origin + self.mass.root_times(displacement)

    def position(self, displacement: Float[Array, " dim"]) -> PyTree:
        """Return the position at a displacement."""
        return self.unravel(self.vector(displacement))

    def kick(self, momentum: Float[Array, " dim"], gradient: Float[Array, " dim"], share: float) -> Array:
        """Return the momentum after a share of the step in a given gradient."""
        return momentum + share * self.step_size * self.mass.root_transpose_times(gradient)

    def move(
        self, displacement: Array, momentum: Array, number: int | Array = 1
    ) -> tuple[Array, Array, tuple[Array, Array]]:
        """Return the next displacement and momentum, and the log density and its gradient there.

        `number` is that of the step in its trajectory, counted from 1.
        """
        displacement = displacement + self.step_size * momentum
        found = value_and_gradient(numbered(self.logdensity_fn, number), self.position(displacement))
        return displacement, self.kick(momentum, found[1], 1.0), found

    def __call__(self, phase: tuple[Array, Array], input: PyTree) -> tuple[Array, Array]:
        """Return the next (displacement, momentum); every step has the same input."""
        return self.move(*phase)[:2]


class Trajectory(NamedTuple):
    """Where a trajectory ended.

    Attributes:
        state: with log density NaN if the trajectory left the finite numbers.
        momentum: w, dimensionless.
        log_ratio: minus the change of the energy: the log ratio of the end as a proposal.
        is_divergent: whether the energy has risen by more than `DIVERGENCE`, or is not a number.
    """

    state: LangevinState
    momentum: Float[Array, " dim"]
    log_ratio: Float[Array, ""]
    is_divergent: Bool[Array, ""]


def integrate(
    logdensity_fn: Callable,
    mass: Mass,
    state: LangevinState,
    momentum: Float[Array, " dim"],
    step_size: Array | float,
    num_steps: int | Int[Array, ""],
    *,
    length: Int[Array, ""] | None = None,
    method: Method | None = None,
    number: int | Array = 0,
) -> Trajectory:
    """Follow the leapfrog integrator for a number of steps.

    Args:
        logdensity_fn: position -> log density.
        mass: the inverse mass matrix.
        state: where the trajectory starts.
        momentum: w, with which it starts.
        step_size: of the leapfrog integrator: time, in units in which the position's unit is that of L w.
        num_steps: how many, at most. Its value may be traced where there is no method; then there is no reverse mode.
        length: how many of them count; None for all. Its value may be traced: all are computed, and some ignored.
        method: to evaluate the steps of the trajectory in parallel; None for a loop.
        number: of the leapfrog steps that came before in the same step of the chain, for `engine.lifted.numbered`.

    Raises:
        ValueError: the mass matrix is of another size than the position.

    Cost: by the loop `num_steps` gradients. In parallel, the iterations of the method times `num_steps`, and one.
    """
    leapfrog, phase = _start(logdensity_fn, mass, state, momentum, step_size)
    if method is None:
        end, ahead = _loop(leapfrog, phase, state, num_steps, length, number)
    else:
        end, ahead = _parallel(leapfrog, phase, num_steps, length, method)
    final = leapfrog.kick(ahead, end.gradient, -0.5)
    # As a product, the difference of the kinetic energies keeps its digits.
    log_ratio = end.logdensity - state.logdensity + jnp.vdot(momentum - final, momentum + final) / 2
    is_divergent = ~(jnp.isfinite(end.logdensity) & (log_ratio > -DIVERGENCE))
    return Trajectory(end, final, log_ratio, is_divergent)


def positions(
    logdensity_fn: Callable,
    mass: Mass,
    state: LangevinState,
    momentum: Float[Array, " dim"],
    step_size: Array | float,
    num_steps: int,
    *,
    number: int | Array = 0,
) -> Float[Array, "num_steps dim"]:
    """Return the flat positions after each leapfrog step, with the arguments of `integrate`."""
    leapfrog, phase = _start(logdensity_fn, mass, state, momentum, step_size)

    def step(phase: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], Array]:
        displacement, momentum, _ = leapfrog.move(*phase, number)
        return (displacement, momentum), leapfrog.vector(displacement)

    return jax.lax.scan(step, phase, number + 1 + jnp.arange(num_steps))[1]


def _start(
    logdensity_fn: Callable, mass: Mass, state: LangevinState, momentum: Array, step_size: Array | float
) -> tuple[Leapfrog, tuple[Array, Array]]:
    """Return the integrator, and the displacement and the momentum, half a kick ahead, with which it begins."""
    vector, unravel = ravel_pytree(state.position)
    step_size = jnp.asarray(step_size, vector.dtype)
    leapfrog = Leapfrog(logdensity_fn, mass.like(vector), vector, unravel, step_size)
    return leapfrog, (jnp.zeros_like(vector), leapfrog.kick(momentum, state.gradient, 0.5))


def _loop(
    leapfrog: Leapfrog,
    phase: tuple[Array, Array],
    state: LangevinState,
    num_steps: int | Int[Array, ""],
    length: Int[Array, ""] | None,
    number: int | Array,
) -> tuple[LangevinState, Array]:
    """Return the state at the end, and the momentum half a kick ahead of it."""

    def step(done: Array, carry: tuple) -> tuple:
        displacement, momentum, found = leapfrog.move(carry[0], carry[1], number + done + 1)
        following = displacement, momentum, found
        if length is not None:
            following = jax.tree.map(lambda new, old: jnp.where(done < length, new, old), following, carry)
        return following

    start = (*phase, (state.logdensity, state.gradient))
    displacement, momentum, found = jax.lax.fori_loop(0, num_steps, step, start)
    return LangevinState(leapfrog.position(displacement), *found), momentum


def _parallel(
    leapfrog: Leapfrog,
    phase: tuple[Array, Array],
    num_steps: int | Int[Array, ""],
    length: Int[Array, ""] | None,
    method: Method,
) -> tuple[LangevinState, Array]:
    """Return the same by a method of the engine.

    It is always right: every iteration gains at least one step, and there may be as many iterations as steps.
    """
    last = num_steps - 1 if length is None else length - 1
    tolerance = TOLERANCE_IN_ROUNDING_ERRORS * float(jnp.finfo(leapfrog.origin.dtype).eps)
    # Not projected: a trajectory is short and its Jacobians are symplectic, of norm above 1 even where it is stable.
    solution = evaluate(
        leapfrog,
        phase,
        jnp.arange(num_steps),
        method=method,
        atol=tolerance,
        rtol=tolerance,
        conditioning=Conditioning(projection=False),
        throw=False,
    )
    displacement, momentum = jax.tree.map(lambda rows: rows[last], solution.states)
    end = state_at(leapfrog.logdensity_fn, leapfrog.position(displacement))
    # What comes after a state that is not finite is finite here and not in the loop.
    reached = solution.converged | (solution.first_bad_step > last)
    return end._replace(logdensity=jnp.where(reached, end.logdensity, jnp.nan)), momentum
