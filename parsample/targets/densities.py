"""Densities that several targets need, without `jax.scipy.stats`, whose import takes longer than all targets together.

The functions that end in `_of_log` are for a variable x > 0 of which a target samples the logarithm: they return the
log density of log x, which is that of x plus log x, the log-Jacobian.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float


def normal_logpdf(x: Array, mean: Array | float = 0.0, scale: Array | float = 1.0) -> Float[Array, "..."]:
    """Return the logarithm of the normal density, with the shape that the arguments broadcast to."""
    white = (x - mean) / scale
    return -0.5 * white * white - jnp.log(scale) - 0.5 * math.log(2 * math.pi)


def positive_normal_of_log(log_x: Array, mean: float, scale: float) -> Float[Array, "..."]:
    """Return the log density of log x where x is normal, given that it is above 0; half-normal for the mean 0."""
    log_probability = math.log(0.5 * math.erfc(-mean / scale / math.sqrt(2)))
    return normal_logpdf(jnp.exp(log_x), mean, scale) + log_x - log_probability


def half_cauchy_of_log(log_x: Array, scale: float) -> Float[Array, "..."]:
    """Return the log density of log x where x is half-Cauchy."""
    # With u = log(x / s) and the Jacobian x: (2 / (s pi)) x / (1 + (x / s)^2) = (2 / pi) / (e^u + e^-u), the logarithm
    # of which is finite however large or small x is.
    u = log_x - math.log(scale)
    return math.log(2 / math.pi) - jnp.logaddexp(u, -u)
