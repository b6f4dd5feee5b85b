"""Former names, which are understood for one more version, with a warning that shows the new spelling."""

import dataclasses
import functools
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

T = TypeVar("T", bound=Callable)

# What the frames between a former name and whoever wrote it belong to: the package, and what checks its types.
INSIDE = (__name__.partition(".")[0], "beartype", "jaxtyping", "equinox")
_told: set[str] = set()


def tell(former: str, present: str) -> None:
    """Warn, once for each name, that it is a former one.

    Args:
        former: as it was written.
        present: how it is written now.
    """
    if former in _told:
        return
    frames = (frame for frame, _ in traceback.walk_stack(sys._getframe()))
    rooms = (frame.f_globals.get("__name__", "").partition(".")[0] for frame in frames)
    level = next((level for level, room in enumerate(rooms, 1) if room not in INSIDE), 1)
    message = f"{former} is a former name, which the next version will not know; write {present}."
    warnings.warn(message, DeprecationWarning, stacklevel=level)
    # Only now: where the warning is an error, it is one each time.
    _told.add(former)


def takes_former(**present: str | tuple[str, type]) -> Callable[[T], T]:
    """Let a function, or the constructor of a class, take arguments by their former names.

    Args:
        **present: former name -> the present one; or that of a group of options, with its class, in which the option
            stands under the same name.
    """

    def decorate(function: T) -> T:
        if isinstance(function, type):
            function.__init__ = decorate(function.__init__)  # type: ignore[misc]
            return function

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **_renamed(present, kwargs))

        return cast(T, wrapper)

    return decorate


def former_attribute(former: str, present: str) -> property:
    """Return an attribute that has another name now."""

    def get(self: Any) -> Any:
        tell(f".{former}", f".{present}")
        return getattr(self, present)

    return property(get, doc=f"The former name of `{present}`.")


def _renamed(present: Mapping[str, str | tuple[str, type]], given: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in given.items() if name not in present}
    for former in given.keys() & present.keys():
        now, value = present[former], given[former]
        name, group = (now, None) if isinstance(now, str) else now
        spelling = f"{name}=" if group is None else f"{name}=parsample.{group.__name__}({former}={value!r})"
        if name in given:
            raise ValueError(
                f"{former} is given beside {name}, which has taken its place; leave {former} out and write {spelling}."
            )
        tell(f"{former}=", spelling)
        found[name] = value if group is None else dataclasses.replace(found.get(name, group()), **{former: value})
    return found
