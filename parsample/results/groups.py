"""The groups of a trace beside the posterior: the data, and what the target makes of the draws on request."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from parsample.engine.names import unknown
from parsample.engine.solution import History
from parsample.results.variables import Variables
from parsample.targets.base import Target

# What may be asked for: of the target, which has a method of that name, and of the evaluation of its chains.
OF_TARGET = ("log_likelihood", "posterior_predictive", "prior")
EVALUATION = "evaluation"
EVALUATION_DIMS = {"window_first_step": ("iteration",), "window_residual": ("iteration", "row")}
REQUESTS = (*OF_TARGET, EVALUATION)
MADE_OF_DRAWS = (*OF_TARGET, "prior_predictive")
# Draws of a chain that the target is given at a time; what it makes of them is in memory at once.
ROWS = 1024

# Of the rows of a segment or of a whole run: group -> variable -> values, shape (chain, draw, ...).
Groups = dict[str, dict[str, Any]]


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


def data_groups(variables: Variables) -> Groups:
    """Return the groups that hold what a target knows: the data, observed and constant."""
    target = variables.target
    groups: Groups = {"observed_data": target.observed_data, "constant_data": target.constant_data}
    named = {name: variables.named(values) for name, values in groups.items()}
    return {name: jax.device_get(values) for name, values in named.items() if values}


def make_group(
    variables: Variables, request: str, rng_key: jax.Array, draws: Mapping[str, Any], num_draws: int
) -> Groups:
    """Return the groups that a target makes for one request.

    Args:
        variables: of the target, with its data.
        request: a name in `OF_TARGET`.
        rng_key: for what is drawn.
        draws: the variables of the trace, leading axes (chain, draw).
        num_draws: of the prior.
    """
    target: Any = variables.target
    if request == "log_likelihood":
        return {request: variables.named(target.log_likelihood(variables.given(draws)))}
    if request == "posterior_predictive":
        return {request: variables.named(target.posterior_predictive(rng_key, variables.given(draws)))}
    prior, predictive = target.prior(rng_key, num_draws)
    return {"prior": variables.named(prior), "prior_predictive": variables.named(predictive)}


def requested_groups(
    variables: Variables,
    requests: Sequence[str],
    num_draws: int,
    posterior: Callable[[int, int], Mapping[str, np.ndarray]],
    rng_key: jax.Array,
) -> Iterator[Groups]:
    """Yield the groups that a target makes on request, `ROWS` draws at a time, whatever is in memory of the posterior.

    Args:
        variables: of the target, with its data.
        requests: names in `REQUESTS`; of those in `OF_TARGET` there is something to yield.
        num_draws: of each chain.
        posterior: (first, last) -> the variables of these draws of the trace, leading axes (chain, draw).
        rng_key: for what is drawn.
    """
    wanted = [name for name in OF_TARGET if name in requests]
    for block, first in enumerate(range(0, num_draws if wanted else 0, ROWS)):
        last = min(first + ROWS, num_draws)
        key_predictive, key_prior = jax.random.split(jax.random.fold_in(rng_key, block))
        draws = {} if wanted == ["prior"] else posterior(first, last)
        groups: Groups = {}
        for request in wanted:
            key = key_prior if request == "prior" else key_predictive
            groups |= make_group(variables, request, key, draws, last - first)
        yield {name: jax.device_get(values) for name, values in groups.items() if values}


def joined(blocks: Sequence[Groups]) -> Groups:
    """Put the rows of segments together."""
    return {
        group: {name: np.concatenate([block[group][name] for block in blocks], 1) for name in variables}
        for group, variables in blocks[0].items()
    }


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
