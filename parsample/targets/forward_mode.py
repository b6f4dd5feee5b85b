"""Gradients in forward mode, for log densities that reverse mode cannot differentiate."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def forward_mode(logdensity_fn: Callable[[PyTree], Float[Array, ""]]) -> Callable[[PyTree], Float[Array, ""]]:
    """Return the same log density, its gradient taken in forward mode.

    A loop without a known end (`jax.lax.while_loop`) has no reverse derivative. The function that is returned can be
    given to `jax.grad` and `jax.jvp`, and to either again.

    Args:
        logdensity_fn: position, any pytree -> log density.

    Cost: a gradient takes as many forward derivatives as the position has numbers, all at once.
    """

    @jax.custom_jvp
    def density(position: PyTree) -> Float[Array, ""]:
        return logdensity_fn(position)

    @density.defjvp
    def rule(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
        (position,), (tangent,) = primals, tangents
        # Linear in the tangent, and so all that reverse mode has to turn round.
        terms = jax.tree.map(jnp.vdot, jax.jacfwd(logdensity_fn)(position), tangent)
        return logdensity_fn(position), jnp.sum(jnp.stack(jax.tree.leaves(terms)))

    return density
