"""Steps taken apart at the points where they read a log density, and quadratic models of it about such points.

A step of HMC reads value and gradient of the log density where it starts, and after each of its leapfrog steps. What it
reads at one of these points decides where the next one lies; but with a guess of every point all can be read at once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree


class Lifted(NamedTuple):
    """What a transition says of the points where its steps read a log density: first where they start, its state.

    Attributes:
        density: position -> log density.
        surrogate: one that resembles it; None where there is none.
        on: another density -> the same transition on that.
        points: (density, state, input) -> the flat positions of a step on that density at which it reads, shape
            (points, dim), without the one where it starts. `Quadratics` have to stand in for any density.
    """

    density: Callable
    surrogate: Callable | None
    on: Callable[[Callable], Any]
    points: Callable[[Callable, PyTree, PyTree], Float[Array, "points dim"]]


class Expansion(NamedTuple):
    """A log density about a point: where, its value, gradient and Hessian there; or several, with a leading axis.

    The Hessian has shape (dim, dim), or (dim,) for its diagonal.
    """

    point: Float[Array, "*points dim"]
    value: Float[Array, "*points"]
    gradient: Float[Array, "*points dim"]
    hessian: Float[Array, "*points dim dim"] | Float[Array, "*points dim"]


class Quadratic(eqx.Module):
    """A log density by its expansion about a point, up to a radius; beyond, the curvature is more and more another.

    With d the way from the point and r its length, value + gradient.d + d.C d / 2, where C is the Hessian for r up to
    the radius, and base + (hessian - base) radius / r beyond: so the gradient differs from that of `base` by no more
    than it does at the radius.

    Attributes:
        about: the expansion.
        base: curvature of the whole density, of the shape of a Hessian. Lengths are r^2 = |d.base d| / dim.
        radius: dimensionless; 1 is about a standard deviation.
    """

    about: Expansion
    base: Float[Array, "dim dim"] | Float[Array, " dim"]
    radius: float = eqx.field(static=True)

    def __call__(self, position: PyTree) -> Float[Array, ""]:
        """Return the value of the model."""
        away = ravel_pytree(position)[0] - self.about.point
        fixed = jax.lax.stop_gradient(away)
        length = jnp.sqrt(jnp.abs(fixed @ _times(self.base, fixed)) / away.size)
        share = jnp.where(length > self.radius, self.radius / length, 1)
        bent = _times(self.base, away) + share * _times(self.about.hessian - self.base, away)
        return self.about.value + self.about.gradient @ away + away @ bent / 2


class Quadratics(eqx.Module):
    """Models of a log density about each of the points where a step reads it: as a density, that of the first one.

    Attributes:
        about: the expansions, leading axis `points`.
        base, radius: as for `Quadratic`.
    """

    about: Expansion
    base: Float[Array, "dim dim"] | Float[Array, " dim"]
    radius: float = eqx.field(static=True)

    def __call__(self, position: PyTree) -> Float[Array, ""]:
        """Return the value of the model about the point where the step starts."""
        return self.numbered(0)(position)

    def numbered(self, number: int | Int[Array, ""]) -> Quadratic:
        """Return the model about a point."""
        return Quadratic(Expansion(*(leaf[number] for leaf in self.about)), self.base, self.radius)


def numbered(logdensity_fn: Callable, number: int | Int[Array, ""]) -> Callable:
    """Return what a step reads at its point of a number, 0 where it starts: the log density, unless it is a model."""
    return logdensity_fn.numbered(number) if isinstance(logdensity_fn, Quadratics) else logdensity_fn


def expand(
    logdensity_fn: Callable, vector: Float[Array, " dim"], probes: Float[Array, "probes dim"] | None = None
) -> Expansion:
    """Return the expansion of a log density of flat vectors about a point.

    With `probes`, random signs, it has an estimate of the Hessian's diagonal.
    """
    (value, gradient), along = jax.linearize(jax.value_and_grad(logdensity_fn), vector)
    if probes is None:
        hessian = jax.vmap(along)(jnp.eye(vector.size, dtype=vector.dtype))[1]
    else:
        hessian = jnp.mean(probes * jax.vmap(along)(probes)[1], 0)
    return Expansion(vector, value, gradient, hessian)


def _times(hessian: Array, vector: Float[Array, " dim"]) -> Float[Array, " dim"]:
    """Return the product of a Hessian, or of one of which only the diagonal is known."""
    return hessian * vector if hessian.ndim == 1 else hessian @ vector
