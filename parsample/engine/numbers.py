"""Whether a value is the kind of number that an option wants."""

import numbers

import numpy as np


def is_number(value: object) -> bool:
    """Say whether a value is a plain real number, and not a truth value."""
    return isinstance(value, numbers.Real | np.generic) and not isinstance(value, bool)


def whole(name: str, value: object, remedy: str, least: int = 1) -> int:
    """Return `value` as an integer of at least `least`.

    Raises:
        ValueError: it is not one; the sentence ends with `remedy`.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < least:
        raise ValueError(f"{name} is {value!r}, expected a whole number of at least {least}; {remedy}.")
    return value.__index__()
