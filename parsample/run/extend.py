"""Make further groups for a trace that is there."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from parsample.engine.names import unknown
from parsample.engine.options import check_seed
from parsample.results.dims import plain_names
from parsample.results.form import find_form
from parsample.results.groups import OF_TARGET, check_requests, data_groups, joined, requested_groups
from parsample.results.trace import Trace, as_datatree, merged, posterior_dataset
from parsample.run.arguments import serves_models
from parsample.targets.given import as_target


@serves_models(1)
def extend(
    trace: Trace,
    target: Any,
    *args: Any,
    groups: Sequence[str],
    seed: int = 0,
    dims: Mapping[str, Any] | None = None,
    coords: Mapping[str, Any] | None = None,
    initial_position: PyTree | None = None,
    bijectors: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Trace:
    """Make groups that a trace lacks: log likelihood, posterior predictive, prior.

    The trace may be one of `parsample.sample`, of a store, or of another library that knows the same model. The data of
    the target come along where the trace has none.

    Args:
        trace: with a group `posterior`; it is not changed.
        target: that it was sampled from, as for `parsample.sample`.
        *args: of a NumPyro model.
        groups: one or more of "log_likelihood", "posterior_predictive", "prior".
        seed: a whole number. With that of the run, what is drawn is what `parsample.sample(groups=...)` would have
            drawn.
        dims: variable -> names of its axes, as for `parsample.sample`.
        coords: dim -> labels.
        initial_position: as it was passed to `parsample.sample`.
        bijectors: as they were passed.
        **kwargs: of a NumPyro model; and `model_kwargs`, as for `parsample.sample`.

    Returns:
        A trace with the groups of the one that was given, and those that were made.

    Raises:
        ValueError: the target cannot make a group, the trace has it already, or lacks a variable of the model.
    """
    found, rest, left = as_target(target, args, kwargs, initial_position, bijectors)
    if rest or left:
        raise unknown("an argument", str([*left, *rest][0]), ["trace", "target", "groups", "seed", "dims", "coords"])
    check_requests(groups, found)
    tree, posterior = as_datatree(trace), posterior_dataset(trace)
    wanted = [name for name in OF_TARGET if name in groups]
    if not wanted or len(wanted) < len(set(groups)):
        raise ValueError(f"groups is {list(groups)}, expected one or more of {', '.join(OF_TARGET)}.")
    there = [name for name in wanted if name in tree.children]
    if there:
        raise ValueError(f"groups asks for {there[0]!r}, which the trace has already; leave it out, or drop it first.")
    form = find_form(found, wanted, dims=plain_names("dims", dims), coords=plain_names("coords", coords))
    rng_key = jax.random.fold_in(jax.random.key(check_seed(seed)), 1)
    made = joined(
        list(
            requested_groups(
                form.variables, wanted, posterior.sizes["draw"], lambda *rows: _Rows(posterior, *rows), rng_key
            )
        )
    )
    made |= {name: rows for name, rows in data_groups(form.variables).items() if name not in tree.children}
    return merged(trace, form.build(made, form.notes))


class _Rows(Mapping[str, np.ndarray]):
    """Draws of a posterior from one to before another, leading axes (chain, draw), each read when it is asked for."""

    def __init__(self, posterior: Any, first: int, last: int):
        self.posterior = posterior.isel(draw=slice(first, last))

    def __getitem__(self, name: str) -> np.ndarray:
        return self.posterior[name].transpose("chain", "draw", ...).values

    def __iter__(self) -> Iterator[str]:
        return map(str, self.posterior.data_vars)

    def __len__(self) -> int:
        return len(self.posterior.data_vars)
