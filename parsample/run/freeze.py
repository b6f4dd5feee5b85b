"""Values as JSON and arrays, and back again, where only known classes are made: no pickle, which runs what it finds."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from parsample.engine.methods import METHODS
from parsample.engine.surrogates import Gaussian
from parsample.samplers import SAMPLERS
from parsample.targets.base import Target
from parsample.warmup.adapt import Adaptation
from parsample.warmup.coordinates import Standardised, StandardNormal, plain
from parsample.warmup.low_rank import LowRank

# Numbers of an array that JSON may hold; files have room for 64 KiB in an attribute.
MOST_NUMBERS = 1000
# A mapping with one of these is no mapping of the caller's.
MARKS = ("@class", "@sampler", "@array", "@tuple", "@given")


def known_classes() -> dict[str, type]:
    """Return the classes that may be written down and made again, by name; a file can name no others."""
    kinds: list[type] = [*METHODS.values(), Gaussian, Adaptation, Standardised, StandardNormal, LowRank]
    return {kind.__name__: kind for kind in kinds}


def freeze(value: Any, arrays: dict[str, np.ndarray] | None = None, name: str = "value") -> Any:
    """Return JSON for a value, and put its arrays into `arrays`.

    A target, and the function that makes a position of a flat vector (`unravel`), stay out: `thaw` is given the target.
    How far its effects are centred is written down.

    Args:
        value: numbers, text, arrays, samplers of the table, lists, tuples, mappings with text as keys, and
            `known_classes` that consist of such.
        arrays: path of a value -> array; filled. None to have small arrays in the JSON, number by number, which loses
            nothing.
        name: path of this value.

    Raises:
        TypeError: it holds something else, such as a function, or an array too large for JSON.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _freeze_array(value, arrays, name)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) and key not in MARKS for key in value):
            raise TypeError(f"{name} has keys that are no text, which cannot be written down.")
        return {key: freeze(item, arrays, f"{name}.{key}") for key, item in value.items()}
    if type(value) in (list, tuple):
        items = [freeze(item, arrays, f"{name}.{place}") for place, item in enumerate(value)]
        return {"@tuple": items} if isinstance(value, tuple) else items
    if (named := _named(value, name)) is not None:
        centred = getattr(value, "centred", None) if isinstance(value, Target) else None
        return {**named, "centred": freeze(centred, arrays, f"{name}.centred")} if centred else named
    kind = type(value).__name__
    if known_classes().get(kind) is not type(value):
        raise TypeError(f"{name} is a {kind}, which cannot be written down.")
    fields = {field: freeze(getattr(value, field), arrays, f"{name}.{field}") for field in _fields(type(value))}
    return {"@class": kind, "fields": fields}


def _named(value: Any, name: str) -> dict[str, Any] | None:
    """Return what stands for a value that is found again by its name: of the target, or a row of the samplers."""
    if isinstance(value, Target):
        return {"@given": "target"}
    if callable(value) and name.endswith(".unravel"):
        return {"@given": "unravel"}
    return next(({"@sampler": known} for known, row in SAMPLERS.items() if value is row), None)


def _freeze_array(value: Any, arrays: dict[str, np.ndarray] | None, name: str) -> dict[str, Any]:
    array = np.asarray(value)
    if arrays is not None:
        arrays[name] = array
        place: Any = name
    elif array.size <= MOST_NUMBERS and array.dtype.kind not in "cO":
        place = {"values": array.tolist(), "dtype": str(array.dtype)}
    else:
        raise TypeError(f"{name} is an array of shape {array.shape}, which is too large to be written down.")
    return {"@array": place, "on_device": isinstance(value, jax.Array), "is_scalar": isinstance(value, np.generic)}


def thaw(frozen: Any, arrays: Mapping[str, np.ndarray], target: Target | None = None) -> Any:
    """Return the value that `freeze` was given, with `target` in the place of the target.

    Raises:
        ValueError: a class is not known, or has other fields, as where another version wrote it.
    """
    if isinstance(frozen, list):
        return [thaw(item, arrays, target) for item in frozen]
    if not isinstance(frozen, dict):
        return frozen
    match next((mark for mark in MARKS if mark in frozen), None):
        case None:
            return {key: thaw(item, arrays, target) for key, item in frozen.items()}
        case "@tuple":
            return tuple(thaw(frozen["@tuple"], arrays, target))
        case "@array":
            return _thaw_array(frozen, arrays)
        case "@given" if target is not None:
            centred = thaw(frozen.get("centred"), arrays)
            found = target if centred is None else eqx.tree_at(lambda target: target.centred, target, centred)
            return found if frozen["@given"] == "target" else plain(target).unravel
        case "@sampler" if frozen["@sampler"] in SAMPLERS:
            return SAMPLERS[frozen["@sampler"]]
        case "@class" if frozen["@class"] in known_classes():
            return _make(known_classes()[frozen["@class"]], thaw(frozen["fields"], arrays, target))
        case mark:
            raise ValueError(f"it holds {frozen[mark]!r}, which this version does not know")


def _thaw_array(frozen: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    place = frozen["@array"]
    array = arrays[place] if isinstance(place, str) else np.asarray(place["values"], jnp.dtype(place["dtype"]))
    return jnp.asarray(array) if frozen["on_device"] else array[()] if frozen["is_scalar"] else array


def _make(kind: Any, fields: Mapping[str, Any]) -> Any:
    if set(fields) != set(_fields(kind)):
        raise ValueError(f"its {kind.__name__} has other fields than this version's")
    if issubclass(kind, tuple):
        return kind(**fields)
    # What the constructor would work out is among the fields.
    value = object.__new__(kind)
    for key, item in fields.items():
        object.__setattr__(value, key, item)
    return value


def _fields(kind: Any) -> tuple[str, ...]:
    return kind._fields if issubclass(kind, tuple) else tuple(field.name for field in dataclasses.fields(kind))


def described(value: Any) -> str:
    """Say in words what a value is that cannot be written down."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    value = value.func if isinstance(value, functools.partial) else value
    if hasattr(value, "__qualname__"):
        return f"the function {value.__qualname__}"
    return f"a {type(value).__name__} with more than plain values"
