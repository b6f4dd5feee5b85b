"""A regularised linear dynamical system, solved as a Kalman smoother.

    minimise over y:  sum over t of |y[t] - A[t] y[t-1] - b[t]|^2 + penalty[t] |y[t]|^2,   y before the first step is 0

1. This is the mean of a linear Gaussian model: y[t] = A[t] y[t-1] + b[t] + noise of variance 1, and an observation of 0
   at every step with noise of variance 1 / penalty[t].
2. The filter's gain is the same at every step only for a known past; its elements below are those of a parallel scan.
3. The smoother's mean m_s[t] = E[t] m_s[t+1] + g[t] is a linear dynamical system run backwards.
"""

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
    section 4, for its use. The scan over diagonals is written elementwise.
    """
    if scan not in (None, "loop", "associative"):
        raise ValueError(f"scan is {scan!r}, expected 'loop', 'associative' or None.")
    steps, dim = offsets.shape
    match matrices:
        case Zero() | ScaledIdentity():
            factor = matrices.factor if isinstance(matrices, ScaledIdentity) else jnp.zeros(steps, offsets.dtype)
            entries = jnp.broadcast_to(factor[:, None], offsets.shape)
        case Diagonal():
            entries = matrices.entries
        case _:
            entries = matrices.dense(dim).astype(offsets.dtype)
    diagonal = entries.ndim == 2
    # Nothing is known to be wrong before the first step: y = 0 there exactly, so its matrix does not matter.
    entries = entries.at[0].set(0)
    filtered = _filter_diagonal if diagonal else _filter_dense
    penalties = jnp.broadcast_to(jnp.asarray(penalty, offsets.dtype), (steps,))
    means, covariances = filtered(entries, offsets, penalties, scan)
    later = jnp.concatenate([entries[1:], jnp.zeros_like(entries[:1])])
    later_offsets = jnp.concatenate([offsets[1:], jnp.zeros_like(offsets[:1])])
    if diagonal:
        gains = covariances * later / (later**2 * covariances + 1)
        rest = means - gains * (later * means + later_offsets)
        system: Matrix = Diagonal(gains[::-1])
    else:
        predicted = later @ covariances @ jnp.swapaxes(later, 1, 2) + jnp.eye(dim, dtype=offsets.dtype)
        gains = jnp.swapaxes(jnp.linalg.solve(predicted, later @ covariances), 1, 2)
        rest = means - _times(gains, _times(later, means) + later_offsets)
        system = Dense(gains[::-1])
    return solve_lds(system, rest[::-1], jnp.zeros(dim, offsets.dtype), scan=scan)[::-1]


def _filter_diagonal(entries: Array, offsets: Array, penalties: Array, scan: str | None) -> tuple[Array, Array]:
    def loop(entries: Array, offsets: Array, penalties: Array) -> tuple[Array, Array]:
        def step(carry, element):
            mean, variance = carry
            a, b, penalty = element
            predicted = a**2 * variance + 1
            shrink = 1 / (1 + penalty * predicted)
            carry = (a * mean + b) * shrink, predicted * shrink
            return carry, carry

        start = jnp.zeros_like(offsets[0]), jnp.zeros_like(offsets[0])
        return jax.lax.scan(step, start, (entries, offsets, penalties))[1]

    def associative(entries: Array, offsets: Array, penalties: Array) -> tuple[Array, Array]:
        # Not 1 - gain: for a large penalty nothing but rounding would be left of it.
        shrink = 1 / (1 + penalties[:, None])
        gain = penalties[:, None] * shrink
        elements = _Element(
            shrink * entries,
            shrink * offsets,
            jnp.broadcast_to(shrink, offsets.shape),
            -gain * entries * offsets,
            gain * entries**2,
        )

        def combine(i: _Element, j: _Element) -> _Element:
            mix = 1 / (1 + i.covariance * j.information)
            forward, backward = j.transition * mix, i.transition * mix
            return _Element(
                forward * i.transition,
                forward * (i.offset + i.covariance * j.information_vector) + j.offset,
                forward * i.covariance * j.transition + j.covariance,
                backward * (j.information_vector - j.information * i.offset) + i.information_vector,
                backward * j.information * i.transition + i.information,
            )

        found = jax.lax.associative_scan(combine, elements)
        return found.offset, found.covariance

    return _choose(loop, associative, (entries, offsets, penalties), scan)


def _filter_dense(entries: Array, offsets: Array, penalties: Array, scan: str | None) -> tuple[Array, Array]:
    unit = jnp.eye(offsets.shape[1], dtype=offsets.dtype)

    def loop(entries: Array, offsets: Array, penalties: Array) -> tuple[Array, Array]:
        def step(carry, element):
            mean, covariance = carry
            a, b, penalty = element
            predicted = a @ covariance @ a.T + unit
            shrink = jnp.linalg.inv(unit + penalty * predicted)
            covariance = predicted @ shrink
            carry = shrink @ (a @ mean + b), (covariance + covariance.T) / 2
            return carry, carry

        start = jnp.zeros_like(offsets[0]), jnp.zeros_like(unit)
        return jax.lax.scan(step, start, (entries, offsets, penalties))[1]

    def associative(entries: Array, offsets: Array, penalties: Array) -> tuple[Array, Array]:
        shrink = 1 / (1 + penalties[:, None])
        gain = penalties[:, None] * shrink
        transposed = jnp.swapaxes(entries, 1, 2)
        elements = _Element(
            shrink[..., None] * entries,
            shrink * offsets,
            shrink[..., None] * unit,
            -gain * _times(transposed, offsets),
            gain[..., None] * transposed @ entries,
        )

        def combine(i: _Element, j: _Element) -> _Element:
            mix = jnp.linalg.inv(unit + i.covariance @ j.information)
            forward = j.transition @ mix
            backward = jnp.swapaxes(mix @ i.transition, -1, -2)
            return _Element(
                forward @ i.transition,
                _times(forward, i.offset + _times(i.covariance, j.information_vector)) + j.offset,
                forward @ i.covariance @ jnp.swapaxes(j.transition, -1, -2) + j.covariance,
                _times(backward, j.information_vector - _times(j.information, i.offset)) + i.information_vector,
                backward @ j.information @ i.transition + i.information,
            )

        found = jax.lax.associative_scan(combine, elements)
        return found.offset, found.covariance

    return _choose(loop, associative, (entries, offsets, penalties), scan)


def _choose(loop, associative, steps: tuple[Array, Array, Array], scan: str | None) -> tuple[Array, Array]:
    if scan == "loop" or (scan is None and steps[0].shape[0] <= SHORT):
        return loop(*steps)
    if scan == "associative":
        return associative(*steps)
    return jax.lax.platform_dependent(*steps, cpu=loop, default=associative)


def _times(matrices: Array, vectors: Array) -> Array:
    return jnp.einsum("...ij,...j->...i", matrices, vectors)
