"""Gaussian surrogates: what takes the place of a target where its data would be too dear."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.optimize
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from parsample.engine.traceable import traceable


class Gaussian(eqx.Module):
    """The log density of a normal distribution, as a function of the same positions as a target's.

    A sampler on it, with the same options, is the surrogate of `parsample.methods.Surrogate`:

        Surrogate(sampler_class(gaussian, step_size).transition)

    Args:
        mean: a position, any pytree, in its units.
        covariance: of the flat position, shape (dim, dim), or (dim,) for a diagonal; in squared units.

    Raises:
        ValueError: the shapes do not fit, or the covariance is not positive definite; the sentence names the smallest
            eigenvalue.

    Cost: O(dim^3) to make; O(dim^2) an evaluation, O(dim) for a diagonal.
    """

    mean: Float[Array, " dim"]
    precision: Float[Array, "dim dim"] | Float[Array, " dim"]

    def __init__(self, mean: PyTree, covariance: Any):
        """Check and invert the covariance."""
        vector = ravel_pytree(mean)[0]
        covariance = np.asarray(covariance, np.float64)
        dim = vector.size
        if covariance.shape not in ((dim,), (dim, dim)):
            raise ValueError(
                f"covariance has shape {covariance.shape}, expected ({dim}, {dim}) or ({dim},), because mean holds "
                f"{dim} numbers."
            )
        if not np.isfinite(covariance).all():
            raise ValueError("covariance holds values that are not finite, expected a positive definite matrix.")
        values, vectors = (covariance, None) if covariance.ndim == 1 else np.linalg.eigh(covariance)
        smallest = int(np.argmin(values))
        # Below this an eigenvalue is lost in the rounding errors of the largest.
        if values[smallest] <= dim * float(np.finfo(np.float64).eps) * np.abs(values).max():
            raise ValueError(
                f"covariance is not positive definite: eigenvalue {smallest} of {dim} is {values[smallest]:.3g}, "
                "expected all above 0; add a little to its diagonal, or estimate it from more draws."
            )
        precision = 1 / values if vectors is None else (vectors / values) @ vectors.T
        self.mean, self.precision = vector, jnp.asarray(precision, vector.dtype)

    def __call__(self, position: PyTree) -> Float[Array, ""]:
        """Return the log density at a position, up to a constant."""
        centred = ravel_pytree(position)[0] - self.mean
        pull = self.precision * centred if self.precision.ndim == 1 else self.precision @ centred
        return -0.5 * jnp.vdot(centred, pull)

    def hessian_diagonal(self, position: PyTree) -> PyTree:
        """Return the diagonal of its Hessian, a pytree like the position."""
        diagonal = self.precision if self.precision.ndim == 1 else jnp.diagonal(self.precision)
        return ravel_pytree(position)[1](-diagonal)


def laplace(logdensity_fn: Callable[[PyTree], Array], position: PyTree, max_steps: int = 100) -> Gaussian:
    """Return the Gaussian with the mode of a log density as its mean and the inverse of its Hessian as covariance.

    Args:
        logdensity_fn: position -> log density, up to a constant.
        position: to start from, any pytree.
        max_steps: of the search.

    Raises:
        ValueError: the search ended where the gradient is not 0 or the density has no maximum.

    Cost: one gradient a step of the search, then a Hessian: dim gradients and O(dim^3).

    Source: BFGS by `jax.scipy.optimize`, whose line search gives up early in single precision, then Newton's iteration
        with steps that are halved until they lower the gradient.
    """
    with traceable("logdensity_fn"):
        jax.eval_shape(logdensity_fn, position)
    vector, unravel = ravel_pytree(position)
    negative = lambda x: -logdensity_fn(unravel(x))  # noqa: E731
    with jax.default_matmul_precision("highest"):
        mode = jax.scipy.optimize.minimize(negative, vector, method="BFGS", options={"maxiter": max_steps}).x
        gradient, hessian = jax.jit(jax.grad(negative)), jax.jit(jax.hessian(negative))
        value = jax.jit(negative)
        # BFGS may step to where there is no density, and stay there; Newton's steps are looked at first.
        if not (bool(value(mode) < value(vector)) and bool(jnp.isfinite(gradient(mode)).all())):
            mode = vector
        for _ in range(max_steps):
            better = _newton_step(value, gradient, hessian, mode)
            if better is None:
                break
            mode = better
        curvature = np.asarray(hessian(mode), np.float64)
        left = float(jnp.linalg.norm(gradient(mode)))
    values = np.linalg.eigvalsh(curvature) if np.isfinite(curvature).all() else np.array([np.nan])
    # The distance to the mode that is left, in standard deviations.
    if not (values.min() > 0 and left / np.sqrt(values.min()) < 0.1):
        raise ValueError(
            f"logdensity_fn has no maximum near where the search ended: gradient {left:.3g}, smallest curvature "
            f"{values.min():.3g}; start nearer to the mode, or give a mean and a covariance to Gaussian."
        )
    return Gaussian(unravel(mode), np.linalg.inv(curvature))


def _newton_step(value: Callable, gradient: Callable, hessian: Callable, position: Array) -> Array | None:
    """Return the end of a damped Newton step, or None where none is better.

    Where the function is convex, better is a smaller gradient, which rounding leaves visible at the minimum; elsewhere
    it is a smaller value, along the Newton direction with the signs of negative curvatures turned.
    """
    slope, curvature = np.asarray(gradient(position), np.float64), np.asarray(hessian(position), np.float64)
    if not (np.isfinite(slope).all() and np.isfinite(curvature).all()):
        return None
    values, vectors = np.linalg.eigh(curvature)
    sizes = np.maximum(np.abs(values), 1e-6 * np.abs(values).max() + np.finfo(np.float64).tiny)
    with np.errstate(over="ignore"):
        step = (-vectors @ (vectors.T @ slope / sizes)).astype(position.dtype)
    if not np.isfinite(step).all():
        return None
    is_convex = values.min() > 0
    measure = (lambda x: jnp.linalg.norm(gradient(x))) if is_convex else value
    for halvings in range(20):
        found = position + step / 2**halvings
        # Beyond the edge of a support there may be a gradient of 0, and no density.
        if bool(measure(found) < measure(position)) and bool(jnp.isfinite(value(found))):
            return found
    return None
