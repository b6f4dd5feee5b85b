"""Metropolis: what a step that ends in accept/reject is given, how it decides, and what it reports."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from parsample.engine import options
from parsample.samplers.gate import choose
from parsample.samplers.noise import draw_uniforms, log_uniform, normal


class MetropolisState(NamedTuple):
    """A position and its log density, for samplers without a gradient."""

    position: PyTree
    logdensity: Float[Array, ""]


class MetropolisInput(NamedTuple):
    """What a step is given.

    Attributes:
        noise: standard normal, shape (dim,).
        log_uniform: the logarithm of a uniform number; a proposal is accepted if its log ratio is above it.
    """

    noise: Float[Array, " dim"]
    log_uniform: Float[Array, ""]


class MetropolisInfo(NamedTuple):
    """Diagnostics of a step.

    Attributes:
        acceptance_rate: the probability with which the proposal was to be accepted.
        is_accepted: whether it was.
    """

    acceptance_rate: Float[Array, ""]
    is_accepted: Bool[Array, ""]


def draw_inputs(rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype) -> MetropolisInput:
    """Draw the noise and the uniform numbers of `num_steps` steps."""
    noise, uniform = draw_uniforms(rng_key, dtype, (num_steps, dim), (num_steps,))
    return MetropolisInput(normal(noise), log_uniform(uniform))


def draw_jittered(
    rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype, has_jitter: bool
) -> tuple[MetropolisInput, Float[Array, " steps"] | None]:
    """Draw the same, and uniform numbers on (-1, 1) where the step size is jittered."""
    if not has_jitter:
        return draw_inputs(rng_key, num_steps, dim, dtype), None
    noise, uniform, jitter = draw_uniforms(rng_key, dtype, (num_steps, dim), (num_steps,), (num_steps,))
    return MetropolisInput(normal(noise), log_uniform(uniform)), jitter


def check_jitter(step_size_jitter: Any) -> float:
    """Return the share of the step size by which it is jittered; raise ValueError unless it is a number in [0, 1)."""
    if not (options.is_number(step_size_jitter) and 0 <= step_size_jitter < 1):
        raise ValueError(f"step_size_jitter is {step_size_jitter!r}, expected a number in [0, 1); 0 is none.")
    return float(step_size_jitter)


def decide(
    gate: str, log_uniform: Float[Array, ""], log_ratio: Float[Array, ""], proposal: Any, state: Any
) -> tuple[Any, MetropolisInfo]:
    """Accept a proposal if its log ratio is above the log uniform number.

    Args:
        gate: see `choose`.
        log_uniform: fixed in advance.
        log_ratio: of the proposal. A proposal whose `logdensity` is not finite, or whose ratio is NaN, has no chance.
        proposal: a sampler's state, with `logdensity`.
        state: the one to stay in.

    Returns:
        The next state, and the diagnostics of the step.
    """
    # The ratio is constant where there is no chance, so that no NaN gets into the derivative of a relaxed gate. A
    # comparison with NaN is False.
    has_chance = jnp.isfinite(proposal.logdensity) & (log_ratio > -jnp.inf)
    log_ratio = jnp.where(has_chance, log_ratio, -jnp.inf)
    is_accepted = log_uniform < log_ratio
    state = choose(gate, is_accepted, log_ratio - log_uniform, proposal, state)
    return state, MetropolisInfo(jnp.exp(jnp.minimum(log_ratio, 0)), is_accepted)
