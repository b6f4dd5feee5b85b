"""Solve a linear dynamical system: which scan, for which matrix, on which backend."""

import jax
from jaxtyping import Array, Float

from parsample.engine.matrices import Matrix, Zero

# Below this many steps a parallel scan has nothing to gain from its depth of log2(steps), on any device.
SHORT = 16


def solve_lds(
    matrices: Matrix,
    offsets: Float[Array, "steps dim"],
    initial_state: Float[Array, " dim"],
    *,
    scan: str | None = None,
) -> Float[Array, "steps dim"]:
    """Solve x[t] = A[t] x[t-1] + b[t] for every step.

    Args:
        matrices: A, leading axis `steps`. Dimensionless.
        offsets: b, shape (steps, dim), in the units of the state.
        initial_state: x before the first step, shape (dim,). Not part of the output.
        scan: "loop" (`lax.scan`), "associative" (`lax.associative_scan`), or None: the loop on a CPU and for short
            systems, the associative scan elsewhere.

    Returns:
        Shape (steps, dim). Row t is the state after t + 1 steps.

    Raises:
        ValueError: the leading axes differ, or `scan` is not a known name.

    Cost: O(steps dim) for a diagonal; for a dense matrix O(steps dim^2) by the loop and O(steps dim^3) by the
        associative scan, whose depth is O(log steps).

    Source: Gonzalez et al. 2024, section 3; here the scan is chosen by backend, at lowering time.
    """
    if isinstance(matrices, Zero):
        return offsets
    steps = offsets.shape[0]
    for leaf in jax.tree.leaves(matrices):
        if leaf.shape[0] != steps:
            raise ValueError(f"matrices hold {leaf.shape[0]} steps and offsets {steps}, expected the same number.")
    match scan:
        case "loop":
            return _loop(matrices, offsets, initial_state)
        case "associative":
            return _associative(matrices, offsets, initial_state)
        case None if steps <= SHORT:
            return _loop(matrices, offsets, initial_state)
        case None:
            return jax.lax.platform_dependent(matrices, offsets, initial_state, cpu=_loop, default=_associative)
        case _:
            raise ValueError(f"scan is {scan!r}, expected 'loop', 'associative' or None.")


def _loop(matrices: Matrix, offsets: Array, initial_state: Array) -> Array:
    def step(state, element):
        matrix, offset = element
        state = matrix.apply(state) + offset
        return state, state

    return jax.lax.scan(step, initial_state, (matrices, offsets))[1]


def _associative(matrices: Matrix, offsets: Array, initial_state: Array) -> Array:
    first = jax.tree.map(lambda leaf: leaf[0], matrices)
    offsets = offsets.at[0].add(first.apply(initial_state))

    def combine(earlier, later):
        matrix_earlier, offset_earlier = earlier
        matrix_later, offset_later = later
        return matrix_later @ matrix_earlier, matrix_later.apply(offset_earlier) + offset_later

    return jax.lax.associative_scan(combine, (matrices, offsets))[1]
