"""Before chains run they come down: from random places, where a density may be absurdly small, to where it is not."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
from jaxtyping import Array, Bool, Float

from parsample.engine.fixed import fixed_first
from parsample.targets.base import Target
from parsample.targets.external import External
from parsample.warmup.coordinates import Standardised
from parsample.warmup.levels import Levels, joined

# Steps between two looks at what they gained, and the most looks.
STRETCH, LOOKS = 10, 30
# The length of the first step of every coordinate, and of the longest. Unconstrained variables are of order one more
# often than not, and where they are not the lengths soon are.
FIRST, LONGEST = 0.05, 1.0
# A stretch is gone that gains more than so much a dimension, and a unit of distance.
GAIN = 3.0
# The shares of a start that are looked at first, one a step: where a random one is absurd, 0 seldom is.
NEARER = 2.0 ** -np.arange(float(STRETCH))
# The share of the first length below which nobody tries again who went over an edge.
SHORTEST = 1e-4
# How far apart differences are at least, of the larger of 1 and the number: single precision holds a thousandth of it.
CLOSEST = 1e-4
OPTIMISER = optax.rprop(FIRST, max_step_size=LONGEST)


class Descent(NamedTuple):
    """Where chains came to, and the last stretch of the way.

    Attributes:
        vectors: the best of the places, flat positions.
        path: the last `STRETCH` places.
        gradients: of the log density there.
        values: the log density there.
        is_start: whether the log density and its gradient are finite at the start.
    """

    vectors: Float[Array, "chain dim"]
    path: Float[Array, "chain steps dim"]
    gradients: Float[Array, "chain steps dim"]
    values: Float[Array, "chain steps"]
    is_start: Bool[Array, " chain"]


class _Walk(NamedTuple):
    """Where one chain stands, the best place it saw, its last stretch, the share of `FIRST` that it began with."""

    vector: Float[Array, " dim"]
    optimiser: Any
    best: Float[Array, ""]
    place: Float[Array, " dim"]
    path: Float[Array, "steps dim"]
    gradients: Float[Array, "steps dim"]
    values: Float[Array, " steps"]
    length: Float[Array, ""]
    goes_on: Bool[Array, ""]


def descend(density: Standardised, vectors: Float[Array, "chain dim"], looks: int = LOOKS) -> Descent:
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
        vectors: starts, flat positions.
        looks: how many stretches a chain climbs at most. 0 only says whether it can start.

    Cost: ten gradients of all chains at once, and ten a look. One program, which holds the gradient once: with a model
        of a thousand operations that is what takes long to compile.

    Source: Riedmiller & Braun 1993, "A direct adaptive method for faster backpropagation learning: the RPROP
    algorithm", by Optax. nutpie and Stan leave the way down to the chains.
    """
    return _descend((density.target, density.unravel), vectors, np.int32(looks))


@functools.partial(fixed_first, runs_once=True)
def _descend(given: tuple[Target, Callable], vectors: Float[Array, "chain dim"], looks: Array) -> Descent:
    target, unravel = given
    ascent = jax.value_and_grad(lambda vector: target.logdensity(unravel(vector)))

    def look(carry: tuple[Array, _Walk, Array]) -> tuple[Array, _Walk, Array]:
        number, walks, is_start = carry

        def step(stand: tuple[Array, Any], nearer: Array) -> tuple[tuple[Array, Any], tuple[Array, Array, Array]]:
            value, gradient = ascent(stand[0])
            # The first look is at the nearer places: nobody moves.
            moved = _where(number == 0, (nearer, stand[1]), _advance(*stand, gradient))
            return moved, (stand[0], gradient, value.astype(vectors.dtype))

        def stretch(walk: _Walk, start: Array) -> tuple[_Walk, Array]:
            nearer = jnp.roll(_nearer(start), -1, 0)
            stand, steps = jax.lax.scan(step, (walk.vector, walk.optimiser), nearer)
            _, gradients, values = steps
            found = _where(number == 0, _begin(start, values), _looked(walk, stand, steps))
            return found, jnp.isfinite(values[0]) & jnp.isfinite(gradients[0]).all()

        walks, can_start = jax.vmap(stretch)(walks, vectors)
        return number + 1, walks, jnp.where(number == 0, can_start, is_start)

    def goes_on_anywhere(carry: tuple[Array, _Walk, Array]) -> Array:
        return (carry[0] == 0) | ((carry[0] <= looks) & carry[1].goes_on.any())

    begun = jax.vmap(_stand)(vectors), jnp.zeros(len(vectors), bool)
    _, found, is_start = jax.lax.while_loop(goes_on_anywhere, look, (jnp.asarray(0), *begun))
    return Descent(found.place, found.path, found.gradients, found.values, is_start)


def descend_outside(target: External, vectors: Float[Array, "chain dim"]) -> tuple[Descent, Levels]:
    """Do the same for a model outside of JAX, all chains in one round a step.

    Where it has no gradient, differences to either side take its place: as far apart as the step goes that they are
    for, so that the noise of a solver does not matter.

    Args:
        target: the model.
        vectors: starts, flat positions with a finite log density.

    Returns:
        The way down, and all log densities that were looked at.

    Cost: ten to 300 rounds of a run a chain, or where there is no gradient of one and two a dimension.
    """
    places = jax.vmap(_nearer)(vectors)
    seen = [_levels(target, places)]
    walks = _begin_all(vectors, seen[0].values.reshape(places.shape[:2]))
    for _ in range(LOOKS):
        stand, steps = (walks.vector, walks.optimiser), []
        for _ in range(STRETCH):
            values, gradients, levels = _slopes(target, *stand)
            steps.append((stand[0], gradients, values))
            seen.append(levels)
            stand = _advance_all(*stand, gradients)
        walks = _look_all(walks, stand, jax.tree.map(lambda *leaves: jnp.stack(leaves, 1), *steps))
        if not walks.goes_on.any():
            break
    is_start = jnp.isfinite(seen[0].values.reshape(places.shape[:2])[:, 0])
    return Descent(walks.place, walks.path, walks.gradients, walks.values, is_start), joined(seen)


def _slopes(target: External, vectors: Float[Array, "chain dim"], optimiser: Any) -> tuple[Array, Array, Levels]:
    """Return log densities and gradients where chains stand, and all that were looked at."""
    if target.has_gradient:
        values, gradients = target.look(vectors)
        return values, gradients, Levels(np.asarray(vectors), np.asarray(values, float))
    lengths = optax.tree_utils.tree_get(optimiser, "step_sizes")
    apart = jnp.clip(lengths, CLOSEST * jnp.maximum(1, jnp.abs(vectors)), FIRST)
    sides = apart[:, None] * jnp.eye(vectors.shape[1], dtype=vectors.dtype)
    places = vectors[:, None] + jnp.concatenate([jnp.zeros_like(sides[:, :1]), sides, -sides], 1)
    levels = _levels(target, places)
    return *_differences(places, levels.values.reshape(places.shape[:2])), levels


def _levels(target: External, places: Float[Array, "chain place dim"]) -> Levels:
    vectors = places.reshape(-1, places.shape[-1])
    return Levels(np.asarray(vectors), target.levels(vectors))


def _differences(places: Float[Array, "chain place dim"], values: np.ndarray) -> tuple[Array, Array]:
    """Return the values in the middle and the gradients, from those of the middle, ahead, and behind.

    Where one side has no finite log density the difference is that from the middle to the other; NaN where neither has.
    """
    middle, ahead, behind = (np.asarray(part) for part in np.split(values, [1, 1 + places.shape[-1]], 1))
    at = np.asarray(places[:, 0], float)
    up, down = (np.diagonal(part, 0, 1, 2) for part in np.split(np.asarray(places[:, 1:], float), 2, 1))
    has_up, has_down = np.isfinite(ahead), np.isfinite(behind)
    with np.errstate(invalid="ignore"):
        rise = np.where(has_up, ahead, middle) - np.where(has_down, behind, middle)
        gradients = rise / (np.where(has_up, up, at) - np.where(has_down, down, at))
    return jnp.asarray(middle[:, 0], places.dtype), jnp.asarray(gradients, places.dtype)


def _nearer(vector: Float[Array, " dim"]) -> Float[Array, "place dim"]:
    return vector * NEARER[:, None]


def _begin(vector: Float[Array, " dim"], values: Float[Array, " place"]) -> _Walk:
    """Begin at the start, or at the farthest of the nearer places that is about as good as the best of them."""
    places = _nearer(vector)
    values = jnp.where(jnp.isfinite(values), values, -jnp.inf)
    distances = jnp.max(jnp.abs(vector - places), -1)
    enough = values >= values.max() - GAIN * vector.size * jnp.maximum(distances, 1)
    return _stand(places[jnp.argmax(enough & jnp.isfinite(values))])


def _stand(vector: Float[Array, " dim"]) -> _Walk:
    """Begin at a place of which nothing is known."""
    nothing = jnp.zeros((STRETCH, vector.size), vector.dtype)
    lowest, one = jnp.full(STRETCH, -jnp.inf, vector.dtype), jnp.ones((), vector.dtype)
    return _Walk(vector, OPTIMISER.init(vector), lowest[0], vector, nothing, nothing, lowest, one, jnp.asarray(True))


def _advance(vector: Float[Array, " dim"], state: Any, gradient: Float[Array, " dim"]) -> tuple[Array, Any]:
    """Take a step uphill."""
    updates, state = OPTIMISER.update(-jnp.sign(gradient), state)
    return optax.apply_updates(vector, updates), state


def _looked(walk: _Walk, stand: tuple[Array, Any], steps: tuple[Array, Array, Array]) -> _Walk:
    """Look what a stretch gained, and go on from where it ended, or go back."""
    (vector, state), (path, gradients, values) = stand, steps
    is_finite = jnp.isfinite(values) & jnp.isfinite(gradients).all(-1)
    top = jnp.argmax(jnp.where(is_finite, values, -jnp.inf))
    before = jnp.where(jnp.isfinite(walk.best), walk.best, values[0])
    distance = jnp.max(jnp.abs(path[top] - walk.place))
    is_gone = is_finite[top] & (values[top] - before > GAIN * walk.place.size * jnp.maximum(distance, 1))
    best, place = _where(is_gone, (values[top], path[top]), (before, walk.place))
    # Over the edge: back to the best place, with shorter steps.
    is_lost = jnp.isnan(values[-1]) | jnp.isnan(gradients[-1]).any() | ~jnp.isfinite(vector).all()
    length = jnp.where(is_lost, walk.length / 4, walk.length)
    anew = place, jax.tree.map(lambda leaf: leaf * length, OPTIMISER.init(place))
    vector, state = _where(is_lost, anew, (vector, state))
    goes_on = jnp.where(is_lost, length > SHORTEST, is_gone)
    found = _Walk(vector, state, best, place, path, gradients, values, length, goes_on)
    return _where(walk.goes_on, found, walk)


_begin_all, _advance_all, _look_all = (jax.jit(jax.vmap(part)) for part in (_begin, _advance, _looked))


def _where(condition: Array, one: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)
