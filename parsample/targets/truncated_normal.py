"""A normal variable above 0, as a smooth function of its mean and of a number drawn in advance: by the inverse CDF.

With survival function S(z) = P(N(0, 1) > z), density phi and Mills ratio R = S / phi, the variable x of mean m and
variance 1 that is above 0 solves

    S(x - m) = exp(-e) S(-m),   e standard exponential

1. Up to m = -`FAR` both sides are in range, and x = m + S^-1(exp(-e) S(-m)).
2. Below, with a = -m, the logarithm is solved for x itself, so that nothing large cancels:
   a x + x^2 / 2 + log R(a) - log R(a + x) = e. By Newton's method, whose derivative is 1 / R(a + x).
3. Differentiated, with z = x - m:  dx/de = R(z) and dx/dm = 1 - R(z) / R(-m) = 1 - exp(x^2 / 2 - m x - e).
"""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr, ndtr, ndtri
from jaxtyping import Array, Float

# From here on the continued fraction of Mills ratio has converged in double precision with so many terms, and Newton's
# method with so many steps.
FAR, TERMS, NEWTON_STEPS = 5.0, 20, 3


@jax.custom_jvp
def positive_normal(mean: Float[Array, "..."], exponential: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return draws from N(mean, 1) truncated to the positive numbers.

    Args:
        mean: any finite number.
        exponential: standard exponential, above 0, of the same shape. Larger ones give larger draws.

    Cost: some hundred operations an element. Derivatives of every order are right.
    """
    is_far = mean < -FAR
    # Where a branch is not taken it gets numbers that it can take, so that it is never NaN.
    near = _near(jnp.where(is_far, 0, mean), exponential)
    return jnp.where(is_far, _far(jnp.where(is_far, -mean, FAR), exponential), near)


@positive_normal.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    mean, exponential = primals
    x = positive_normal(mean, exponential)
    by_mean = -jnp.expm1(x * (x / 2 - mean) - exponential)
    return x, by_mean * tangents[0] + _mills(x - mean) * tangents[1]


def _near(mean: Array, exponential: Array) -> Array:
    # The smaller of the two probabilities is the one that has its digits.
    above = jnp.exp(-exponential) * ndtr(mean)
    below = jnp.exp(-exponential) * ndtr(-mean) - jnp.expm1(-exponential)
    is_upper = above < below
    quantile = ndtri(jnp.where(is_upper, above, below))
    # Rounding can leave it a little below 0.
    return jnp.maximum(mean + jnp.where(is_upper, -quantile, quantile), 0)


def _far(a: Array, exponential: Array) -> Array:
    # The start takes 1 / a for Mills ratio: first without its change, then with it.
    x = 2 * exponential / (a + jnp.sqrt(a**2 + 2 * exponential))
    x = jnp.maximum(x - jnp.log1p(x / a) / (a + x), 0)
    log_mills = jnp.log(_mills_far(a))
    for _ in range(NEWTON_STEPS):
        mills = _mills_far(a + x)
        x = jnp.maximum(x - (x * (a + x / 2) + log_mills - jnp.log(mills) - exponential) * mills, 0)
    return x


def _mills(z: Array) -> Array:
    near = jnp.minimum(z, FAR)
    ratio = math.sqrt(2 * math.pi) * jnp.exp(log_ndtr(-near) + near**2 / 2)
    return jnp.where(z < FAR, ratio, _mills_far(jnp.maximum(z, FAR)))


def _mills_far(z: Array) -> Array:
    # Laplace's continued fraction, 1 / (z + 1 / (z + 2 / (z + ...))).
    denominator = z
    for k in range(TERMS, 0, -1):
        denominator = z + k / denominator
    return 1 / denominator
