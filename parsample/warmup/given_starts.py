"""Where chains start, as a user says it: values of variables, one for all chains or one a chain, or positions."""

import functools
import inspect
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Key, PyTree

from parsample.engine.names import unknown
from parsample.engine.traceable import untraceable
from parsample.targets.base import Target, position_shapes
from parsample.targets.external import External
from parsample.targets.names import leaf_names

WORDS = ("random", "laplace")
EXPECTED = (
    "'random', 'laplace', values of variables, a list of such with one a chain, one of NumPyro's init_to_..., or "
    "unconstrained positions with a leading axis of chains"
)
# How often what is random beside the given values is drawn again, as for random starts.
TRIES = 100
# How near a value must come back from unconstrained coordinates: as near as numbers that were read off a table.
RETURN = 1e-2


class Placed(NamedTuple):
    """Where a start leads to.

    Attributes:
        position: unconstrained.
        back: the values of the trace's variables there.
        value: the log density there.
        has_slope: whether its gradient is finite.
    """

    position: PyTree
    back: dict[str, Array]
    value: Float[Array, ""]
    has_slope: Bool[Array, ""]

    @property
    def is_good(self) -> bool:
        """Whether a chain can start there."""
        return bool(jnp.isfinite(self.value) & self.has_slope) and not self.at_infinity

    @property
    def at_infinity(self) -> list[str]:
        """The names of those parts of the position that are not finite."""
        rows = zip(leaf_names(self.position), jax.tree.leaves(self.position), strict=True)
        return [name for name, leaf in rows if not bool(jnp.isfinite(leaf).all())]

    @property
    def vector(self) -> Float[Array, " dim"]:
        """The flat position."""
        return ravel_pytree(self.position)[0]


def given_starts(target: Target, start: Any, rng_keys: Key[Array, " chain"]) -> Float[Array, "chain dim"] | None:
    """Return flat positions to start from, one a chain; None for the words, which leave that to warm-up.

    What has the form of the target's position, with an axis for the chains in front of every shape, is unconstrained
    positions, whatever else it may be. Everything else is values in the variables' own coordinates: by name, or in the
    form of the position, for all chains; or a list or tuple of such, one a chain. Chains start exactly there, without
    noise. Of variables that are not given a chain draws its own start.

    Args:
        target: to start in.
        start: see `parsample.Warmup`.
        rng_keys: one a chain, for what is random.

    Raises:
        ValueError: `start` is none of these; a name is unknown, a shape differs, a value is no number, outside of its
            support, or leads to a log density that is not finite.

    Cost: one gradient a chain, and for values one run of the model.
    """
    count, start = len(rng_keys), _values_of(start)
    if isinstance(start, str):
        if start not in WORDS:
            raise ValueError(f"start is {start!r}, expected {EXPECTED}.")
        return None
    if callable(start) and not hasattr(start, "shape"):
        return _by_strategy(target, start, rng_keys)
    template = position_shapes(target)
    tree: Any = jax.tree.structure(template)
    if _shapes(start, tree) == [(count, *leaf.shape) for leaf in jax.tree.leaves(template)]:
        return given_positions(target, start, count)
    if type(start) in (list, tuple) and jax.tree.structure(start) != tree:
        if len(start) != count:
            raise ValueError(f"start has {len(start)} entries, expected {count}, one a chain.")
        names = [f"start[{chain}]" for chain in range(count)]
        rows = [_checked(target, values, name, count) for values, name in zip(start, names, strict=True)]
    else:
        values = _checked(target, start, "start", count)
        if values.keys() == target.start_shapes().keys():
            return jnp.tile(_place(target, values, "start", rng_keys[0], 0), (count, 1))
        rows, names = [values] * count, ["start"] * count
    return jnp.stack([_place(target, *row) for row in zip(rows, names, rng_keys, range(count), strict=True)])


def given_positions(target: Target, start: Any, num_chains: int, name: str = "start") -> Float[Array, "chain dim"]:
    """Check positions with a leading axis of chains, and return them flat."""
    template = position_shapes(target)
    tree: Any = jax.tree.structure(template)
    expected = [(num_chains, *leaf.shape) for leaf in jax.tree.leaves(template)]
    if _shapes(start, tree) != expected:
        found = jax.tree.map(np.shape, start)
        raise ValueError(
            f"{name} has the shapes {found}, expected {jax.tree.unflatten(tree, expected)}: unconstrained positions "
            "with a leading axis of chains."
        )
    rows = zip(tree.flatten_up_to(start), jax.tree.leaves(template), strict=True)
    cast = jax.tree.unflatten(tree, [jnp.asarray(leaf, like.dtype) for leaf, like in rows])
    vectors = jax.vmap(lambda position: ravel_pytree(position)[0])(cast)
    if isinstance(target, External):
        values, gradients = target.look(vectors)
        have_slopes = jnp.isfinite(gradients).all(-1)
    else:
        values, have_slopes = _looked_at(target, cast)
    known = jnp.isfinite(values) & have_slopes
    if not bool(known.all()):
        chain = int(jnp.argmin(known))
        raise ValueError(
            f"{name} has {_trouble(values[chain])} in chain {chain}, expected finite ones; start chains inside the "
            "support, in unconstrained coordinates."
        )
    return vectors


@eqx.filter_jit
def _looked_at(target: Target, positions: PyTree) -> tuple[Array, Array]:
    """Return the log density of every chain's position, and whether its gradient is finite."""
    values, gradients = jax.vmap(jax.value_and_grad(target.logdensity))(positions)
    return values, jax.vmap(lambda gradient: jnp.isfinite(ravel_pytree(gradient)[0]).all())(gradients)


def _checked(target: Target, given: Any, name: str, num_chains: int) -> dict[str, Array]:
    """Return the values of a start by the names of variables, once they are such in name, shape and kind."""
    shapes = target.start_shapes()
    return {
        variable: _number(f"{name}[{variable!r}]", value, shapes[variable], num_chains)
        for variable, value in _named(target, given, name, list(shapes)).items()
    }


def _named(target: Target, given: Any, name: str, names: list[str]) -> dict[str, Any]:
    if isinstance(given, Mapping) and given and all(row in names for row in given):
        return dict(given)
    tree: Any = jax.tree.structure(target.position_template())
    if jax.tree_util.treedef_is_leaf(tree) and not isinstance(given, Mapping | str | None):
        return {names[0]: given}
    if jax.tree.structure(given) == tree and len(names) == tree.num_leaves:
        return dict(zip(names, jax.tree.leaves(given), strict=True))
    if not (isinstance(given, Mapping) and given):
        what = "empty" if isinstance(given, Mapping) else f"a {type(given).__name__}"
        raise ValueError(f"{name} is {what}, expected {EXPECTED}.")
    stranger = next(row for row in given if row not in names)
    if stranger in jax.eval_shape(lambda: target.constrain(target.position_template())):
        raise ValueError(
            f"{name} has {stranger!r}, which follows from other variables; leave it out, and give some of "
            f"{', '.join(names)}."
        )
    raise unknown(f"a name in {name}", stranger, names)


def _number(name: str, value: Any, like: jax.ShapeDtypeStruct, num_chains: int) -> Array:
    try:
        array = np.asarray(value)
        is_number = array.dtype.kind in "iuf" or jnp.issubdtype(array.dtype, jnp.floating)
    except (TypeError, ValueError):
        is_number = False
    if not is_number:
        raise ValueError(f"{name} is {reprlib.repr(value)}, expected real numbers of the shape {like.shape}.")
    if array.shape != like.shape:
        remedy = "for a start of its own for each chain give a list of such values"
        has_chains = array.shape == (num_chains, *like.shape)
        raise ValueError(f"{name} has the shape {array.shape}, expected {like.shape}{f'; {remedy}' * has_chains}.")
    if not np.isfinite(array.astype(np.float64)).all():
        raise ValueError(f"{name} is {_text(array)}, expected finite numbers.")
    return jnp.asarray(array, like.dtype)


def _place(target: Target, values: dict[str, Array], name: str, rng_key: Array, chain: int) -> Array:
    """Return the flat position of checked values."""
    names, is_whole = values.keys(), values.keys() == target.start_shapes().keys()
    for again in range(1 if is_whole else TRIES):
        found = _placed(target, values, jax.random.fold_in(rng_key, again))
        missed = [row for row in names if not _is_near(found.back.get(row), values[row])]
        if found.is_good and not missed:
            return found.vector
    rest = "" if is_whole else f", with the other variables drawn at random, {TRIES} times"
    if missed:
        raise ValueError(
            f"{name}[{missed[0]!r}] is {_text(values[missed[0]])}, which is outside of the support of "
            f"{missed[0]}{rest}; start inside."
        )
    if found.at_infinity:
        raise ValueError(
            f"{name} has values on the edge of the support, where {', '.join(found.at_infinity)} would be infinite in "
            "unconstrained coordinates; start inside."
        )
    raise ValueError(
        f"{name} leads to {_trouble(found.value)} in chain {chain}{rest}, expected finite ones; start elsewhere."
    )


def _placed(target: Target, values: dict[str, Array], rng_key: Array) -> Placed:
    if isinstance(target, External):
        return _look_outside(target, target.unconstrain(values, rng_key))
    return _placed_inside(target, values, rng_key)


@eqx.filter_jit
def _placed_inside(target: Target, values: dict[str, Array], rng_key: Array) -> Placed:
    return _look(target, target.unconstrain(values, rng_key))


def _look_outside(target: External, position: PyTree) -> Placed:
    """Look at a position by a run of the model."""
    position = jax.tree.map(lambda leaf, like: jnp.asarray(leaf, like.dtype), position, target.position_template())
    values, gradients = target.look(ravel_pytree(position)[0][None])
    return Placed(position, target.constrain(position), values[0], jnp.isfinite(gradients).all())


def _look(target: Target, position: PyTree) -> Placed:
    template = target.position_template()
    position = jax.tree.map(lambda leaf, like: jnp.asarray(leaf, like.dtype), position, template)
    value, gradient = jax.value_and_grad(target.logdensity)(position)
    has_slope = jnp.isfinite(ravel_pytree(gradient)[0]).all()
    return Placed(position, target.constrain(position), value, has_slope)


def _is_near(back: Array | None, value: Array) -> bool:
    """Say whether a value came back; one that is no variable of the trace has no other coordinates."""
    return back is None or bool((jnp.abs(back - value) <= RETURN * (1 + jnp.abs(value))).all())


def _values_of(start: Any) -> Any:
    """Return the values of `init_to_value(values=...)`, which are then looked at; another start as it is."""
    if strategy_name(start) != "init_to_value":
        return start
    return getattr(start, "keywords", {}).get("values") or "random"


def _by_strategy(target: Target, strategy: Callable, rng_keys: Array) -> Float[Array, "chain dim"]:
    """Return flat positions by one of NumPyro's initial strategies, of each chain by its own key."""
    title = strategy_name(strategy)
    start_by = getattr(target, "start_by", None)
    if start_by is None:
        raise ValueError(f"start is {title}, which needs a NumPyro model; for this target give values of variables.")
    if not isinstance(strategy, functools.partial) and _takes_nothing(strategy):
        strategy = strategy()
    look = jax.jit(lambda rng_key: _look(target, start_by(strategy, rng_key)))
    try:
        jax.eval_shape(look, rng_keys[0])
    except Exception as error:  # whatever a user's function raises
        raise untraceable(error, f"start, {title},") or ValueError(
            f"start is {title}, which cannot be applied to the model: {type(error).__name__}: "
            f"{str(error).partition(chr(10))[0]}"
        ) from error
    vectors = []
    for chain, rng_key in enumerate(rng_keys):
        for again in range(TRIES):
            found = look(jax.random.fold_in(rng_key, again))
            if found.is_good:
                break
        else:
            raise ValueError(
                f"start is {title}, which led to {_trouble(found.value)} in chain {chain}, {TRIES} times, expected "
                "finite ones; take another, or give values of variables."
            )
        vectors.append(found.vector)
    return jnp.stack(vectors)


def strategy_name(strategy: Any) -> str:
    """Return the name of an initial strategy."""
    return getattr(getattr(strategy, "func", strategy), "__name__", type(strategy).__name__)


def _takes_nothing(strategy: Callable) -> bool:
    try:
        inspect.signature(strategy).bind()
    except (TypeError, ValueError):
        return False
    return True


def _shapes(start: Any, tree: Any) -> list[tuple[int, ...]] | None:
    """Return the shapes of the leaves of a position; None for what has not its form."""
    try:
        return [np.shape(leaf) for leaf in tree.flatten_up_to(start)]
    except (TypeError, ValueError):
        return None


def _trouble(value: Array) -> str:
    found = f"log density {float(value):.3g}"
    return f"{found} and a gradient that is not finite" if bool(jnp.isfinite(value)) else found


def _text(array: Any) -> str:
    return " ".join(np.array2string(np.asarray(array), precision=4, threshold=6).split())
