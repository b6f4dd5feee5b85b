"""What a model of the table is: a NumPyro model and its arguments."""

from collections.abc import Callable
from typing import Any

import numpy as np

Problem = tuple[Callable[..., None], tuple[Any, ...], dict[str, Any]]
"""A NumPyro model, its positional arguments and its keyword arguments."""


def standardised(values: np.ndarray) -> np.ndarray:
    """Return columns of mean 0 and standard deviation 1."""
    return (values - values.mean(axis=0)) / values.std(axis=0)
