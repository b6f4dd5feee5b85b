"""Checks of what is given to a target's constructor. Each raises a ValueError that names the argument."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np


def real_array(argument: str, value: Any, *axes: Sequence[str]) -> np.ndarray:
    """Return a value as a double precision array, with one axis for each name in one of the alternatives of `axes`.

    Raises:
        ValueError: it is not numeric, has other axes, is empty, or holds a value that is not finite.
    """
    expected = " or ".join(f"({', '.join(names)}{',' if len(names) == 1 else ''})" for names in axes)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{argument} has rows of different lengths, expected the shape {expected}.") from error
    if array.dtype == object:
        # A table with columns of several types arrives as objects, though every one may be a number.
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{argument} holds values that are no numbers ({error}), expected real numbers."
            ) from error
    if not (jnp.issubdtype(array.dtype, jnp.floating) or array.dtype.kind in "iub"):
        raise ValueError(f"{argument} has dtype {array.dtype}, expected real numbers.")
    if array.ndim not in map(len, axes) or array.size == 0:
        raise ValueError(f"{argument} has shape {array.shape}, expected {expected} with no axis of size 0.")
    array = array.astype(np.float64)
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        where = f"[{', '.join(map(str, index))}]" if index else ""
        raise ValueError(f"{argument}{where} is {array[index]}, expected a finite number; remove or replace it.")
    return array


def positive(argument: str, value: Any, axes: Sequence[str] = ()) -> np.ndarray:
    """Return a value as a double precision array of numbers above 0.

    Raises:
        ValueError: see `real_array`; or a number is 0 or below.
    """
    array = real_array(argument, value, axes)
    if not np.all(array > 0):
        raise ValueError(f"{argument} holds {array.min():g}, expected numbers above 0.")
    return array


def same_size(argument: str, array: np.ndarray, other: str, size: int) -> None:
    """Raise ValueError unless the first axis of an argument has the size that another argument asks for."""
    if array.shape[0] != size:
        raise ValueError(f"{argument} has {array.shape[0]} entries, expected {size}, as many as {other} has.")


def inverse_cholesky(argument: str, covariance: np.ndarray) -> np.ndarray:
    """Return the lower triangular W with W C W^T = I for a covariance C, shape (dim, dim), in double precision.

    Raises:
        ValueError: the matrix is not square, not symmetric, or not positive definite in double precision.
    """
    dim = covariance.shape[0]
    if covariance.shape != (dim, dim):
        raise ValueError(f"{argument} has shape {covariance.shape}, expected a square matrix.")
    largest = np.abs(covariance).max()
    asymmetry = np.abs(covariance - covariance.T).max()
    if asymmetry > 1e-5 * largest:
        raise ValueError(
            f"{argument} is not symmetric: entries across the diagonal differ by {asymmetry:g}; pass (C + C.T) / 2."
        )
    symmetric = (covariance + covariance.T) / 2
    smallest = np.linalg.eigvalsh(symmetric)[0]
    if smallest <= dim * np.finfo(np.float64).eps * largest:
        raise ValueError(
            f"{argument} is not positive definite: its smallest eigenvalue is {smallest:.3g}, expected one above 0; "
            "remove redundant coordinates or add a small number to the diagonal."
        )
    return np.tril(np.linalg.inv(np.linalg.cholesky(symmetric)))


def float_dtype(*values: Any) -> jnp.dtype:
    """Return the dtype for parameters: that of arrays of floating-point numbers, JAX's default for anything else."""
    dtypes = [value.dtype for value in values if hasattr(value, "dtype")]
    # Arrays of these dtypes stand for the dtypes: JAX turns double into single precision without a warning in them.
    return jnp.result_type(float, *(np.empty(0, dtype) for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)))


def labels(argument: str, names: Any, size: int) -> tuple[str, ...]:
    """Return names as a tuple of strings.

    Raises:
        ValueError: their number is not `size`, or one appears twice.
    """
    names = tuple(str(name) for name in names)
    if len(names) != size:
        raise ValueError(f"{argument} has {len(names)} names, expected {size}.")
    if len(set(names)) != size:
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{argument} has the name {twice!r} twice, expected different names.")
    return names
