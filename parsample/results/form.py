"""What a trace will look like: tried on shapes alone before anything is spent, and kept to when it is built."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from parsample.results.dims import GroupDims, fitted_dims
from parsample.results.groups import EVALUATION, EVALUATION_DIMS, OF_TARGET, Groups, data_groups, make_group
from parsample.results.trace import Trace, build_trace, build_tree
from parsample.results.variables import Variables
from parsample.targets.base import Target


class Form(NamedTuple):
    """What a trace is made of.

    Attributes:
        variables: the values of the target that it holds, by their names in it.
        group_dims: the names of their axes after chain and draw.
        coords: the labels of these.
        notes: attributes that say what has another name than the target gave it, and what is left out.
    """

    variables: Variables
    group_dims: GroupDims
    coords: dict[str, Sequence]
    notes: dict[str, Any]

    def build(self, groups: Groups, attributes: Mapping[str, Any]) -> Trace:
        """Return a trace of these groups."""
        return build_trace(groups, **self.names(), attrs=attributes)

    def check(self, groups: Groups) -> None:
        """Raise ValueError if no trace could be built of these groups."""
        build_tree(groups, **self.names())

    def names(self) -> dict[str, Any]:
        """Return the names of the axes and their labels, as `build_tree` takes them."""
        return {"group_dims": self.group_dims, "coords": self.coords}


def find_form(
    target: Target,
    requests: Sequence[str] = (),
    *,
    transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    dims: Mapping[str, Any] | None = None,
    coords: Mapping[str, Any] | None = None,
) -> Form:
    """Build the trace of one draw that is all zeros, from the shapes of everything that was asked for.

    Args:
        target: to sample.
        requests: names of groups in `REQUESTS`.
        transform: of the variables of a draw.
        dims: variable -> names of its axes after chain and draw, in the place of the target's.
        coords: dim -> labels.

    Returns:
        What the trace will look like.

    Raises:
        ValueError: it cannot be built; the sentence says what to do.

    Cost: traces the target's functions; nothing is compiled. Some milliseconds, and what tracing them takes.
    """
    variables = Variables(target, transform)
    drawn: dict[str, dict[str, Any]] = {"posterior": {name: _row(leaf) for name, leaf in variables.shapes.items()}}
    if not drawn["posterior"]:
        raise ValueError(f"the target {target.name} has no variable with numbers in it, expected at least one.")
    data = data_groups(variables)
    shapes = {group: {name: np.shape(row) for name, row in rows.items()} for group, rows in data.items()}
    for request in (name for name in OF_TARGET if name in requests):
        drawn |= _shapes_of(variables, request, drawn["posterior"])
    shapes |= {group: {name: leaf.shape[2:] for name, leaf in rows.items()} for group, rows in drawn.items()}
    names = _by_name_in_the_trace(variables, dims or {})
    group_dims, labels, renamed = fitted_dims(
        {"posterior": shapes["posterior"], **shapes}, _told(variables, shapes), names, target.coords, dict(coords or {})
    )
    group_dims |= {"warmup_posterior": group_dims["posterior"], EVALUATION: dict(EVALUATION_DIMS)}
    form = Form(variables, group_dims, labels, _notes(variables, renamed))
    zeros = {
        group: {name: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape) for name, leaf in rows.items()}
        for group, rows in drawn.items()
    }
    form.check({**zeros, **data})
    if form.notes:
        said = [f"{given!r} is {' and '.join(names)} in it" for given, names in variables.renamed.items()]
        said += [f"the dim {given!r} is {name} in it" for given, name in renamed.items()]
        said += [f"{name!r} holds no numbers and is left out" for name in variables.left_out]
        warnings.warn(f"the trace holds what files can hold: {'; '.join(said)}.", stacklevel=2)
    return form


def _row(leaf: Any) -> jax.ShapeDtypeStruct:
    """Return the shape of one draw of one chain."""
    return jax.ShapeDtypeStruct((1, 1, *leaf.shape), leaf.dtype)


def _shapes_of(variables: Variables, request: str, posterior: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the shapes of the groups of a request.

    Raises:
        ValueError: the target cannot make it.
    """
    target: Any = variables.target
    try:
        found = jax.eval_shape(
            lambda key, draws: make_group(variables, request, key, draws, 1), jax.random.key(0), dict(posterior)
        )
    except Exception as error:
        reason = getattr(target, "why_not", lambda request: "")(request)
        raise ValueError(
            f"groups asks for {request!r}, which the target {target.name} cannot make"
            f"{reason or f' ({type(error).__name__}: {error})'}; leave it out of groups, or mend that."
        ) from error
    empty = [group for group, rows in found.items() if not rows and group == request]
    if empty:
        raise ValueError(
            f"groups asks for {request!r}, but the target {target.name} has nothing for it, for it observes no data; "
            "leave it out, or observe data in the model with obs=."
        )
    return {group: rows for group, rows in found.items() if rows}


def _by_name_in_the_trace(variables: Variables, dims: Mapping[str, Any]) -> dict[str, Any]:
    return {part: row for name, row in dims.items() for part in variables.parts.get(name, (name,))}


def _told(variables: Variables, shapes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what the target says of dims, by group and name in the trace."""
    target = variables.target
    general = _by_name_in_the_trace(variables, target.dims)
    own = {group: _by_name_in_the_trace(variables, rows) for group, rows in target.group_dims.items()}
    return {group: {**general, **own.get(group, {})} for group in shapes}


def _notes(variables: Variables, renamed_dims: dict[str, str]) -> dict[str, Any]:
    notes: dict[str, Any] = {"renamed": variables.renamed, "renamed_dims": renamed_dims, "left_out": variables.left_out}
    return {name: value for name, value in notes.items() if value}
