"""The call of a model: one sample, one time, a condition where there is one; and what is refused of it."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from parsample.samplers.diffusion.denoisers import Denoiser
from parsample.samplers.diffusion.guidance import Guided


def check_model(predict: Any, condition: PyTree) -> None:
    """Raise ValueError unless `predict` is a function that can be called as the process will call it."""
    if not callable(predict):
        raise ValueError(f"predict is a {type(predict).__name__}, expected a function `predict(x, t)`.")
    if isinstance(predict, Guided):
        predict.check_condition(condition)
    if isinstance(predict, Denoiser):
        return
    try:
        signature = inspect.signature(predict)
    except (TypeError, ValueError):  # functions of other languages have none
        return
    call = ("x", "t") if condition is None else ("x", "t", "condition")
    try:
        signature.bind(*call)
    except TypeError as error:
        remedy = "give the process its condition, or a function of" if condition is None else "expected a function of"
        raise ValueError(
            f"predict has the arguments {signature}, but is called as predict({', '.join(call)}): {error}; {remedy} "
            f"{' and '.join(call)}."
        ) from None


def call_model(predict: Any, x: Array, time: Array, condition: PyTree) -> Array:
    """Return what a model predicts, in the precision of x: it may itself run in another.

    Raises:
        ValueError: it returned something else than one array like x.
    """
    output = predict(x, time, *(() if condition is None else (condition,)))
    if not (hasattr(output, "shape") and hasattr(output, "dtype")):
        inside = [f"{jnp.result_type(leaf)}{list(np.shape(leaf))}" for leaf in jax.tree.leaves(output)]
        raise ValueError(
            f"predict returned a {type(output).__name__} of {', '.join(inside) or 'nothing'}, expected one array like "
            "the sample; return the prediction alone, such as the first entry of the tuple."
        )
    if output.shape != x.shape:
        raise ValueError(
            f"predict returned shape {output.shape} for a sample of shape {x.shape}, expected the same; it is given "
            "one sample and one time, without a batch axis."
        )
    if not jnp.issubdtype(output.dtype, jnp.floating):
        raise ValueError(f"predict returned dtype {output.dtype}, expected floating point like the sample's {x.dtype}.")
    return output.astype(x.dtype)
