"""Newton iteration: A = J."""

import equinox as eqx
import jax

from parsample.engine.iteration import Linearised, Steps
from parsample.engine.matrices import Dense
from parsample.engine.methods.base import LinearMethod, check_gate
from parsample.engine.transition import FlatTransition


class Newton(LinearMethod):
    """A[t] = J[t], the whole Jacobian: few iterations, each dear.

    Args:
        gate: how the derivative treats accept/reject.

    Cost: dim JVPs a step, a matrix of dim x dim a step in memory, and O(dim^3) a step: six products of matrices for its
        projection, and those of the scan on an accelerator. For small dim.

    Source: Lim et al. 2024 (DEER), Gonzalez et al. 2024; here each matrix is projected to spectral norm 1 by the
    driver, without which the iteration can diverge.
    """

    gate: str = eqx.field(static=True, default="frozen")

    def __check_init__(self):
        """Check the gate."""
        check_gate(self.gate)

    def tangents(self, dim: int) -> int:
        """Return one for each coordinate."""
        return dim

    def linearise(self, transition: FlatTransition, steps: Steps) -> Linearised:
        """Return the values and the Jacobians."""
        gated = transition.with_gate(self.gate)

        def step(state, input):
            def value_twice(state):
                value, details = gated.with_details(state, input)
                return value, (value, details)

            jacobian, (value, details) = jax.jacfwd(value_twice, has_aux=True)(state)
            return value, Dense(jacobian), details

        return Linearised(*jax.vmap(step)(steps.previous, steps.inputs))
