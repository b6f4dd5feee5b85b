"""What NumPyro makes of a model, as functions of its data, so that data of the same shapes share what is compiled."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from parsample.engine.reads import Unknown, reads, settling
from parsample.targets.base import Position
from parsample.targets.data_alone import CONSTANT, GIVEN, VARIES, computes_with_data_alone, kinds_of_results
from parsample.targets.numpyro_effects import ENDING
from parsample.targets.numpyro_sites import KEPT, check_sites, description, model_name

# How many programs are remembered. Each holds a model, what was traced of it, and the arrays that its code looks into.
REMEMBERED = 32
# A log density with the data as arguments that is further from the one with the data as constants is not used.
AGREES = 1e-3


class Program:
    """A model with its arguments, but for the arrays among them that it does not look into; those are `data`.

    All functions are traced once, and again only for another precision.

    Args:
        model: a Python function with NumPyro's primitives.
        tree: of its arguments, (args, kwargs).
        rest: the leaves of the tree; `DATA` in the place of data.
        data: for their shapes.

    Attributes:
        sites: name -> what is needed of a site of the model's trace (`numpyro_sites.description`).
        template: the latent sites in unconstrained coordinates, as shapes.
        centred: those of them with a location and a scale of which the scale is unknown, as shapes.
    """

    def __init__(self, model: Callable, tree: Any, rest: list[Any], data: list[Any]):
        """Trace the model, and look at its sites."""
        self.model, self.tree, self.rest = model, tree, rest
        self.sites: dict[str, dict[str, Any]] = {}
        # Compiled where they are called; inlined where something else is compiled that calls them.
        self.potential = jax.jit(self._potential, inline=True)
        self.constrain = jax.jit(self._constrain, inline=True)
        self.effects = jax.jit(self._effects, inline=True)
        self.log_likelihood = jax.jit(self._log_likelihood, inline=True)
        self.predictive = jax.jit(self._predictive, inline=True)
        self.prior = jax.jit(self._prior, static_argnums=2, inline=True)
        self.computed = jax.jit(self._computed)
        self.template: Position = jax.eval_shape(self._inspect, data)
        try:  # what is traced here is not traced again
            self.centred = self._centred(data)
            jax.eval_shape(self.potential, data, self.centred, self.template)
        except Exception as error:  # shapes that do not fit, say
            raise CannotRun from error

    def arguments(self, data: list[Any]) -> tuple[tuple, dict[str, Any]]:
        """Return the model's arguments with these data."""
        rows = iter(data)
        return jax.tree.unflatten(self.tree, [next(rows) if leaf is DATA else leaf for leaf in self.rest])

    def trace(self, data: list[Any]) -> dict[str, dict[str, Any]]:
        """Run the model with these data."""
        return run(self.bound(data))

    def observed(self, data: list[Any]) -> dict[str, np.ndarray]:
        """Return the values of the observed sites, as they were given."""
        sites = {name: site for name, site in self.sites.items() if site["observed"]}
        constants = {name: site["constant"] for name, site in sites.items() if site["constant"] is not None}
        given = {name: data[site["place"]] for name, site in sites.items() if site["place"] is not None}
        computed = self.computed(data) if any(map(is_computed, sites.values())) else {}
        found = {**constants, **given, **computed}
        return {name: np.asarray(found[name]) for name in sites}

    def undrawable(self, data: list[Any], observed_only: bool) -> dict[str, str]:
        """Return the sites, or the observed ones, whose distributions cannot be drawn from, with the names of these."""
        found = {}

        def look(data: list[Any]) -> None:
            for name, site in self.trace(data).items():
                wanted = not self.sites[name]["auxiliary"] if name in self.sites else False
                if wanted and site["type"] == "sample" and (site["is_observed"] or not observed_only):
                    try:
                        jax.eval_shape(site["fn"].sample, jax.random.key(0))
                    except Exception:  # whatever a user's distribution raises
                        found[name] = type(site["fn"]).__name__

        jax.eval_shape(look, data)
        return found

    def _inspect(self, data: list[Any]) -> Position:
        from numpyro.infer import initialize_model

        sites = self.trace(data)
        check_sites(self.model, sites)
        self.sites = {name: description(site, data) for name, site in sites.items() if site["type"] in KEPT}
        # NumPyro's own checks of the model, and its unconstrained coordinates; traced with the data, so nothing runs.
        found = dict(initialize_model(jax.random.key(0), self.bound(data), validate_grad=False).param_info.z)
        if not sum(leaf.size for leaf in found.values()):
            raise ValueError(
                f"the latent sites of the model {model_name(self.model)} have no number that can vary: "
                f"{', '.join(found)}; there is nothing to sample, as in a simplex of one number, or with no data."
            )
        return found

    def _centred(self, data: list[Any]) -> dict[str, Any]:
        """Return the latent sites that can be centred more or less: whose scale depends on where the others are."""
        is_free = lambda name: self.sites[name]["is_effect"] and name + ENDING not in self.sites  # noqa: E731
        latent = {name: leaf for name, leaf in self.template.items() if is_free(name)}
        if not latent:
            return {}
        scales = lambda *given: {name: scale for name, (_, scale) in self._effects(*given).items()}  # noqa: E731
        try:
            program, shapes = jax.make_jaxpr(scales, return_shape=True)(data, latent, self.template)
        except Exception:  # whatever NumPyro raises where it cannot write a model otherwise: it stays as it is
            return {}
        kinds = [CONSTANT] * len(jax.tree.leaves((data, latent))) + [VARIES] * len(self.template)
        known = jax.tree.unflatten(jax.tree.structure(shapes), kinds_of_results(program.jaxpr, kinds))
        return {name: leaf for name, leaf in latent.items() if known.get(name) == VARIES}

    def _effects(self, data: list[Any], centred: Position, position: Position) -> dict[str, tuple[Array, Array]]:
        """Return location and scale of the sites in `centred`, of their shapes."""
        from numpyro.infer.util import constrain_fn

        seen: dict[str, tuple[Array, Array]] = {}
        constrain_fn(*self._placed(data, centred, position, seen))
        return seen

    def _placed(self, data: list[Any], centred: Position, position: Position, seen: dict | None = None) -> tuple:
        """Return the model, its arguments, and its latent sites in the coordinates of a position."""
        from parsample.targets.numpyro_centred import partly_centred

        model, names = partly_centred(self.bound(data), centred, seen)
        return _seeded(model), (), {}, {names.get(name, name): leaf for name, leaf in position.items()}

    def _potential(self, data: list[Any], centred: Position, position: Position) -> Float[Array, ""]:
        from numpyro.infer.util import potential_energy

        return potential_energy(*self._placed(data, centred, position))

    def _constrain(self, data: list[Any], centred: Position, position: Position) -> dict[str, Any]:
        from numpyro.infer.util import constrain_fn

        found = constrain_fn(*self._placed(data, centred, position), return_deterministic=True)
        return {name: value for name, value in found.items() if name in self.sites}

    def _computed(self, data: list[Any]) -> dict[str, Array]:
        sites = self.trace(data)
        return {name: sites[name]["value"] for name, site in self.sites.items() if is_computed(site)}

    def _log_likelihood(self, data: list[Any], latent: Mapping[str, Array]) -> dict[str, Array]:
        from numpyro.infer import log_likelihood

        return log_likelihood(_seeded(self.bound(data)), dict(latent), batch_ndims=2)

    def _predictive(self, data: list[Any], rng_key: Key[Array, ""], latent: Mapping[str, Array]) -> dict[str, Any]:
        from numpyro import handlers
        from numpyro.infer import Predictive

        return Predictive(handlers.uncondition(self.bound(data)), dict(latent), batch_ndims=2)(rng_key)

    def _prior(self, data: list[Any], rng_key: Key[Array, ""], num_draws: int) -> dict[str, Any]:
        from numpyro import handlers
        from numpyro.infer import Predictive

        return Predictive(handlers.uncondition(self.bound(data)), num_samples=num_draws)(rng_key)

    def bound(self, data: list[Any]) -> Callable:
        """Return the model with its arguments."""
        return _bound(self.model, *self.arguments(data))


def _bound(model: Callable, args: tuple, kwargs: dict[str, Any]) -> Callable:
    """Return a model with its arguments: no function of NumPyro's takes them for its own, `self` least of all."""
    return lambda: model(*args, **kwargs)


def is_computed(site: Mapping[str, Any]) -> bool:
    """Say whether the model computes what it observes at a site."""
    return bool(site["observed"]) and site["place"] is None and site["constant"] is None


def _seeded(model: Callable) -> Callable:
    """Return the model with the random numbers that it may ask for, the same at every call."""
    from numpyro import handlers

    return handlers.seed(model, jax.random.key(0))


def run(model: Callable) -> dict[str, dict[str, Any]]:
    """Run a model that has its arguments, and return what NumPyro's handlers saw of each site.

    Raises:
        CannotRun: it raises an error.
    """
    from numpyro import handlers
    from numpyro.infer.initialization import init_to_uniform

    started = handlers.substitute(_seeded(model), substitute_fn=init_to_uniform)
    try:
        return handlers.trace(started).get_trace()
    except Exception as error:  # whatever a user's function raises
        raise CannotRun from error


class CannotRun(Exception):
    """The model raises an error with these arguments, its cause."""


class _Data:
    """Stands in the place of data among the arguments of a model."""


DATA = _Data()
# Which of the arrays are data.
CHOICES = ("all", "floats", "none")
# What a model may look into -> the program; and what it is given -> which arrays it does not look into.
_programs: OrderedDict[Hashable, Program] = OrderedDict()
_choices: OrderedDict[Hashable, str] = OrderedDict()


def find_program(model: Callable, args: tuple, kwargs: dict[str, Any]) -> tuple[Program, list[Any]]:
    """Return the program of a model, and its data.

    The arrays among the arguments are data: they are arguments of what is compiled, which serves all data of these
    shapes. Where a model looks into them, as `if x.max() > 3` does, or a size that is read from an array of group
    numbers, those that are not of floating-point numbers are constants; or all are. They are, too, where the log
    density would otherwise be another one: NumPy computes with 64 bits in the model, where JAX has 32.

    Args:
        model: a Python function with NumPyro's primitives.
        args: of the model.
        kwargs: of the model.

    Raises:
        ValueError: the model cannot be sampled.
        CannotRun: it raises an error with all arrays as constants.

    Cost: traces the model, and compiles its log density twice where it computes with 64-bit data alone and the
        precision is 32 bits; only what `reads` costs where the program is known.
    """
    leaves, tree = jax.tree.flatten((args, kwargs))
    family = _family(model, tree, leaves)
    first = _choices.get(family, CHOICES[0])
    for choice in CHOICES[CHOICES.index(first) :]:
        data, rest = _parted(leaves, choice)
        if choice != CHOICES[-1] and not data:
            continue
        key = _key(family, choice, rest)
        if key in _programs:
            _programs.move_to_end(key)
            return _programs[key], data
        try:
            with settling(model):
                program = Program(model, tree, rest, data)
            if _agrees(program, data):
                break
        except Exception:
            # Constants are what NumPyro has: what fails with them is the model's own error, and clearer untraced.
            if choice == CHOICES[-1]:
                check_sites(model, run(_bound(model, args, kwargs)))
                raise
    # Anew: what the model changed itself, a counter of its calls say, is not among what it reads from now on.
    family = _family(model, tree, leaves)
    if family is not None:
        _remember(_programs, _key(family, choice, rest), program)
        _remember(_choices, family, choice)
    return program, data


def _family(model: Callable, tree: Any, leaves: list[Any]) -> Hashable:
    """Return what all programs of a model have in common, None where it cannot be told what it reads."""
    try:
        constants = [reads(leaf) for leaf in leaves if not is_data(leaf)]
        return (reads(model), tree, *map(_shape, leaves), *constants, jnp.result_type(float))
    except Unknown:
        return None


def _key(family: Hashable, choice: str, rest: list[Any]) -> Hashable:
    return None if family is None else (family, choice, *(reads(leaf) for leaf in rest if is_data(leaf)))


def _parted(leaves: list[Any], choice: str) -> tuple[list[Any], list[Any]]:
    """Return the arguments that are data, and all of them with `DATA` in the place of these."""
    of_choice = {"all": is_data, "floats": lambda leaf: is_data(leaf) and _is_inexact(leaf), "none": lambda leaf: False}
    kept = [of_choice[choice](leaf) for leaf in leaves]
    data = [leaf for leaf, is_kept in zip(leaves, kept, strict=True) if is_kept]
    return data, [DATA if is_kept else leaf for leaf, is_kept in zip(leaves, kept, strict=True)]


def _remember(table: OrderedDict, key: Hashable, value: Any) -> None:
    table[key] = value
    table.move_to_end(key)
    while len(table) > REMEMBERED:
        table.popitem(last=False)


def is_data(leaf: Any) -> bool:
    """Say whether an argument can be data: an array of numbers or random keys, whose numbers JAX can hold."""
    if isinstance(leaf, jax.Array):
        return True
    if not isinstance(leaf, np.ndarray) or leaf.dtype.kind not in "biufc":
        return False
    held = jax.dtypes.canonicalize_dtype(leaf.dtype)
    return leaf.dtype.kind not in "iu" or held == leaf.dtype or not leaf.size or _fits(leaf, held)


def _fits(leaf: np.ndarray, dtype: Any) -> bool:
    limits = np.iinfo(dtype)
    return bool(leaf.min() >= limits.min and leaf.max() <= limits.max)


def _is_inexact(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def _shape(leaf: Any) -> Hashable:
    if not is_data(leaf):
        return None
    return (type(leaf), leaf.shape, str(leaf.dtype), getattr(leaf, "weak_type", False))


def _agrees(program: Program, data: list[Any]) -> bool:
    """Say whether the log density is the same with the data as constants.

    It is where nothing is computed of the data alone; else it is asked at a start that NumPyro would have.
    """
    kinds = [GIVEN if _is_rounded(leaf) else CONSTANT for leaf in data]
    if GIVEN not in kinds:
        return True
    others = program.centred, program.template
    varies = [VARIES] * len(jax.tree.leaves(others))
    if not computes_with_data_alone(jax.make_jaxpr(program.potential)(data, *others), [*kinds, *varies]):
        return True
    rng = np.random.default_rng(0)
    position = jax.tree.map(lambda leaf: rng.uniform(-1, 1, leaf.shape).astype(leaf.dtype), program.template)
    centred = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), program.centred)
    found = float(program.potential(data, centred, position))
    expected = float(jax.jit(lambda *given: program._potential(data, *given))(centred, position))
    # NaN and infinities agree with themselves.
    return bool(np.isclose(found, expected, rtol=AGREES, atol=AGREES, equal_nan=True))


def _is_rounded(leaf: Any) -> bool:
    """Say whether NumPy has more digits of an array than JAX."""
    return (
        isinstance(leaf, np.ndarray) and _is_inexact(leaf) and jax.dtypes.canonicalize_dtype(leaf.dtype) != leaf.dtype
    )
