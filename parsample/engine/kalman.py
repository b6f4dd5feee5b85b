"""A regularised linear dynamical system, solved as a Kalman smoother.

    minimise over y:  sum over t of |y[t] - A[t] y[t-1] - b[t]|^2 + penalty[t] |y[t]|^2,   y before the first step is 0

1. This is the mean of a linear Gaussian model: y[t] = A[t] y[t-1] + b[t] + noise of variance 1, and an observation of 0
   at every step with noise of variance 1 / penalty[t].
2. The filter's gain is the same at every step only for a known past; its elements below are those of a parallel scan.
3. The smoother's mean m_s[t] = E[t] m_s[t+1] + g[t] is a linear dynamical system run backwards.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from parsample.engine.matrices import Dense, Diagonal, Matrix, ScaledIdentity, Zero
from parsample.engine.scan import SHORT, solve_lds


class _Element(NamedTuple):
    """What a stretch of steps does to a Gaussian: see Särkkä & García-Fernández 2021, equations 9 to 13."""

    transition: Array
    offset: Array
    covariance: Array
    information_vector: Array
    information: Array


class _Algebra(NamedTuple):
    """How matrices are computed with, each an array: the product, times a vector, the transpose, A^-1 B, and 1."""

    times: Callable[[Array, Array], Array]
    on: Callable[[Array, Array], Array]
    transpose: Callable[[Array], Array]
    solve: Callable[[Array, Array], Array]
    unit: Callable[[Array], Array]


DIAGONAL = _Algebra(jnp.multiply, jnp.multiply, lambda a: a, lambda a, b: b / a, jnp.ones_like)
DENSE = _Algebra(
    jnp.matmul,
    lambda a, x: jnp.einsum("...ij,...j->...i", a, x),
    lambda a: jnp.swapaxes(a, -1, -2),
    jnp.linalg.solve,
    lambda a: jnp.broadcast_to(jnp.eye(a.shape[-1], dtype=a.dtype), a.shape),
)


def smooth(
    matrices: Matrix,
    offsets: Float[Array, "steps dim"],
    penalty: Float[Array, "*steps"] | float,
    *,
    scan: str | None = None,
) -> Float[Array, "steps dim"]:
    """Return the y that minimises the sum above.

    Args:
        matrices: A, leading axis `steps`. Dimensionless. Anything but a diagonal is written out.
        offsets: b, shape (steps, dim), in the units of the state.
        penalty: at least 0, dimensionless; one number, or one for each step. With 0 at every step y is the solution of
            the linear dynamical system itself.
        scan: "loop", "associative", or None to choose by device, as `solve_lds` does.

    Returns:
        Shape (steps, dim).

    Raises:
        ValueError: `scan` is not a known name.

    Cost: O(steps dim) for a diagonal, O(steps dim^3) for a dense matrix; depth O(log steps) on an accelerator.

    Source: Särkkä & García-Fernández 2021, "Temporal parallelization of Bayesian smoothers"; Gonzalez et al. 2024,
    section 4, for its use. Diagonals are computed with elementwise.
    """
    if scan not in (None, "loop", "associative"):
        raise ValueError(f"scan is {scan!r}, expected 'loop', 'associative' or None.")
    steps, dim = offsets.shape
    is_diagonal = isinstance(matrices, Zero | ScaledIdentity | Diagonal)
    algebra = DIAGONAL if is_diagonal else DENSE
    entries = matrices.apply(jnp.ones_like(offsets)) if is_diagonal else matrices.dense(dim).astype(offsets.dtype)
    times, on, transpose, solve, unit = algebra
    # Nothing is known to be wrong before the first step: y = 0 there exactly, so its matrix does not matter.
    entries = entries.at[0].set(0)
    penalties = jnp.broadcast_to(jnp.asarray(penalty, offsets.dtype), (steps,))
    means, covariances = _filter(entries, offsets, penalties, algebra, scan)
    later, later_offsets = (jnp.concatenate([rows[1:], jnp.zeros_like(rows[:1])]) for rows in (entries, offsets))
    pushed = times(later, covariances)
    gains = transpose(solve(times(pushed, transpose(later)) + unit(entries), pushed))
    rest = means - on(gains, on(later, means) + later_offsets)
    system = Diagonal(gains[::-1]) if is_diagonal else Dense(gains[::-1])
    return solve_lds(system, rest[::-1], jnp.zeros(dim, offsets.dtype), scan=scan)[::-1]


def _filter(
    entries: Array, offsets: Array, penalties: Array, algebra: _Algebra, scan: str | None
) -> tuple[Array, Array]:
    """Return the means and covariances of every step, given the observations up to it."""
    times, on, transpose, solve, unit = algebra

    def loop(entries: Array, offsets: Array, penalties: Array) -> tuple[Array, Array]:
        one = unit(entries[0])

        def step(carry, element):
            mean, covariance = carry
            a, b, penalty = element
            predicted = times(times(a, covariance), transpose(a)) + one
            shrink = solve(one + penalty * predicted, one)
            covariance = times(predicted, shrink)
            carry = on(shrink, on(a, mean) + b), (covariance + transpose(covariance)) / 2
            return carry, carry

        return jax.lax.scan(step, (jnp.zeros_like(offsets[0]), jnp.zeros_like(one)), (entries, offsets, penalties))[1]

    def associative(entries: Array, offsets: Array, penalties: Array) -> tuple[Array, Array]:
        # Not 1 - gain: for a large penalty nothing but rounding would be left of it.
        shrink = 1 / (1 + penalties[:, None])
        gain = penalties[:, None] * shrink
        beside = lambda numbers: numbers.reshape(-1, *[1] * (entries.ndim - 1))  # noqa: E731
        elements = _Element(
            beside(shrink) * entries,
            shrink * offsets,
            beside(shrink) * unit(entries),
            -gain * on(transpose(entries), offsets),
            beside(gain) * times(transpose(entries), entries),
        )

        def combine(i: _Element, j: _Element) -> _Element:
            mix = solve(unit(i.covariance) + times(i.covariance, j.information), unit(i.covariance))
            forward, backward = times(j.transition, mix), transpose(times(mix, i.transition))
            return _Element(
                times(forward, i.transition),
                on(forward, i.offset + on(i.covariance, j.information_vector)) + j.offset,
                times(times(forward, i.covariance), transpose(j.transition)) + j.covariance,
                on(backward, j.information_vector - on(j.information, i.offset)) + i.information_vector,
                times(times(backward, j.information), i.transition) + i.information,
            )

        found = jax.lax.associative_scan(combine, elements)
        return found.offset, found.covariance

    if scan == "loop" or (scan is None and entries.shape[0] <= SHORT):
        return loop(entries, offsets, penalties)
    if scan == "associative":
        return associative(entries, offsets, penalties)
    return jax.lax.platform_dependent(entries, offsets, penalties, cpu=loop, default=associative)
