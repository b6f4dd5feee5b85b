"""The rules of every iteration: when a step is accepted, and what is done to the matrices before a solve."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from parsample.engine.matrices import Matrix
from parsample.engine.numbers import is_number

NORMS = ("max", "rms")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stopping:
    """When steps are accepted, within the tolerances `atol` and `rtol`, and what happens to those that never are.

    Attributes:
        norm: what has to be within tolerance: "max", every number of a state, or "rms", their root mean square.
        accept_early: in [0, 1]. A step is accepted before the ones after it only if it and all before it are within
            this share of the tolerance; otherwise all that are left are accepted together, once all of them are
            within it. 1 is best for recursions that forget, such as Markov chains. One that hands its errors on, such
            as a diffusion sampler, needs less: what an accepted step leaves is never mended. Dimensionless.
        finish: let the sequential loop take over, for that chain alone, where `max_iterations` were not enough.

    Raises:
        ValueError: one of them is out of its range.
    """

    norm: str = "max"
    accept_early: Any = 1.0
    finish: bool = False

    def __post_init__(self):
        """Check the options."""
        if self.norm not in NORMS:
            raise ValueError(f"norm is {self.norm!r}, expected one of {', '.join(map(repr, NORMS))}.")
        if not (is_number(self.accept_early) and 0 <= self.accept_early <= 1):
            raise ValueError(
                f"accept_early is {self.accept_early!r}, expected a share of the tolerance in [0, 1], such as 0.01."
            )

    def size(self, rows: Float[Array, "window dim"]) -> Float[Array, "window dim"]:
        """Return what a tolerance is compared with, for every number of every row."""
        if self.norm == "max":
            return jnp.abs(rows)
        return jnp.broadcast_to(jnp.sqrt(jnp.mean(rows**2, 1, keepdims=True)), rows.shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditioning:
    """What is done to every matrix A before a solve.

    Attributes:
        damping: in [0, 1]; A is multiplied by 1 - damping. 1 is Jacobi.
        projection: project every A to spectral norm at most 1 (for a diagonal, clip it to [-1, 1]); None for what the
            method is best with, which is True for all but permutation, elk and quasi_elk.
        clip: clip the entries of A to [-clip, clip]; None for no clipping.

    Raises:
        ValueError: one of them is out of its range.
    """

    damping: float = 0.0
    projection: bool | None = None
    clip: float | None = None

    def __post_init__(self):
        """Check the options."""
        if not (is_number(self.damping) and 0 <= self.damping <= 1):
            raise ValueError(f"damping is {self.damping!r}, expected a number in [0, 1]; 0 is none and 1 is Jacobi.")
        if self.clip is not None and not (is_number(self.clip) and 0 < self.clip < math.inf):
            raise ValueError(f"clip is {self.clip!r}, expected a positive number, or None for no clipping.")

    def apply(self, matrices: Matrix) -> Matrix:
        """Return the matrices, conditioned."""
        if self.clip is not None:
            matrices = matrices.clip(self.clip)
        if self.projection:
            matrices = matrices.project()
        return matrices.scale(1 - self.damping) if self.damping else matrices
