"""The derivative of a trajectory through the fixed point it solves, without differentiating the iterations.

1. The trajectory solves x[t] = f(x[t-1], u[t]; p) for all t.
2. So its tangents solve dx[t] = J[t] dx[t-1] + df[t], where df[t] is the tangent of f at fixed x[t-1]:
   a linear dynamical system, exact whatever method found x.
3. Reverse mode transposes that solve: the same system, run backwards.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from parsample.engine.matrices import Dense
from parsample.engine.scan import solve_lds
from parsample.engine.transition import FlatTransition

# Above this many dimensions steps * dim^2 numbers are too many, and the tangents are carried by one JVP a step.
LARGEST_DENSE = 64


def differentiable(
    transition: FlatTransition, states: Float[Array, "steps dim"], initial_state: Float[Array, " dim"], inputs: PyTree
) -> Float[Array, "steps dim"]:
    """Return `states` unchanged, with derivatives in the initial state, the inputs and whatever `transition` holds.

    Cost: nothing unless differentiated; then dim JVPs a step in parallel and one solve, or above `LARGEST_DENSE`
    dimensions one JVP a step in sequence.

    Source: implicit function theorem, as in Gonzalez et al. 2024, appendix on gradients.
    """
    states = jax.lax.stop_gradient(states)
    if states.shape[1] > LARGEST_DENSE:
        return _with_tangents_of(_along_the_loop(transition, states, initial_state, inputs), states)
    before = jnp.concatenate([initial_state[None], states[:-1]])
    values = jax.vmap(transition)(before, inputs)
    jacobians = jax.lax.stop_gradient(jax.vmap(jax.jacfwd(transition))(jax.lax.stop_gradient(before), inputs))
    # The tangents of `values` are df, and the solve is linear in them; its value is of no interest.
    return _with_tangents_of(solve_lds(Dense(jacobians), values, jnp.zeros_like(initial_state)), states)


@jax.custom_jvp
def _with_tangents_of(carrier: Array, states: Array) -> Array:
    """Return `states` with the tangents of `carrier`, which is never computed unless they are asked for."""
    return states


@_with_tangents_of.defjvp
def _tangents(primals, tangents):
    return primals[1], tangents[0]


def _along_the_loop(transition: FlatTransition, states: Array, initial_state: Array, inputs: PyTree) -> Array:
    def step(state, element):
        known, input = element
        value = transition(state, input)
        # The value is replaced by the known state and the tangent kept, so errors cannot build up along the loop.
        state = known + (value - jax.lax.stop_gradient(value))
        return state, state

    return jax.lax.scan(step, initial_state, (states, inputs))[1]
