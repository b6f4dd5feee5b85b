"""The likelihood of logistic regression, with one exponential an element and one logarithm for 32 of them.

With the label in the sign, a row contributes log sigmoid(m), where m = x^T b for the label 1 and -x^T b for the label
0: the margin. Written with t = exp(-|m|), which is never above 1, nothing overflows:

    log sigmoid(m) = min(m, 0) - log(1 + t)
    1 - sigmoid(m) = t / (1 + t) for m >= 0, and 1 / (1 + t) below       the slope
    sigmoid(m) (1 - sigmoid(m)) = t / (1 + t)^2                          minus the curvature

Every function below is written in t, and the derivative of each is the next: the compiler finds the same exponential
in all of them and computes it once. The derivatives are given and not left to JAX because that of |m| is 0 at m = 0,
which would make the curvature 0 there.

Accuracy, against double precision, with eps the spacing of numbers at 1: the value is within eps / 2 a row plus 4 eps
of its size, because 1 + t is rounded; slope and curvature are within 4 eps of their size at any margin, until they
vanish below the smallest normal number.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Factors in one logarithm. Each lies between 1 and 2, so a product is at most 2^32: it cannot overflow, as single
# precision goes to 2^128. Half precision goes to 2^16 only and gets shorter groups.
GROUP = 32


@jax.custom_jvp
def sum_log_sigmoid(margins: Float[Array, "rows"]) -> Float[Array, ""]:
    """Return the sum of log sigmoid(m) over all margins. Dimensionless.

    Derivatives of every order are right, forwards, backwards and mixed. Cost: O(rows).
    """
    least, factors = jnp.minimum(margins, 0), 1 + _tail(margins)
    # Groups are columns, so that sums and products run over whole rows of memory, both in one pass.
    group = min(GROUP, int(jnp.finfo(margins.dtype).maxexp) - 1)
    end = margins.size - margins.size % group
    columns = _group(least[:end].reshape(group, -1), factors[:end].reshape(group, -1))
    return jnp.sum(columns) + _group(least[end:], factors[end:])


@sum_log_sigmoid.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return sum_log_sigmoid(*primals), jnp.sum(slope(*primals) * tangents[0])


@jax.custom_jvp
def slope(margins: Float[Array, "rows"]) -> Float[Array, "rows"]:
    """Return the derivative of log sigmoid at each margin, 1 - sigmoid(m): between 0 and 1."""
    tail = _tail(margins)
    return jnp.where(margins >= 0, tail, 1) / (1 + tail)


@slope.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return slope(*primals), -curvature(*primals) * tangents[0]


@jax.custom_jvp
def curvature(margins: Float[Array, "rows"]) -> Float[Array, "rows"]:
    """Return minus the second derivative of log sigmoid at each margin: between 0 and 1/4."""
    tail = _tail(margins)
    return tail / (1 + tail) ** 2


@curvature.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    value = curvature(*primals)
    return value, value * (2 * slope(*primals) - 1) * tangents[0]


def _tail(margins: Array) -> Array:
    return jnp.exp(-jnp.abs(margins))


def _group(least: Array, factors: Array) -> Array:
    """Return the sum of log sigmoid over the leading axis, at most `GROUP` long, with one logarithm."""
    return jnp.sum(least, axis=0) - jnp.log(jnp.prod(factors, axis=0))
