"""Quasi-Newton iteration: A = diag(J), exact, analytic or estimated."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from parsample.engine.iteration import Linearised, Steps
from parsample.engine.matrices import Diagonal
from parsample.engine.methods.base import LinearMethod, check_gate, check_probes, draw_signs
from parsample.engine.transition import FlatTransition

ESTIMATORS = ("auto", "analytic", "exact", "hutchinson")


class QuasiNewton(LinearMethod):
    """A[t] = diag(J[t]): nearly as few iterations as Newton where coordinates are weakly coupled, at O(dim) each.

    Args:
        estimator: where the diagonal comes from. "analytic": the transition gives it (a sampler on a target with
            `hessian_diagonal`). "exact": dim JVPs. "hutchinson": the mean of v * J v over random signs v, one JVP a
            probe. "auto": analytic where the transition gives it, otherwise hutchinson.
        num_probes: of the hutchinson estimator.
        gate: how the derivative treats accept/reject.

    Raises:
        ValueError: an unknown estimator or gate, or num_probes below 1; at the first use, estimator="analytic" with a
            transition that gives no diagonal.

    Source: Gonzalez et al. 2024 (quasi-DEER); Zoltowski et al. 2025, section 3, for the probes. Here the gate is
    frozen by default and the diagonal is projected to [-1, 1] by the driver.
    """

    estimator: str = eqx.field(static=True, default="auto")
    num_probes: int = eqx.field(static=True, default=1)
    gate: str = eqx.field(static=True, default="frozen")

    def __check_init__(self):
        """Check the options."""
        check_gate(self.gate)
        if self.estimator not in ESTIMATORS:
            raise ValueError(f"estimator is {self.estimator!r}, expected one of {', '.join(map(repr, ESTIMATORS))}.")
        check_probes(self.num_probes)

    def tangents(self, dim: int) -> int:
        """Return one for each probe, or for each coordinate; an analytic diagonal counts as one."""
        return dim if self.estimator == "exact" else self.num_probes

    def linearise(self, transition: FlatTransition, steps: Steps) -> Linearised:
        """Return the values and the diagonals."""
        if self.estimator in ("auto", "analytic"):
            # The analytic diagonal is that of the frozen gate, so "auto" passes it by for another gate.
            known = jax.vmap(transition.with_diagonal)(steps.previous, steps.inputs) if self.gate == "frozen" else None
            if known is not None:
                values, diagonals, details = known
                return Linearised(values, Diagonal(diagonals), details)
            if self.estimator == "analytic":
                raise ValueError(
                    "estimator is 'analytic', but the transition gives no diagonal of its Jacobian for "
                    f"gate={self.gate!r}; use estimator='hutchinson', or a target that has `hessian_diagonal`."
                )
        gated = transition.with_gate(self.gate)
        if self.estimator == "exact":
            values, diagonals, details = jax.vmap(lambda *step: _exact(gated, *step))(steps.previous, steps.inputs)
        else:
            probes = draw_signs(steps.rng_key, (self.num_probes, *steps.previous.shape), steps.previous.dtype)
            values, diagonals, details = jax.vmap(lambda *step: _hutchinson(gated, *step), in_axes=(0, 0, 1))(
                steps.previous, steps.inputs, probes
            )
        return Linearised(values, Diagonal(diagonals), details)


def _exact(transition: FlatTransition, state: Array, input: PyTree) -> tuple[Array, Array, PyTree]:
    value, pushforward, details = transition.linearise(state, input)
    basis = jnp.eye(state.size, dtype=state.dtype)
    return value, jax.vmap(lambda direction: jnp.vdot(direction, pushforward(direction)))(basis), details


def _hutchinson(transition: FlatTransition, state: Array, input: PyTree, probes: Array) -> tuple[Array, Array, PyTree]:
    def estimate(probe):
        value, image, details = jax.jvp(
            lambda state: transition.with_details(state, input), (state,), (probe,), has_aux=True
        )
        return value, probe * image, details

    # The value does not depend on the probe, so it comes out of the vmap unbatched: it is computed once.
    value, diagonals, details = jax.vmap(estimate, out_axes=(None, 0, None))(probes)
    return value, diagonals.mean(0), details
