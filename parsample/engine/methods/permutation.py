"""Permutation: A in the compact form of a scaled permutation, found by two derivatives."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from parsample.engine import matrices
from parsample.engine.iteration import Linearised, Steps
from parsample.engine.methods.base import LinearMethod
from parsample.engine.transition import FlatTransition


class Permutation(LinearMethod):
    """A[t] = J[t] where every row of J has one entry: permutations with signs, scales and zeros, in O(dim) memory.

    J applied to (1, 1, ..., 1) gives the entries, and applied to (1, 2, ..., dim) the entries times their columns.
    For group word problems and automata it is Newton's iteration, exact after one pass. Where rows of J have more
    entries each is replaced by one, at their centre of mass: no better than a diagonal.

    Cost: two JVPs a step, exact up to a dim of 2**20 in float32.

    Source: Gonzalez et al. 2025, "A unifying framework for parallelizing sequential models with linear dynamical
    systems", figure 1, where the matrices are dense; the compact form is ours.
    """

    projects: ClassVar[bool] = False

    def linearise(self, transition: FlatTransition, steps: Steps) -> Linearised:
        """Return the values and the permutations."""
        dim, dtype = steps.previous.shape[1], steps.previous.dtype
        columns = jnp.arange(1, dim + 1, dtype=dtype)

        def step(state: Array, input: PyTree) -> tuple[Array, PyTree, Array, Array]:
            value, pushforward, details = transition.linearise(state, input)
            return value, details, pushforward(jnp.ones_like(columns)), pushforward(columns)

        values, details, factor, weighted = jax.vmap(step)(steps.previous, steps.inputs)
        # A row without an entry may have any index; one that is not finite is discarded by the driver.
        known = jnp.isfinite(factor) & jnp.isfinite(weighted) & (factor != 0)
        column = jnp.where(known, weighted, 1) / jnp.where(known, factor, 1)
        index = jnp.clip(jnp.round(column) - 1, 0, dim - 1).astype(jnp.int32)
        return Linearised(values, matrices.Permutation(index, factor), details)
