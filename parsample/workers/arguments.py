"""What workers are given, checked before anything is spent."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

from parsample.workers.model import Position

DIFFERENCES = "finite_differences"


def check_arguments(
    simulate: Any, template: Position, gradient: Any, workers: Any, timeout: Any, retries: Any, on_error: Any
) -> None:
    """Refuse what `Workers` cannot do anything with.

    Raises:
        ValueError: which names the argument.
    """
    if not callable(simulate):
        raise ValueError(
            f"simulate is a {type(simulate).__name__}, expected a function from a position, a dict of NumPy arrays, to "
            "its log density."
        )
    try:
        inspect.signature(simulate).bind({})
    except TypeError as error:
        raise ValueError(
            f"simulate does not take a position alone ({error}); it is called as simulate(position), with a dict of "
            "NumPy arrays. Bind other arguments by functools.partial."
        ) from error
    except ValueError:  # Functions written in C may not say what they take.
        pass
    _check_template(template, gradient)
    if workers is not None and not (_is_whole(workers) and workers > 0):
        raise ValueError(f"workers is {workers!r}, expected how many runs are made at a time, at least 1.")
    if timeout is not None and not (isinstance(timeout, int | float) and 0 < timeout < math.inf):
        raise ValueError(f"timeout is {timeout!r}, expected the seconds that a run may take, more than 0, or None.")
    if not (_is_whole(retries) and retries >= 0):
        raise ValueError(f"retries is {retries!r}, expected how often a failed run is tried again, 0 or more.")
    if on_error not in ("raise", "reject"):
        raise ValueError(f"on_error is {on_error!r}, expected 'raise' or 'reject'.")


def _check_template(template: Position, gradient: Any) -> None:
    if not template:
        raise ValueError("the position is empty, expected arrays by name.")
    odd = [name for name, leaf in template.items() if leaf.dtype.kind not in "fiub"]
    if odd:
        raise ValueError(f"the position has {odd[0]!r} of dtype {template[odd[0]].dtype}, expected real numbers.")
    if not (gradient is None or isinstance(gradient, bool | Mapping) or gradient == DIFFERENCES):
        raise ValueError(
            f"gradient is {gradient!r}, expected True where simulate returns one, {DIFFERENCES!r}, a dict of the steps "
            "of differences, or None."
        )
    whole = [name for name, leaf in template.items() if leaf.dtype.kind != "f"]
    if gradient and whole:
        raise ValueError(f"gradient is {gradient!r}, but {whole[0]!r} holds whole numbers; leave it out.")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
