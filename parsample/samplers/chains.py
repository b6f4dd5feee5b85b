"""Run all chains over a segment: draw the inputs, evaluate, and work out what goes into the trace."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from parsample.engine import methods
from parsample.engine.evaluate import evaluate
from parsample.engine.finish import finish_sequentially
from parsample.engine.solution import History
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
        history: whether to record what every iteration saw.
    """

    method: methods.Method
    window: int
    steps: int
    max_iterations: int
    atol: float
    rtol: float
    history: bool = False


class Segment(NamedTuple):
    """What a segment of all chains gave.

    Attributes:
        states: the unknowns in standardised coordinates, leading axes (chain, steps).
        position: of the draws, in standardised coordinates.
        lp: log density of the states, with log-Jacobians, up to the target's constant; shape (chain, steps).
        info: diagnostics of each step by name, each (chain, steps); `acceptance_rate` and `is_accepted` are among them.
        residual: of each step, in posterior standard deviations.
        is_within: whether each step is within tolerance, as all are unless an approximation was asked for.
        iterations: of each chain.
        evaluations: of each chain.
        finished: steps of each chain that were left to the sequential loop.
        history: what every iteration of each chain saw, or None.
    """

    states: PyTree
    position: Float[Array, "chain steps dim"]
    lp: Float[Array, "chain steps"]
    info: dict[str, Array]
    residual: Float[Array, "chain steps"]
    is_within: Bool[Array, "chain steps"]
    iterations: Int[Array, " chain"]
    evaluations: Int[Array, " chain"]
    finished: Int[Array, " chain"]
    history: History | None = None


class Evaluated(NamedTuple):
    """The unknowns of a chain's steps, with position, log density and diagnostics at each; the rest as in `Segment`."""

    states: PyTree
    details: tuple[Array, Array, dict[str, Array]]
    residual: Float[Array, " steps"]
    is_within: Bool[Array, " steps"]
    iterations: Int[Array, ""]
    evaluations: Int[Array, ""]
    finished: Int[Array, ""]
    history: History | None = None


_fold_in = jax.jit(jax.vmap(jax.random.fold_in, in_axes=(0, None)))


def start_keys(rng_keys: Array, number: int = 0) -> Array:
    """Return a key a chain for what is drawn as the chain begins, or begins again for the time `number`.

    Blocks of inputs have the keys numbered from 0 up, these are numbered from 2**32 - 1 down.
    """
    return _fold_in(rng_keys, np.uint32(2**32 - 1 - number))


@eqx.filter_jit
def begin(sampler: Sampler, positions: Float[Array, "chain dim"], rng_keys: Array) -> PyTree:
    """Return the unknowns of chains that start at these positions; what else is unknown is drawn, one key a chain."""
    return jax.vmap(lambda position, rng_key: sampler.unknowns(sampler.init(position, rng_key)))(positions, rng_keys)


def draw(sampler: Sampler, rng_keys: Array, positions: Float[Array, "chain dim"], start: int, num_steps: int) -> PyTree:
    """Draw the inputs of all chains for the steps `start` to `start + num_steps`, block by block.

    The same as `Sampler.draw_inputs` for every chain, with one small compiled program whatever the number of steps:
    random numbers take long to compile.

    Args:
        sampler: whose inputs.
        rng_keys: one a chain.
        positions: of the chains, for their size and dtype.
        start: a multiple of `BLOCK`.
        num_steps: how many.

    Returns:
        A pytree with leading axes (chain, steps).
    """
    first, last = start // BLOCK, -(-(start + num_steps) // BLOCK)
    blocks = [_draw_block(sampler, rng_keys, positions, jnp.asarray(block)) for block in range(first, last)]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, 1)[:, :num_steps], *blocks)


@eqx.filter_jit
def _draw_block(sampler: Sampler, rng_keys: Array, positions: Array, block: Int[Array, ""]) -> PyTree:
    def chain(rng_key: Array, position: Array) -> PyTree:
        return sampler.draw_block(jax.random.fold_in(rng_key, block), BLOCK, position.size, position.dtype)

    return jax.vmap(chain)(rng_keys, positions)


def run_segment(sampler: Sampler, states: PyTree, inputs: PyTree, plan: Plan) -> Segment:
    """Run every chain from `states` over the steps of a segment.

    Args:
        sampler: on a log density of flat vectors.
        states: the unknowns where the chains stand, leading axis `chain`.
        inputs: leading axes (chain, steps).
        plan: how to evaluate them.
    """
    found = evaluate_chains(sampler, states, inputs, plan)
    position, lp, info = found.details
    return Segment(
        states=found.states,
        position=position,
        lp=lp,
        info=info,
        residual=found.residual,
        is_within=found.is_within,
        iterations=found.iterations,
        evaluations=found.evaluations,
        finished=found.finished,
        history=found.history,
    )


def evaluate_chains(
    sampler: Sampler, states: PyTree, inputs: PyTree, plan: Plan, step_sizes: Float[Array, " chain"] | None = None
) -> Evaluated:
    """Evaluate every chain over the steps of a segment, arguments as for `run_segment`; leading axis `chain`.

    With `step_sizes` each chain has its own in the place of the sampler's.
    """
    evaluate_chain = _loop if isinstance(plan.method, methods.Sequential) else _parallel

    def chain(element: tuple[PyTree, PyTree, Array | None]) -> Evaluated:
        states, inputs, step_size = element
        own = sampler if step_size is None else eqx.tree_at(lambda row: row.step_size, sampler, step_size)
        return evaluate_chain(own, states, inputs, plan)

    # On a CPU the steps of one window already fill the machine; one chain after the other, none waits for a slower one.
    one_by_one = jax.default_backend() == "cpu" and evaluate_chain is _parallel
    elements = states, inputs, step_sizes
    return jax.lax.map(chain, elements) if one_by_one else jax.vmap(chain)(elements)


def _details(state: Any, info: Any) -> tuple[Array, Array, dict[str, Array]]:
    """Return what the trace keeps of a step: the position, the log density and every diagnostic that is a scalar."""
    return state.position, state.logdensity, {name: x for name, x in info._asdict().items() if jnp.ndim(x) == 0}


def _loop(sampler: Sampler, initial: PyTree, inputs: PyTree, plan: Plan) -> Evaluated:
    def step(state: Any, input: Any) -> tuple[Any, Any]:
        state, info = sampler.step(state, input)
        return state, (sampler.unknowns(state), _details(state, info))

    _, (states, details) = jax.lax.scan(step, sampler.resume(initial), inputs)
    steps = jnp.asarray(plan.steps)
    exact = jnp.zeros_like(details[1]), jnp.ones_like(details[1], bool)
    return Evaluated(states, details, *exact, steps, steps, jnp.asarray(0))


def _parallel(sampler: Sampler, initial: PyTree, inputs: PyTree, plan: Plan) -> Evaluated:
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
        history="steps" if plan.history else False,
        throw=False,
    )
    whole = finish_sequentially(transition, initial, inputs, solution)
    before = jax.tree.map(lambda first, rows: jnp.concatenate([first[None], rows[:-1]]), initial, whole.states)

    # A draw is what the transition makes of the state before it, with that step's log density and diagnostics. In an
    # approximation it may differ from the state: it is then one exact step on from an approximate chain.
    def detail(step: tuple[PyTree, PyTree]) -> tuple[Array, Array, dict[str, Array]]:
        return _details(*transition.step(*step))

    details = jax.lax.map(detail, (before, inputs), batch_size=min(BLOCK, plan.steps))
    details = decided_by_the_states(sampler, before, whole.states, details, whole.is_within, plan)
    finished = whole.evaluations - solution.evaluations
    return Evaluated(
        whole.states,
        details,
        whole.residual,
        whole.is_within,
        solution.iterations,
        whole.evaluations,
        finished,
        solution.history,
    )


def decided_by_the_states(
    sampler: Sampler,
    before: PyTree,
    states: PyTree,
    details: tuple[Array, Array, dict[str, Array]],
    is_within: Bool[Array, " steps"],
    plan: Plan,
) -> tuple[Array, Array, dict[str, Array]]:
    """Correct the details of steps whose accept decision fell otherwise in them than in the evaluation.

    Where a decision hangs on less than rounding, two compiled programs may decide it differently. The chain went on
    from the states, so these say what was decided: there the draw is the state, with its log density.

    Args:
        sampler: whose steps they are.
        before: the unknowns in which each step begins, leading axis `steps`.
        states: those in which it ended, by the evaluation.
        details: of each step, made anew from `before`.
        is_within: the steps at which the evaluation is exact; the others keep their details.
        plan: for the tolerances.
    """
    position, lp, info = details
    if sampler.target_acceptance is None:
        return details
    position_at = jax.vmap(lambda unknowns: sampler.resume(unknowns).position)
    origin, end = position_at(before), position_at(states)
    distance = lambda one, other: jnp.max(jnp.abs(one - other), -1)  # noqa: E731
    apart, bound = distance(position, end), plan.atol + plan.rtol * jnp.max(jnp.abs(end), -1)
    # Rejected here: the step should end where it began, but for the tolerance. Accepted here, at a proposal that may be
    # known much less exactly: it was rejected in the evaluation if it ended nearer to where it began.
    fell_otherwise = is_within & (apart > 10 * bound) & (~info["is_accepted"] | (distance(origin, end) < apart))

    def correct(left: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        todo, position, lp = left
        step = jnp.argmax(todo)
        state: Any = sampler.resume(jax.tree.map(lambda leaf: leaf[step], states))
        return todo.at[step].set(False), position.at[step].set(state.position), lp.at[step].set(state.logdensity)

    _, position, lp = jax.lax.while_loop(lambda left: left[0].any(), correct, (fell_otherwise, position, lp))
    return position, lp, info | {"is_accepted": info["is_accepted"] ^ fell_otherwise}
