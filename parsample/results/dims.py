"""The names of axes: those that a target tells and those that are asked for, made to fit the values."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parsample.engine.names import unknown
from parsample.results.trace import SAMPLE_DIMS, UNSAMPLED_GROUPS
from parsample.results.variables import RESERVED, storable_name
from parsample.targets.names import distinct

# Group -> variable -> shape, without chain and draw; and the names of these axes.
Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]
GroupDims = dict[str, dict[str, tuple[str, ...]]]


def fitted_dims(
    shapes: Shapes,
    told: Mapping[str, Mapping[str, Sequence[str]]],
    asked: Mapping[str, Sequence[str]],
    told_coords: Mapping[str, Sequence],
    asked_coords: Mapping[str, Sequence],
) -> tuple[GroupDims, dict[str, Sequence], dict[str, str]]:
    """Name the axes of all variables. Names follow values: one that does not fit an axis is not given to it.

    Args:
        shapes: of the variables by group, without chain and draw.
        told: group -> variable -> names, by the target; left out where they do not fit.
        asked: variable -> names, by the user, who is told where they do not fit.
        told_coords: dim -> labels, by the target.
        asked_coords: the same by the user.

    Returns:
        The names of every axis by group and variable, the labels, and the names that are others than the target's, for
        no file can hold them, or the group has a variable of that name.

    Raises:
        ValueError: what is asked for does not fit; the sentence says why.
    """
    wanted = {name: _as_names(name, names) for name, names in asked.items()}
    _check_known(shapes, wanted)
    sizes = {dim: len(labels) for dim, labels in {**told_coords, **asked_coords}.items()}
    found: GroupDims = {group: {} for group in shapes}
    # Those that are asked for come first: they say how long a dim is.
    for group, variables in shapes.items():
        for name, shape in variables.items():
            if name in wanted and not _is_other(group, name, shapes, wanted[name], sizes):
                found[group][name] = _asked(group, name, wanted[name], shape, sizes, asked_coords)
    for group, variables in shapes.items():
        for name, shape in variables.items():
            if name not in found[group]:
                names = told.get(group, {}).get(name, ())
                found[group][name] = _told(name, names if len(names) == len(shape) else (), shape, sizes)
    used = {dim for variables in found.values() for names in variables.values() for dim in names}
    for dim in asked_coords:
        if dim not in used:
            raise unknown("a name in coords", dim, sorted(used), "a dim that dims= names")
    renamed = _renamed(found)
    dims = {
        group: {name: tuple(renamed.get(dim, dim) for dim in names) for name, names in variables.items()}
        for group, variables in found.items()
    }
    labels = {**told_coords, **asked_coords}
    return dims, {renamed.get(dim, dim): row for dim, row in labels.items()}, renamed


def plain_names(argument: str, given: Any) -> dict[str, list] | None:
    """Return a mapping of names to lists of text or numbers, which settings can hold; None for None.

    Args:
        argument: "dims" or "coords", for the sentence.
        given: mapping of names to a name, or a sequence of names or labels.

    Raises:
        ValueError: it is none.
    """
    if given is None:
        return None
    found: dict[str, list] = {}
    example = {"dims": '{"theta": ["school"]}', "coords": '{"school": ["Choate", "Deerfield"]}'}[argument]
    for name, row in given.items() if isinstance(given, Mapping) else [("", given)]:
        labels = [row] if isinstance(row, str) and argument == "dims" else row
        if not isinstance(name, str) or not name or isinstance(labels, str) or np.ndim(labels) != 1:
            raise ValueError(f"{argument} is {given!r}, expected names, each with a list, such as {example}.")
        entries = np.asarray(labels).tolist()
        found[name] = [entry if isinstance(entry, int | float | str) else str(entry) for entry in entries]
    return found


def _as_names(name: str, names: Sequence[str]) -> tuple[str, ...]:
    names = tuple(names)
    for dim in names:
        if not isinstance(dim, str) or dim in RESERVED or storable_name(dim) != dim:
            raise ValueError(
                f"dims[{name!r}] has the name {dim!r}, expected text that is not 'chain' or 'draw' and has no '/'; "
                "give another name."
            )
    if len(set(names)) < len(names):
        raise ValueError(f"dims[{name!r}] is {list(names)}, expected names that differ; give each axis its own.")
    return names


def _check_known(shapes: Shapes, asked: Mapping[str, Sequence[str]]) -> None:
    known = list(dict.fromkeys(name for variables in shapes.values() for name in variables))
    for name, names in asked.items():
        if name not in known:
            raise unknown("a name in dims", name, known)
        for variables in shapes.values():
            clash = next((dim for dim in names if name in variables and dim in variables), None)
            if clash is not None:
                raise ValueError(f"dims[{name!r}] names {clash!r}, which is a variable; give the dim another name.")


def _is_other(group: str, name: str, shapes: Shapes, names: Sequence[str], sizes: Mapping[str, int]) -> bool:
    """Say whether this is an argument of the model that has the name of a variable and another shape."""
    elsewhere = any(name in variables for other, variables in shapes.items() if other != "constant_data")
    shape = shapes[group][name]
    return group == "constant_data" and elsewhere and tuple(sizes.get(dim) for dim in names) != shape


def _asked(
    group: str,
    name: str,
    names: tuple[str, ...],
    shape: tuple[int, ...],
    sizes: dict[str, int],
    coords: Mapping[str, Any],
) -> tuple[str, ...]:
    # Of an event there is one log likelihood: the names of its axes come last.
    own = names[: len(shape)] if group == "log_likelihood" else names
    if len(own) != len(shape):
        leading = "" if group in UNSAMPLED_GROUPS else f" after {' and '.join(SAMPLE_DIMS)}"
        raise ValueError(
            f"dims[{name!r}] has {len(own)} names {list(own)} for shape {shape} in '{group}', expected {len(shape)}; "
            f"name every axis{leading}."
        )
    for dim, size in zip(own, shape, strict=True):
        if sizes.setdefault(dim, size) != size:
            what = f"coords[{dim!r}] has {sizes[dim]} labels" if dim in coords else f"{dim!r} is {sizes[dim]} long"
            raise ValueError(
                f"dims[{name!r}] names {dim!r} an axis of length {size} in '{group}', but {what}; expected the same, "
                "so give as many labels, or another name."
            )
    return own


def _told(name: str, names: Sequence[str], shape: tuple[int, ...], sizes: dict[str, int]) -> tuple[str, ...]:
    """Name axes as the target does where that fits, and as ArviZ does elsewhere."""
    own: list[str] = []
    for axis, size in enumerate(shape):
        dim = names[axis] if axis < len(names) else ""
        if not dim or dim in own or sizes.setdefault(dim, size) != size:
            dim = f"{name}_dim_{axis}"
            while dim in own or sizes.setdefault(dim, size) != size:
                dim += "_"
        own.append(dim)
    return tuple(own)


def _renamed(found: GroupDims) -> dict[str, str]:
    """Return other names for dims that no file can hold, or that a group has as a variable as well."""
    used = [dim for variables in found.values() for names in variables.values() for dim in names]
    clashing = {
        dim for variables in found.values() for names in variables.values() for dim in names if dim in variables
    }
    bad = [dim for dim in dict.fromkeys(used) if dim in clashing or dim in RESERVED or storable_name(dim) != dim]
    taken = {*used, *RESERVED, *(name for variables in found.values() for name in variables)}
    return dict(zip(bad, distinct(map(storable_name, bad), taken), strict=True))
