"""The groups of a trace beside the posterior: the data, and what the target makes of the draws on request."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from parsample.engine.names import unknown
from parsample.targets.base import Target

# What may be asked for; the target has a method of that name.
REQUESTS = ("log_likelihood", "posterior_predictive", "prior")


def check_requests(requests: Sequence[str], target: Target) -> None:
    """Raise ValueError unless every group that is asked for is known, and the target can make it."""
    if isinstance(requests, str):
        raise ValueError(f"groups is {requests!r}, expected a sequence of names; write groups=({requests!r},).")
    for name in requests:
        if name not in REQUESTS:
            raise unknown("a name in groups", name, REQUESTS)
        if not hasattr(target, name):
            raise ValueError(
                f"groups asks for {name!r}, which the target {target.name} cannot make, for it is only a density; "
                "leave it out, or give a NumPyro model."
            )
    if "prior" in requests:
        check: Any = getattr(target, "check_prior", None)
        if check is not None:
            check()


def extra_groups(
    target: Target, requests: Sequence[str], posterior: Mapping[str, np.ndarray], rng_key: jax.Array
) -> dict[str, dict[str, Any]]:
    """Return the groups beside the posterior and its statistics.

    Args:
        target: with its data.
        requests: names in `REQUESTS`.
        posterior: the variables of the trace, leading axes (chain, draw).
        rng_key: for what is drawn.
    """
    target_of: Any = target
    key_predictive, key_prior = jax.random.split(rng_key)
    groups: dict[str, dict[str, Any]] = {"observed_data": target.observed_data, "constant_data": target.constant_data}
    if "log_likelihood" in requests:
        groups["log_likelihood"] = target_of.log_likelihood(posterior)
    if "posterior_predictive" in requests:
        groups["posterior_predictive"] = target_of.posterior_predictive(key_predictive, posterior)
    if "prior" in requests:
        num_draws = next(iter(posterior.values())).shape[1]
        groups["prior"], groups["prior_predictive"] = target_of.prior(key_prior, num_draws)
    return {name: jax.device_get(variables) for name, variables in groups.items() if variables}
