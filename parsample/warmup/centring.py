"""How far the effects of a hierarchical model are centred: chosen by their draws and gradients, and changed on the way.

Centred effects of which the data say little lie in a funnel, narrow where their scale is small; those of which data say
much do where they are not centred. For each effect by itself the best may be in between.
"""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from parsample.engine.arrays import to_jax
from parsample.engine.fixed import fixed_first
from parsample.targets.base import Target
from parsample.targets.centring import recentred
from parsample.warmup.coordinates import Standardised

# How far an effect may be centred.
CHOICES = np.linspace(0, 1, 11)
# Rows that one program takes at a time.
ROWS = 256


def recentre(
    density: Standardised,
    draws: Float[np.ndarray, "chain draws dim"],
    gradients: Float[np.ndarray, "chain draws dim"],
    log_densities: Float[np.ndarray, "chain draws"],
    counts: Bool[np.ndarray, " chain"],
) -> tuple[Standardised, np.ndarray, np.ndarray, np.ndarray]:
    """Return a density whose effects are centred as suits draws, and what is known of these as it is there.

    Args:
        density: whose target has effects (`targets.centring`).
        draws: flat positions.
        gradients: of the log density there.
        log_densities: there.
        counts: the chains that it is chosen by.

    Returns:
        The density, draws, gradients, and log densities.

    Cost: the location and scale of the effects at every draw, three times; no likelihood.
    """
    target: Any = density.target
    known = counts[:, None] & np.isfinite(draws).all(-1) & np.isfinite(gradients).all(-1)
    if known.sum() < 2:  # one draw tells nothing
        return density, draws, gradients, log_densities
    seen = _by_blocks(_effects.of(density), draws[known], gradients[known].astype(draws.dtype))
    best = {name: chosen(np.asarray(target.centred[name]), *parts) for name, parts in seen.items()}
    moved = {name: to_jax(degree, target.centred[name].dtype) for name, degree in best.items()}
    other: Target = eqx.tree_at(lambda target: target.centred, target, moved)
    draws, gradients, grown = carried(density, other, draws, gradients)
    return dataclasses.replace(density, target=other), draws, gradients, log_densities - grown


def chosen(
    now: Float[np.ndarray, "*shape"],
    location: Float[np.ndarray, "draws *shape"],
    scale: Float[np.ndarray, "draws *shape"],
    value: Float[np.ndarray, "draws *shape"],
    gradient: Float[np.ndarray, "draws *shape"],
) -> Float[np.ndarray, "*shape"]:
    """Return how far each effect is best centred.

    The gradient of a normal distribution is a line, and its standard deviation times that of the draws is 1, which is
    the least that it can be. An effect is centred as far as makes this product least: it is the Fisher divergence from
    a normal distribution.

    Args:
        now: how far it is centred, which it stays where nothing is known.
        location: of the effects, at draws.
        scale: of the effects, at draws.
        value: of the effects, at draws.
        gradient: of the log density in the values, all else being fixed.
    """
    location, scale, value, gradient = (np.asarray(part, float) for part in (location, scale, value, gradient))
    cost, best = np.full(now.shape, np.inf), np.array(now)
    with np.errstate(all="ignore"):
        apart, logarithm = value - location, np.log(scale)
        for degree in CHOICES:
            factor = np.exp((degree - 1) * logarithm)
            product = (factor * apart + degree * location).std(0) * (gradient / factor).std(0)
            is_better = (product > 0) & (product < cost)
            cost, best = np.where(is_better, product, cost), np.where(is_better, degree, best)
    return best


def carried(
    density: Standardised,
    other: Target,
    draws: Float[np.ndarray, "chain draws dim"],
    gradients: Float[np.ndarray, "chain draws dim"] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return draws, gradients and the logarithm of the volume's growth where another target's effects are centred."""
    gradients = np.zeros_like(draws) if gradients is None else gradients
    now, new = getattr(density.target, "centred", {}), getattr(other, "centred", {})
    if all(np.array_equal(now[name], new[name]) for name in now):
        return draws, gradients, np.zeros(draws.shape[:2])
    rows, pulls = (leaf.reshape(-1, draws.shape[-1]).astype(draws.dtype) for leaf in (draws, gradients))
    found, slopes, grown = _by_blocks(_carry.of((density, other)), rows, pulls)
    return found.reshape(draws.shape), slopes.reshape(draws.shape), grown.reshape(draws.shape[:2])


def centring_words(target: Target) -> str:
    """Say how far effects are centred, in the mean of each site, where they are not as the model has them."""
    found = []
    for name, degrees in getattr(target, "centred", {}).items():
        mean = float(np.mean(degrees))
        if mean < 0.95:
            found.append(f"{name} not centred" if mean < 0.05 else f"{name} centred by {mean:.1f}")
    return " and ".join(found)


@functools.partial(fixed_first, runs_once=True)
def _effects(density: Standardised, vectors: Array, gradients: Array) -> dict[str, tuple[Array, ...]]:
    """Return location, scale and value of every effect, and the gradient in the value, at rows."""

    def at(vector: Array, gradient: Array) -> dict[str, tuple[Array, ...]]:
        target: Any = density.target
        position, pulls, centred = density.unravel(vector), density.unravel(gradient), target.centred
        effects = target.effects(position)
        values = recentred(position, effects, centred, jax.tree.map(jnp.ones_like, centred))[0]
        return {
            name: (location, scale, values[name], jnp.exp((centred[name] - 1) * jnp.log(scale)) * pulls[name])
            for name, (location, scale) in effects.items()
        }

    return jax.vmap(at)(vectors, gradients)


@functools.partial(fixed_first, runs_once=True)
def _carry(pair: tuple[Standardised, Any], vectors: Array, gradients: Array) -> tuple[Array, Array, Array]:
    """Return rows, gradients there and the growth of the volume, in the coordinates of another target."""
    density, other = pair
    target: Any = density.target

    def carry(vector: Array, gradient: Array) -> tuple[Array, Array, Array]:
        position = density.unravel(vector)
        moved, grown = recentred(position, target.effects(position), target.centred, other.centred)

        def back(vector: Array) -> Array:
            position = density.unravel(vector)
            found, grown = recentred(position, other.effects(position), other.centred, target.centred)
            return ravel_pytree(found)[0] @ gradient + grown

        vector = ravel_pytree(moved)[0]
        return vector, jax.grad(back)(vector), grown

    return jax.vmap(carry)(vectors, gradients)


def _by_blocks(function: Any, *rows: np.ndarray) -> Any:
    """Return what a function makes of rows, on the host, a block of them at a time."""
    count = len(rows[0])
    places = np.arange(-(-count // ROWS) * ROWS).clip(max=count - 1).reshape(-1, ROWS)
    parts = [jax.device_get(function(*(leaf[block] for leaf in rows))) for block in places]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *parts)
