"""What ULA and MALA share: the Langevin proposal and the state around it."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from parsample.samplers.base import value_and_gradient
from parsample.samplers.mass import Mass


class LangevinState(NamedTuple):
    """A position with what the next step reuses, so that a sequential step costs one gradient.

    Attributes:
        position: any pytree.
        logdensity: log density there.
        gradient: of the log density, as a flat vector, in inverse units of the position.
    """

    position: PyTree
    logdensity: Float[Array, ""]
    gradient: Float[Array, " dim"]


def state_at(logdensity_fn: Callable, position: PyTree) -> LangevinState:
    """Evaluate the log density and its gradient at a position."""
    return LangevinState(position, *value_and_gradient(logdensity_fn, position))


def propose(state: LangevinState, noise: Float[Array, " dim"], step_size: Array | float, mass: Mass) -> PyTree:
    """Return x + step_size M^-1 grad + sqrt(2 step_size) M^-1/2 noise."""
    vector, unravel = ravel_pytree(state.position)
    mass.check(vector.size)
    # One product with the root of M^-1 serves both terms: M^-1 grad = L (L^T grad).
    scaled = step_size * mass.root_transpose_times(state.gradient) + jnp.sqrt(2 * step_size) * noise
    return unravel((vector + mass.root_times(scaled)).astype(vector.dtype))


def drift_diagonal(logdensity_fn: Callable, position: PyTree, step_size: Array | float, mass: Mass) -> Array | None:
    """Return the diagonal of the Jacobian of a proposal, 1 + step_size diag(M^-1 H), as a flat vector.

    None where it is not known: the log density has no `hessian_diagonal(position)`, or the mass matrix is dense.
    """
    hessian_diagonal = getattr(logdensity_fn, "hessian_diagonal", None)
    if hessian_diagonal is None or (mass.root is not None and mass.root.ndim == 2):
        return None
    curvature = ravel_pytree(hessian_diagonal(position))[0]
    return 1 + step_size * mass.root_times(mass.root_times(curvature))
