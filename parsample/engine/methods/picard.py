"""Picard iteration: A = I."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp

from parsample.engine.iteration import Linearised, Steps
from parsample.engine.matrices import ScaledIdentity
from parsample.engine.methods.base import LinearMethod, evaluate_all
from parsample.engine.transition import FlatTransition


class Picard(LinearMethod):
    """A[t] = I: the increments f(x) - x are summed along the last guess, with no derivative.

    For small steps, where the Jacobian is near the identity: diffusion models, unadjusted Langevin. And for random-walk
    Metropolis, whose Jacobian is the identity: there a window of K is Online Picard with K processors, in which all
    steps are right up to the first whose decision has changed.

    Args:
        mismatch: a share in [0, 1). 0 gives the chain of the loop. Above 0 a window moves on past the longest stretch
            in which at most this share of the steps changed (by more than the tolerance) in the iteration, and the
            solution has the status APPROXIMATE: its states are another chain, with nearly the same law where changes
            hardly depend on the state. What came out is measured, in one more evaluation a step.

    Raises:
        ValueError: a mismatch outside [0, 1).

    Source: Shih et al. 2023 (ParaDiGMS), section 3; Grazzi & Zanella 2025 for Metropolis and for the mismatch. Theirs
    stops at the first step before which too many changed; here it is the last before which few enough have, and the
    first changed step is known as well, because the state before it is.
    """

    needs_derivative: ClassVar[bool] = False
    mismatch: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        """Check the share."""
        if not 0 <= self.mismatch < 1:
            raise ValueError(
                f"mismatch is {self.mismatch!r}, expected a share of the steps in [0, 1), such as 0.1; "
                "0 gives the chain of the sequential loop."
            )

    def linearise(self, transition: FlatTransition, steps: Steps) -> Linearised:
        """Return the values and identities."""
        values, details = evaluate_all(transition, steps)
        return Linearised(values, ScaledIdentity(jnp.ones(values.shape[0], values.dtype)), details)
