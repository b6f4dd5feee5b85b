"""Gradients from differences of runs: two beside the position for each of its numbers, all of them in one round."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from parsample.workers.model import Position

# Of the larger of 1 and the number itself. A solver's values are good to 1e-8 or so, and then the difference is good to
# 1e-4; without that noise its error would be the third derivative times 1e-9.
STEP = 1e-4


def neighbours(position: Position, steps: Mapping[str, Any]) -> list[Position]:
    """Return the positions of a central difference: below and above, one number after the other.

    Args:
        position: in double precision.
        steps: by name, to go to either side; what is not named goes by `STEP`.
    """
    found = []
    for name, leaf in position.items():
        for place, step in np.ndenumerate(_steps_of(name, leaf, steps)):
            for side in (-step, step):
                moved = leaf.copy()
                moved[place] += side
                found.append({**position, name: moved})
    return found


def gradient(position: Position, value: float, values: list[float], steps: Mapping[str, Any]) -> Position | None:
    """Return the gradient, from what was found at the neighbours.

    Where one side is outside of the support the difference is that to the position itself; None where both are.
    """
    pairs = iter(zip(values[::2], values[1::2], strict=True))
    found = {}
    for name, leaf in position.items():
        slopes = np.zeros(leaf.shape)
        for place, step in np.ndenumerate(_steps_of(name, leaf, steps)):
            low, high = next(pairs)
            sides = math.isfinite(low) + math.isfinite(high)
            if not sides:
                return None
            low, high = (side if math.isfinite(side) else value for side in (low, high))
            slopes[place] = (high - low) / (sides * step)
        found[name] = slopes
    return found


def check_steps(steps: Any, template: Position) -> Mapping[str, Any]:
    """Return the steps, checked.

    Raises:
        ValueError: they are not of the position's names and shapes, or not positive.
    """
    for name, step in steps.items():
        if name not in template:
            raise ValueError(f"gradient has a step for {name!r}, expected names of the position: {list(template)}.")
        try:
            array = np.broadcast_to(np.asarray(step, np.float64), template[name].shape)
        except ValueError as error:
            raise ValueError(
                f"gradient's step for {name!r} has shape {np.shape(step)}, expected a number or shape "
                f"{template[name].shape}."
            ) from error
        if not np.all((array > 0) & np.isfinite(array)):
            raise ValueError(f"gradient's step for {name!r} is {step!r}, expected a positive number.")
    return steps


def _steps_of(name: str, leaf: np.ndarray, steps: Mapping[str, Any]) -> np.ndarray:
    if name in steps:
        return np.broadcast_to(np.asarray(steps[name], np.float64), leaf.shape)
    return np.asarray(STEP * np.maximum(1, np.abs(leaf)))
