"""The options of an evaluation, checked: one clear sentence for whatever does not fit."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree


class Options(NamedTuple):
    """What the driver needs to know at compile time."""

    window: int
    max_iterations: int
    history: bool
    damping: float
    projection: bool
    clip: float | None


def check(
    steps: int,
    dtype: jnp.dtype,
    window: int | None,
    atol: float,
    rtol: float,
    max_iterations: int | None,
    history: bool,
    damping: float,
    projection: bool,
    clip: float | None,
) -> Options:
    """Return the options with their defaults filled in.

    Raises:
        ValueError: one of them is out of its range.
    """
    window = steps if window is None else min(whole("window", window, "None solves all steps at once"), steps)
    if max_iterations is None:
        max_iterations = steps
    max_iterations = whole("max_iterations", max_iterations, "None allows as many as the chain has steps")
    tolerances(atol, rtol, dtype)
    if not 0 <= damping <= 1:
        raise ValueError(f"damping is {damping}, expected a number in [0, 1]; 0 is none and 1 is Jacobi.")
    if clip is not None and not (clip > 0 and math.isfinite(clip)):
        raise ValueError(f"clip is {clip}, expected a positive number, or None for no clipping.")
    return Options(window, max_iterations, bool(history), float(damping), bool(projection), clip)


def whole(name: str, value: object, remedy: str) -> int:
    """Return `value` as an integer of at least 1.

    Raises:
        ValueError: it is not one; the sentence ends with `remedy`.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < 1:
        raise ValueError(f"{name} is {value!r}, expected a whole number of at least 1; {remedy}.")
    return value.__index__()


def tolerances(atol: float, rtol: float, dtype: jnp.dtype) -> None:
    """Check that the tolerances are numbers that `dtype` can reach.

    Raises:
        ValueError: they are negative, not finite, both zero, or below the rounding error of `dtype`.
    """
    for name, value in {"atol": atol, "rtol": rtol}.items():
        if isinstance(value, jax.core.Tracer):
            return
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value}, expected a finite number of at least 0, such as 1e-4.")
    epsilon = float(jnp.finfo(dtype).eps)
    if max(atol, rtol) < epsilon:
        raise ValueError(
            f"atol is {atol} and rtol is {rtol}, both below {epsilon:.2g}, the rounding error of {dtype}: no "
            "iteration could tell that it has converged; raise one of them, or use float64 states with JAX's x64 mode."
        )


def check_guess(guess: PyTree, initial_state: PyTree, steps: int) -> Float[Array, "steps dim"]:
    """Return a guess as flat vectors, one a step.

    Raises:
        ValueError: it is not like the states, or not finite.
    """
    shapes = jax.tree.map(lambda leaf: (steps, *jnp.shape(leaf)), initial_state)
    found = jax.tree.map(jnp.shape, guess)
    if found != shapes:
        raise ValueError(
            f"guess has the shapes {found}, expected {shapes}: a state for every step, like `Solution.states`."
        )
    flat = jax.vmap(lambda state: ravel_pytree(state)[0])(guess)
    dtype = ravel_pytree(initial_state)[0].dtype
    if not isinstance(flat, jax.core.Tracer) and not bool(jnp.isfinite(flat).all()):
        raise ValueError("guess holds values that are not finite, expected finite ones; leave it out to start anew.")
    return jnp.asarray(flat, dtype)
