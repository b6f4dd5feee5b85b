"""Where warm-up begins: at random, where the caller says, or at the mode, in the coordinates of its Hessian."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from parsample.engine.surrogates import laplace
from parsample.targets.base import Target
from parsample.warmup.coordinates import Standardised, plain, starts
from parsample.warmup.descent import descend
from parsample.warmup.given_starts import given_starts
from parsample.warmup.scale import unscaled, with_covariance


def begin_at(
    target: Target, rng_keys: Array, start: Any = "random", mass: str = "auto"
) -> tuple[Float[Array, "chain dim"], Standardised | None]:
    """Return flat positions to start from, one a chain, and the coordinates to begin in, where they are known.

    Args:
        target: to start in.
        rng_keys: one a chain.
        start: "random" for the target's own starts; "laplace" for draws from the normal distribution at its mode; or
            what else `given_starts` takes.
        mass: the structure of the root.

    Raises:
        ValueError: `start` is none of these or does not fit; the search for the mode ends elsewhere.

    Cost: "laplace" comes down from one random start, as warm-up does, searches for the mode from there, and takes dim
        gradients there for the Hessian.
    """
    given = given_starts(target, start, rng_keys)
    if given is not None:
        return given, None
    if start != "laplace":
        return starts(target, rng_keys), None
    density = plain(target)
    logdensity = lambda vector: target.logdensity(density.unravel(vector))  # noqa: E731
    # At a random start a density may be absurd, or its Hessian infinite: no place to search from.
    first = descend(density, starts(target, rng_keys[:1])).vectors[0]
    try:
        found = laplace(logdensity, first)
    except ValueError as error:
        raise ValueError(f"start is 'laplace', but {error} Without start chains begin at random.") from error
    covariance = np.linalg.inv(np.asarray(found.precision, np.float64))
    density = with_covariance(unscaled(density, mass), found.mean, covariance)

    @jax.jit
    def draw(key: Array) -> Array:
        vector = density.vector(jax.random.normal(key, first.shape, first.dtype))
        value, gradient = jax.value_and_grad(logdensity)(vector)
        # The normal distribution may reach where the target has no density.
        return jnp.where(jnp.isfinite(value) & jnp.isfinite(gradient).all(), vector, density.center)

    return jnp.stack([draw(key) for key in rng_keys]), density
