"""The rounding noise of a sampler's steps, and the tolerance that follows from it.

What rounding does not determine no iteration can settle: with a tolerance below the noise of a step, an evaluation goes
on until it has passed step after step, to draws that are no nearer to the loop's.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from parsample.samplers.base import Sampler
from parsample.samplers.chains import Plan, draw, is_loop

# A smaller tolerance makes no difference to anybody's draws; a larger one begins to. In posterior standard deviations.
LEAST, MOST = 1e-6, 1e-3
# The tolerance in units of the noise: a correction adds up that of several steps, and the largest number of a window
# decides. What it saves: benchmarks/results/tolerance.md.
MULTIPLE = 4.0
# Steps that are looked at, over all chains; and the share of them that has no more noise than what counts. Where an
# accept decision turns within a step's points, their differences say nothing of rounding.
STEPS, SHARE = 64, 0.9
# Values on a line at every step, and the order of their differences: high enough for what is smooth to cancel.
POINTS, ORDER = 8, 4


def with_tolerance(
    plan: Plan, sampler: Sampler, states: PyTree, positions: Float[Array, "chain dim"], rng_keys: Array
) -> Plan:
    """Return the plan with the tolerances that it leaves open, which follow the rounding noise of the sampler's steps.

    They are `MULTIPLE` times the noise, but at least `LEAST` and at most `MOST`. The loop needs none: for it nothing is
    measured.

    Args:
        plan: how chains are evaluated; `atol` or `rtol` is None where it is left open.
        sampler: in coordinates where the posterior has about unit scale.
        states: the unknowns where the chains stand, leading axis `chain`.
        positions: of the chains, for their size and dtype.
        rng_keys: one a chain.

    Cost: 8 evaluations of each of 64 steps, and a program to compile.
    """
    if plan.atol is not None and plan.rtol is not None:
        return plan
    noise = 0.0
    floating = all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(states))
    if floating and not is_loop(plan):
        inputs = draw(sampler, rng_keys, positions, 0, -(-STEPS // len(positions)))
        noise = _two_digits(float(rounding_noise(sampler.transition, states, inputs)))
    least = least_tolerance(positions.dtype)
    # Noise that is no number is above all: it is not met by any tolerance.
    tolerance = max(least, min(MOST, _two_digits(MULTIPLE * noise))) if math.isfinite(noise) else least
    return plan._replace(
        atol=tolerance if plan.atol is None else plan.atol,
        rtol=tolerance if plan.rtol is None else plan.rtol,
        noise=noise,
    )


def least_tolerance(dtype: jnp.dtype) -> float:
    """Return the tolerance where no noise is known, in posterior standard deviations."""
    return max(LEAST, float(jnp.finfo(dtype).eps))


@eqx.filter_jit
def rounding_noise(transition: Callable, states: PyTree, inputs: PyTree) -> Float[Array, ""]:
    """Measure the rounding noise of a chain's steps: the standard deviation that rounding gives to their values.

    1. At every step of chains that go on by the loop, values are taken at points on a line, less than a hundredth of a
       standard deviation apart, yet far enough for every one of them to be rounded otherwise.
    2. Differences of the fourth order cancel what is smooth. Of independent errors with standard deviation s they leave
       s sqrt(8! / 4!^2).
    3. The noise of a step is that of its noisiest number; what is returned is a high quantile of the steps'.

    Args:
        transition: from state to state, in coordinates of about unit scale.
        states: where the chains begin, floating point, leading axis `chain`.
        inputs: leading axes (chain, steps).

    Returns:
        In the units of the states.

    Source: Moré & Wild 2011, "Estimating computational noise".
    """
    scale = math.sqrt(math.comb(2 * ORDER, ORDER))

    def chain(state: PyTree, inputs: PyTree) -> Float[Array, " steps"]:
        vector, unravel = ravel_pytree(state)
        spacing = math.sqrt(jnp.finfo(vector.dtype).eps)
        value = lambda point, input: ravel_pytree(transition(unravel(point), input))[0]  # noqa: E731

        def step(vector: Array, row: tuple[Array, PyTree]) -> tuple[Array, Array]:
            number, input = row
            line = spacing * jax.random.rademacher(jax.random.key(number), vector.shape, vector.dtype)
            points = vector + jnp.arange(POINTS, dtype=vector.dtype)[:, None] * line
            values = jax.vmap(value, in_axes=(0, None))(points, input)
            differences = jnp.diff(values, ORDER, axis=0) / scale
            # The first point is that of the chain.
            return values[0], jnp.sqrt(jnp.mean(differences**2, 0).max())

        numbers = jnp.arange(jax.tree.leaves(inputs)[0].shape[0])
        return jax.lax.scan(step, vector, (numbers, inputs))[1]

    # What is not finite is sorted to the end.
    found = jnp.sort(jax.vmap(chain)(states, inputs), axis=None)
    return found[round(SHARE * (found.size - 1))]


def _two_digits(number: float) -> float:
    """Round a number, which other processors and versions find in a few of its digits only."""
    return float(f"{number:.1e}")
