"""Options given one by one or group by group, and their docs from the one place where these stand."""

import functools
import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from parsample.run.settings import GROUPS, Evaluation, Keep, Settings, Warmup

P = ParamSpec("P")
T = TypeVar("T")

DOCUMENTED = {kind.__name__: kind for kind in (Settings, Warmup, Evaluation, Keep)}


def takes_groups(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function whose keywords are options take them in groups as well, and document each of them.

    `warmup=Warmup(mass="diagonal")` is read as `mass="diagonal"` and the other options of the group at their defaults.
    An option that is given by its own name takes precedence over its group.
    """
    documents_options(function)

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        given: dict[str, Any] = dict(kwargs)
        options: dict[str, Any] = {}
        for name, kind in GROUPS.items():
            group = given.pop(name, None)
            if group is None:
                continue
            if not isinstance(group, kind):
                raise ValueError(
                    f"{name} is a {type(group).__name__}, expected a parsample.{kind.__name__}, such as "
                    f"parsample.{kind.__name__}({next(iter(kind.__dataclass_fields__))}=...)."
                )
            options |= {field: getattr(group, field) for field in kind.__dataclass_fields__}
        return function(*args, **{**options, **given})

    return wrapper


def documents_options(function: Callable[P, T]) -> Callable[P, T]:
    """Replace every line "names: see `Warmup`." of a function's docs by what that class says of these options."""

    def rows(match: re.Match[str]) -> str:
        indent, names, kind = match.groups()
        docs = option_docs(DOCUMENTED[kind])
        wrap = textwrap.TextWrapper(
            width=120, initial_indent=indent, subsequent_indent=f"{indent}    ", break_on_hyphens=False
        )
        return "\n".join(wrap.fill(f"{name}: {docs[name]}") for name in re.findall(r"\w+", names))

    pattern = r"^( +)(\w+(?:,\s+\w+)*): see `(\w+)`\.$"
    function.__doc__ = re.sub(pattern, rows, function.__doc__ or "", flags=re.MULTILINE)
    return function


@functools.cache
def option_docs(kind: type) -> dict[str, str]:
    """Return what the docs of a data class say of each field, on one line each."""
    _, _, text = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    rows = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    return {name: " ".join(doc.split()) for name, doc in rows}
