"""The derivative of a trajectory through the fixed point it solves, without differentiating the iterations.

1. The trajectory solves x[t] = f(x[t-1], u[t]; p) for all t.
2. So its tangents solve dx[t] = J[t] dx[t-1] + df[t], where df[t] is the tangent of f at fixed x[t-1] (for the first
   step, with the tangent of the initial state): a linear dynamical system, exact whatever method found x.
3. Reverse mode transposes that solve: the same system, run backwards.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from parsample.engine.iteration import PRECISION
from parsample.engine.matrices import Dense
from parsample.engine.scan import solve_lds
from parsample.engine.transition import FlatTransition

# Above this many dimensions steps * dim^2 numbers are too many, and the tangents are carried by one JVP a step.
LARGEST_DENSE = 64


def differentiable(
    transition: FlatTransition, states: Float[Array, "steps dim"], initial_state: Float[Array, " dim"], inputs: PyTree
) -> Float[Array, "steps dim"]:
    """Return `states` unchanged, with derivatives in the initial state, the inputs and whatever `transition` holds.

    The rule is written in terms of the states it returns, so derivatives of any order are right.

    Cost: nothing unless differentiated; then dim JVPs a step in parallel and one solve, or above `LARGEST_DENSE`
    dimensions one JVP a step in sequence.

    Source: implicit function theorem, as in Gonzalez et al. 2024, appendix on gradients.
    """
    states = jax.lax.stop_gradient(states)
    if states.shape[1] > LARGEST_DENSE:
        return _with_tangents_of(_along_the_loop(transition, states, initial_state, inputs), states)
    first = jax.tree.map(lambda leaf: leaf[0], inputs)
    # What the transition closes over has to be handed to the rule below, which must not close over tracers.
    step = eqx.filter_closure_convert(lambda state, input: transition(state, input), initial_state, first)
    return _trajectory(initial_state, inputs, step, states)


@eqx.filter_custom_jvp
def _trajectory(initial_state: Array, inputs: PyTree, step: Callable, states: Array) -> Array:
    """Return `states`, the trajectory of `step` from `initial_state`."""
    return states


@_trajectory.def_jvp
def _solve_for_tangents(primals, tangents):
    initial_state, inputs, step, _ = primals
    trajectory = _trajectory(*primals)
    following = trajectory[:-1]

    def values(initial_state: Array, inputs: PyTree, step: Callable) -> Array:
        return jax.vmap(step)(jnp.concatenate([initial_state[None], following]), inputs)

    _, offsets = eqx.filter_jvp(values, primals[:3], tangents[:3])
    before = jnp.concatenate([initial_state[None], following])
    jacobians = jax.vmap(jax.jacfwd(step))(before, inputs)
    with jax.default_matmul_precision(PRECISION):
        return trajectory, solve_lds(Dense(jacobians), offsets, jnp.zeros_like(initial_state))


@jax.custom_jvp
def _with_tangents_of(carrier: Array, states: Array) -> Array:
    """Return `states` with the tangents of `carrier`, which is never computed unless they are asked for."""
    return states


@_with_tangents_of.defjvp
def _tangents(primals, tangents):
    return _with_tangents_of(*primals), tangents[0]


def _along_the_loop(transition: FlatTransition, states: Array, initial_state: Array, inputs: PyTree) -> Array:
    def step(state, element):
        known, input = element
        value = transition(state, input)
        # The value is replaced by the known state and the tangent kept, so errors cannot build up along the loop.
        state = known + (value - jax.lax.stop_gradient(value))
        return state, state

    return jax.lax.scan(step, initial_state, (states, inputs))[1]
