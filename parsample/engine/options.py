"""The options of an evaluation, checked: one clear sentence for whatever does not fit."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from parsample.engine.methods import METHODS, Method
from parsample.engine.methods.base import innermost
from parsample.engine.methods.picard import Picard
from parsample.engine.methods.sequential import Sequential
from parsample.engine.numbers import is_number, whole
from parsample.engine.rules import Conditioning, Stopping
from parsample.engine.solution import Solution
from parsample.engine.transition import floating_dtype, ravel_state


class Options(NamedTuple):
    """What the driver needs to know at compile time.

    Attributes:
        window: steps solved at a time.
        max_iterations: before the evaluation gives up.
        history: whether every iteration is recorded, and with the residuals ("steps") or the states of all its steps.
        capacity: steps gathered at a time where only active ones are evaluated; None to evaluate all.
        stopping: when steps are accepted.
        conditioning: of the matrices, with the projection that the method is best with where none was given.
        mismatch: the share of the steps that may change in an iteration and still be accepted; see `methods.Picard`.
    """

    window: int
    max_iterations: int
    history: bool | str
    capacity: int | None
    stopping: Stopping
    conditioning: Conditioning
    mismatch: float = 0.0


# With active_set=True, the share of the window that is gathered at a time: small enough to waste little in the last
# batch, large enough to fill the device.
ACTIVE_SHARE = 16
# The relative tolerance where none is given, and the roundings of the states' dtype below which it does not go.
RTOL, RTOL_ROUNDINGS = 1e-3, 4
# What `history` may name beside True and False.
HISTORIES = ("steps", "states")
# Bytes of a record that nobody asked for: of as many iterations as the chain has steps.
LARGEST_HISTORY = 2**30


def check(
    method: Method,
    steps: int,
    window: int | None = None,
    max_iterations: int | None = None,
    history: bool | str = False,
    active_set: bool | int = False,
    stopping: Any = Stopping(),
    conditioning: Any = Conditioning(),
    turns: int = 1,
) -> Options:
    """Return the options with their defaults filled in; a step of the method ends within so many `turns`.

    Raises:
        ValueError: one of them is out of its range, or contradicts the method.
    """
    window = steps if window is None else min(whole("window", window, "None solves all steps at once"), steps)
    if max_iterations is None:
        max_iterations = steps * turns
    max_iterations = whole("max_iterations", max_iterations, "None allows as many as the method may need")
    name, inner = type(method).__name__, innermost(method)
    for group, given, kind in (("stopping", stopping, Stopping), ("conditioning", conditioning, Conditioning)):
        if not isinstance(given, kind):
            raise ValueError(f"{group} is {given!r}, expected a group of options: parsample.{kind.__name__}(...).")
    if (conditioning.damping or conditioning.projection or conditioning.clip is not None) and not inner.has_matrices:
        raise ValueError(
            f"conditioning has damping, projection or clip, but the method {type(inner).__name__} has no matrices for "
            "them to work on; leave it out, or use another method."
        )
    if isinstance(history, str) and history not in HISTORIES:
        raise ValueError(f"history is {history!r}, expected True, False, {' or '.join(map(repr, HISTORIES))}.")
    capacity = _capacity(active_set, window)
    if capacity is not None and not (method.has_active_set and inner.has_active_set):
        raise ValueError(
            f"active_set is {active_set!r}, but the method {name} evaluates a whole window at a time; leave active_set "
            "out, or use a method that linearises step by step, such as quasi_newton."
        )
    if conditioning.projection is None:
        conditioning = dataclasses.replace(conditioning, projection=inner.projects)
    mismatch = inner.mismatch if isinstance(inner, Picard) else 0.0
    return Options(window, max_iterations, history, capacity, stopping, conditioning, float(mismatch))


def check_history(chosen: Options, chains: int, steps: int, state: jax.ShapeDtypeStruct) -> None:
    """Check that there is room for a record of all iterations that there may be, of states of this form.

    Raises:
        ValueError: it takes more than `LARGEST_HISTORY` bytes.
    """
    more = {"steps": chosen.window, "states": steps * state.size}
    size = chains * chosen.max_iterations * (3 + more.get(str(chosen.history), 0)) * state.dtype.itemsize
    if size > LARGEST_HISTORY:
        raise ValueError(
            f"history is {chosen.history!r} and max_iterations is None, so that {chosen.max_iterations:,} iterations "
            f"would be recorded, which takes {size:,} bytes; give the max_iterations that you expect, such as 100, or "
            "record less."
        )


def _capacity(active_set: bool | int, window: int) -> int | None:
    if active_set is False or active_set is None:
        return None
    if active_set is True:
        return max(1, -(-window // ACTIVE_SHARE))
    remedy = "it is how many active steps are evaluated at a time, and True chooses it"
    return min(whole("active_set", active_set, remedy), window)


def check_seed(seed: object) -> int:
    """Return a seed as an integer.

    Raises:
        ValueError: it is no whole number of 32 bits. In 32-bit mode JAX drops the upper half of longer ones, and
            different seeds would give the same random numbers.
    """
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= seed.__index__() < 2**32:
        raise ValueError(f"seed is {seed!r}, expected a whole number from 0 to 2**32 - 1.")
    return seed.__index__()


def check_floating(initial_state: PyTree, who: str) -> None:
    """Check that a state can be differentiated in.

    Args:
        initial_state: any pytree.
        who: takes a derivative, for the sentence.

    Raises:
        ValueError: a leaf holds integers or truth values.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(initial_state):
        dtype = jnp.result_type(leaf)
        if jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool_):
            able = ", ".join(sorted(name for name, row in METHODS.items() if not row().needs_derivative))
            raise ValueError(
                f"initial_state{jax.tree_util.keystr(path)} has dtype {dtype}, expected floating point, because {who} "
                "takes derivatives; convert it, for example with jnp.asarray(value, float), or use a method that takes "
                f"none: {able}."
            )


def default_rtol(dtype: jnp.dtype) -> float:
    """Return the relative tolerance where none is given: what this precision can be held to."""
    return max(RTOL, RTOL_ROUNDINGS * float(jnp.finfo(dtype).eps))


def check_tolerances(
    atol: Any, rtol: Any, dtype: jnp.dtype, steps: int | None = None, method: Method | None = None
) -> None:
    """Check that the tolerances are numbers that `dtype` can reach, `atol` one for each of `steps` or one for all.

    The sequential loop needs none, so for it they need not be in reach.

    Raises:
        ValueError: they are negative, not finite, both zero, or below the rounding error of `dtype`.
    """
    for name, value in {"atol": atol, "rtol": rtol}.items():
        if isinstance(value, jax.core.Tracer):
            return
        each = name == "atol" and isinstance(value, jax.Array | np.ndarray) and np.ndim(value) == 1
        if each and steps is not None and np.shape(value) != (steps,):
            raise ValueError(f"atol has shape {np.shape(value)}, expected one number, or ({steps},): one a step.")
        scalar = is_number(value) or (isinstance(value, jax.Array) and value.ndim == 0)
        if not (each or scalar) or not bool(np.all((0 <= np.asarray(value)) & (np.asarray(value) < math.inf))):
            raise ValueError(f"{name} is {value!r}, expected a finite number of at least 0, such as 1e-4.")
    if isinstance(method, Sequential):
        return
    epsilon = float(jnp.finfo(dtype).eps)
    least = float(np.min(np.asarray(atol))) if np.ndim(atol) else atol
    if max(least, float(rtol)) < epsilon:
        raise ValueError(
            f"atol is {least} and rtol is {rtol}, both below {epsilon:.2g}, the rounding error of {dtype}: no "
            "iteration could tell that it has converged; raise one of them, or use float64 states with JAX's x64 mode."
        )


def check_guess(
    guess: PyTree, initial_state: PyTree, steps: int, chains: bool = False
) -> Float[Array, "*chain steps dim"]:
    """Return a guess, states or a `Solution` that holds them, as flat vectors, one a step (of each chain).

    Raises:
        ValueError: it is not like the states, or not finite.
    """
    if isinstance(guess, Solution):
        guess = guess.states
    axes = 1 if chains else 0
    shapes = jax.tree.map(lambda leaf: (*np.shape(leaf)[:axes], steps, *np.shape(leaf)[axes:]), initial_state)
    found = jax.tree.map(np.shape, guess)
    if found != shapes:
        raise ValueError(
            f"guess has the shapes {found}, expected {shapes}: a state for every step, like `Solution.states`."
        )
    dtype = floating_dtype(initial_state)
    ravel = jax.vmap(lambda state: ravel_state(state, dtype))
    flat = jax.vmap(ravel)(guess) if chains else ravel(guess)
    if not isinstance(flat, jax.core.Tracer) and not bool(jnp.isfinite(flat).all()):
        raise ValueError("guess holds values that are not finite, expected finite ones; leave it out to start anew.")
    return jnp.asarray(flat, dtype)
