"""Classifier-free guidance: a model with a condition and without, as one."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from parsample.engine.options import is_number


class Guided(eqx.Module):
    """The line through the predictions without and with a condition. See `guided`."""

    predict: Callable
    scale: Any
    null: PyTree

    def check_condition(self, condition: PyTree) -> None:
        """Raise ValueError unless there is a condition, and it is like `null`."""
        expected, found = (jax.tree.map(np.shape, tree) for tree in (self.null, condition))
        if condition is None:
            raise ValueError(
                f"condition is None, but the model is guided towards one; give the process a condition like null, "
                f"which is {self.null!r}."
            )
        if found != expected:
            raise ValueError(f"condition has the shapes {found}, expected {expected}, those of null in guided(...).")

    def __call__(self, x: Array, t: Array, condition: PyTree) -> Array:
        """Return the guided prediction; the model is called for both conditions in one batch."""
        both = jax.tree.map(lambda null, given: jnp.stack([jnp.asarray(null), given]), self.null, condition)
        without, given = jax.vmap(self.predict, in_axes=(None, None, 0))(x, t, both)
        return without + self.scale * (given - without)


def guided(predict: Any, scale: Any, null: PyTree) -> Guided:
    """Return a model that follows its condition more strongly, or less.

    Args:
        predict: `predict(x, t, condition)`, of any prediction: all are affine in one another at a given x and t.
        scale: dimensionless. 0 forgets the condition, 1 is the model as it is, more exaggerates the condition.
        null: the condition that stands for none, a pytree like the conditions.

    Returns:
        A model of the same arguments: `DDIM(guided(predict, 3.0, null=0), condition=7)`. `diffuse` counts a call of it
        as one evaluation; it calls `predict` twice, both at once.

    Raises:
        ValueError: an argument is not what it should be.

    Source: Ho & Salimans 2022, equation 6, whose w is scale - 1.
    """
    if not callable(predict):
        raise ValueError(f"predict is a {type(predict).__name__}, expected a function `predict(x, t, condition)`.")
    if not (is_number(scale) or isinstance(scale, jax.Array)):
        raise ValueError(f"scale is {scale!r}, expected a number, such as 3.0.")
    return Guided(predict, scale, null)
