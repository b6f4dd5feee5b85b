"""Bijectors by name: from all real numbers to those that a variable may be."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from parsample.engine.names import unknown

# Name -> the constraint of `numpyro.distributions.constraints` whose bijector it is.
NAMES = {
    "real": "real",
    "positive": "positive",
    "unit_interval": "unit_interval",
    "simplex": "simplex",
    "ordered": "ordered_vector",
    "positive_ordered": "positive_ordered_vector",
    "correlation_cholesky": "corr_cholesky",
    "covariance": "positive_definite",
}


class Bijector(NamedTuple):
    """A bijector as two functions.

    Attributes:
        forward: free numbers -> the variable, and the logarithm of the Jacobian's determinant, summed.
        inverse: the variable -> free numbers.
    """

    forward: Callable[[Array], tuple[Array, Float[Array, ""]]]
    inverse: Callable[[Array], Array]


def find(variable: str, given: Any) -> Bijector:
    """Return a bijector, given by its name in `NAMES` or as one of distrax (or of TensorFlow Probability).

    Raises:
        ValueError: there is none of that name, or it is no bijector; `variable` is named.
    """
    if isinstance(given, str):
        if given not in NAMES:
            raise unknown(f"the bijector of {variable!r}", given, NAMES, "a distrax bijector")
        return _named(given)
    if not (hasattr(given, "forward_and_log_det") or hasattr(given, "forward_log_det_jacobian")):
        raise ValueError(
            f"the bijector of {variable!r} is a {type(given).__name__}, expected one of {', '.join(NAMES)}, or a "
            "distrax bijector."
        )
    import distrax

    bijector = distrax.as_bijector(given)

    def forward(free: Array) -> tuple[Array, Array]:
        value, log_det = bijector.forward_and_log_det(free)
        return value, jnp.sum(log_det)

    return Bijector(forward, bijector.inverse)


def _named(name: str) -> Bijector:
    from numpyro.distributions import biject_to, constraints

    transform = biject_to(getattr(constraints, NAMES[name]))

    def forward(free: Array) -> tuple[Array, Array]:
        value = transform(free)
        return value, jnp.sum(transform.log_abs_det_jacobian(free, value))

    return Bijector(forward, transform.inv)
