"""A distribution of distrax, TensorFlow Probability or NumPyro as a target, in unconstrained numbers."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Key, PyTree

from parsample.engine.names import unknown
from parsample.targets import bijectors, supports
from parsample.targets.base import Target
from parsample.targets.bijectors import Bijector
from parsample.targets.density import check_scalar
from parsample.targets.names import leaf_names

# Draws by which a bijector is checked against its distribution, and how near it must come back to them.
DRAWS, RETURN = 64, 1e-2


class Distribution(Target):
    """A distribution that has a density, in the unconstrained numbers that a bijector leads to its support from.

    The bijector is the distribution's own: that of NumPyro's `support`, TensorFlow Probability's for the event space,
    and for distrax, which has none, that of its class. The trace has one variable for each array of an event, named by
    its path, or `x`, and holds it in its own coordinates.

    Args:
        given: a distribution without batch axes.
        initial_position: an event to start around; None for a draw. Uniform noise on (-1, 1) is added in unconstrained
            coordinates.
        given_bijectors: variable -> bijector, as for `LogDensity`, in place of the distribution's own; variables that
            are not named are unconstrained.

    Raises:
        ValueError: the distribution is discrete, has point masses, batch axes or no density; its support is not known,
            or its bijector does not lead to it; or a bijector that was given is unknown.
    """

    name: ClassVar[str] = "distribution"

    log_prob: Callable = eqx.field(static=True)
    bijector: Bijector = eqx.field(static=True)
    center: PyTree[Array]

    def __init__(
        self, given: Any, initial_position: PyTree | None = None, given_bijectors: Mapping[str, Any] | None = None
    ):
        """Find the support, and check the bijector against draws."""
        library = supports.library_of(given)
        supports.check_density(given)
        draws = _draws(given, library)
        event = jax.tree.map(lambda leaf: leaf[0], draws)
        self.log_prob = given.log_prob
        try:
            check_scalar(jax.eval_shape(given.log_prob, event))
        except (NotImplementedError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{supports.title(given)} has no log density that JAX can trace ({str(error).splitlines()[0]}); "
                "give one as a function."
            ) from error
        if given_bijectors is None:
            self.bijector = supports.find(given, event)
            self._check_bijector(given, draws)
        else:
            self.bijector = _leaf_by_leaf(event, given_bijectors)
        start = event if initial_position is None else jax.tree.map(_like, initial_position, event)
        free = self.bijector.inverse(start)
        if not jnp.isfinite(ravel_pytree(free)[0]).all():
            if initial_position is not None:
                raise ValueError(
                    f"initial_position is {initial_position}, which is not inside the support of "
                    f"{supports.title(given)}; start inside, or leave it out for a draw."
                )
            free = jax.tree.map(jnp.zeros_like, free)  # a draw that was rounded to the end of the support
        self.center = free

    def _check_bijector(self, given: Any, draws: PyTree) -> None:
        """Raise ValueError unless the bijector reaches every draw, and leads to where the density is above 0."""
        found = _round_trip(self.bijector, self.log_prob, draws)
        if bool(found.is_missed.any()):
            raise ValueError(
                f"{supports.title(given)} has draws that its bijector does not reach, as where the components of a "
                f"mixture have several supports; {supports.REMEDY}"
            )
        if float(found.is_inside.mean()) < 0.5:
            raise ValueError(
                f"{supports.title(given)} has no density around its draws, as one with point masses; a chain in real "
                "numbers cannot sample it."
            )

    def logdensity(self, position: PyTree) -> Float[Array, ""]:
        """Return the log density, with the log-Jacobian of the bijector."""
        event, log_jacobian = self.bijector.forward(position)
        return self.log_prob(event) + log_jacobian

    def position_template(self) -> PyTree:
        """Return zeros like a position."""
        return jax.tree.map(jnp.zeros_like, self.center)

    def initial_position(self, rng_key: Key[Array, ""]) -> PyTree:
        """Draw a start around the first one."""
        vector, unravel = ravel_pytree(self.center)
        return unravel(vector + jax.random.uniform(rng_key, vector.shape, vector.dtype, -1, 1))

    def constrain(self, position: PyTree) -> dict[str, Array]:
        """Name the arrays of the event."""
        event, _ = self.bijector.forward(position)
        return dict(zip(leaf_names(event), jax.tree.leaves(event), strict=True))

    def start_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Name the arrays of an event."""
        return jax.eval_shape(lambda: self.constrain(self.center))

    def unconstrain(self, values: Mapping[str, Array], rng_key: Key[Array, ""]) -> PyTree:
        """Return the unconstrained numbers of an event, of which arrays that are not given are those of a start."""
        event, _ = self.bijector.forward(self.initial_position(rng_key))
        leaves = [values.get(name, leaf) for name, leaf in zip(leaf_names(event), jax.tree.leaves(event), strict=True)]
        return self.bijector.inverse(jax.tree.unflatten(jax.tree.structure(event), leaves))


class _Found(NamedTuple):
    """Of each draw: whether the bijector misses it, and whether there is density near it."""

    is_missed: Bool[Array, " draw"]
    is_inside: Bool[Array, " draw"]


def _round_trip(bijector: Bijector, log_prob: Callable, draws: PyTree) -> _Found:
    def one(draw: PyTree, key: Array) -> _Found:
        free, unravel = ravel_pytree(bijector.inverse(draw))
        back, there = ravel_pytree(bijector.forward(unravel(free))[0])[0], ravel_pytree(draw)[0]
        # A draw that was rounded to the end of the support is at infinity; one that is beyond it is nowhere.
        is_near = (jnp.abs(back - there) <= RETURN * (1 + jnp.abs(there))).all()
        is_missed = jnp.isnan(free).any() | (jnp.isfinite(free).all() & ~is_near)
        moved = free + jax.random.uniform(key, free.shape, free.dtype, -0.1, 0.1)
        value = log_prob(bijector.forward(unravel(moved))[0])
        return _Found(is_missed, jnp.isfinite(value) | ~jnp.isfinite(free).all())

    return jax.jit(jax.vmap(one))(draws, jax.random.split(jax.random.key(1), DRAWS))


def _draws(given: Any, library: str) -> PyTree:
    """Return draws with a leading axis, as floating-point numbers."""
    key = jax.random.key(0)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Explicitly requested dtype")  # TensorFlow Probability tries double
            if library == "numpyro":
                drawn = given.sample(key, (DRAWS,))
            else:
                drawn = given.sample(seed=key, sample_shape=(DRAWS,))
    except NotImplementedError as error:
        raise ValueError(
            f"{supports.title(given)} cannot be drawn from, so that it may be no distribution at all (an improper one "
            "is none); give its log density as a function, with an initial_position."
        ) from error
    leaves = jax.tree.leaves(drawn)
    if sum(np.size(leaf) for leaf in leaves) == 0:
        raise ValueError(f"{supports.title(given)} has events without numbers, expected at least one.")
    if any(not jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in leaves):
        raise ValueError(supports.discrete(given))
    if all(bool((leaf == jnp.round(leaf)).all()) for leaf in leaves):
        raise ValueError(supports.discrete(given))
    return drawn


def _leaf_by_leaf(event: PyTree, given: Mapping[str, Any]) -> Bijector:
    """Return the bijectors of the arrays of an event as one."""
    tree = jax.tree.structure(event)
    names = leaf_names(event)
    for variable in given:
        if variable not in names:
            raise unknown("a name in bijectors", variable, names)
    rows = [bijectors.find(name, given.get(name, "real")) for name in names]

    def forward(free: PyTree) -> tuple[PyTree, Float[Array, ""]]:
        pairs = [row.forward(leaf) for row, leaf in zip(rows, jax.tree.leaves(free), strict=True)]
        return jax.tree.unflatten(tree, [value for value, _ in pairs]), sum((term for _, term in pairs), jnp.zeros(()))

    def inverse(value: PyTree) -> PyTree:
        return jax.tree.unflatten(
            tree, [row.inverse(leaf) for row, leaf in zip(rows, jax.tree.leaves(value), strict=True)]
        )

    return Bijector(forward, inverse)


def _like(value: Any, leaf: Array) -> Array:
    array = jnp.asarray(value, leaf.dtype)
    if array.shape != leaf.shape:
        raise ValueError(f"initial_position has shape {array.shape}, expected {np.shape(leaf)}, that of a draw.")
    return array
