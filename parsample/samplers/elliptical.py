"""Elliptical slice sampling with all angles drawn in advance."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from parsample.samplers.base import Chain
from parsample.samplers.metropolis import MetropolisState
from parsample.samplers.noise import draw_uniforms, log_uniform, normal
from parsample.samplers.reference import Reference, log_gain


class EllipticalInput(NamedTuple):
    """What a step is given.

    Attributes:
        noise: standard normal, shape (dim,): with the position it spans the ellipse.
        log_uniform: the logarithm of a uniform number: how far below the position the slice lies.
        angles: to be tried in turn, shape (num_brackets,), each in the bracket that the ones before it left, radians.
    """

    noise: Float[Array, " dim"]
    log_uniform: Float[Array, ""]
    angles: Float[Array, " brackets"]


class EllipticalInfo(NamedTuple):
    """Diagnostics of a step.

    Attributes:
        acceptance_rate: 1 where an angle was accepted, otherwise 0.
        is_accepted: whether one was.
        angle: the accepted one in radians, 0 where there is none.
        num_proposals: how many angles were tried.
    """

    acceptance_rate: Float[Array, ""]
    is_accepted: Bool[Array, ""]
    angle: Float[Array, ""]
    num_proposals: Int[Array, ""]


class EllipticalSlice(Chain):
    """Elliptical slice sampling: a step along an ellipse through the position, with no step size. No gradient.

    With the reference N(mean, L L^T), the points mean + cos(a) (x - mean) + sin(a) L noise form an ellipse through x at
    the angle a = 0. The slice is where the ratio of target to reference is above a uniform share of its value at x.
    Angles are tried one after the other: the first is uniform on the circle, and each that misses the slice cuts the
    bracket, which always contains 0, on its side. After `num_brackets` misses the chain stays where it is.

    Where a bracket ends does not depend on the density but on the angles before it, so all of them are drawn in
    advance: a step takes the first angle that hits the slice.

    The target is invariant for any `num_brackets`. Say that x moves to x' with the k-th angle. Start from x' instead,
    with the noise that spans the same ellipse: the points that were missed lie on the same side of x' as of x, or they
    would have cut one of the two off. So they are tried there with the same density, leave the same brackets and miss
    the same slice, and the k-th point may be x. Hence x' moves to x with its k-th angle as often as x to x' with its,
    for each k by itself: trying k in vain and staying, for any limit on k, keeps detailed balance.

    In parallel: with the frozen gate, the only one there is, the Jacobian of a step is cos(a) I.

    Args:
        logdensity_fn: position -> log density of the target, up to a constant; a prior that is the reference included.
        mean: of the reference: None (0), a number or (dim,), in the order of the ravelled position.
        covariance: of the reference: None (identity), (dim,) or (dim, dim).
        num_brackets: angles of a step, at least 1. Most steps need two or three, ones with a narrow slice more.

    Raises:
        ValueError: the mean is not finite, the covariance not positive definite, or num_brackets below 1.

    Cost: a sequential step evaluates one log density for each angle that is tried; a parallel evaluation, in which
        steps go together, `num_brackets` and one more: all angles at once where it asks for the diagonal of the
        Jacobian, as quasi-Newton does, and one after the other elsewhere.

    Source: Murray, Adams & MacKay 2010, figure 2. The fixed number of angles, drawn in advance, is ours.
    """

    logdensity_fn: Callable
    reference: Reference
    num_brackets: int = eqx.field(static=True)

    def __init__(self, logdensity_fn: Callable, mean: Any = None, covariance: Any = None, num_brackets: int = 12):
        """Check the arguments and factor the covariance."""
        if isinstance(num_brackets, bool) or not isinstance(num_brackets, int) or num_brackets < 1:
            raise ValueError(f"num_brackets is {num_brackets!r}, expected a whole number of at least 1, such as 12.")
        self.logdensity_fn, self.reference = logdensity_fn, Reference.of(mean, covariance)
        self.num_brackets = num_brackets

    def init(self, position: PyTree, rng_key: Key[Array, ""] | None = None) -> MetropolisState:
        """Return the state at a position, with its log density."""
        return MetropolisState(position, self.logdensity_fn(position))

    def unknowns(self, state: MetropolisState) -> PyTree:
        """Return the position."""
        return state.position

    def resume(self, unknowns: PyTree) -> MetropolisState:
        """Return the state at a position."""
        return self.init(unknowns)

    def draw_block(self, rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype) -> EllipticalInput:
        """Draw the noise, the uniform numbers and the angles of `num_steps` steps."""
        shapes = (num_steps, dim), (num_steps,), (self.num_brackets, num_steps)
        noise, uniform, angles = draw_uniforms(rng_key, dtype, *shapes)
        return EllipticalInput(normal(noise), log_uniform(uniform), shrink((1 + angles) / 2).T)

    def step(
        self, state: MetropolisState, input: EllipticalInput, gate: str = "frozen"
    ) -> tuple[MetropolisState, EllipticalInfo]:
        """Try the angles until one hits the slice."""
        if gate != "frozen":
            raise ValueError(
                f"gate is {gate!r}, but a choice between angles has no relaxation here; expected 'frozen'."
            )
        attempt = self._attempt(state, input)

        def go_on(carry: tuple, angle: Array) -> tuple[tuple, None]:
            def again() -> tuple:
                hit, found = attempt(angle)
                kept = jax.tree.map(lambda new, old: jnp.where(hit, new, old), found, state)
                return hit, kept, jnp.where(hit, angle, 0), carry[3] + 1

            return jax.lax.cond(carry[0], lambda: carry, again), None

        start = (jnp.asarray(False), state, jnp.zeros_like(input.angles[0]), jnp.asarray(0))
        (is_accepted, state, angle, tried), _ = jax.lax.scan(go_on, start, input.angles)
        return state, EllipticalInfo(is_accepted.astype(angle.dtype), is_accepted, angle, tried)

    def with_diagonal(self, unknowns: PyTree, input: EllipticalInput) -> tuple[tuple[Any, Any], PyTree]:
        """Return the step and the diagonal of the Jacobian, the cosine of the angle.

        All angles are tried at once: steps that are evaluated together would wait for the last one of any of them.
        """
        state = self.init(unknowns)
        hits, found = jax.vmap(self._attempt(state, input))(input.angles)
        is_accepted, first = hits.any(), jnp.argmax(hits)
        state = jax.tree.map(lambda new, old: jnp.where(is_accepted, new[first], old), found, state)
        angle = jnp.where(is_accepted, input.angles[first], 0)
        tried = jnp.where(is_accepted, first + 1, self.num_brackets)
        vector, unravel = ravel_pytree(unknowns)
        info = EllipticalInfo(is_accepted.astype(angle.dtype), is_accepted, angle, tried)
        return (state, info), unravel(jnp.full_like(vector, jnp.cos(angle)))

    def _attempt(
        self, state: MetropolisState, input: EllipticalInput
    ) -> Callable[[Array], tuple[Bool[Array, ""], MetropolisState]]:
        """Return a function of an angle: whether it hits the slice, and the state there."""
        vector, unravel = ravel_pytree(state.position)
        whitened = self.reference.whiten(vector)

        def attempt(angle: Array) -> tuple[Bool[Array, ""], MetropolisState]:
            # cos(a) - 1 = -2 sin(a / 2)^2, in which nothing cancels.
            change = -2 * jnp.sin(angle / 2) ** 2 * whitened + jnp.sin(angle) * input.noise
            found = self.init(unravel(self.reference.move(vector, change)))
            log_ratio = found.logdensity - state.logdensity + log_gain(whitened, change)
            return jnp.isfinite(found.logdensity) & (log_ratio > input.log_uniform), found

        return attempt

    def surrogate(self) -> "EllipticalSlice | None":
        """Return the same sampler on the log density's `surrogate`, if it has one."""
        density = getattr(self.logdensity_fn, "surrogate", None)
        return None if density is None else eqx.tree_at(lambda chain: chain.logdensity_fn, self, density)


def shrink(uniforms: Float[Array, "brackets *steps"]) -> Float[Array, "brackets *steps"]:
    """Turn uniform numbers into the angles that are tried if every one before missed, radians.

    The first is uniform on the circle, and the bracket runs from it once around to it; each angle then takes its place
    as the end of the bracket on its side of 0.
    """
    angle = 2 * math.pi * uniforms[0]
    lower, upper = angle - 2 * math.pi, angle
    angles = [angle]
    for uniform in uniforms[1:]:
        lower, upper = jnp.where(angle < 0, angle, lower), jnp.where(angle < 0, upper, angle)
        angle = lower + uniform * (upper - lower)
        angles.append(angle)
    return jnp.stack(angles)
