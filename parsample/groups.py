"""The groups of a trace beside the posterior: the data, and what the target makes of the draws on request."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from parsample.engine.names import unknown
from parsample.engine.solution import History
from parsample.targets.base import Target

# What may be asked for: of the target, which has a method of that name, and of the evaluation of its chains.
OF_TARGET = ("log_likelihood", "posterior_predictive", "prior")
EVALUATION = "evaluation"
EVALUATION_DIMS = {"window_first_step": ("iteration",), "window_residual": ("iteration", "row")}
REQUESTS = (*OF_TARGET, EVALUATION)


def check_requests(requests: Sequence[str], target: Target) -> None:
    """Raise ValueError unless every group that is asked for is known, and the target can make it."""
    if isinstance(requests, str):
        raise ValueError(f"groups is {requests!r}, expected a sequence of names; write groups=({requests!r},).")
    for name in requests:
        if name not in REQUESTS:
            raise unknown("a name in groups", name, REQUESTS)
        if name in OF_TARGET and not hasattr(target, name):
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


def evaluation_group(history: History | None) -> dict[str, np.ndarray]:
    """Return what the iterations of one chain saw, as the group `evaluation`.

    Args:
        history: of a batch of chains, by `history="steps"`; None for the sequential loop, which has none.

    Returns:
        Of the first chain: `window_first_step` (iteration), the first step of the window before each iteration, and
        `window_residual` (iteration, row), that of step window_first_step + row before it, in posterior standard
        deviations; NaN beyond the end and where a step was not evaluated. Empty for the loop.
    """
    if history is None or history.residual is None:
        return {}
    first_step = np.asarray(history.first_step[0])
    done = int(np.sum(first_step >= 0))
    return {"window_first_step": first_step[:done], "window_residual": np.asarray(history.residual[0][:done])}
