"""The attributes of a trace, in the few types that its files know."""

import datetime
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from parsample._version import __version__


def standard_attributes() -> dict[str, Any]:
    """Say when and by what a trace was made."""
    return {
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(),
        "creation_library": "parsample",
        "creation_library_version": __version__,
        "creation_library_language": "Python",
        "inference_library": "parsample",
        "inference_library_version": __version__,
    }


def _storable(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        value = np.asarray(value).tolist()
    if value is None:
        return "none"
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, float | str):
        return value
    if isinstance(value, Mapping):
        return _json(value)
    if isinstance(value, list | tuple):
        items = [_storable(item) for item in value]
        same_type = all(type(item) is type(items[0]) and isinstance(item, int | float | str) for item in items)
        # netCDF gives a list of one back as its only item, and has no empty list.
        return items if same_type and len(items) > 1 else _json(value)
    return str(value)


def storable_attributes(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as netCDF and Zarr can hold them.

    Raises:
        ValueError: a name is not text.
    """
    for name in attrs:
        if not isinstance(name, str) or not name:
            raise ValueError(f"attrs: got the name {name!r}, expected text that is not empty; rename the attribute.")
    return {name: _storable(value) for name, value in attrs.items()}


def _json(value: Any) -> str:
    try:
        return json.dumps(value, default=_storable)
    except TypeError:  # a key that JSON does not have, such as a tuple
        return str(value)
