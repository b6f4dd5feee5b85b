"""Newton iteration in a subspace: the Jacobian where it matters, one number a step elsewhere."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from parsample.engine.iteration import Linearised, Steps
from parsample.engine.methods.base import Prepared, PreparedMethod, check_gate, draw_signs
from parsample.engine.methods.scaled_identity import ScaledIdentity
from parsample.engine.numbers import whole
from parsample.engine.parts import scaled
from parsample.engine.subspace import written_out_in
from parsample.engine.transition import FlatTransition, first_row

# How far the products of the basis may be from those of an orthonormal one: half-precision files pass.
ORTHONORMAL = 1e-2
# Rounds of the search for a basis.
SWEEPS = 2


class SubspaceNewton(PreparedMethod):
    """A[t] = J[t] in the span of a few directions, and a[t] I outside: between scaled identity and Newton.

    For states of many numbers whose Jacobian is more than a multiple of the identity in few directions only: images, by
    their principal components. Products of such matrices stay of their rank, so that the scan is as cheap as the
    derivative.

    Args:
        basis: the directions, orthonormal columns, shape (dim, rank). For states of several like parts (a sample and
            its last prediction) those of one part; every part gets them. None: the directions that the Jacobian at the
            start of the chain shrinks least, `rank` of them.
        rank: how many directions to look for where no basis is given; for a state of no more numbers than that it is
            Newton's iteration.
        scale: a, as in `ScaledIdentity`; "trace" is estimated outside the subspace, by one more JVP.
        gate: how the derivative treats accept/reject.

    Raises:
        ValueError: columns that are not orthonormal, a rank below 1, or what `ScaledIdentity` refuses; at the first
            use, a basis for states of another size.

    Cost: rank JVPs a step (for each part), and one with "trace". Memory and scan O(steps rank dim), or O(steps rank^2
        dim) for the associative scan of an accelerator.

    Source: ours. The search for a basis is subspace iteration (Halko et al. 2011, algorithm 4.4).
    """

    basis: Any = None
    rank: int = eqx.field(static=True, default=8)
    scale: Any = "trace"
    gate: str = eqx.field(static=True, default="frozen")

    def __check_init__(self):
        """Check the options."""
        check_gate(self.gate)
        ScaledIdentity(self.scale)
        whole("rank", self.rank, "for none use 'scaled_identity'")
        basis = self.basis
        if basis is None or isinstance(basis, jax.core.Tracer):
            return
        if not isinstance(basis, jax.Array | np.ndarray):
            raise ValueError(f"basis is a {type(basis).__name__}, expected an array of shape (dim, rank), or None.")
        if basis.ndim != 2 or not 1 <= basis.shape[1] <= basis.shape[0]:
            raise ValueError(f"basis has shape {basis.shape}, expected (dim, rank), rank from 1 to dim.")
        away = np.abs(np.asarray(basis, np.float64).T @ np.asarray(basis, np.float64) - np.eye(basis.shape[1])).max()
        if not away <= ORTHONORMAL:
            raise ValueError(
                f"basis has columns whose products differ by up to {away:.2g} from those of an orthonormal basis, "
                "expected orthonormal columns; numpy.linalg.qr(basis)[0] makes them so."
            )

    def tangents(self, dim: int) -> int:
        """Return one for each direction of the basis, in every part, and one to estimate the scale."""
        rank = min(self.rank, dim) if self.basis is None else dim // self.basis.shape[0] * self.basis.shape[1]
        return rank + (1 if self._estimates else 0)

    @property
    def _estimates(self) -> bool:
        """Whether the scale is estimated in every iteration."""
        return isinstance(self.scale, str) and self.scale == "trace"

    def prepare(self, transition: FlatTransition, initial_state: Float[Array, " dim"], inputs: PyTree) -> Prepared:
        """Find the basis, unless it is given, and the scale of every step, unless it is estimated."""
        scale = Prepared() if self._estimates else ScaledIdentity(self.scale).prepare(transition, initial_state, inputs)
        rows = None
        if self.basis is None:
            rows = self._search(transition, initial_state, first_row(inputs))
        elif initial_state.size % self.basis.shape[0]:
            raise ValueError(
                f"basis has shape {self.basis.shape}, but the state has {initial_state.size} numbers, expected "
                f"({initial_state.size}, rank), or a part of it for states of several like parts."
            )
        return Prepared(scale.per_step, scale.guess, rows)

    def linearise(self, transition: FlatTransition, steps: Steps) -> Linearised:
        """Return the values, and the Jacobians in the subspace."""
        gated, dtype = transition.with_gate(self.gate), steps.previous.dtype
        count, dim = steps.previous.shape
        scale, given = steps.prepared, steps.common
        if given is None:
            parts = dim // self.basis.shape[0]
            given = jnp.kron(jnp.eye(parts, dtype=dtype), jnp.asarray(self.basis, dtype).T)
        rows = jnp.broadcast_to(given, (count, *given.shape))
        probes = draw_signs(steps.rng_key, (count, dim), dtype) if scale is None else jnp.zeros((count, 0), dtype)

        def step(state: Array, input: PyTree, probe: Array) -> tuple[Array, PyTree, Array, Array]:
            value, pushforward, details = gated.linearise(state, input)
            images = jax.vmap(pushforward)(given)
            if scale is not None:
                return value, details, images, jnp.zeros((), dtype)
            outside = probe - (given @ probe) @ given
            size = jnp.vdot(outside, outside)
            # Where the basis spans everything, only rounding is left outside.
            there = size > jnp.sqrt(jnp.finfo(dtype).eps) * dim
            trace = jnp.vdot(outside, pushforward(outside)) / jnp.where(there, size, 1)
            return value, details, images, jnp.where(there, trace, 0)

        values, details, images, traces = jax.vmap(step)(steps.previous, steps.inputs, probes)
        factor = traces if scale is None else scale
        return Linearised(values, written_out_in(scaled(factor), rows, images), details)

    def _search(self, transition: FlatTransition, state: Float[Array, " dim"], input: PyTree) -> Array:
        """Return rows that span what the Jacobian at the start of the chain shrinks least."""
        dim, dtype = state.size, state.dtype
        if self.rank >= dim:
            return jnp.eye(dim, dtype=dtype)
        gated = transition.with_gate(self.gate)
        _, pushforward, _ = gated.linearise(state, input)
        columns = jax.random.normal(jax.random.key(0), (dim, self.rank), dtype)
        for _ in range(SWEEPS):
            columns = jnp.linalg.qr(jax.vmap(pushforward, 1, 1)(columns))[0]
        first = jnp.eye(dim, self.rank, dtype=dtype)
        return jnp.where(jnp.isfinite(columns).all(), columns, first).T
