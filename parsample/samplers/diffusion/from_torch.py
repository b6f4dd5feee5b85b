"""A denoiser as a PyTorch module, called once a round with every step of every sample."""

import functools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

# Of the batch on which a module is tried before anything is spent: more than one, so that a module that mixes samples
# up, or forgets the axis, is seen.
TRIED = 2


class FromTorch(eqx.Module):
    """A PyTorch module as a model of a process. See `from_torch`."""

    module: Any = eqx.field(static=True)
    call: Callable | None = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True)

    def __call__(self, x: Array, t: Array, condition: PyTree = None) -> Array:
        """Return the prediction for one sample and one time; what JAX vectorises over goes to PyTorch as one batch."""
        leaves, tree = jax.tree.flatten(condition)
        leaves = [jnp.asarray(leaf) for leaf in leaves]
        form = tree, *((leaf.shape, np.dtype(leaf.dtype)) for leaf in (x, t, *leaves))
        _try(self, *form)
        like = jax.ShapeDtypeStruct(x.shape, x.dtype)

        def run(x: Any, t: Any, *leaves: Any) -> np.ndarray:
            return self.predict(x, t, leaves, tree, len(like.shape))

        def run_along(x: Any, dx: Any, t: Any, *leaves: Any) -> np.ndarray:
            return self.derivative(x, dx, t, leaves, tree, len(like.shape))

        @jax.custom_jvp
        def model(x: Array, t: Array, leaves: list[Array]) -> Array:
            return jax.pure_callback(run, like, x, t, *leaves, vmap_method="broadcast_all")

        @model.defjvp
        def model_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
            x, t, leaves = primals
            _try_derivative(self, *form)
            # The prediction apart from its derivatives: it has no axis for the probes that these may be taken along.
            value = model(x, t, leaves)
            return value, jax.pure_callback(run_along, like, x, tangents[0], t, *leaves, vmap_method="broadcast_all")

        return model(x, t, leaves)

    def predict(self, x: Any, t: Any, leaves: Any, tree: Any, ndim: int) -> np.ndarray:
        """Return predictions for arrays with any number of axes in front of a sample's.

        Args:
            x: samples, whose own axes are the last `ndim`.
            t: times, one for each.
            leaves: of the conditions.
            tree: their structure.
            ndim: axes of a sample.
        """
        import torch

        axes = x.shape[: x.ndim - ndim]
        rows = [self._tensor(leaf, len(axes)) for leaf in (x, t, *leaves)]
        with torch.no_grad():
            parts = [self._call(part[0], part[1], part[2:], tree) for part in self._parts(rows)]
        return _to_numpy(torch.cat(parts), x)

    def derivative(self, x: Any, dx: Any, t: Any, leaves: Any, tree: Any, ndim: int) -> np.ndarray:
        """Return the derivatives of predictions along `dx`, as `predict` does."""
        import torch

        axes = x.shape[: x.ndim - ndim]
        rows = [self._tensor(leaf, len(axes)) for leaf in (x, dx, t, *leaves)]
        found = []
        # The fused attentions have no forward derivative.
        attention = torch.nn.attention
        with torch.no_grad(), attention.sdpa_kernel(attention.SDPBackend.MATH):
            for x_part, dx_part, *rest in self._parts(rows):
                function = lambda x, rest=rest: self._call(x, rest[0], rest[1:], tree)  # noqa: E731
                found.append(torch.func.jvp(function, (x_part,), (dx_part,))[1])
        return _to_numpy(torch.cat(found), x)

    def _call(self, x: Any, t: Any, leaves: Any, tree: Any) -> Any:
        condition = jax.tree.unflatten(tree, list(leaves))
        arguments = (x, t) if condition is None else (x, t, condition)
        return self.module(*arguments) if self.call is None else self.call(self.module, *arguments)

    def _parts(self, rows: list[Any]) -> list[list[Any]]:
        """Split tensors along their first axis into what the module takes at a time."""
        size = self.batch_size or max(1, len(rows[0]))
        return [list(part) for part in zip(*(row.split(size) for row in rows), strict=True)]

    def _tensor(self, leaf: Any, axes: int) -> Any:
        """Return an array as a tensor on the module's device, its leading axes as one; no copy where none is needed."""
        import torch

        array = np.asarray(leaf)
        # A device array's memory is JAX's own, and the module is trusted not to write into it.
        tensor = torch.from_dlpack(leaf) if isinstance(leaf, jax.Array) else torch.from_numpy(array.copy())
        tensor = tensor.reshape(math.prod(array.shape[:axes]), *array.shape[axes:])
        where = next(self.module.parameters(), None) if isinstance(self.module, torch.nn.Module) else None
        if where is None:
            return tensor
        return tensor.to(where.device, where.dtype if tensor.is_floating_point() else None)


def from_torch(module: Any, call: Any = None, *, batch_size: Any = None) -> FromTorch:
    """Return a PyTorch module as the `predict` of a process.

    The module gets all steps of all samples at once, once a round: x with an axis for them in front, t with that axis
    alone, conditions likewise. Methods that need derivatives get them by `torch.func.jvp`. On a CPU arrays pass to the
    module and back without a copy (DLPack); to and from an accelerator they go through the host, once a round.

    Args:
        module: a `torch.nn.Module` in evaluation mode: `module(x, t)`, or with a condition `module(x, t, condition)`,
            to a prediction like x. What it is given has the dtype of its parameters.
        call: `call(module, x, t)` where it is to be called otherwise: `lambda unet, x, t: unet(x, t).sample` for a UNet
            of diffusers. None for `module(x, t)`.
        batch_size: how many it is given at a time, where its memory does not suffice for all; None for all.

    Returns:
        What processes take: `DDIM(from_torch(unet, ...))`.

    Raises:
        ValueError: the module is none, or is training; when it is first used, that it does not return what it should.
        ImportError: PyTorch is not installed.

    Cost: one call of the module a round.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "from_torch needs PyTorch, which is not installed; install parsample[torch], or torch by itself."
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"module is a {type(module).__name__}, expected a torch.nn.Module such as a UNet.")
    if module.training:
        raise ValueError("module is in training mode, where dropout draws anew at every call; use module.eval() first.")
    if not (call is None or callable(call)):
        raise ValueError(f"call is a {type(call).__name__}, expected a function of module, x and t, or None.")
    if batch_size is not None and not (isinstance(batch_size, int) and batch_size > 0):
        raise ValueError(f"batch_size is {batch_size!r}, expected a number of samples of at least 1, or None.")
    return FromTorch(module, call, batch_size)


@functools.lru_cache(maxsize=64)
def _try(model: FromTorch, tree: Any, *rows: tuple) -> None:
    """Call the module once on zeros, before anything is compiled around it: there its errors would drown.

    Raises:
        ValueError: it raises, or does not return a prediction like its samples.
    """
    import torch

    shape = rows[0][0]
    tensors = [model._tensor(np.ones((TRIED, *shape), dtype), 1) for shape, dtype in rows]
    try:
        with torch.no_grad():
            found = model._call(tensors[0], tensors[1], tensors[2:], tree)
    except Exception as error:
        raise ValueError(
            f"module raised {type(error).__name__} on samples of shape {[TRIED, *shape]} and times of shape {[TRIED]}: "
            f"{error}. Give call=, a function of module, x and t, if it is called in another way."
        ) from error
    if not isinstance(found, torch.Tensor):
        raise ValueError(
            f"module returned a {type(found).__name__}, expected a tensor like its samples; give call=, such as "
            "lambda module, x, t: module(x, t).sample."
        )
    if tuple(found.shape) != (TRIED, *shape):
        raise ValueError(
            f"module returned shape {list(found.shape)} for samples of shape {[TRIED, *shape]}, expected the same; a "
            "prediction of the variance beside it has to be cut off by call=."
        )
    if not found.is_floating_point():
        raise ValueError(f"module returned {found.dtype}, expected floating point like its samples.")


@functools.lru_cache(maxsize=64)
def _try_derivative(model: FromTorch, tree: Any, *rows: tuple) -> None:
    """Take a derivative once, as `_try` does.

    Raises:
        ValueError: PyTorch has none.
    """
    x, *others = (np.ones((TRIED, *shape), dtype) for shape, dtype in rows)
    try:
        model.derivative(x, x, others[0], others[1:], tree, x.ndim - 1)
    except Exception as error:
        raise ValueError(
            f"PyTorch has no forward derivative of this module ({type(error).__name__}: {error}); take a method "
            "without derivatives, such as 'scaled_identity' or 'picard'."
        ) from error


def _to_numpy(tensor: Any, like: Any) -> np.ndarray:
    """Return a tensor as an array of another's shape and dtype."""
    import torch

    dtype = getattr(torch, np.dtype(like.dtype).name)
    return tensor.detach().to("cpu", dtype).reshape(like.shape).numpy()
