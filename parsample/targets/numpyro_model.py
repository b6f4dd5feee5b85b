"""A NumPyro model with its data as a target."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from parsample.engine.arrays import to_jax
from parsample.engine.traceable import first_line, untraceable
from parsample.targets.base import Position, Target
from parsample.targets.numpyro_program import CannotRun, Program, find_program
from parsample.targets.numpyro_sites import model_name, table_words


class NumPyroModel(Target):
    """The posterior of a NumPyro model, given its arguments.

    The position holds the latent sites in unconstrained coordinates, as NumPyro's own samplers have them. Those with a
    location and a scale that depends on other sites are centred as far as `centred` says (`targets.centring`): all the
    way, until warm-up changes that. The trace has the latent sites in their coordinates, and the deterministic ones.
    The dims of a site are the plates around it, and then those that its `infer={"event_dims": [...]}` names.

    Args:
        model: a Python function with NumPyro's primitives.
        *args: of the model. Arrays among them are data: the same model with other data of these shapes is neither
            traced nor compiled again. Where the model looks into them, as NumPy's functions, Python's `if` and the
            sizes of plates do, they are constants (`numpyro_program.find_program`).
        **kwargs: of the model.

    Raises:
        ValueError: the function is no model, cannot be called with these arguments, has no latent sites or discrete
            ones, or subsamples.

    Source: transforms and log density are those of `numpyro.infer.initialize_model`.
    """

    name: ClassVar[str] = "numpyro_model"

    data: list[Any]
    centred: dict[str, Array]
    program: Program = eqx.field(static=True)

    def __init__(self, model: Callable, /, *args: Any, **kwargs: Any):
        """Find what NumPyro makes of the model."""
        try:
            self.program, self.data = find_program(model, args, kwargs)
            self.centred = {
                name: to_jax(np.ones(leaf.shape), leaf.dtype) for name, leaf in self.program.centred.items()
            }
        except CannotRun as error:
            cause, remedy = error.__cause__, "mend the model, or its arguments"
            if not args and not kwargs:
                remedy = (
                    "give the model's arguments after it, or, if it is a plain log density, the position to start "
                    "around, for example initial_position=jnp.zeros(3)"
                )
            given = _by_name(model, args, kwargs).items()
            tables = [f"{name} is {words}" for name, value in given if (words := table_words(value))]
            if tables and isinstance(cause, TypeError):  # of JAX's own about what it cannot trace, too
                raise ValueError(
                    f"the model {model_name(model)} computes with what JAX does not: {', '.join(tables)}; give the "
                    "values (`.to_numpy()`), or take them in the model."
                ) from cause
            raise untraceable(cause, f"the model {model_name(model)}") or ValueError(
                f"target {model_name(model)} cannot be run as a NumPyro model with the arguments given "
                f"({first_line(cause)}{_nan_in(_numeric(model, args, kwargs))}); {remedy}."
            ) from cause

    def logdensity(self, position: Position) -> Float[Array, ""]:
        """Return the log density of latent sites and data, with the log-Jacobians of the transforms."""
        return -self.program.potential(self.data, self.centred, position)

    def position_template(self) -> Position:
        """Return zeros in place of the latent sites."""
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), self.program.template)

    def constrain(self, position: Position) -> dict[str, Any]:
        """Return the latent sites in their own coordinates, and the deterministic ones, which may be pytrees."""
        return self.program.constrain(self.data, self.centred, position)

    def effects(self, position: Position) -> dict[str, tuple[Array, Array]]:
        """Return location and scale of the sites in `centred`, each of the site's shape."""
        return self.program.effects(self.data, self.centred, position)

    def start_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Name the latent sites."""
        shapes = jax.eval_shape(lambda: self.constrain(self.position_template()))
        return {name: shapes[name] for name in self.position_template()}

    def unconstrain(self, values: Mapping[str, Array], rng_key: Key[Array, ""]) -> Position:
        """Return a position with given values of latent sites, where they are not given that of `initial_position`."""
        position = self.initial_position(rng_key)
        found = self.start_by(functools.partial(_value_of, values=values, position=position), rng_key)
        return {name: found[name] if name in values else leaf for name, leaf in position.items()}

    def start_by(self, strategy: Callable, rng_key: Key[Array, ""]) -> Position:
        """Return the position that one of NumPyro's initial strategies leads to, such as `init_to_median`."""
        from numpyro import handlers
        from numpyro.distributions import biject_to

        template = self.position_template()
        seeded = handlers.seed(self.program.bound(self.data), rng_key)
        started = handlers.substitute(
            seeded, substitute_fn=lambda site: strategy(site) if site["name"] in template else None
        )
        sites = handlers.trace(started).get_trace()
        found = {name: biject_to(sites[name]["fn"].support).inv(sites[name]["value"]) for name in template}
        return {name: jnp.asarray(found[name], leaf.dtype) for name, leaf in template.items()}

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """The plates around each site, and the dims of its events that have names."""
        return {name: site["dims"] for name, site in self.program.sites.items() if site["dims"]}

    @property
    def group_dims(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Those of the observed sites where a group has other axes of them than the data."""
        observed = {name: site for name, site in self.program.sites.items() if site["observed"]}
        drawn = {name: site["drawn_dims"] for name, site in observed.items()}
        likelihood = {name: site["likelihood_dims"] for name, site in observed.items()}
        return {"log_likelihood": likelihood, "posterior_predictive": drawn, "prior_predictive": drawn}

    @property
    def observed_data(self) -> dict[str, np.ndarray]:
        """The values of the observed sites."""
        return self.program.observed(self.data)

    @property
    def constant_data(self) -> dict[str, np.ndarray]:
        """The arguments of the model that are numbers or arrays of them, by name, without those that it observes."""
        observed = list(self.observed_data.values())
        found = {name: np.asarray(value) for name, value in self.arguments.items()}
        return {
            name: value
            for name, value in found.items()
            if value.size and not any(np.array_equal(value, other, equal_nan=_is_float(value)) for other in observed)
        }

    def log_likelihood(self, draws: Mapping[str, Any]) -> dict[str, Array]:
        """Return the log likelihood of each observation.

        Args:
            draws: the variables of the trace, leading axes (chain, draw).

        Returns:
            Observed site -> values, leading axes (chain, draw), then the batch axes of the site: one value an event.
        """
        return self._observed_of(self.program.log_likelihood(self.data, self.latent(draws)))

    def posterior_predictive(self, rng_key: Key[Array, ""], draws: Mapping[str, Any]) -> dict[str, Array]:
        """Draw the observed sites anew from every draw of the posterior; leading axes (chain, draw)."""
        return self._observed_of(self.program.predictive(self.data, rng_key, self.latent(draws)))

    def prior(self, rng_key: Key[Array, ""], num_draws: int) -> tuple[dict[str, Any], dict[str, Array]]:
        """Draw from the prior: the variables of the trace, and the observed sites, leading axes (1, draw).

        Raises:
            ValueError: a prior is improper, so that nothing can be drawn from it.
        """
        self.check_prior()
        drawn = self.program.prior(self.data, rng_key, num_draws)
        rows = jax.tree.map(lambda value: jnp.asarray(value)[None], drawn)
        observed = self._observed_of(rows)
        return {name: rows[name] for name in self.program.sites if name in rows and name not in observed}, observed

    def check_prior(self) -> None:
        """Raise ValueError where a prior is improper, before anything is sampled."""
        improper = ", ".join(name for name, site in self.program.sites.items() if site["improper"])
        if improper:
            raise ValueError(
                f"groups asks for the prior, but the prior of {improper} is improper and has no draws; give it a "
                "proper one, or leave 'prior' out."
            )

    def why_not(self, request: str) -> str:
        """Say which sites cannot be drawn, where that is why a group cannot be made; else nothing."""
        if request == "log_likelihood":
            return ""
        sites = self.program.undrawable(self.data, observed_only=request == "posterior_predictive")
        named = ", ".join(f"{name} ({kind})" for name, kind in sites.items())
        return f", for no draws can be made of {named}: that distribution has no sample method" if sites else ""

    def latent(self, draws: Mapping[str, Any]) -> dict[str, Array]:
        """Return the latent sites among the variables of a trace, leading axes (chain, draw).

        Raises:
            ValueError: one is not there, or has another shape.
        """
        model = model_name(self.program.model)
        latent = {name: site for name, site in self.program.sites.items() if site["latent"]}
        missing = [name for name, site in latent.items() if name not in draws and 0 not in site["shape"]]
        if missing:
            raise ValueError(
                f"the trace has no variable {', '.join(missing)}, which the model {model} draws; "
                f"expected all of its latent sites ({', '.join(latent)}); give the trace of this model, sampled "
                "without transform."
            )
        found = {name: jnp.asarray(draws[name]) for name in latent if name in draws}
        lead = next((row.shape[:2] for row in found.values()), (1, 1))
        for name, row in found.items():
            if row.shape[2:] != latent[name]["shape"]:
                raise ValueError(
                    f"the trace has {name} of shape {row.shape[2:]} a draw, where the model {model} "
                    f"has {latent[name]['shape']}; give the arguments that the trace was made with."
                )
        # An array without numbers is in no trace.
        return {name: found[name] if name in found else jnp.zeros((*lead, *latent[name]["shape"])) for name in latent}

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that are numbers or arrays of numbers, by the names of the model's parameters."""
        return _numeric(self.program.model, *self.program.arguments(self.data))

    def suspects(self) -> str:
        """Name the data that hold NaN, with their columns."""
        return _nan_in({**self.observed_data, **self.arguments})

    def _observed_of(self, values: Mapping[str, Any]) -> dict[str, Array]:
        return {name: values[name] for name, site in self.program.sites.items() if site["observed"]}


def _value_of(site: Mapping[str, Any], values: Mapping[str, Array], position: Position) -> Array:
    """Return the value of a latent site: the given one, or else that of an unconstrained position."""
    from numpyro.distributions import biject_to

    name = site["name"]
    return values[name] if name in values else biject_to(site["fn"].support)(position[name])


def _numeric(model: Callable, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that are numbers or arrays of numbers, by the names of the model's parameters."""
    found: dict[str, Any] = {}
    for name, value in _by_name(model, args, kwargs).items():
        entries = value if isinstance(value, Mapping) else {name: value}
        found |= {str(key): entry for key, entry in entries.items() if _is_numeric(entry)}
    return found


def _by_name(model: Callable, args: tuple, kwargs: dict[str, Any]) -> Mapping[str, Any]:
    """Return the arguments by the names of the model's parameters."""
    try:
        return inspect.signature(model).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return {**{f"argument_{number}": value for number, value in enumerate(args)}, **kwargs}


def _nan_in(data: Mapping[str, Any]) -> str:
    """Say which data hold NaN, and in which columns; nothing where none do."""
    found = []
    for name, value in ((name, np.asarray(value)) for name, value in data.items()):
        if _is_float(value) and np.isnan(value).any():
            columns: Any = np.unique(np.argwhere(np.isnan(value))[:, -1]) if value.ndim > 1 else []
            found.append(name + (f" (column {', '.join(map(str, columns))})" if len(columns) else ""))
    return f", and there is NaN in {', '.join(found)}" if found else ""


def _is_float(value: np.ndarray) -> bool:
    return np.issubdtype(value.dtype, np.floating)


def _is_numeric(value: Any) -> bool:
    try:
        return np.asarray(value).dtype.kind in "biuf"
    except (TypeError, ValueError):  # a random key, or rows of different lengths
        return False
