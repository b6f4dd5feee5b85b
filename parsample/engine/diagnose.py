"""Before solving in parallel: how predictable is a chain, and how many iterations would each method need?"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from parsample.engine import matrices, options
from parsample.engine.columns import aligned
from parsample.engine.derivative import LARGEST_DENSE
from parsample.engine.evaluate import evaluate_sequential
from parsample.engine.predictability import conditioning_bounds, lyapunov_exponent
from parsample.engine.scan import solve_lds
from parsample.engine.transition import FlatTransition, as_transition, flatten
from parsample.engine.unit import unit

# Steps that are looked at unless the caller says otherwise.
PREFIX = 1024
# Passes of the power iteration for the smallest singular value. It converges from above.
PASSES = 40
# A method that needs more iterations than this share of the steps is not worth its trouble.
WORTHWHILE = 0.25


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What is foreseen for one method, all steps solved at once.

    Attributes:
        method: its name.
        mean_distance: |A - J|, the mean over the steps. Spectral norm up to 64 dimensions, Frobenius norm over
            sqrt(dim) above. Dimensionless.
        high_distance: its 90th percentile over the steps.
        linear_iterations: that the linearised chain would need, the one that verifies included.
        iterations: that the chain is foreseen to need, which is also K, the evaluations per step, when every
            iteration evaluates every step.
        moving: evaluations per step if only steps not yet within tolerance are evaluated again, and all once at the
            end.
        finished: whether the forecast got to the end; otherwise `iterations` and `moving` are lower bounds.
        cost: of an iteration per step, in evaluations of the transition, a JVP counted as one, a scan as none.
    """

    method: str
    mean_distance: float
    high_distance: float
    linear_iterations: int
    iterations: int
    moving: float
    finished: bool
    cost: float


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What the Jacobians along a chain say about solving it in parallel.

    Attributes:
        steps: of the chain that were looked at.
        dim: of the state.
        exponent: the largest Lyapunov exponent, natural logarithm per step.
        standard_error: of the exponent.
        transient: the largest growth of a perturbation over any stretch of steps beyond e^(exponent * steps), at
            least 1, along the direction that grows most.
        smallest_singular_value: of the residual Jacobian at the chain, by power iteration (from above); the square
            root of the Polyak-Lojasiewicz constant of the merit there. NaN where its inverse overflows.
        bounds: what `conditioning_bounds` makes of exponent and transient. The lower one is an estimate in more than
            one dimension, where other directions may grow more for a while; the upper one holds.
        scale: the constant a for which a I is nearest to the Jacobians.
        forecasts: one a method.
    """

    steps: int
    dim: int
    exponent: float
    standard_error: float
    transient: float
    smallest_singular_value: float
    bounds: tuple[float, float]
    scale: float
    forecasts: tuple[Forecast, ...]

    @property
    def method(self) -> str:
        """The method these numbers speak for: the least iterations * cost among those worthwhile, or "sequential"."""
        worthwhile = [row for row in self.forecasts if row.finished and row.iterations <= WORTHWHILE * self.steps]
        return min(worthwhile, key=lambda row: row.iterations * row.cost).method if worthwhile else "sequential"

    def rows(self) -> list[tuple[str, str]]:
        """Return the diagnosis as pairs of a heading and a text."""
        low, high = self.bounds
        return [
            ("looked at", f"{self.steps:,} steps of a state of {self.dim} numbers"),
            ("Lyapunov exponent", f"{self.exponent:.3g} ± {self.standard_error:.1g} a step: {self._words()}"),
            ("transient growth", f"{self.transient:.3g} times beyond that rate at worst"),
            (
                "conditioning",
                f"smallest singular value {self.smallest_singular_value:.2g} (from the exponent: {low:.2g} to "
                f"{high:.2g}; 1 is best)",
            ),
            ("speaks for", self.method),
        ]

    def _words(self) -> str:
        if math.isnan(self.exponent):
            return "not known"
        if abs(self.exponent) <= 2 * self.standard_error or self.exponent == 0:
            return "neither clearly predictable nor chaotic"
        time = abs(1 / self.exponent)
        steps = "1 step" if time <= 1 else f"{time:.3g} steps"
        return f"predictable, forgets within {steps}" if self.exponent < 0 else f"chaotic, e-fold in {steps}"

    def text(self) -> str:
        """Return the diagnosis as aligned lines, and the table of methods below."""
        rows = self.rows()
        width = max(len(heading) for heading, _ in rows)
        lines = [f"{heading:<{width}}  {text}" for heading, text in rows]
        table = [("method", "|A - J| mean", "90%", "iterations: linear", "foreseen", "K, moving steps only")]
        for row in self.forecasts:
            more = "" if row.finished else "> "
            numbers = f"{row.mean_distance:.2g}", f"{row.high_distance:.2g}", str(row.linear_iterations)
            table.append((row.method, *numbers, f"{more}{row.iterations}", f"{more}{row.moving:.1f}"))
        return "\n".join([*lines, *aligned(table)])


def diagnose(
    transition: Callable[[PyTree, PyTree], PyTree],
    initial_state: PyTree,
    inputs: PyTree,
    *,
    window: int | None = None,
    atol: float = 1e-4,
    rtol: float | None = None,
    max_iterations: int = 256,
    gate: str = "frozen",
) -> Diagnosis:
    """Run a chain by the sequential loop, and say from its Jacobians how well it can be solved in parallel.

    The forecast of a method repeats its iteration from the usual start, every step at the initial state, with the
    matrices A held at those of the true trajectory:

        x_new[t] = f(x[t-1]) + A[t] (x_new[t-1] - x[t-1])

    With e the error of the guess, f(x) = f(true) + J e + q(e) gives e_new[t] = A e_new[t-1] + (J - A) e[t-1] + q(e).
    To first order this is the method's own error. To second order the method has in addition the change of A with the
    guess, which for Newton turns q into -q: the same size. What the forecast does not see is how A itself goes wrong
    far from the true trajectory: over the targets of this package the median of foreseen / happened is 0.95 for Newton
    and 1.0 for quasi-Newton, but single chains on strongly curved targets are off by a factor of up to 15
    (`benchmarks/results/predicted_iterations.md`). It needs no derivative after the first. The linear forecast leaves
    out q; where it is much lower, the chain is held up by what the Jacobians do not show, such as decisions to accept
    or reject.

    Args:
        transition: as for `evaluate`.
        initial_state: as for `evaluate`.
        inputs: as for `evaluate`.
        window: how many steps from the start to look at, and to solve at once; None for at most 1,024.
        atol: tolerance of the evaluation that is foreseen, in the units of the state.
        rtol: tolerance relative to the state; None for the default of `evaluate`.
        max_iterations: where a forecast gives up.
        gate: how the derivative treats accept/reject.

    Returns:
        A `Diagnosis`; print its `text()`. For jacobi, picard, scaled_identity (the best constant scale), quasi_newton
        (the transition's own diagonal, or one random probe an iteration) and, up to 64 dimensions, newton; every A is
        projected to norm 1, as `evaluate` does.

    Raises:
        ValueError: an argument is not what it should be, or is traced by `jit` or `vmap`.
        ConvergenceError: the sequential loop meets a value that is not finite.

    Cost: the loop with a JVP a step; 80 linear passes over the steps; for each method one parallel evaluation of the
        steps an iteration. Memory O(steps dim^2) up to 64 dimensions, O(steps dim) above.

    Source: Gonzalez et al. 2025, "Predictability enables parallelization of nonlinear state space models" (exponent
    and conditioning) and "A unifying framework for parallelizing sequential models with linear dynamical systems"
    (distance of A from J). The forecast is ours; `benchmarks/predicted_iterations.py` compares it with what happens.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((initial_state, inputs))):
        raise ValueError(
            "inputs or initial_state are traced by jit or vmap, expected arrays with values, because a diagnosis ends "
            "in words; call diagnose outside."
        )
    wrapped = as_transition(transition)
    options.check_floating(initial_state, "diagnose")
    flat, initial, steps = flatten(wrapped, initial_state, inputs)
    rtol = options.default_rtol(initial.dtype) if rtol is None else rtol
    options.check_tolerances(atol, rtol, initial.dtype)
    steps = min(steps, PREFIX if window is None else options.whole("window", window, "None looks at most at 1,024"))
    limit = options.whole("max_iterations", max_iterations, "a forecast needs some")
    inputs = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:steps], inputs)
    flat = flat.with_gate(gate)
    states = evaluate_sequential(wrapped, initial_state, inputs).states
    true = jax.vmap(lambda state: ravel_pytree(state)[0])(states)
    lyapunov = lyapunov_exponent(wrapped, initial_state, inputs, gate=gate)
    exponent = float(lyapunov.exponent)
    transient, most = _transient(np.asarray(lyapunov.growth[:, 0], float), exponent)
    with jax.default_matmul_precision("highest"):
        chain = _Chain(flat, initial, inputs, true)
        singular = float(_smallest_singular_value(chain))
        tolerances = jnp.asarray(atol, initial.dtype), jnp.asarray(rtol, initial.dtype)
        scale, forecasts = _forecast_all(chain, tolerances, limit)
    lower = conditioning_bounds(exponent, steps, transient=transient)[0] if exponent < math.inf else math.nan
    return Diagnosis(
        steps=steps,
        dim=initial.size,
        exponent=exponent,
        standard_error=float(lyapunov.standard_error),
        transient=transient,
        smallest_singular_value=singular if math.isfinite(singular) else math.nan,
        bounds=(lower, math.exp(-most)),
        scale=scale,
        forecasts=tuple(forecasts),
    )


def _transient(growth: np.ndarray, exponent: float) -> tuple[float, float]:
    """Return the largest growth over a stretch beyond the exponent's rate, and the largest logarithmic growth at all.

    Both along the direction that is carried through the chain; the empty stretch has growth 1.
    """

    def climb(steps: np.ndarray) -> float:
        total = np.concatenate([[0.0], np.cumsum(steps)])
        return float(np.max(total - np.minimum.accumulate(total)))

    if not np.isfinite(growth).all() or not math.isfinite(exponent):
        return 1.0, 0.0
    return math.exp(min(climb(growth - exponent), 700.0)), climb(growth)


class _Chain(NamedTuple):
    """A chain with its true trajectory, flat."""

    transition: FlatTransition
    initial: Float[Array, " dim"]
    inputs: PyTree
    true: Float[Array, "steps dim"]

    def before(self, guess: Float[Array, "steps dim"]) -> Float[Array, "steps dim"]:
        """Return the state before each step of a guess."""
        return jnp.concatenate([self.initial[None], guess[:-1]])

    def values(self, guess: Float[Array, "steps dim"], linear: bool) -> Float[Array, "steps dim"]:
        """Return f at a guess, or its linearisation about the true trajectory."""
        at = jax.vmap(self.transition)
        if not linear:
            return at(self.before(guess), self.inputs)
        return self.true + self.push(self.before(guess) - self.before(self.true))

    def push(self, vectors: Float[Array, "steps dim"]) -> Float[Array, "steps dim"]:
        """Return J[t] v[t]."""
        at = lambda before: jax.vmap(self.transition)(before, self.inputs)  # noqa: E731
        return jax.jvp(at, (self.before(self.true),), (vectors,))[1]


@eqx.filter_jit
def _smallest_singular_value(chain: _Chain) -> Float[Array, ""]:
    """Return that of the residual Jacobian L, from the largest of its inverse: L^-1 is a scan, L^-T its transpose."""

    def solve(residuals: Array) -> Array:
        def step(tangent, element):
            before, input, residual = element
            image = jax.jvp(lambda state: chain.transition(state, input), (before,), (tangent,))[1]
            return image + residual, image + residual

        elements = (chain.before(chain.true), chain.inputs, residuals)
        return jax.lax.scan(step, jnp.zeros_like(chain.initial), elements)[1]

    def pass_once(carry, _):
        vector, _ = carry
        image, transpose = jax.vjp(solve, vector)
        (back,) = transpose(image)
        return unit(back), None

    start = jax.random.normal(jax.random.key(0), chain.true.shape, chain.true.dtype)
    carry = (unit(start)[0], jnp.ones((), start.dtype))
    (_, squared), _ = jax.lax.scan(pass_once, carry, length=PASSES)
    return 1 / jnp.sqrt(squared)


def _forecast_all(chain: _Chain, tolerances: tuple[Array, Array], limit: int) -> tuple[float, list[Forecast]]:
    dim = chain.initial.size
    jacobians, known = _derivatives(chain, dim <= LARGEST_DENSE)
    if jacobians is not None:
        trace = jnp.trace(jacobians, axis1=1, axis2=2) / dim
    else:
        signs = _signs(0, chain)
        trace = jnp.mean(signs * chain.push(signs), axis=1)
    # The mean of tr(J) / dim minimises the sum of |a I - J|^2, Frobenius norms.
    scale = float(jnp.mean(trace))
    constant = lambda factor: matrices.ScaledIdentity(jnp.full_like(trace, factor))  # noqa: E731
    choices: dict[str, tuple[matrices.Matrix | None, float]] = {
        "jacobi": (constant(0.0), 1.0),
        "picard": (constant(1.0), 1.0),
        "scaled_identity": (constant(scale), 1.0),
        "quasi_newton": (None if known is None else matrices.Diagonal(known[1]), 2.0),
    }
    if jacobians is not None:
        choices["newton"] = matrices.Dense(jacobians), 1.0 + dim
    forecasts = []
    for name, (fixed, cost) in choices.items():
        size = np.asarray(_distances(chain, fixed, jacobians))
        foreseen, moving, finished = _simulate(chain, fixed, *tolerances, limit, False)
        forecast = Forecast(
            method=name,
            mean_distance=float(size.mean()),
            high_distance=float(np.percentile(size, 90)),
            linear_iterations=int(_simulate(chain, fixed, *tolerances, limit, True)[0]),
            iterations=int(foreseen),
            moving=float(moving),
            finished=bool(finished),
            cost=cost,
        )
        forecasts.append(forecast)
    return scale, forecasts


@eqx.filter_jit
def _derivatives(chain: _Chain, dense: bool) -> tuple[Float[Array, "steps dim dim"] | None, PyTree]:
    """Return the Jacobians, if they are asked for, and the diagonals that the transition knows, or None."""
    at = lambda function: jax.vmap(function)(chain.before(chain.true), chain.inputs)  # noqa: E731
    return at(jax.jacfwd(chain.transition)) if dense else None, at(chain.transition.with_diagonal)


def _signs(seed: Int[Array, ""] | int, chain: _Chain) -> Float[Array, "steps dim"]:
    key = jax.random.fold_in(jax.random.key(0), seed)
    return jax.random.rademacher(key, chain.true.shape, chain.true.dtype)


@eqx.filter_jit
def _distances(
    chain: _Chain, fixed: matrices.Matrix | None, jacobians: Float[Array, "steps dim dim"] | None
) -> Float[Array, " steps"]:
    """Return |A - J| of every step. `fixed` is None for the diagonal that is not known but probed."""
    if jacobians is not None:
        known = matrices.Diagonal(jnp.diagonal(jacobians, axis1=1, axis2=2)) if fixed is None else fixed
        difference = known.project().dense(chain.initial.size) - jacobians
        return jnp.linalg.norm(difference, ord=2, axis=(1, 2))
    signs = _signs(0, chain)
    image = chain.push(signs)
    known = matrices.Diagonal(signs * image) if fixed is None else fixed
    # Other signs than those of the diagonal: with the same ones the difference would be zero.
    probe = _signs(1, chain)
    return jnp.sqrt(jnp.mean((known.project().apply(probe) - chain.push(probe)) ** 2, axis=1))


@eqx.filter_jit
def _simulate(
    chain: _Chain,
    fixed: matrices.Matrix | None,
    atol: Float[Array, ""],
    rtol: Float[Array, ""],
    limit: int,
    linear: bool,
) -> tuple[Int[Array, ""], Float[Array, ""], Array]:
    """Repeat an iteration with fixed matrices until every residual and correction is within tolerance."""

    def going_on(carry):
        _, iterations, _, done = carry
        return ~done & (iterations < limit)

    def iterate(carry):
        guess, iterations, evaluations, _ = carry
        values = chain.values(guess, linear)
        signs = _signs(iterations, chain)
        chosen = matrices.Diagonal(signs * chain.push(signs)) if fixed is None else fixed
        chosen = chosen.project()
        correction = solve_lds(chosen, values - guess, jnp.zeros_like(chain.initial))
        bound = atol + rtol * jnp.abs(guess)
        good = ((jnp.abs(values - guess) <= bound) & (jnp.abs(correction) <= bound)).all(1)
        return guess + correction, iterations + 1, evaluations + jnp.mean(~good, dtype=atol.dtype), good.all()

    start = jnp.broadcast_to(chain.initial, chain.true.shape)
    # The last iteration evaluates every step to verify.
    carry = (start, jnp.asarray(0), jnp.ones((), atol.dtype), jnp.asarray(False))
    _, iterations, evaluations, done = jax.lax.while_loop(going_on, iterate, carry)
    return iterations, evaluations, done
