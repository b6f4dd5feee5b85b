"""Data in posteriordb's form: a mapping, or a JSON file that holds one, whose entries are checked one by one."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parsample.targets import checks


def read(data: Any, posterior: str, *keys: str) -> Mapping[str, Any]:
    """Return the entries of a data set.

    Args:
        data: a mapping, or the path of a JSON file with one. The entries may also lie in it under "data".
        posterior: the name in posteriordb of the posterior whose data are wanted.
        keys: the entries that have to be there.

    Raises:
        ValueError: no data are given, the file cannot be read or is not a JSON object, or an entry is missing.
    """
    wanted = f"a mapping or a JSON file with the data of posteriordb's {posterior}: {', '.join(keys)}"
    if data is None:
        raise ValueError(
            f"data is None, expected {wanted}; pass the path of the file as data=PATH, or on the command line as "
            "--data PATH."
        )
    found, named = data, "data"
    if isinstance(data, str | os.PathLike):
        found, named = _parsed(Path(data), wanted), f"data, read from {str(Path(data))!r},"
    if not isinstance(found, Mapping):
        raise ValueError(f"{named} is a {type(found).__name__}, expected {wanted}.")
    if isinstance(found.get("data"), Mapping):
        found = found["data"]
    for key in keys:
        if key not in found:
            entries = ", ".join(map(str, found)) or "none"
            raise ValueError(f"{named} has no entry {key!r} but {entries}; expected {wanted}.")
    return found


def _parsed(path: Path, wanted: str) -> Any:
    """Return what a JSON file holds."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        reason = f"it is not JSON: {error.msg} in line {error.lineno}"
    except UnicodeDecodeError:
        reason = "it is not a text file; if it is an archive, unpack it"
    except OSError as error:
        reason = error.strerror or str(error)
    raise ValueError(f"data is {str(path)!r}, which cannot be read ({reason}); expected {wanted}.")


def label(key: str) -> str:
    """Return how errors name an entry."""
    return f"data[{key!r}]"


def real(entries: Mapping[str, Any], key: str, *axes: str) -> np.ndarray:
    """Return an entry as a double precision array with one axis for each name in `axes`.

    Raises:
        ValueError: it is not numeric, has other axes, is empty, or holds a value that is not finite.
    """
    return checks.real_array(label(key), entries[key], axes)


def positive(entries: Mapping[str, Any], key: str, *axes: str) -> np.ndarray:
    """Return an entry as `real` does, its numbers above 0.

    Raises:
        ValueError: see `real`; or a number is 0 or below.
    """
    return checks.positive(label(key), entries[key], axes)


def whole(entries: Mapping[str, Any], key: str) -> int:
    """Return an entry that is a whole number of at least 1.

    Raises:
        ValueError: it is anything else.
    """
    number = real(entries, key)
    if number < 1 or number != np.floor(number):
        raise ValueError(f"{label(key)} is {entries[key]!r}, expected a whole number of at least 1.")
    return int(number)


def check_size(entries: Mapping[str, Any], key: str, array_key: str, size: int, what: str = "entries") -> None:
    """Raise ValueError where an entry such as N is there and is not the size that an array of the data has."""
    if key in entries and whole(entries, key) != size:
        raise ValueError(f"{label(array_key)} has {size} {what}, expected {whole(entries, key)}, as {label(key)} says.")
