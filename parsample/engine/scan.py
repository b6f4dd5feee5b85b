"""Solve a linear dynamical system: which scan, for which matrix, on which backend."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from parsample.engine.matrices import Diagonal, Matrix, ScaledIdentity, Zero

# Below this many steps a parallel scan has nothing to gain from its depth of log2(steps), on any device.
SHORT = 16
# Steps of a block of the blocked scan. Its loops over them are written out, so that XLA makes one kernel of those of
# diagonals; sixteen were slower.
LENGTH = 8


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
        scan: "loop" (`lax.scan`), "associative" (`lax.associative_scan`), "blocked" (blocks at once, then their
            ends), "pallas" (the same by fused kernels for a GPU, for diagonals, scaled identities, blocks and dense
            matrices up to 16 dimensions), or None: the loop on a CPU and for short systems; elsewhere the blocked scan
            for diagonals and scaled identities, and the associative one for other matrices.

    Returns:
        Shape (steps, dim). Row t is the state after t + 1 steps.

    Raises:
        ValueError: the leading axes differ, `scan` is not a known name, or it is "pallas" and there are no kernels for
            the structure.

    Cost: O(steps dim) for a diagonal; for a dense matrix O(steps dim^2) by the loop and O(steps dim^3) by the others,
        whose depth is O(log steps). None was measured on an accelerator: the choice there is by kernels and bytes of
        the compiled program, of which the blocked scan of diagonals has a fifth and a quarter of the associative one's
        (benchmarks/linear_systems.py, with times on a CPU, where the loop is the fastest). The kernels of "pallas"
        never ran on an accelerator either, and nothing chooses them by itself. Elsewhere than on a GPU they are
        interpreted, slowly; on one Pallas' Triton backend compiles them, of which JAX 0.12 says that it will go.

    Source: Gonzalez et al. 2024, section 3; blocks as in the scans of Blelloch 1990, section 1.3. Here the scan is
        chosen by backend, at lowering time.
    """
    if isinstance(matrices, Zero):
        return offsets
    steps = offsets.shape[0]
    own, common = matrices.split()
    for leaf in jax.tree.leaves(own):
        if leaf.shape[0] != steps:
            raise ValueError(f"matrices hold {leaf.shape[0]} steps and offsets {steps}, expected the same number.")
    scans = {"loop": _loop, "associative": _associative, "blocked": _blocked, "pallas": _pallas}
    if scan is None and steps > SHORT:
        elsewhere = _blocked if isinstance(matrices, Diagonal | ScaledIdentity) else _associative
        return jax.lax.platform_dependent(own, common, offsets, initial_state, cpu=_loop, default=elsewhere)
    if scan is not None and scan not in scans:
        raise ValueError(f"scan is {scan!r}, expected 'loop', 'associative', 'blocked', 'pallas' or None.")
    return scans[scan or "loop"](own, common, offsets, initial_state)


def _loop(own: Matrix, common: Matrix, offsets: Array, initial_state: Array) -> Array:
    def step(state, element):
        matrix, offset = element
        state = eqx.combine(matrix, common).apply(state) + offset
        return state, state

    return jax.lax.scan(step, initial_state, (own, offsets))[1]


def _associative(own: Matrix, common: Matrix, offsets: Array, initial_state: Array) -> Array:
    first = eqx.combine(jax.tree.map(lambda leaf: leaf[0], own), common)
    offsets = offsets.at[0].add(first.apply(initial_state))

    def combine(earlier, later):
        matrix_earlier, matrix_later = (eqx.combine(element[0], common) for element in (earlier, later))
        return _own(matrix_later @ matrix_earlier, common), matrix_later.apply(earlier[1]) + later[1]

    return jax.lax.associative_scan(combine, (own, offsets))[1]


def _blocked(own: Matrix, common: Matrix, offsets: Array, initial_state: Array) -> Array:
    """Compose the steps of each block, all blocks at once; solve for the ends of blocks; run each from its start."""
    steps, dim = offsets.shape
    count = -(-steps // LENGTH)

    def to_blocks(leaf: Array) -> Array:
        # Steps beyond the end, whose matrices and offsets are 0, concern none before them.
        padding = [(0, count * LENGTH - steps), *[(0, 0)] * (leaf.ndim - 1)]
        return jnp.pad(leaf, padding).reshape(count, LENGTH, *leaf.shape[1:])

    blocks = jax.tree.map(to_blocks, (own, offsets))
    elements = [jax.tree.map(lambda leaf: leaf[:, place], blocks) for place in range(LENGTH)]  # noqa: B023
    elements = [(eqx.combine(matrix, common), offset) for matrix, offset in elements]
    state = initial_state[None]
    if count > 1:
        whole, end = elements[0]
        for matrix, offset in elements[1:]:
            whole, end = matrix @ whole, matrix.apply(end) + offset
        state = jnp.concatenate([state, _blocked(_own(whole, common), common, end, initial_state)[:-1]])
    states = []
    for matrix, offset in elements:
        state = matrix.apply(state) + offset
        states.append(state)
    return jnp.stack(states, 1).reshape(-1, dim)[:steps]


def _pallas(own: Matrix, common: Matrix, offsets: Array, initial_state: Array) -> Array:
    # Here and not above: importing Pallas takes time, and next to nobody needs it.
    from parsample.engine import kernels

    return kernels.solve(eqx.combine(own, common), offsets, initial_state)


def _own(matrix: Matrix, common: Matrix) -> Matrix:
    """Return a matrix without what all have in common."""
    return jax.tree.map(
        lambda leaf, shared: leaf if shared is None else None, matrix, common, is_leaf=lambda x: x is None
    )
