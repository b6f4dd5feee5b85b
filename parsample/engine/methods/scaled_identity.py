"""Scaled identity: A = a I, with a given."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from parsample.engine import matrices
from parsample.engine.methods.base import Method, evaluate_all
from parsample.engine.transition import FlatTransition


class ScaledIdentity(Method):
    """A[t] = a I with a given number a, without derivatives: between Jacobi (0) and Picard (1).

    Args:
        scale: a, in [-1, 1], dimensionless. For MALA on a target whose coordinates have variance 1 (the front door's
            coordinates) the mean Jacobian is about 1 - acceptance_rate * step_size. The default, 0.5, is the middle.

    Raises:
        ValueError: `scale` is outside [-1, 1], where the iteration would amplify its own errors.

    Source: Gonzalez et al. 2025, "A unifying framework for parallelizing sequential models with linear dynamical
    systems".
    """

    scale: float = eqx.field(static=True, default=0.5)

    def __check_init__(self):
        """Check the scale."""
        if not -1 <= self.scale <= 1:
            raise ValueError(f"scale is {self.scale}, expected a number in [-1, 1]; 1 is Picard and 0 is Jacobi.")

    def linearise(
        self,
        transition: FlatTransition,
        previous: Float[Array, "steps dim"],
        inputs: PyTree,
        rng_key: Key[Array, ""],
    ) -> tuple[Float[Array, "steps dim"], matrices.ScaledIdentity]:
        """Return the values and the scaled identities."""
        values = evaluate_all(transition, previous, inputs)
        return values, matrices.ScaledIdentity(jnp.full(values.shape[0], self.scale, values.dtype))
