"""Run all chains over a segment: draw the inputs, evaluate, and work out what goes into the trace."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from parsample.engine import methods
from parsample.engine.evaluate import evaluate
from parsample.engine.finish import finish_sequentially
from parsample.samplers.base import BLOCK, Sampler


class Plan(NamedTuple):
    """How chains are evaluated. Known at compile time, but for the tolerances.

    Attributes:
        method: to evaluate them with.
        window: steps solved at a time.
        steps: of a segment.
        max_iterations: of a segment, before the sequential loop takes over.
        atol: tolerance, in posterior standard deviations.
        rtol: tolerance relative to the state.
    """

    method: methods.Method
    window: int
    steps: int
    max_iterations: int
    atol: float
    rtol: float


class Segment(NamedTuple):
    """What a segment of all chains gave.

    Attributes:
        states: standardised coordinates, shape (chain, steps, dim).
        draws: the target's variables, each (chain, steps, ...).
        lp: log density of the states, with log-Jacobians, up to the target's constant.
        acceptance_rate: of each step.
        is_accepted: of each step.
        residual: of each step, in posterior standard deviations.
        iterations: of each chain.
        evaluations: of each chain.
        finished: steps of each chain that were left to the sequential loop.
    """

    states: Float[Array, "chain steps dim"]
    draws: dict[str, Array]
    lp: Float[Array, "chain steps"]
    acceptance_rate: Float[Array, "chain steps"]
    is_accepted: Bool[Array, "chain steps"]
    residual: Float[Array, "chain steps"]
    iterations: Int[Array, " chain"]
    evaluations: Int[Array, " chain"]
    finished: Int[Array, " chain"]


class _Evaluated(NamedTuple):
    """A chain's states with the sampler's own state and diagnostics at each."""

    states: Float[Array, "steps dim"]
    details: tuple[Any, Any]
    residual: Float[Array, " steps"]
    iterations: Int[Array, ""]
    evaluations: Int[Array, ""]
    finished: Int[Array, ""]


def draw(sampler: Sampler, rng_keys: Array, states: Float[Array, "chain dim"], start: int, num_steps: int) -> PyTree:
    """Draw the inputs of all chains for the steps `start` to `start + num_steps`, block by block.

    The same as `Sampler.draw_inputs` for every chain, with one small compiled program whatever the number of steps:
    random numbers take long to compile.

    Args:
        sampler: whose inputs.
        rng_keys: one a chain.
        states: positions, for their size and dtype.
        start: a multiple of `BLOCK`.
        num_steps: how many.

    Returns:
        A pytree with leading axes (chain, steps).
    """
    first, last = start // BLOCK, -(-(start + num_steps) // BLOCK)
    blocks = [_draw_block(sampler, rng_keys, states, jnp.asarray(block)) for block in range(first, last)]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, 1)[:, :num_steps], *blocks)


@eqx.filter_jit
def _draw_block(sampler: Sampler, rng_keys: Array, states: Array, block: Int[Array, ""]) -> PyTree:
    def chain(rng_key: Array, state: Array) -> PyTree:
        return sampler.draw_block(jax.random.fold_in(rng_key, block), BLOCK, state.size, state.dtype)

    return jax.vmap(chain)(rng_keys, states)


def run_segment(sampler: Sampler, states: Float[Array, "chain dim"], inputs: PyTree, plan: Plan) -> Segment:
    """Run every chain from `states` over the steps of a segment.

    Args:
        sampler: on a `Standardised` log density.
        states: where the chains stand.
        inputs: leading axes (chain, steps).
        plan: how to evaluate them.
    """
    density: Any = sampler.logdensity_fn
    evaluate_chain = _loop if isinstance(plan.method, methods.Sequential) else _parallel

    def chain(element: tuple[Array, PyTree]) -> _Evaluated:
        return evaluate_chain(sampler, *element, plan)

    # On a CPU the steps of one window already fill the machine; one chain after the other, none waits for a slower one.
    one_by_one = jax.default_backend() == "cpu" and evaluate_chain is _parallel
    found = jax.lax.map(chain, (states, inputs)) if one_by_one else jax.vmap(chain)((states, inputs))
    state, info = found.details
    draws = jax.vmap(jax.vmap(lambda z: density.target.constrain(density.position(z))))(found.states)
    return Segment(
        found.states,
        draws,
        state.logdensity,
        info.acceptance_rate,
        info.is_accepted,
        found.residual,
        found.iterations,
        found.evaluations,
        found.finished,
    )


def _loop(sampler: Sampler, initial: Array, inputs: Any, plan: Plan) -> _Evaluated:
    def step(state, input):
        state, info = sampler.step(state, input)
        return state, (state, info)

    _, details = jax.lax.scan(step, sampler.init(initial), inputs)
    states = details[0].position
    steps = jnp.asarray(plan.steps)
    return _Evaluated(states, details, jnp.zeros_like(states[:, 0]), steps, steps, jnp.asarray(0))


def _parallel(sampler: Sampler, initial: Array, inputs: Any, plan: Plan) -> _Evaluated:
    transition = sampler.transition
    solution = evaluate(
        transition,
        initial,
        inputs,
        method=plan.method,
        window=plan.window,
        atol=plan.atol,
        rtol=plan.rtol,
        max_iterations=plan.max_iterations,
        throw=False,
    )
    whole = finish_sequentially(transition, initial, inputs, solution)
    before = jnp.concatenate([initial[None], whole.states[:-1]])
    details = jax.lax.map(lambda step: transition.step(*step), (before, inputs), batch_size=min(BLOCK, plan.steps))
    finished = whole.evaluations - solution.evaluations
    return _Evaluated(whole.states, details, whole.residual, solution.iterations, whole.evaluations, finished)
