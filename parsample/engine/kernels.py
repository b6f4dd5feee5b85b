"""Fused kernels for linear dynamical systems on a GPU: `scan="pallas"` of `solve_lds`.

1. The steps are cut into chunks. The first kernel composes the steps of each whole chunk, all chunks at once.
2. The ends of the chunks are a system of fewer steps, which is solved the same way.
3. The second kernel runs every chunk from its start, which is now known, and writes the states.

A matrix is rows x rows parts here, and a state `rows` parts: a part of a matrix is diagonal, and a program has some of
its lanes, or it is a dense matrix, which a program has as a whole. Blocks have two rows, all others one.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from parsample.engine.matrices import Block, Dense, Diagonal, Matrix, ScaledIdentity

# Steps of a chunk. They are written out, so that a kernel can load all of them before it needs the first.
LENGTH = 16
# Lanes of a program, one for each thread of four warps.
LANES = 128
# Dimensions of a dense matrix: what a program adds up is the third power of them.
LARGEST_DENSE = 16


def solve(
    matrices: Matrix, offsets: Float[Array, "steps dim"], initial_state: Float[Array, " dim"]
) -> Float[Array, "steps dim"]:
    """Solve x[t] = A[t] x[t-1] + b[t] for every step, with derivatives of any order in all three.

    Args:
        matrices: A, leading axis `steps`. Dimensionless.
        offsets: b, in the units of the state.
        initial_state: x before the first step.

    Returns:
        Shape (steps, dim). Row t is the state after t + 1 steps.

    Raises:
        ValueError: there are no kernels for the structure.

    Cost: O(steps dim) for diagonals and blocks, O(steps dim^3) for dense matrices; two kernels for every factor
        `LENGTH` of the steps. On anything but a GPU Pallas' interpreter runs them, which is for tests.

    Source: Blelloch 1990, "Prefix sums and their applications", section 1.3. Here the last chunk, which may not be
    whole, is never composed.
    """
    dim, dense = offsets.shape[1], isinstance(matrices, Dense)
    match matrices:
        case ScaledIdentity(factor=factor):
            entries = factor[:, None, None, None]
        case Diagonal(entries=entries) | Dense(entries=entries) if not dense or dim <= LARGEST_DENSE:
            entries = entries[:, None, None]
        case Block(entries=entries):
            pass
        case _:
            raise ValueError(
                f"scan is 'pallas' for matrices of type {type(matrices).__name__} in {dim} dimensions, expected "
                f"ScaledIdentity, Diagonal, Block, or Dense of at most {LARGEST_DENSE}; leave scan out for others."
            )
    rows = entries.shape[1]
    lanes = pl.cdiv(dim, rows)
    on_gpu, elsewhere = (functools.partial(_solve, dim=dim, interpret=interpret) for interpret in (False, True))

    def run(entries: Array, given: Array) -> Array:
        """Return the states from the first of `given`, which is their start, with the others as offsets."""
        # Blocks of an odd dim have a place for one coordinate more.
        parts = jnp.pad(given, [(0, 0), (0, rows * lanes - dim)]).reshape(-1, rows, lanes)
        states = jax.lax.platform_dependent(entries, parts[1:], parts[0], cuda=on_gpu, rocm=on_gpu, default=elsewhere)
        return jnp.concatenate([given[:1], states.reshape(-1, rows * lanes)[:, :dim]])

    def residual(states: Array) -> Array:
        return states.at[1:].add(-matrices.apply(states[:-1]))

    def backwards(_: Any, given: Array) -> Array:
        transposed = jnp.swapaxes(entries, *((3, 4) if dense else (1, 2)))
        return run(transposed[::-1], given[::-1])[::-1]

    # Pallas has no derivatives of these kernels; those of a linear system are further solutions of it. Its right side
    # is one array: JAX transposes a part of it only together with the others.
    given = jnp.concatenate([initial_state[None], offsets])
    return jax.lax.custom_linear_solve(residual, given, lambda _, given: run(entries, given), backwards)[1:]


class _System(NamedTuple):
    """What the kernels know of a system besides its numbers."""

    steps: int
    dim: int
    rows: int
    lanes: int
    # A scaled identity has one number for all lanes.
    single: bool
    dense: bool
    interpret: bool

    @property
    def width(self) -> int:
        """Return the lanes of a program. Triton wants powers of two."""
        return min(LANES, pl.next_power_of_2(self.lanes))

    def specs(self, *length: int | None) -> list[pl.BlockSpec]:
        """Return what a program has of matrices and of states."""
        part = (self.width, self.width) if self.dense else (1 if self.single else self.width,)
        before = (0,) * (1 + len(part))
        return [
            pl.BlockSpec(
                (*length, self.rows, self.rows, *part), lambda chunk, k: (chunk, *before, 0 if self.single else k)
            ),
            pl.BlockSpec((*length, self.rows, self.width), lambda chunk, k: (chunk, 0, k)),
        ]

    def call(self, kernel: Callable, chunks: int, in_specs: Any, out_specs: Any, out_shape: Any) -> Callable:
        numbers = self.width ** (1 + self.dense)
        return pl.pallas_call(
            lambda *refs: kernel(_Program(self), *refs),
            grid=(chunks, pl.cdiv(self.lanes, self.width)),
            in_specs=in_specs,
            out_specs=out_specs,
            out_shape=out_shape,
            interpret=self.interpret,
            compiler_params=triton.CompilerParams(num_warps=max(1, min(4, numbers // 32))),
        )


def _solve(entries: Array, offsets: Array, initial: Array, *, dim: int, interpret: bool) -> Array:
    steps, rows, lanes = offsets.shape
    system = _System(steps, dim, rows, lanes, entries.shape[-1] == 1, entries.ndim > 4, interpret)
    chunks, starts = pl.cdiv(steps, LENGTH), initial[None]
    if chunks > 1:
        composed = [jax.ShapeDtypeStruct((chunks - 1, *one.shape[1:]), one.dtype) for one in (entries, offsets)]
        compose = system.call(_compose, chunks - 1, system.specs(LENGTH), system.specs(None), composed)
        wholes, ends = compose(entries, offsets)
        starts = jnp.concatenate([starts, _solve(wholes, ends, initial, dim=dim, interpret=interpret)])
    of_steps, (_, of_chunk) = system.specs(LENGTH), system.specs(None)
    return system.call(_run, chunks, [*of_steps, of_chunk], of_steps[1], offsets)(entries, offsets, starts)


def _compose(program: "_Program", matrices: Any, offsets: Any, whole: Any, end: Any) -> None:
    """Write the matrix of all steps of a chunk, and where the chunk ends from a start of 0."""

    def body(_: Any, carry: Any, element: Any) -> Any:
        columns, state = carry
        return [program.on(element[0], column) for column in columns], program.step(element, state)

    read = functools.partial(program.element, matrices, offsets)
    matrix, state = read(0)
    columns, state = program.loop(1, read, body, ([list(column) for column in zip(*matrix, strict=True)], state))
    for i, row in enumerate(zip(*columns, strict=True)):
        triton.store(_at(end, i), state[i], mask=program.of_state)
        for j, part in enumerate(row):
            # That of a scaled identity is the same for all programs of a chunk.
            triton.store(_at(whole, i, j), part, mask=program.of_matrix)


def _run(program: "_Program", matrices: Any, offsets: Any, start: Any, states: Any) -> None:
    """Write the states of a chunk."""

    def body(step: Any, state: Any, element: Any) -> Any:
        state = program.step(element, state)
        for i, part in enumerate(state):
            triton.store(_at(states, step, i), part, mask=program.of_state & program.exists(step))
        return state

    initial = [_read(start, program.of_state, i) for i in range(program.system.rows)]
    program.loop(0, functools.partial(program.element, matrices, offsets), body, initial)


class _Program:
    """One program of a kernel: which numbers are its own, and how it computes with them."""

    def __init__(self, system: _System):
        self.system, self.first = system, pl.program_id(0) * LENGTH
        lane = jax.lax.broadcasted_iota(jnp.int32, (system.width,), 0) + pl.program_id(1) * system.width
        self.of_state = lane < system.lanes
        self.of_matrix = self.of_state
        if system.dense:
            self.of_matrix = self.of_state[:, None] & self.of_state
        elif system.single:
            self.of_matrix = jnp.ones(1, bool)
        # Of the last row; it is shorter in blocks of an odd dim.
        self.real = (system.rows - 1) * system.lanes + lane < system.dim

    def exists(self, step: Any) -> Any:
        return self.first + step < self.system.steps

    def element(self, matrices: Any, offsets: Any, step: Any) -> tuple[list[list[Array]], list[Array]]:
        """Read A and b of a step; 0 beyond the last."""
        rows, exists = range(self.system.rows), self.exists(step)
        matrix = [[_read(matrices, self.of_matrix & exists, step, i, j) for j in rows] for i in rows]
        return matrix, [_read(offsets, self.of_state & exists, step, i) for i in rows]

    def step(self, element: tuple[list[list[Array]], list[Array]], state: list[Array]) -> list[Array]:
        """Return A x + b."""
        return list(map(operator.add, self.on(element[0], state), element[1]))

    def on(self, matrix: list[list[Array]], column: list[Array]) -> list[Array]:
        """Return A x, or a column of A times another matrix."""
        sums = [functools.reduce(operator.add, map(self.times, row, column)) for row in matrix]
        if self.system.rows * self.system.lanes > self.system.dim:
            # What is no coordinate stays 0, lest 0 * inf make NaN of it and of its partner.
            sums = [*sums[:-1], jnp.where(self.real, sums[-1], 0)]
        return sums

    def times(self, part: Array, other: Array) -> Array:
        if not self.system.dense:
            return part * other
        # `where` for the same reason, and lest Triton see a product of matrices in the second sum: in 16 dimensions it
        # made one of it, for float32, and then failed to compile that.
        if other.ndim == 1:
            return jnp.sum(jnp.where(self.real, part * other, 0), 1)
        return jnp.sum(jnp.where(self.real[:, None], part[:, :, None] * other, 0), 1)

    def loop(self, first: int, read: Callable, body: Callable, carry: Any) -> Any:
        """Return the carry after `body(step, carry, read(step))` for every step of a chunk from the first."""
        if self.system.interpret:  # which takes seconds to compile what is written out
            return jax.lax.fori_loop(first, LENGTH, lambda step, carry: body(step, carry, read(step)), carry)
        # All is read before any is needed: the compiler moves no reading to before a writing.
        for step, element in enumerate([read(step) for step in range(first, LENGTH)], first):
            carry = body(step, carry, element)
        return carry


def _read(ref: Any, inside: Array, *place: Any) -> Array:
    return triton.load(_at(ref, *place), mask=inside, other=0)


def _at(ref: Any, *place: Any) -> Any:
    # The interpreter takes no plain number, but one of the type of its slices.
    return ref.at[tuple(jnp.result_type(int).type(k) if isinstance(k, int) else k for k in place)]
