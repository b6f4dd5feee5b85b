"""Where warm-up begins: at random, where the caller says, or at the mode, in the coordinates of its Hessian."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from parsample.engine.fixed import fixed_first
from parsample.engine.surrogates import laplace
from parsample.targets.base import Target
from parsample.targets.external import External
from parsample.targets.names import leaf_names
from parsample.warmup.coordinates import Standardised, plain
from parsample.warmup.descent import descend
from parsample.warmup.given_starts import given_starts
from parsample.warmup.scale import with_covariance


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
    density = with_covariance(density, found.mean, covariance, mass)

    @jax.jit
    def draw(key: Array) -> Array:
        vector = density.vector(jax.random.normal(key, first.shape, first.dtype))
        value, gradient = jax.value_and_grad(logdensity)(vector)
        # The normal distribution may reach where the target has no density.
        return jnp.where(jnp.isfinite(value) & jnp.isfinite(gradient).all(), vector, density.center)

    return jnp.stack([draw(key) for key in rng_keys]), density


def starts(target: Target, rng_keys: Array, tries: int = 100) -> Float[Array, "chain dim"]:
    """Draw a start for every chain at which the log density and its gradient are finite.

    Args:
        target: to start in.
        rng_keys: one a chain.
        tries: how often a chain may draw again.

    Raises:
        ValueError: a chain found no such start; the sentence names the variables that are to blame.

    Cost: ten gradients a try, by the program that warm-up comes down with.
    """
    density, vectors, found = plain(target), None, np.zeros(len(rng_keys), bool)
    for again in range(tries):
        tried = _drawn(target, jax.vmap(jax.random.fold_in, (0, None))(rng_keys, again) if again else rng_keys)
        if isinstance(target, External):
            values, gradients = target.look(tried)
            is_start = jnp.isfinite(values) & jnp.isfinite(gradients).all(-1)
        else:
            is_start = descend(density, tried, looks=0).is_start
        vectors = tried if vectors is None else jnp.where(found[:, None], vectors, tried)
        # A new array: on a CPU JAX may read this one where it lies, and later.
        found = found | np.asarray(is_start)
        if found.all():
            return vectors
    chain = int(np.argmin(found))
    position = density.unravel(tried[chain])
    if isinstance(target, External):
        value, gradient = values[chain], density.unravel(gradients[chain])
    else:
        value, gradient = jax.value_and_grad(target.logdensity)(position)
    raise ValueError(_no_start(target, chain, tries, value, gradient))


@functools.partial(fixed_first, runs_once=True)
def _drawn(target: Target, rng_keys: Array) -> Float[Array, "chain dim"]:
    """Draw a start for every chain."""
    return jax.vmap(lambda key: ravel_pytree(target.initial_position(key))[0])(rng_keys)


def _no_start(target: Target, chain: int, tries: int, value: Array, gradient: PyTree) -> str:
    leaves = dict(zip(leaf_names(gradient), jax.tree.leaves(gradient), strict=True))
    bad = [name for name, leaf in leaves.items() if not bool(jnp.isfinite(leaf).all())]
    names = bad or list(leaves)
    what = "gradient" if bad and bool(jnp.isfinite(value)) else "log density"
    return (
        f"initial_position: chain {chain} found no start with a finite {what} in {tries} draws; the last one had log "
        f"density {float(value):.3g}, with trouble in {', '.join(names)}{target.suspects()}; check the support of "
        "these variables, or give an initial_position with a finite log density."
    )
