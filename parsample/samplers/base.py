"""What a sampler is: it makes transitions with fixed inputs from a log density."""

import abc
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from parsample.engine.transition import Transition

# Steps share a random key in blocks of this many, counted from step 0 of the chain: the inputs of a step depend on the
# key and on its number alone, not on where a window or a segment begins.
BLOCK = 128


class Sampler(eqx.Module):
    """A sampler on a log density: what is drawn in advance for every step, and what a step does with it.

    Keys stop at `draw_inputs`: `step` never takes one.
    """

    logdensity_fn: eqx.AbstractVar[Callable]
    step_size: eqx.AbstractVar[Float[Array, ""] | float]
    # The mean acceptance rate that warm-up steers the step size to, dimensionless; None for no accept/reject.
    target_acceptance: ClassVar[float | None]

    if TYPE_CHECKING:  # What the fields above do not say: a sampler works with its defaults, from a log density alone.

        def __init__(self, logdensity_fn: Callable, step_size: Any = 0.1): ...

    @abc.abstractmethod
    def init(self, position: PyTree) -> Any:
        """Return the state at a position: the position and whatever the next step can reuse."""

    @abc.abstractmethod
    def draw_block(self, rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype) -> PyTree:
        """Draw the inputs of `num_steps` steps, leading axis `steps`, for positions of `dim` numbers."""

    @abc.abstractmethod
    def step(self, state: Any, input: Any, gate: str = "frozen") -> tuple[Any, Any]:
        """Make one step: the next state, and diagnostics of the step. `gate` concerns only its derivative."""

    @abc.abstractmethod
    def with_diagonal(self, position: PyTree, input: Any) -> tuple[PyTree, PyTree] | None:
        """Return the next position and the diagonal of its Jacobian (frozen gate), or None if it is not known."""

    def draw_inputs(self, rng_key: Key[Array, ""], num_steps: int, position: PyTree, start: int | Array = 0) -> PyTree:
        """Draw everything random about steps `start` to `start + num_steps` of a chain.

        Args:
            rng_key: of the chain.
            num_steps: how many; leading axis of every array that is returned.
            position: any position, for its size and dtype.
            start: the first step, counted from the beginning of the chain.

        Returns:
            A pytree with leading axis `steps`. Step t gets the same input whatever `start` and `num_steps` are.

        Raises:
            ValueError: `num_steps` is below 1.
        """
        if num_steps < 1:
            raise ValueError(f"num_steps is {num_steps}, expected at least 1.")
        vector, _ = ravel_pytree(position)
        num_blocks = -(-num_steps // BLOCK) + (0 if isinstance(start, int) and start % BLOCK == 0 else 1)
        keys = jax.vmap(lambda block: jax.random.fold_in(rng_key, block))(start // BLOCK + jnp.arange(num_blocks))
        drawn = jax.vmap(lambda key: self.draw_block(key, BLOCK, vector.size, vector.dtype))(keys)

        def cut(leaf: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(leaf.reshape(-1, *leaf.shape[2:]), start % BLOCK, num_steps)

        return jax.tree.map(cut, drawn)

    @property
    def transition(self) -> "SamplerTransition":
        """What the engine solves: `transition(position, input) -> position`."""
        return SamplerTransition(self)


class SamplerTransition(Transition):
    """A sampler's step as a transition from position to position."""

    sampler: Sampler
    gate: str = eqx.field(static=True, default="frozen")

    def __call__(self, state: PyTree, input: PyTree) -> PyTree:
        """Return the next position."""
        return self.step(state, input)[0].position

    def step(self, position: PyTree, input: PyTree) -> tuple[Any, Any]:
        """Return the sampler's next state and the diagnostics of the step, from a position alone."""
        return self.sampler.step(self.sampler.init(position), input, self.gate)

    def with_gate(self, gate: str) -> "SamplerTransition":
        """Return the same transition with another derivative of accept/reject."""
        return SamplerTransition(self.sampler, gate)

    def with_diagonal(self, state: PyTree, input: PyTree) -> tuple[PyTree, PyTree] | None:
        """Return the next position and the diagonal of the Jacobian, if the sampler knows it."""
        return self.sampler.with_diagonal(state, input)

    def surrogate(self) -> "SamplerTransition | None":
        """Return the same sampler on the log density's `surrogate`, a Gaussian that resembles it, if it has one."""
        density = getattr(self.sampler.logdensity_fn, "surrogate", None)
        if density is None:
            return None
        return SamplerTransition(eqx.tree_at(lambda sampler: sampler.logdensity_fn, self.sampler, density), self.gate)

    def start(self, state: PyTree) -> Any:
        """Return the sampler's state, which caches what the next step needs."""
        return self.sampler.init(state)

    def advance(self, carry: Any, input: PyTree) -> tuple[Any, Any]:
        """Make one step with the cache."""
        return self.sampler.step(carry, input, self.gate)

    def state_of(self, carry: Any) -> PyTree:
        """Return the position of a sampler's state."""
        return carry.position


class Mass(eqx.Module):
    """An inverse mass matrix M^-1: identity, diagonal or dense. In squared units of the position.

    Attributes:
        root: None for the identity, the square roots of a diagonal (dim,), or the lower Cholesky factor (dim, dim).
    """

    root: Float[Array, "..."] | None = None

    @classmethod
    def of(cls, inverse_mass_matrix: Any) -> "Mass":
        """Factor an inverse mass matrix: None, shape (dim,) or (dim, dim).

        Raises:
            ValueError: it has another shape, or is not positive definite.
        """
        if inverse_mass_matrix is None:
            return cls(None)
        matrix = jnp.asarray(inverse_mass_matrix)
        if matrix.ndim == 1:
            root = jnp.sqrt(matrix)
        elif matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]:
            root = jnp.linalg.cholesky(matrix)
        else:
            raise ValueError(
                f"inverse_mass_matrix has shape {matrix.shape}, expected (dim,) for a diagonal or (dim, dim)."
            )
        if not isinstance(root, jax.core.Tracer) and not bool(
            jnp.all(jnp.isfinite(root)) & jnp.all(_diagonal(root) > 0)
        ):
            raise ValueError(
                "inverse_mass_matrix is not positive definite, expected variances above 0; "
                "an estimate of the posterior covariance from too few draws needs regularisation."
            )
        return cls(root)

    def check(self, dim: int) -> None:
        """Raise ValueError unless the matrix fits positions of `dim` numbers."""
        if self.root is not None and self.root.shape[0] != dim:
            raise ValueError(
                f"inverse_mass_matrix is for {self.root.shape[0]} dimensions, but the position holds {dim} numbers."
            )

    def root_times(self, vector: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Return L x, where L L^T = M^-1."""
        if self.root is None:
            return vector
        return self.root * vector if self.root.ndim == 1 else self.root @ vector

    def root_transpose_times(self, vector: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Return L^T x."""
        if self.root is None:
            return vector
        return self.root * vector if self.root.ndim == 1 else vector @ self.root


def _diagonal(root: Array) -> Array:
    return root if root.ndim == 1 else jnp.diagonal(root)


def check_step_size(step_size: Any) -> None:
    """Raise ValueError unless a step size is a positive number, where its value is known."""
    if isinstance(step_size, jax.core.Tracer):
        return
    if jnp.ndim(step_size) != 0 or not (float(step_size) > 0 and math.isfinite(float(step_size))):
        raise ValueError(f"step_size is {step_size}, expected one finite number above 0, such as 0.1.")


def draw_normal(rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype) -> Float[Array, "steps dim"]:
    """Draw standard normal noise for `num_steps` steps.

    Drawn flat: for a short last axis XLA unrolls the generator on a CPU, and takes up to nine times as long to compile.
    """
    return jax.random.normal(rng_key, (num_steps * dim,), dtype).reshape(num_steps, dim)


def value_and_gradient(logdensity_fn: Callable, position: PyTree) -> tuple[Float[Array, ""], Float[Array, " dim"]]:
    """Return the log density at a position, and its gradient as a flat vector."""
    value, gradient = jax.value_and_grad(logdensity_fn)(position)
    return value, ravel_pytree(gradient)[0]
