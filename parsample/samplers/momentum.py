"""Samplers whose momentum is unknown beside the position: it is carried from step to step, not drawn afresh.

The momentum is w = L^T p of `leapfrog.py`, standard normal where p ~ N(0, M) and M^-1 = L L^T.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from parsample.samplers.base import Sampler, value_and_gradient


class Phase(NamedTuple):
    """A point of phase space: what the engine solves for.

    Attributes:
        position: any pytree.
        momentum: w, a flat vector, dimensionless.
    """

    position: PyTree
    momentum: Float[Array, " dim"]


class PhaseState(NamedTuple):
    """A point of phase space with what the next step reuses.

    Attributes:
        position: any pytree.
        momentum: w, a flat vector, dimensionless.
        logdensity: log density of the position.
        gradient: of the log density, as a flat vector, in inverse units of the position.
    """

    position: PyTree
    momentum: Float[Array, " dim"]
    logdensity: Float[Array, ""]
    gradient: Float[Array, " dim"]


class PhaseSampler(Sampler):
    """A sampler whose unknowns are the position and a momentum that is standard normal under the invariant law."""

    def init(self, position: PyTree, rng_key: Key[Array, ""] | None = None) -> PhaseState:
        """Return the state at a position, with a momentum drawn with `rng_key`, or 0 without one."""
        vector, _ = ravel_pytree(position)
        still = jnp.zeros_like(vector)
        momentum = still if rng_key is None else jax.random.normal(rng_key, vector.shape, vector.dtype)
        return self.resume(Phase(position, momentum))

    def unknowns(self, state: PhaseState) -> Phase:
        """Return position and momentum."""
        return Phase(state.position, state.momentum)

    def resume(self, unknowns: Phase) -> PhaseState:
        """Return the state with this position and momentum."""
        return PhaseState(*unknowns, *value_and_gradient(self.logdensity_fn, unknowns.position))
