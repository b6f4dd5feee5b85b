"""Look a name up in one of the tables, and say what was probably meant."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


def unknown(kind: str, name: object, known: Iterable[str], alternative: str = "") -> ValueError:
    """Return the error for a name that is in no row of a table.

    Args:
        kind: the argument that held the name.
        name: what came.
        known: the names of the table.
        alternative: what else the argument may be, after "or".
    """
    known = list(known)
    near = difflib.get_close_matches(str(name), known, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    other = f", or {alternative}" if alternative else ""
    return ValueError(f"{kind} is {name!r}, expected one of {', '.join(known)}{other}.{hint}")


def find_class(kind: str, given: Any, table: Mapping[str, type], base: type) -> Any:
    """Return a class, given as such or by its name in a table.

    Args:
        kind: the argument that held it.
        given: what came.
        table: name -> class.
        base: what every class of the kind is a subclass of.

    Raises:
        ValueError: no row has that name; the nearest one is suggested.
    """
    if isinstance(given, type) and issubclass(given, base):
        return given
    if isinstance(given, str) and given in table:
        return table[given]
    raise unknown(kind, given, table, f"a {base.__name__} class")
