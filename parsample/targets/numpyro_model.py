"""A NumPyro model with its data as a target."""

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from parsample.targets.base import Position, Target


class NumPyroModel(Target):
    """The posterior of a NumPyro model, given its arguments.

    The position holds the latent sites in unconstrained coordinates, as NumPyro's own samplers have them; the trace has
    the latent sites in theirs, and the deterministic ones. The dims of a site are the plates around it, and then those
    that its `infer={"event_dims": [...]}` names.

    Args:
        model: a Python function with NumPyro's primitives.
        *args: of the model, data among them; they are constants of the compiled programs, as in NumPyro.
        **kwargs: of the model.

    Raises:
        ValueError: the function is no model, cannot be called with these arguments, has no latent sites or discrete
            ones, or subsamples; or its log density is not finite where NumPyro would start, with NaN in the data.

    Source: transforms and log density are those of `numpyro.infer.initialize_model`.
    """

    name: ClassVar[str] = "numpyro_model"

    built: "Built" = eqx.field(static=True)

    def __init__(self, model: Callable, /, *args: Any, **kwargs: Any):
        """Run the model once, look at its sites, and find its log density."""
        self.built = Built(model, args, kwargs)

    def logdensity(self, position: Position) -> Float[Array, ""]:
        """Return the log density of latent sites and data, with the log-Jacobians of the transforms."""
        return -self.built.potential(position)

    def position_template(self) -> Position:
        """Return zeros in place of the latent sites."""
        return jax.tree.map(jnp.zeros_like, self.built.start)

    def constrain(self, position: Position) -> dict[str, Array]:
        """Return the latent sites in their own coordinates, and the deterministic ones."""
        return self.built.postprocess(position)

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
        seeded = handlers.seed(self.built.model, rng_key)
        started = handlers.substitute(
            seeded, substitute_fn=lambda site: strategy(site) if site["name"] in template else None
        )
        sites = handlers.trace(started).get_trace(*self.built.args, **self.built.kwargs)
        found = {name: biject_to(sites[name]["fn"].support).inv(sites[name]["value"]) for name in template}
        return {name: jnp.asarray(found[name], leaf.dtype) for name, leaf in template.items()}

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """The plates around each site, and the dims of its events that have names."""
        return {name: site["dims"] for name, site in self.built.sites.items() if site["dims"]}

    @property
    def group_dims(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Those of the observed sites where a group has other axes of them than the data."""
        observed = {name: site for name, site in self.built.sites.items() if site["value"] is not None}
        drawn = {name: site["drawn_dims"] for name, site in observed.items()}
        likelihood = {name: site["likelihood_dims"] for name, site in observed.items()}
        return {"log_likelihood": likelihood, "posterior_predictive": drawn, "prior_predictive": drawn}

    @property
    def observed_data(self) -> dict[str, np.ndarray]:
        """The values of the observed sites."""
        return {name: site["value"] for name, site in self.built.sites.items() if site["value"] is not None}

    @property
    def constant_data(self) -> dict[str, np.ndarray]:
        """The arguments of the model that are numbers or arrays of them, by name, without those that it observes."""
        observed = list(self.observed_data.values())
        found = {name: np.asarray(value) for name, value in self.built.arguments().items()}
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
        return self._observed_of(self.built.log_likelihood(self.latent(draws)))

    def posterior_predictive(self, rng_key: Key[Array, ""], draws: Mapping[str, Any]) -> dict[str, Array]:
        """Draw the observed sites anew from every draw of the posterior; leading axes (chain, draw)."""
        return self._observed_of(self.built.predictive(rng_key, self.latent(draws)))

    def prior(self, rng_key: Key[Array, ""], num_draws: int) -> tuple[dict[str, Array], dict[str, Array]]:
        """Draw from the prior: the variables of the trace, and the observed sites, leading axes (1, draw).

        Raises:
            ValueError: a prior is improper, so that nothing can be drawn from it.
        """
        self.check_prior()
        drawn = self.built.prior(rng_key, num_draws)
        rows = jax.tree.map(lambda value: jnp.asarray(value)[None], drawn)
        observed = self._observed_of(rows)
        return {name: rows[name] for name in self.built.sites if name in rows and name not in observed}, observed

    def check_prior(self) -> None:
        """Raise ValueError where a prior is improper, before anything is sampled."""
        improper = ", ".join(name for name, site in self.built.sites.items() if site["improper"])
        if improper:
            raise ValueError(
                f"groups asks for the prior, but the prior of {improper} is improper and has no draws; give it a "
                "proper one, or leave 'prior' out."
            )

    def why_not(self, request: str) -> str:
        """Say which sites cannot be drawn, where that is why a group cannot be made; else nothing."""
        if request == "log_likelihood":
            return ""
        sites = self.built.undrawable(observed_only=request == "posterior_predictive")
        named = ", ".join(f"{name} ({kind})" for name, kind in sites.items())
        return f", for no draws can be made of {named}: that distribution has no sample method" if sites else ""

    def latent(self, draws: Mapping[str, Any]) -> dict[str, Array]:
        """Return the latent sites among the variables of a trace, leading axes (chain, draw).

        Raises:
            ValueError: one is not there, or has another shape.
        """
        latent = {name: site for name, site in self.built.sites.items() if site["latent"]}
        missing = [name for name, site in latent.items() if name not in draws and 0 not in site["shape"]]
        if missing:
            raise ValueError(
                f"the trace has no variable {', '.join(missing)}, which the model {_name(self.built.model)} draws; "
                f"expected all of its latent sites ({', '.join(latent)}); give the trace of this model, sampled "
                "without transform."
            )
        found = {name: jnp.asarray(draws[name]) for name in latent if name in draws}
        lead = next((row.shape[:2] for row in found.values()), (1, 1))
        for name, row in found.items():
            if row.shape[2:] != latent[name]["shape"]:
                raise ValueError(
                    f"the trace has {name} of shape {row.shape[2:]} a draw, where the model {_name(self.built.model)} "
                    f"has {latent[name]['shape']}; give the arguments that the trace was made with."
                )
        # An array without numbers is in no trace.
        return {name: found[name] if name in found else jnp.zeros((*lead, *latent[name]["shape"])) for name in latent}

    def _observed_of(self, values: Mapping[str, Any]) -> dict[str, Array]:
        return {name: values[name] for name in self.observed_data}


# The kinds of site that have a value in the trace.
KEPT = ("sample", "deterministic")


class Built:
    """A model, its arguments, and what NumPyro makes of them. Not a pytree: its arrays are constants of programs."""

    def __init__(self, model: Callable, args: tuple, kwargs: dict[str, Any]):
        """Run the model once, look at its sites, and find its log density."""
        from numpyro.infer import initialize_model

        self.model, self.args, self.kwargs = model, args, kwargs
        sites = self._trace()
        _check_sites(model, sites)
        options: dict[str, Any] = {"model_args": args, "model_kwargs": kwargs, "validate_grad": False}
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Out-of-support")  # where that matters, the error below follows
                found = initialize_model(jax.random.key(0), model, **options)
        except RuntimeError as error:
            raise ValueError(
                f"the model {_name(model)} has no finite log density where it could start{self._suspects(sites)}; "
                "look for data outside a distribution's support, NaN in the data, and scales that vanish."
            ) from error
        self.potential, self.postprocess = found.potential_fn, found.postprocess_fn
        self.start = dict(found.param_info.z)
        if not sum(jnp.size(leaf) for leaf in self.start.values()):
            raise ValueError(
                f"the latent sites of the model {_name(model)} have no number that can vary: {', '.join(self.start)}; "
                "there is nothing to sample, as in a simplex of one number, or with no data."
            )
        self.sites = {name: _description(site) for name, site in sites.items() if site["type"] in KEPT}

    # Compiled programs: a long run calls each many times, with some of its draws.

    @functools.cached_property
    def log_likelihood(self) -> Callable[[dict[str, Array]], dict[str, Array]]:
        """Latent sites, leading axes (chain, draw) -> the log likelihood of each observation."""
        from numpyro.infer import log_likelihood

        return jax.jit(lambda latent: log_likelihood(self._bound(self.model), latent, batch_ndims=2))

    @functools.cached_property
    def predictive(self) -> Callable[[Key[Array, ""], dict[str, Array]], dict[str, Array]]:
        """A key and latent sites, leading axes (chain, draw) -> all sites, the observed ones drawn."""
        from numpyro import handlers
        from numpyro.infer import Predictive

        free = handlers.uncondition(self.model)
        return jax.jit(lambda key, latent: Predictive(self._bound(free), dict(latent), batch_ndims=2)(key))

    @functools.cached_property
    def prior(self) -> Callable[[Key[Array, ""], int], dict[str, Array]]:
        """A key and a number -> so many draws of all sites."""
        from numpyro import handlers
        from numpyro.infer import Predictive

        free = handlers.uncondition(self.model)
        return jax.jit(lambda key, number: Predictive(self._bound(free), num_samples=number)(key), static_argnums=1)

    def _bound(self, model: Callable) -> Callable:
        """Return a model with its arguments: those of NumPyro's functions cannot be taken for the model's."""
        return lambda: model(*self.args, **self.kwargs)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that are numbers or arrays of numbers, by the names of the model's parameters."""
        try:
            bound: Mapping[str, Any] = inspect.signature(self.model).bind(*self.args, **self.kwargs).arguments
        except (TypeError, ValueError):
            bound = {**{f"argument_{number}": value for number, value in enumerate(self.args)}, **self.kwargs}
        found: dict[str, Any] = {}
        for name, value in bound.items():
            entries = value if isinstance(value, Mapping) else {name: value}
            found |= {str(key): entry for key, entry in entries.items() if _is_numeric(entry)}
        return found

    def _trace(self) -> dict[str, dict[str, Any]]:
        """Run the model, and return what NumPyro's handlers saw of each site."""
        from numpyro import handlers
        from numpyro.infer.initialization import init_to_uniform

        seeded = handlers.substitute(handlers.seed(self.model, jax.random.key(0)), substitute_fn=init_to_uniform)
        try:
            return handlers.trace(seeded).get_trace(*self.args, **self.kwargs)
        except Exception as error:  # whatever a user's function raises
            raise ValueError(
                f"target {_name(self.model)} cannot be run as a NumPyro model with the arguments given "
                f"({str(error) or type(error).__name__}{self._suspects({})}); give the model's arguments after it, or, "
                "if it is a plain log density, the position to start around, for example initial_position=jnp.zeros(3)."
            ) from error

    def undrawable(self, observed_only: bool) -> dict[str, str]:
        """Return the sites, or the observed ones, whose distributions cannot be drawn from, with the names of these."""
        found = {}
        for name, site in self._trace().items():
            if site["type"] == "sample" and not _is_auxiliary(site) and (site["is_observed"] or not observed_only):
                try:
                    jax.eval_shape(site["fn"].sample, jax.random.key(0))
                except Exception:  # whatever a user's distribution raises
                    found[name] = type(site["fn"]).__name__
        return found

    def _suspects(self, sites: Mapping[str, Any]) -> str:
        """Name the data that hold NaN, with their columns."""
        data = {name: np.asarray(site["value"]) for name, site in sites.items() if site.get("is_observed")}
        data |= {name: np.asarray(value) for name, value in self.arguments().items()}
        found = []
        for name, value in data.items():
            if _is_float(value) and np.isnan(value).any():
                columns: Any = np.unique(np.argwhere(np.isnan(value))[:, -1]) if value.ndim > 1 else []
                found.append(name + (f" (column {', '.join(map(str, columns))})" if len(columns) else ""))
        return f", and there is NaN in {', '.join(found)}" if found else ""


def _value_of(site: Mapping[str, Any], values: Mapping[str, Array], position: Position) -> Array:
    """Return the value of a latent site: the given one, or else that of an unconstrained position."""
    from numpyro.distributions import biject_to

    name = site["name"]
    return values[name] if name in values else biject_to(site["fn"].support)(position[name])


def _name(model: Callable) -> str:
    return getattr(model, "__name__", type(model).__name__)


def _is_float(value: np.ndarray) -> bool:
    return np.issubdtype(value.dtype, np.floating)


def _check_sites(model: Callable, sites: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError where a model cannot be sampled."""
    latent = {name: site for name, site in sites.items() if site["type"] == "sample" and not site["is_observed"]}
    if not latent:
        raise ValueError(
            f"target {_name(model)} has no latent sample sites, expected a NumPyro model with at least one; if it is a "
            "plain log density, give the position to start around, for example initial_position=jnp.zeros(3)."
        )
    subsampling = [name for name, site in sites.items() if site["type"] == "plate" and _subsamples(site)]
    if subsampling:
        raise ValueError(
            f"the model {_name(model)} subsamples in {', '.join(subsampling)}: each step would have another density, "
            "and the chain no posterior; leave subsample_size out, or give sgld a target with minibatches."
        )
    discrete = [name for name, site in latent.items() if site["fn"].support.is_discrete]
    if discrete:
        raise ValueError(
            f"the model {_name(model)} has discrete latent sites: {', '.join(discrete)}; sum them out of the model, "
            "for example with numpyro.distributions.MixtureSameFamily, or give them values with obs=."
        )


def _subsamples(plate: Mapping[str, Any]) -> bool:
    size, subsample_size = plate["args"]
    return subsample_size not in (None, size)


def _description(site: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is needed later of a site of the model's trace."""
    # The value of a deterministic site may be a pytree, of whose axes nothing is known.
    is_sample, shape = site["type"] == "sample", getattr(site["value"], "shape", ())
    is_observed = is_sample and site["is_observed"]
    found: dict[str, Any] = {
        "latent": is_sample and not is_observed,
        "shape": shape,
        "improper": is_sample and _is_improper(site["fn"]),
        "value": None,
        "dims": _dims(site, shape, site["fn"].event_dim if is_sample else None),
    }
    if is_observed and not _is_auxiliary(site):
        fn, value = site["fn"], site["value"]
        likelihood = jax.eval_shape(lambda: fn.log_prob(value)).shape
        found |= {
            "value": np.asarray(value),
            "drawn_dims": _dims(site, fn.shape(), fn.event_dim),
            "likelihood_dims": _dims(site, likelihood, 0),
        }
    return found


def _is_auxiliary(site: Mapping[str, Any]) -> bool:
    """Say whether a sample site stands for no data: a `numpyro.factor`, or one that its model marks so."""
    return bool((site.get("infer") or {}).get("is_auxiliary")) or 0 in site["fn"].event_shape


def _is_improper(fn: Any) -> bool:
    """Say whether a distribution, or the one that it is made of, is an improper prior."""
    from numpyro.distributions import ImproperUniform

    return isinstance(fn, ImproperUniform) or (hasattr(fn, "base_dist") and _is_improper(fn.base_dist))


def _dims(site: Mapping[str, Any], shape: tuple[int, ...], event_dim: int | None) -> tuple[str, ...]:
    """Name the axes of values of a site: plates by their frames, events as the site says; others as ArviZ would.

    A plate counts its axis from the right of the batch axes, so its place says which one it is; its size only whether
    the value runs along it.

    Args:
        site: of the model's trace.
        shape: of the values.
        event_dim: how many axes belong to an event; None for a deterministic site, which does not say so: the axes that
            are left when every plate around it has one.
    """
    frames, named = site.get("cond_indep_stack") or (), list((site.get("infer") or {}).get("event_dims", ()))
    if event_dim is None:
        event_dim = max(0, len(shape) + min((frame.dim for frame in frames), default=0))
    axes: list[str | None] = [None] * len(shape)
    for frame in frames:
        axis = len(shape) - event_dim + frame.dim
        if 0 <= axis < len(shape) and shape[axis] == frame.size:
            axes[axis] = frame.name
    if len(named) <= event_dim:
        for axis, name in zip(range(len(shape) - len(named), len(shape)), named, strict=True):
            axes[axis] = name
    if all(axis is None for axis in axes):
        return ()
    numbers = iter(range(len(axes)))
    return tuple(axis or f"{site['name']}_dim_{next(numbers)}" for axis in axes)


def _is_numeric(value: Any) -> bool:
    try:
        return np.asarray(value).dtype.kind in "biuf"
    except (TypeError, ValueError):  # a random key, or rows of different lengths
        return False
