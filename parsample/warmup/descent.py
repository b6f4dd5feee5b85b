"""Before chains run they come down: from random places, where a density may be absurdly small, to where it is not."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
from jaxtyping import Array, Bool, Float

from parsample.warmup.coordinates import Standardised

# Steps between two looks at what they gained, and the most looks.
STRETCH, LOOKS = 10, 30
# The length of the first step of every coordinate, and of the longest. Unconstrained variables are of order one more
# often than not, and where they are not the lengths soon are.
FIRST, LONGEST = 0.05, 1.0
# A stretch is gone that gains more than so much a dimension, and a unit of distance.
GAIN = 3.0
# The shares of a start that are looked at first: where a random one is absurd, 0 seldom is.
NEARER = 2.0 ** -np.arange(10.0)
# The share of the first length below which nobody tries again who went over an edge.
SHORTEST = 1e-4


class Descent(NamedTuple):
    """Where chains came to, and the last stretch of the way.

    Attributes:
        vectors: the best of the places, flat positions.
        path: the last `STRETCH` places.
        gradients: of the log density there.
    """

    vectors: Float[Array, "chain dim"]
    path: Float[Array, "chain steps dim"]
    gradients: Float[Array, "chain steps dim"]


class _Walk(NamedTuple):
    """Where one chain stands, the best place it saw, its last stretch, the share of `FIRST` that it began with."""

    vector: Float[Array, " dim"]
    optimiser: Any
    best: Float[Array, ""]
    place: Float[Array, " dim"]
    path: Float[Array, "steps dim"]
    gradients: Float[Array, "steps dim"]
    length: Float[Array, ""]
    goes_on: Bool[Array, ""]


@eqx.filter_jit
def descend(density: Standardised, vectors: Float[Array, "chain dim"]) -> Descent:
    """Climb the log density from every start for as long as that gains much.

    Typical draws lie about half a dimension's number below the mode. A chain that gains more than three a dimension in
    ten steps is not yet among them; one that gains less may be, and stays where it was, for chains should begin far
    apart, and the highest place of a hierarchical model is the bottom of a funnel: into it one gains about one a
    dimension for every unit of distance. So it is three a unit of distance, too, that count as much.

    The signs of the gradient alone say where a step goes, and how its length changes: so neither the scale of a
    coordinate matters nor a gradient of 1e30, or an infinite one. Where there is none a chain goes back to the best
    place so far, and tries shorter steps. First of all a start is moved towards 0, by halves, if that alone gains as
    much: a rate that overflows at 2 does not near 0.

    Args:
        density: any coordinates of the target; only its own are used.
        vectors: starts, flat positions with a finite log density and gradient.

    Cost: ten to 300 gradients, of all chains at once.

    Source: Riedmiller & Braun 1993, "A direct adaptive method for faster backpropagation learning: the RPROP
    algorithm", by Optax. nutpie and Stan leave the way down to the chains.
    """
    ascent = jax.value_and_grad(lambda vector: density.target.logdensity(density.unravel(vector)))
    optimiser = optax.rprop(FIRST, max_step_size=LONGEST)

    def step(walk: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], tuple[Array, Array, Array]]:
        vector, state = walk
        value, gradient = ascent(vector)
        updates, state = optimiser.update(-jnp.sign(gradient), state)
        return (optax.apply_updates(vector, updates), state), (vector, gradient, value)

    def stretch(walk: _Walk) -> _Walk:
        (vector, state), (path, gradients, values) = jax.lax.scan(
            step, (walk.vector, walk.optimiser), None, length=STRETCH
        )
        is_finite = jnp.isfinite(values) & jnp.isfinite(gradients).all(-1)
        top = jnp.argmax(jnp.where(is_finite, values, -jnp.inf))
        before = jnp.where(jnp.isfinite(walk.best), walk.best, values[0])
        distance = jnp.max(jnp.abs(path[top] - walk.place))
        is_gone = is_finite[top] & (values[top] - before > GAIN * walk.place.size * jnp.maximum(distance, 1))
        best, place = _where(is_gone, (values[top], path[top]), (before, walk.place))
        # Over the edge: back to the best place, with shorter steps.
        is_lost = jnp.isnan(values[-1]) | jnp.isnan(gradients[-1]).any() | ~jnp.isfinite(vector).all()
        length = jnp.where(is_lost, walk.length / 4, walk.length)
        anew = place, jax.tree.map(lambda leaf: leaf * length, optimiser.init(place))
        vector, state = _where(is_lost, anew, (vector, state))
        goes_on = jnp.where(is_lost, length > SHORTEST, is_gone)
        found = _Walk(vector, state, best, place, path, gradients, length, goes_on)
        return _where(walk.goes_on, found, walk)

    def nearer(vector: Array) -> Array:
        """Return the start, or the farthest of some places between it and 0 that is about as good as the best."""
        places = vector * NEARER[:, None]
        values = jax.lax.map(lambda place: ascent(place)[0], places)
        values = jnp.where(jnp.isfinite(values), values, -jnp.inf)
        distances = jnp.max(jnp.abs(vector - places), -1)
        enough = values >= values.max() - GAIN * vector.size * jnp.maximum(distances, 1)
        return places[jnp.argmax(enough & jnp.isfinite(values))]

    def begin(vector: Array) -> _Walk:
        vector = nearer(vector)
        nothing = jnp.zeros((STRETCH, vector.size), vector.dtype)
        lowest = jnp.full((), -jnp.inf, jax.eval_shape(ascent, vector)[0].dtype)
        one = jnp.ones((), vector.dtype)
        return _Walk(vector, optimiser.init(vector), lowest, vector, nothing, nothing, one, jnp.asarray(True))

    def look(carry: tuple[Array, _Walk]) -> tuple[Array, _Walk]:
        return carry[0] + 1, jax.vmap(stretch)(carry[1])

    def goes_on_anywhere(carry: tuple[Array, _Walk]) -> Array:
        return (carry[0] < LOOKS) & carry[1].goes_on.any()

    _, found = jax.lax.while_loop(goes_on_anywhere, look, (jnp.asarray(0), jax.vmap(begin)(vectors)))
    return Descent(found.place, found.path, found.gradients)


def _where(condition: Array, one: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)
