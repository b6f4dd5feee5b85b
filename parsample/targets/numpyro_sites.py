"""What is needed of the sites of a NumPyro model's trace, and which models cannot be sampled."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from parsample.engine.traceable import first_line
from parsample.targets.numpyro_effects import is_effect

# The kinds of site that have a value in the trace.
KEPT = ("sample", "deterministic")
# Libraries of tables, whose columns look like arrays.
TABLES = ("pandas", "polars", "xarray")


def model_name(model: Callable) -> str:
    """Return the name of a model, for sentences about it."""
    return getattr(model, "__name__", type(model).__name__)


def check_sites(model: Callable, sites: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError where a model cannot be sampled."""
    called = model_name(model)
    latent = {name: site for name, site in sites.items() if site["type"] == "sample" and not site["is_observed"]}
    if not latent:
        raise ValueError(
            f"target {called} has no latent sample sites, expected a NumPyro model with at least one; if it is a "
            "plain log density, give the position to start around, for example initial_position=jnp.zeros(3)."
        )
    subsampling = [name for name, site in sites.items() if site["type"] == "plate" and _subsamples(site)]
    if subsampling:
        raise ValueError(
            f"the model {called} subsamples in {', '.join(subsampling)}: each step would have another density, "
            "and the chain no posterior; leave subsample_size out, or give sgld a target with minibatches."
        )
    discrete = [name for name, site in latent.items() if site["fn"].support.is_discrete]
    if discrete:
        raise ValueError(
            f"the model {called} has discrete latent sites: {', '.join(discrete)}; sum them out of the model, "
            "for example with numpyro.distributions.MixtureSameFamily, or give them values with obs=."
        )


def _subsamples(plate: Mapping[str, Any]) -> bool:
    size, subsample_size = plate["args"]
    return subsample_size not in (None, size)


def description(site: Mapping[str, Any], data: Sequence[Any]) -> dict[str, Any]:
    """Return what is needed later of a site of the model's trace.

    Args:
        site: as NumPyro's handlers saw it.
        data: arguments of the model. Where an observed site is one of them its place is among what is returned, where
            it is a constant its value; else it is computed by the model.
    """
    # The value of a deterministic site may be a pytree, of whose axes nothing is known.
    is_sample, shape = site["type"] == "sample", getattr(site["value"], "shape", ())
    is_observed = is_sample and site["is_observed"]
    is_auxiliary = is_sample and _is_auxiliary(site)
    found: dict[str, Any] = {
        "latent": is_sample and not is_observed,
        "observed": is_observed and not is_auxiliary,
        "auxiliary": is_auxiliary,
        "is_effect": is_sample and not is_observed and is_effect(site["fn"]),
        "shape": shape,
        "improper": is_sample and _is_improper(site["fn"]),
        "dims": _dims(site, shape, site["fn"].event_dim if is_sample else None),
    }
    if found["observed"]:
        fn, value = site["fn"], site["value"]
        likelihood = _likelihood_shape(site)
        found |= {
            "place": next((place for place, row in enumerate(data) if row is value), None),
            "constant": None if isinstance(value, jax.core.Tracer) else np.asarray(value),
            "drawn_dims": _dims(site, fn.shape(), fn.event_dim),
            "likelihood_dims": _dims(site, likelihood, 0),
        }
    return found


def _likelihood_shape(site: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of the log likelihood of an observed site.

    Raises:
        ValueError: its distribution has none for what is observed.
    """
    fn, value = site["fn"], site["value"]
    try:
        return jax.eval_shape(lambda: fn.log_prob(value)).shape
    except Exception as error:  # whatever a distribution raises
        if words := table_words(value):
            raise ValueError(
                f"the site {site['name']} observes {words}, with which JAX does not compute; give its values "
                "(`.to_numpy()`)."
            ) from error
        raise ValueError(
            f"the site {site['name']} observes values of shape {np.shape(value)}, and its distribution is of shape "
            f"{tuple(fn.shape())}, which has no log density there ({first_line(error)}); give data whose shapes fit."
        ) from error


def table_words(value: Any) -> str:
    """Say what a value is that belongs to a library of tables; nothing of any other."""
    library = type(value).__module__.partition(".")[0]
    return f"a {type(value).__name__} of {library}" if library in TABLES else ""


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
