"""A time series whose variance follows its own past."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from parsample.engine.arrays import to_jax
from parsample.targets import checks, json_data
from parsample.targets.base import Position, Target

POSTERIOR = "garch-garch11"


class GARCH(Target):
    """A time series whose variance follows its own past: GARCH(1, 1), posteriordb's garch11; needs its file as `data`.

    y_t ~ N(mu, sigma_t^2) with sigma_t^2 = alpha0 + alpha1 (y_(t-1) - mu)^2 + beta1 sigma_(t-1)^2 and sigma_1 given.
    The prior is flat on mu, alpha0 > 0, 0 < alpha1 < 1 and 0 < beta1 < 1 - alpha1. Unconstrained are mu, log_alpha0,
    logit_alpha1 and logit_beta1, the last of beta1 / (1 - alpha1); in the trace are `mu`, `alpha0`, `alpha1`, `beta1`.

    Attributes:
        observed: y, in its units.
        first_variance: sigma_1^2, above 0.

    Source: Bollerslev 1986; posteriordb's garch-garch11.
    """

    name: ClassVar[str] = "garch"
    observed: Float[Array, "times"]
    first_variance: Float[Array, ""]

    def __init__(self, data: Any = None) -> None:
        """Read the data.

        Args:
            data: a mapping or the path of a JSON file, with the series y and sigma1, the first standard deviation, and
                perhaps T.

        Raises:
            ValueError: no data are given, they cannot be read, an entry is missing or not finite, the length is not T,
                or sigma1 is not above 0.
        """
        entries = json_data.read(data, POSTERIOR, "y", "sigma1")
        series, sigma1 = json_data.real(entries, "y", "times"), json_data.positive(entries, "sigma1")
        json_data.check_size(entries, "T", "y", series.size)
        dtype = checks.float_dtype(entries["y"])
        self.observed, self.first_variance = to_jax(series, dtype), to_jax(sigma1**2, dtype)

    def logdensity(self, position: Position) -> Float[Array, ""]:
        """Return the log density at the four scalars. Cost: O(times)."""
        self.check_position(position)
        mu, log_alpha0 = position["mu"], position["log_alpha0"]
        logit_alpha1, logit_beta1 = position["logit_alpha1"], position["logit_beta1"]
        # The sigmoid of minus the logit is 1 - alpha1 without cancellation.
        log_alpha1, log_rest = jax.nn.log_sigmoid(logit_alpha1), jax.nn.log_sigmoid(-logit_alpha1)
        log_share = jax.nn.log_sigmoid(logit_beta1)
        log_jacobian = log_alpha0 + log_alpha1 + 2 * log_rest + log_share + jax.nn.log_sigmoid(-logit_beta1)

        squares = (self.observed.astype(mu.dtype) - mu) ** 2
        offsets = jnp.exp(log_alpha0) + jnp.exp(log_alpha1) * squares[:-1]
        offsets = jnp.concatenate([self.first_variance.astype(mu.dtype)[None], offsets])
        variances = decaying_sums(jnp.exp(log_rest + log_share), offsets)
        terms = squares / variances + jnp.log(variances)
        return log_jacobian - 0.5 * (jnp.sum(terms) + squares.size * math.log(2 * math.pi))

    def constrain(self, position: Position) -> dict[str, Array]:
        """Return mu, alpha0, alpha1 and beta1."""
        return {
            "mu": position["mu"],
            "alpha0": jnp.exp(position["log_alpha0"]),
            "alpha1": jax.nn.sigmoid(position["logit_alpha1"]),
            "beta1": jax.nn.sigmoid(-position["logit_alpha1"]) * jax.nn.sigmoid(position["logit_beta1"]),
        }

    def unconstrain(self, values: Mapping[str, Array], rng_key: Key[Array, ""]) -> Position:
        """Return a position with given values; beta1 is a share of what alpha1 leaves of 1."""
        position = super().unconstrain(values, rng_key)
        if "beta1" in values:
            share = values["beta1"] / jax.nn.sigmoid(-position["logit_alpha1"])
            position["logit_beta1"] = jax.scipy.special.logit(share)
        return position

    def position_template(self) -> Position:
        """Return zeros: mu, log_alpha0, logit_alpha1 and logit_beta1, scalars."""
        zero = jnp.zeros_like(self.first_variance)
        return {"mu": zero, "log_alpha0": zero, "logit_alpha1": zero, "logit_beta1": zero}


def decaying_sums(factor: Float[Array, ""], offsets: Float[Array, "times"]) -> Float[Array, "times"]:
    """Solve h[t] = b h[t-1] + w[t] with h[-1] = 0, for one factor b between 0 and 1."""
    return jax.lax.platform_dependent(factor, offsets, cpu=by_loop, default=by_doubling)


def by_loop(factor: Float[Array, ""], offsets: Float[Array, "times"]) -> Float[Array, "times"]:
    """Solve it step after step, which is quickest on a CPU."""

    def step(state, offset):
        state = factor * state + offset
        return state, state

    # A gradient in a chain takes 1.8 us (200 times, one core, single precision), 3.5 without unrolling, 6.1 by doubling
    # and 5.5 by an associative scan.
    return jax.lax.scan(step, jnp.zeros_like(factor), offsets, unroll=8)[1]


def by_doubling(factor: Float[Array, ""], offsets: Float[Array, "times"]) -> Float[Array, "times"]:
    """Solve it in log2(times) passes over the whole series, which is what an accelerator wants.

    With the shift S by one step, h = (1 - b S)^-1 w, and (1 - b S)^-1 = (1 + b S) (1 + b^2 S^2) (1 + b^4 S^4) ...: the
    product of the first k factors is the sum of (b S)^j over j < 2^k, and S^j is 0 from the length of the series on.
    """
    sums, shift = offsets, 1
    while shift < offsets.size:
        sums = sums + factor * jnp.concatenate([jnp.zeros(shift, sums.dtype), sums[:-shift]])
        factor, shift = factor * factor, 2 * shift
    return sums
