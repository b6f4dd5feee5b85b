"""The Gaussian relative to which preconditioned Crank-Nicolson and elliptical slice sampling move."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from parsample.samplers.mass import Mass


class Reference(eqx.Module):
    """A Gaussian with covariance L L^T, in whose whitened coordinates v, with x = mean + L v, it is N(0, I).

    Attributes:
        mean: shape () or (dim,), in the units of the position.
        covariance: factored; in squared units of the position.
        length: L is this many times the factor of `covariance`.
    """

    mean: Float[Array, "..."]
    covariance: Mass
    length: Float[Array, ""] | float = 1.0

    @classmethod
    def of(cls, mean: Any, covariance: Any) -> "Reference":
        """Factor a covariance: None (identity), (dim,) or (dim, dim). The mean is None (0), a number or (dim,).

        Raises:
            ValueError: one of them has another shape or is not finite, or the covariance is not positive definite.
        """
        mean = jnp.zeros(()) if mean is None else jnp.asarray(mean)
        if mean.ndim > 1:
            raise ValueError(f"mean has shape {mean.shape}, expected (dim,), in the order of the ravelled position.")
        if not isinstance(mean, jax.core.Tracer) and not bool(jnp.isfinite(mean).all()):
            raise ValueError("mean is not finite, expected finite numbers, in the order of the ravelled position.")
        return cls(mean, Mass.of(covariance, "covariance"))

    def whiten(self, vector: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Return v of a flat position x = mean + L v.

        Raises:
            ValueError: mean or covariance are for another dimension.
        """
        self.covariance.check(vector.size)
        if self.mean.shape not in ((), vector.shape):
            raise ValueError(f"mean is for {self.mean.size} dimensions, but the position holds {vector.size} numbers.")
        return self.covariance.solve_root(vector - self.mean.astype(vector.dtype)) / self.length

    def move(self, vector: Float[Array, " dim"], change: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Return the flat position whose v differs by `change` from that of a flat position."""
        return (vector + self.length * self.covariance.root_times(change)).astype(vector.dtype)


def log_gain(whitened: Float[Array, " dim"], change: Float[Array, " dim"]) -> Float[Array, ""]:
    """Return log N(v) - log N(v + change): what a move takes from the reference's log density.

    With d the change, (|v + d|^2 - |v|^2) / 2 = d.(v + d / 2), in which nothing large cancels where d is small.
    """
    return jnp.vdot(change, whitened + change / 2)
