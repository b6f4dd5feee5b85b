"""How predictable a recursion is: its Lyapunov exponents, and what they say about solving it in parallel."""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from parsample.engine.options import check_floating, check_seed, whole
from parsample.engine.transition import FlatTransition, as_transition, flatten


class Lyapunov(NamedTuple):
    """Lyapunov exponents of a recursion along its own trajectory: natural logarithms per step, dimensionless.

    Attributes:
        exponent: the largest one. Below 0 the recursion forgets where it started and an iteration can solve many steps
            at once; above 0 it is chaotic.
        standard_error: of `exponent`, by batch means. NaN where there are fewer than four steps to average over, or
            where the exponent is infinite.
        spectrum: shape (directions,), the first `num_directions` exponents; `exponent` is its first entry.
        growth: shape (steps, directions), the logarithmic growth in every step, burn-in included.
    """

    exponent: Float[Array, ""]
    standard_error: Float[Array, ""]
    spectrum: Float[Array, " directions"]
    growth: Float[Array, "steps directions"]


def lyapunov_exponent(
    transition: Callable[[PyTree, PyTree], PyTree],
    initial_state: PyTree,
    inputs: PyTree,
    *,
    num_directions: int = 1,
    burn_in: int | None = None,
    gate: str = "frozen",
    seed: int = 0,
) -> Lyapunov:
    """Measure the largest Lyapunov exponent of x[t] = f(x[t-1], u[t]), or the first few.

    A random orthonormal set of directions is carried along the sequential loop by one Jacobian-vector product each
    and made orthonormal again after every step; the exponents are the mean logarithms of the factors taken out. The
    directions need some steps to turn towards those that grow most, so the first `burn_in` steps are not averaged.

    Works under `jit`, and under `vmap` over chains: `jax.vmap(lambda x, u: lyapunov_exponent(f, x, u).exponent)`.

    Args:
        transition: pure, `transition(state, input) -> state`.
        initial_state: step 0, any pytree of floating-point arrays of one dtype.
        inputs: any pytree of arrays with leading axis `steps`.
        num_directions: how many exponents, from the largest down; at most the dimension of the state.
        burn_in: steps left out of the means while the directions align; None for a tenth of the steps. 0 measures the
            growth of a random direction over the whole trajectory.
        gate: how the derivative treats accept/reject.
        seed: of the initial directions.

    Returns:
        A `Lyapunov`. A direction that is mapped to exactly zero has the exponent -inf; NaN states or derivatives give
        NaN. A step that is rejected has the identity for Jacobian and growth 0.

    Raises:
        ValueError: an argument is not what it should be; the sentence says which and how to mend it.

    Cost: one transition and `num_directions` JVPs a step, in sequence, and for several directions a QR decomposition
        of shape (dim, num_directions). Memory O(dim num_directions) beside the result. The standard error takes into
        account the correlation of growths up to the square root of the number of steps, not beyond.

    Source: Benettin et al. 1980, "Lyapunov characteristic exponents for smooth dynamical systems", parts 1 and 2. Its
    meaning for parallel evaluation: Gonzalez et al. 2025, "Predictability enables parallelization of nonlinear state
    space models".
    """
    check_floating(initial_state, "lyapunov_exponent")
    flat, initial, steps = flatten(as_transition(transition), initial_state, inputs)
    count = whole("num_directions", num_directions, "1 measures the largest exponent")
    if count > initial.size:
        raise ValueError(
            f"num_directions is {count}, but the state holds {initial.size} numbers; expected at most that many."
        )
    skipped = steps // 10 if burn_in is None else burn_in
    if isinstance(skipped, bool) or not hasattr(skipped, "__index__") or not 0 <= skipped.__index__() < steps:
        raise ValueError(
            f"burn_in is {burn_in!r}, expected a whole number from 0 to {steps - 1}, which leaves a step to average; "
            "None takes a tenth of the steps."
        )
    directions = jax.random.normal(jax.random.key(check_seed(seed)), (count, initial.size), initial.dtype)
    with jax.default_matmul_precision("highest"):
        growth = _grow(flat.with_gate(gate), initial, jax.tree.map(jnp.asarray, inputs), directions)
    counted = growth[skipped.__index__() :]
    spectrum = counted.mean(0)
    return Lyapunov(spectrum[0], _standard_error(counted[:, 0]), spectrum, growth)


@eqx.filter_jit
def _grow(
    transition: FlatTransition,
    initial: Float[Array, " dim"],
    inputs: PyTree,
    directions: Float[Array, "directions dim"],
) -> Float[Array, "steps directions"]:
    def step(carry, input):
        state, directions = carry

        def push(direction):
            return jax.jvp(lambda state: transition(state, input), (state,), (direction,))

        # The value does not depend on the direction, so it comes out of the vmap unbatched: it is computed once.
        value, images = jax.vmap(push, out_axes=(None, 0))(directions)
        directions, growth = _orthonormalise(images)
        return (value, directions), growth

    return jax.lax.scan(step, (initial, _orthonormalise(directions)[0]), inputs)[1]


def _orthonormalise(
    images: Float[Array, "directions dim"],
) -> tuple[Float[Array, "directions dim"], Float[Array, " directions"]]:
    """Return orthonormal directions, and the logarithms of the lengths that were taken out."""
    if images.shape[0] > 1:
        orthonormal, triangle = jnp.linalg.qr(images.T)
        return orthonormal.T, jnp.log(jnp.abs(jnp.diagonal(triangle)))
    # Scaled first, so that the squares of very large or small entries are in range. A zero stays zero: growth -inf.
    scale = jnp.abs(images).max()
    scaled = images / jnp.where(scale == 0, 1, scale)
    length = jnp.linalg.norm(scaled)
    return scaled / jnp.where(length == 0, 1, length), (jnp.log(length) + jnp.log(scale))[None]


def _standard_error(growth: Float[Array, " steps"]) -> Float[Array, ""]:
    """Return the standard error of the mean of a correlated series, from batches of about sqrt(steps) steps."""
    size = math.isqrt(growth.size)
    count = growth.size // size
    if count < 2:
        return jnp.full((), jnp.nan, growth.dtype)
    means = growth[growth.size - count * size :].reshape(count, size).mean(1)
    return means.std(ddof=1) / math.sqrt(count)


def conditioning_bounds(
    exponent: float, steps: int, *, transient: float = 1.0, least: float = 1.0
) -> tuple[float, float]:
    """Bound the conditioning of the system of all steps by its Lyapunov exponent.

    The residuals x[t] - f(x[t-1], u[t]) have a block-bidiagonal Jacobian L in the trajectory: identities on the
    diagonal and -J[t] below. Its smallest singular value is the square root of the Polyak-Lojasiewicz constant of the
    merit: near 1, a step of Newton or gradient descent goes far; exponentially small, it does not.

    1. The blocks of the inverse of L are the products P(t, s) = J[t] ... J[s+1], with P(s, s) = I.
    2. If |P(t, s)| <= a e^(lambda (t - s)), the blocks k below the diagonal have together at most the norm
       a e^(lambda k), so |L^-1| <= a (1 + e^lambda + ... + e^(lambda (T - 1))).
    3. If |P(T, 1)| >= b e^(lambda (T - 1)), that block alone gives |L^-1| at least that norm, and the diagonal 1.

    Args:
        exponent: lambda, natural logarithm per step.
        steps: T.
        transient: a, at least 1.
        least: b, above 0.

    Returns:
        A lower and an upper bound of the smallest singular value, dimensionless; 0 where it is below the smallest
        number in double precision.

    Raises:
        ValueError: an argument is out of its range.

    Source: Gonzalez et al. 2025, "Predictability enables parallelization of nonlinear state space models", theorem 2.
    """
    steps = whole("steps", steps, "it is the length of the chain")
    if math.isnan(exponent) or exponent == math.inf:
        raise ValueError(f"exponent is {exponent}, expected a number, or -inf; a chain that blows up has no bound.")
    if not transient >= 1:
        raise ValueError(f"transient is {transient}, expected at least 1: the product of no Jacobians is the identity.")
    if not least > 0:
        raise ValueError(f"least is {least}, expected a number above 0.")
    lower = math.exp(-math.log(transient) - _log_geometric_sum(exponent, steps))
    last = exponent * (steps - 1) if steps > 1 else 0.0
    return lower, math.exp(min(0.0, -math.log(least) - last))


def _log_geometric_sum(exponent: float, steps: int) -> float:
    """Return log(1 + e^x + ... + e^(x (steps - 1))) without overflow."""
    if exponent == 0:
        return math.log(steps)
    # Summed from its largest term, which is the first or the last.
    decay, largest = -abs(exponent), max(0.0, exponent) * (steps - 1)
    return largest + math.log(math.expm1(decay * steps) / math.expm1(decay))
