"""Scaled identity: A = a I, with a from one of four sources."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from parsample._former import takes_former
from parsample.engine import matrices
from parsample.engine.iteration import Linearised, Steps
from parsample.engine.methods.base import (
    Prepared,
    PreparedMethod,
    check_gate,
    check_probes,
    draw_signs,
    evaluate_all,
)
from parsample.engine.methods.surrogate import Surrogate
from parsample.engine.parts import scaled
from parsample.engine.transition import FlatTransition

SOURCES = ("trace", "surrogate")


@takes_former(stand_in="surrogate")
class ScaledIdentity(PreparedMethod):
    """A[t] = a[t] I: one number a step, between Jacobi (0) and Picard (1). For states of image size.

    Args:
        scale: where a comes from, dimensionless. "trace": tr(J) / D at every step, estimated by random signs v as
            v . J v / D, one JVP a probe. "surrogate": the same of a surrogate's matrices, without derivatives of the
            transition. A number in [-1, 1]; an array of them, one a step of the chain; or a function from the number
            of a step (0 is the first) to one, a schedule. For states of several like parts (a sample and its last
            prediction) an array of shape (steps, parts, parts), a number for each pair, of any size: use it with
            `Conditioning(projection=False)`, because such a product can contract where no factor does.
        num_probes: of "trace". One is enough: a sum over many coordinates averages by itself.
        gate: how the derivative treats accept/reject.
        surrogate: for "surrogate", that transition; None as in `Surrogate`.

    Raises:
        ValueError: a scale outside [-1, 1], where the iteration would amplify its own errors, or of another kind; at
            the first use, an array of another length than the chain.

    Source: Gonzalez et al. 2025, "A unifying framework for parallelizing sequential models with linear dynamical
    systems"; the trace and the surrogate as sources are ours.
    """

    scale: Any = "trace"
    num_probes: int = eqx.field(static=True, default=1)
    gate: str = eqx.field(static=True, default="frozen")
    surrogate: Callable | None = None

    def __check_init__(self):
        """Check the options."""
        check_gate(self.gate)
        check_probes(self.num_probes)
        scale = self.scale
        if isinstance(scale, str):
            if scale not in SOURCES:
                raise ValueError(
                    f"scale is {scale!r}, expected one of {', '.join(map(repr, SOURCES))}, a number in [-1, 1], "
                    "an array of them, or a function of the step."
                )
        elif isinstance(scale, jax.Array | np.ndarray) and not isinstance(scale, jax.core.Tracer):
            square = scale.ndim == 3 and scale.shape[1] == scale.shape[2] and bool(np.isfinite(scale).all())
            if not square and (scale.ndim > 1 or not bool(np.all(np.abs(scale) <= 1))):
                raise ValueError(
                    f"scale is an array of shape {scale.shape} with values from {np.min(scale):.3g} to "
                    f"{np.max(scale):.3g}, expected one number in [-1, 1] for each step."
                )
        elif not callable(scale) and not isinstance(scale, jax.core.Tracer) and not -1 <= scale <= 1:
            raise ValueError(f"scale is {scale}, expected a number in [-1, 1]; 1 is Picard and 0 is Jacobi.")

    @property
    def needs_derivative(self) -> bool:
        """Whether the transition is differentiated: not where the scale is given."""
        return isinstance(self.scale, str)

    def tangents(self, dim: int) -> int:
        """Return one for each probe, unless the scale is given."""
        return self.num_probes if self.needs_derivative else 0

    def prepare(self, transition: FlatTransition, initial_state: Float[Array, " dim"], inputs: PyTree) -> Prepared:
        """Return the scale of every step, unless it is estimated anew in every iteration."""
        steps, dtype = jax.tree.leaves(inputs)[0].shape[0], initial_state.dtype
        if isinstance(self.scale, str):
            if self.scale == "trace":
                return Prepared()
            known = Surrogate(self.surrogate).prepare(transition, initial_state, inputs)
            return Prepared(known.per_step.entries.mean(1), known.guess)
        scale = jax.vmap(self.scale)(jnp.arange(steps)) if callable(self.scale) else jnp.asarray(self.scale)
        if scale.ndim == 3 and scale.shape[0] == steps:
            if initial_state.size % scale.shape[1]:
                raise ValueError(
                    f"scale has shape {scale.shape}, for states of {scale.shape[1]} like parts, but the state has "
                    f"{initial_state.size} numbers, expected a multiple of {scale.shape[1]}."
                )
            return Prepared(scale.astype(dtype))
        if scale.shape not in ((), (steps,)):
            raise ValueError(f"scale has shape {scale.shape}, expected ({steps},): one number for each step.")
        return Prepared(jnp.broadcast_to(scale.astype(dtype), (steps,)))

    def linearise(self, transition: FlatTransition, steps: Steps) -> Linearised:
        """Return the values and the scaled identities."""
        if steps.prepared is not None:
            values, details = evaluate_all(transition, steps)
            return Linearised(values, scaled(steps.prepared), details)
        gated = transition.with_gate(self.gate)
        probes = draw_signs(steps.rng_key, (self.num_probes, *steps.previous.shape), steps.previous.dtype)

        def step(state, input, probes):
            def estimate(probe):
                value, image, details = jax.jvp(
                    lambda state: gated.with_details(state, input), (state,), (probe,), has_aux=True
                )
                return value, jnp.vdot(probe, image) / probe.size, details

            value, traces, details = jax.vmap(estimate, out_axes=(None, 0, None))(probes)
            return value, traces.mean(), details

        values, scale, details = jax.vmap(step, in_axes=(0, 0, 1))(steps.previous, steps.inputs, probes)
        return Linearised(values, matrices.ScaledIdentity(scale), details)
