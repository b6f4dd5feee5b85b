"""Where warm-up begins: at random, where the caller says, or at the mode, in the coordinates of its Hessian."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from parsample.engine.surrogates import laplace
from parsample.targets.base import Target
from parsample.warmup.coordinates import Standardised, plain, starts
from parsample.warmup.scale import unscaled, with_covariance


def begin_at(
    target: Target, rng_keys: Array, start: Any = "random", mass: str = "auto"
) -> tuple[Float[Array, "chain dim"], Standardised | None]:
    """Return flat positions to start from, one a chain, and the coordinates to begin in, where they are known.

    Args:
        target: to start in.
        rng_keys: one a chain.
        start: "random" for the target's own starts; "laplace" for draws from the normal distribution at its mode; or
            positions, in the form of the target's with a leading axis for the chains.
        mass: the structure of the root.

    Raises:
        ValueError: `start` is none of these or does not fit; the search for the mode ends elsewhere; the log density is
            not finite at a start.

    Cost: "laplace" searches for the mode from one random start, and takes dim gradients there for the Hessian.
    """
    if not isinstance(start, str):
        return given_positions(target, start, len(rng_keys)), None
    if start not in ("random", "laplace"):
        raise ValueError(
            f"start is {start!r}, expected 'random', 'laplace' or positions with a leading axis of chains."
        )
    if start == "random":
        return starts(target, rng_keys), None
    density = plain(target)
    logdensity = lambda vector: target.logdensity(density.unravel(vector))  # noqa: E731
    first = starts(target, rng_keys[:1])[0]
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


def given_positions(target: Target, start: Any, num_chains: int, name: str = "start") -> Float[Array, "chain dim"]:
    """Check positions with a leading axis of chains, and return them flat."""
    template = target.position_template()
    expected = jax.tree.map(lambda leaf: (num_chains, *jnp.shape(leaf)), template)
    try:
        found = jax.tree.map(jnp.shape, start)
    except TypeError:
        found = type(start).__name__
    if found != expected:
        raise ValueError(
            f"{name} has the shapes {found}, expected {expected}: unconstrained positions with a leading axis of "
            "chains."
        )
    cast = jax.tree.map(lambda leaf, like: jnp.asarray(leaf, jnp.asarray(like).dtype), start, template)
    vectors = jax.vmap(lambda position: ravel_pytree(position)[0])(cast)
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(target.logdensity)))(cast)
    slopes = jax.vmap(lambda gradient: ravel_pytree(gradient)[0])(gradients)
    known = jnp.isfinite(values) & jnp.isfinite(slopes).all(1)
    if not bool(known.all()):
        chain = int(jnp.argmin(known))
        found = f"log density {float(values[chain]):.3g}"
        if bool(jnp.isfinite(values[chain])):
            found += " and a gradient that is not finite"
        raise ValueError(
            f"{name} has {found} in chain {chain}, expected finite ones; start chains inside the support, in "
            "unconstrained coordinates."
        )
    return vectors
