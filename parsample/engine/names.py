"""Look a name up in one of the tables, and say what was probably meant."""

import difflib
from collections.abc import Iterable


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
