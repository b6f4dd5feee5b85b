"""Block quasi-Newton iteration: A couples each position with its momentum."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from parsample.engine.iteration import Linearised, Steps
from parsample.engine.matrices import Block, to_halves
from parsample.engine.methods.base import LinearMethod, check_gate, check_probes, draw_signs
from parsample.engine.transition import FlatTransition

ESTIMATORS = ("hutchinson", "exact")


class BlockQuasiNewton(LinearMethod):
    """A[t] = the 2 x 2 blocks of diagonals of J[t]. For states that are a pair (position, momentum).

    The halves are those of the flat state, in the order of JAX's pytrees: the tuple (position, momentum) is in order.
    For other states it is a quasi-Newton method that also sees how coordinate i couples with coordinate i + dim / 2.

    Args:
        estimator: "hutchinson": one JVP a block column (two a step) and probe, exact where the blocks are all there is
            of J. "exact": dim JVPs.
        num_probes: of the hutchinson estimator.
        gate: how the derivative treats accept/reject.

    Raises:
        ValueError: an unknown estimator or gate, or num_probes below 1.

    Source: Zoltowski et al. 2025, section 4 (block quasi-DEER for leapfrog).
    """

    estimator: str = eqx.field(static=True, default="hutchinson")
    num_probes: int = eqx.field(static=True, default=1)
    gate: str = eqx.field(static=True, default="frozen")

    def __check_init__(self):
        """Check the options."""
        check_gate(self.gate)
        check_probes(self.num_probes)
        if self.estimator not in ESTIMATORS:
            raise ValueError(f"estimator is {self.estimator!r}, expected one of {', '.join(map(repr, ESTIMATORS))}.")

    def tangents(self, dim: int) -> int:
        """Return two for each probe, one a block column, or one for each coordinate."""
        return dim if self.estimator == "exact" else 2 * self.num_probes

    def linearise(self, transition: FlatTransition, steps: Steps) -> Linearised:
        """Return the values and the blocks."""
        gated, dtype = transition.with_gate(self.gate), steps.previous.dtype
        count, dim = steps.previous.shape
        half = -(-dim // 2)
        if self.estimator == "exact":
            probes = jnp.broadcast_to(jnp.eye(half, dtype=dtype)[:, None], (half, count, half))
        else:
            probes = draw_signs(steps.rng_key, (self.num_probes, count, half), dtype)

        def step(state: Array, input: PyTree, probes: Array) -> tuple[Array, Array, PyTree]:
            value, pushforward, details = gated.linearise(state, input)

            def estimate(probe: Array) -> Array:
                below = jnp.zeros_like(probe)
                columns = jnp.stack([jnp.concatenate([probe, below]), jnp.concatenate([below, probe])])[:, :dim]
                # images[j, i] is the half i of J applied to the probe in the half j.
                images = to_halves(jax.vmap(pushforward)(columns))
                return jnp.swapaxes(images, 0, 1) * probe

            blocks = jax.vmap(estimate)(probes)
            return value, blocks.sum(0) if self.estimator == "exact" else blocks.mean(0), details

        values, entries, details = jax.vmap(step, in_axes=(0, 0, 1))(steps.previous, steps.inputs, probes)
        return Linearised(values, Block(entries), details)
