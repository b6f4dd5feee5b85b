"""Values of the package's own classes as JSON and arrays, and back again: no pickle, which runs whatever it finds."""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parsample.targets.base import Target
from parsample.warmup.coordinates import plain


def freeze(value: Any, arrays: dict[str, np.ndarray], name: str = "value") -> Any:
    """Return JSON for a value, and put its arrays into `arrays`.

    A target, and the function that makes a position of a flat vector (`unravel`), stay out: `thaw` is given the target.

    Args:
        value: numbers, text, arrays, lists, mappings with text as keys, and data classes and named tuples of this
            package that consist of such.
        arrays: path of a value -> array; filled.
        name: path of this value.

    Raises:
        TypeError: it holds something else, such as a function.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Target):
        return {"given": "target"}
    if callable(value) and name.endswith(".unravel"):
        return {"given": "unravel"}
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        arrays[name] = np.asarray(value)
        return {"array": name, "on_device": isinstance(value, jax.Array)}
    if isinstance(value, Mapping):
        return {"mapping": {key: freeze(item, arrays, f"{name}.{key}") for key, item in value.items()}}
    known = type(value).__module__.startswith("parsample.")
    if known and dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif known and isinstance(value, tuple):
        fields = value._asdict()  # type: ignore[attr-defined]
    elif type(value) in (list, tuple):
        items = [freeze(item, arrays, f"{name}.{place}") for place, item in enumerate(value)]
        return {"items": items, "is_tuple": isinstance(value, tuple)}
    else:
        raise TypeError(f"{name} is a {type(value).__name__}, which cannot be written down.")
    frozen = {key: freeze(item, arrays, f"{name}.{key}") for key, item in fields.items()}
    return {"module": type(value).__module__, "class": type(value).__qualname__, "fields": frozen}


def thaw(frozen: Any, arrays: Mapping[str, np.ndarray], target: Target | None = None) -> Any:
    """Return the value that `freeze` was given, with `target` in the place of the target.

    Raises:
        ValueError: a class is none of this package.
    """
    if not isinstance(frozen, dict):
        return frozen
    if "given" in frozen:
        assert target is not None
        return target if frozen["given"] == "target" else plain(target).unravel
    if "array" in frozen:
        array = arrays[frozen["array"]]
        return jnp.asarray(array) if frozen["on_device"] else array
    if "mapping" in frozen:
        return {key: thaw(item, arrays, target) for key, item in frozen["mapping"].items()}
    if "items" in frozen:
        items = [thaw(item, arrays, target) for item in frozen["items"]]
        return tuple(items) if frozen["is_tuple"] else items
    if not frozen["module"].startswith("parsample."):
        raise ValueError(f"a value of the class {frozen['module']}.{frozen['class']} was found, expected parsample's.")
    kind = getattr(importlib.import_module(frozen["module"]), frozen["class"])
    fields = {key: thaw(item, arrays, target) for key, item in frozen["fields"].items()}
    if issubclass(kind, tuple):
        return kind(**fields)
    # What the constructor would work out is among the fields.
    value = object.__new__(kind)
    for key, item in fields.items():
        object.__setattr__(value, key, item)
    return value
