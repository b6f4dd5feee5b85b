"""Picard iteration: A = I."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from parsample.engine.iteration import Steps
from parsample.engine.matrices import ScaledIdentity
from parsample.engine.methods.base import LinearMethod, evaluate_all
from parsample.engine.transition import FlatTransition


class Picard(LinearMethod):
    """A[t] = I: the increments f(x) - x are summed along the last guess, with no derivative.

    For small steps, where the Jacobian is near the identity: diffusion models, unadjusted Langevin.

    Source: Shih et al. 2023 (ParaDiGMS), section 3.
    """

    @property
    def needs_derivative(self) -> bool:
        """Whether the transition is differentiated: it is not."""
        return False

    def linearise(self, transition: FlatTransition, steps: Steps) -> tuple[Float[Array, "steps dim"], ScaledIdentity]:
        """Return the values and identities."""
        values = evaluate_all(transition, steps)
        return values, ScaledIdentity(jnp.ones(values.shape[0], values.dtype))
