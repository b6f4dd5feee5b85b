"""Run all chains over a segment: draw the inputs, evaluate, and work out what goes into the trace."""

import dataclasses
import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from parsample.engine import methods
from parsample.engine.arrays import to_jax
from parsample.engine.evaluate import evaluate
from parsample.engine.fixed import fixed_first
from parsample.engine.loop import run_some
from parsample.engine.rules import Stopping
from parsample.engine.solution import Solution
from parsample.engine.transition import flat_form
from parsample.samplers.base import BLOCK, Details, Sampler

# Numbers of all chains up to which the loop has one program for any number of steps.
FEW_NUMBERS = 2048


class Plan(NamedTuple):
    """How chains are evaluated. Known at compile time, but for the tolerances.

    Attributes:
        method: to evaluate them with.
        window: steps solved at a time.
        steps: of a segment.
        max_iterations: of a segment, before the sequential loop takes over.
        atol: tolerance, in posterior standard deviations; None where it is to follow the rounding noise.
        rtol: tolerance relative to the state; the same.
        history: whether to record what every iteration saw.
        noise: the rounding noise that a tolerance was chosen by, in posterior standard deviations; 0 where none was
            measured. Of no effect.
    """

    method: methods.Method
    window: int
    steps: int
    max_iterations: int
    atol: Any
    rtol: Any
    history: bool = False
    noise: float = 0.0

    def traced(self, dtype: Any) -> "Plan":
        """Return the plan with tolerances that a compiled program takes as arguments, and serves others with."""
        return self._replace(atol=to_jax(self.atol, dtype), rtol=to_jax(self.rtol, dtype), noise=0.0)


_fold_in = jax.jit(jax.vmap(jax.random.fold_in, in_axes=(0, None)))


def start_keys(rng_keys: Array, number: int | Array = 0) -> Array:
    """Return a key a chain for what is drawn as the chain begins, or begins again for the time `number`.

    Blocks of inputs have the keys numbered from 0 up, these are numbered from 2**32 - 1 down.
    """
    return _fold_in(rng_keys, np.uint32(2**32 - 1) - number)


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
    draw_block = _draw_block.of(sampler.for_loop())
    blocks = [draw_block(rng_keys, positions, np.int32(block)) for block in range(first, last)]
    return _joined(blocks, num_steps)


@functools.partial(jax.jit, static_argnums=1)
def _joined(blocks: list[PyTree], num_steps: int) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, 1)[:, :num_steps], *blocks)


@fixed_first
def _draw_block(sampler: Sampler, rng_keys: Array, positions: Array, block: Int[Array, ""]) -> PyTree:
    def chain(rng_key: Array, position: Array) -> PyTree:
        return sampler.draw_block(jax.random.fold_in(rng_key, block), BLOCK, position.size, position.dtype)

    return jax.vmap(chain)(rng_keys, positions)


def loop_plan(steps: int) -> Plan:
    """Return the plan of the sequential loop, for which only the number of steps has a meaning."""
    return Plan(methods.Sequential(), 1, steps, 1, 0.0, 0.0)


def is_loop(plan: Plan) -> bool:
    """Say whether chains are evaluated by the sequential loop."""
    return isinstance(plan.method, methods.Sequential)


def room_of_the_loop(sampler: Sampler, positions: Array) -> int | None:
    """Return how many steps the loop's program has room for; None where it is better made for a number of steps.

    Where there is room, warm-up and what follows need one program and not two. What is not used of it is set to 0, and
    would have its gradients worked out where the sampler does not hold them.
    """
    is_cheap = jax.default_backend() == "cpu" and positions.size <= FEW_NUMBERS
    return BLOCK if is_cheap and sampler.holds_gradient else None


@fixed_first
def run_part(
    given: tuple[Sampler, Plan, bool],
    states: PyTree,
    inputs: PyTree,
    start: Int[Array, ""],
    count: Int[Array, ""],
    step_sizes: Float[Array, " chain"],
) -> tuple[PyTree, PyTree, Details]:
    """Evaluate chains over some steps, each with a step size of its own.

    Args:
        given: the sampler; a plan, whose `steps` are those that there is room for; whether to work out the gradient of
            the log density at the draws, where the sampler's state does not hold it.
        states: the unknowns where the chains stand, leading axis `chain`.
        inputs: of all steps, leading axes (chain, steps).
        start: the first of the steps.
        count: how many; all that there is room for are made, unless it is the loop that makes them, on a CPU.
        step_sizes: of each chain, in the place of the sampler's.

    Returns:
        The unknowns at the end; those after each step, and the details, leading axes (chain, steps).
    """
    sampler, plan, works_out = given
    if is_loop(plan):
        found, details = _looped(sampler, plan.steps, states, inputs, start, count, step_sizes)
    else:
        cut = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, plan.steps, 1), inputs)
        solution = evaluate_chains(sampler, states, cut, plan, step_sizes, keeps_gradient=True)
        found, details = solution.states, solution.details
    if works_out and details.gradient is None:
        position = details.position
        # A step of all chains at a time, as the loop has it.
        rows = position.reshape(-1, position.shape[-1])
        slopes = jax.lax.map(jax.grad(sampler.logdensity_fn), rows, batch_size=len(position))
        details = details._replace(gradient=slopes.reshape(position.shape))
    last = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, count - 1, 1, keepdims=False), found)
    return last, found, details


def _looped(
    sampler: Sampler, rows: int, states: PyTree, inputs: PyTree, start: Array, count: Array, step_sizes: Array
) -> tuple[PyTree, Details]:
    """Run the loop, and return the unknowns after each step and the details, with room for `rows` steps."""
    sampler = _for_loop(sampler, len(step_sizes))
    number = count if jax.default_backend() == "cpu" else rows

    def own(step_size: Array, states: PyTree, inputs: PyTree) -> tuple[PyTree, Details]:
        changed = eqx.tree_at(lambda row: row.step_size, sampler, step_size)
        transition = dataclasses.replace(changed.transition, keeps_gradient=True)
        flat, initial = flat_form(transition, states, detailed=True)
        found, details = run_some(flat, initial, inputs, start, number, rows)
        return jax.vmap(flat.unravel)(found), details

    return jax.vmap(own)(step_sizes, states, inputs)


def _for_loop(sampler: Sampler, num_chains: int) -> Sampler:
    """Return the sampler with its density in the form that is fastest where chains make one step at a time."""
    density = sampler.logdensity_fn
    if not hasattr(density, "for_loop"):
        return sampler
    return eqx.tree_at(lambda row: row.logdensity_fn, sampler, density.for_loop(num_chains))


@fixed_first
def evaluated(given: tuple[Sampler, Plan], states: PyTree, inputs: PyTree) -> Solution:
    """Return what `evaluate_chains` does, compiled, for a sampler and a plan that is `traced`."""
    sampler, plan = given
    return evaluate_chains(sampler, states, inputs, plan)


def evaluate_chains(
    sampler: Sampler,
    states: PyTree,
    inputs: PyTree,
    plan: Plan,
    step_sizes: Float[Array, " chain"] | None = None,
    keeps_gradient: bool = False,
) -> Solution:
    """Evaluate every chain over the steps of a segment.

    A draw is what the transition makes of the state before it, with the log density and the diagnostics of the very
    evaluation by which the step was accepted. In an approximation it may differ from the state: it is then one exact
    step on from an approximate chain.

    Args:
        sampler: on a log density of flat vectors.
        states: the unknowns where the chains stand, leading axis `chain`.
        inputs: leading axes (chain, steps).
        plan: how to evaluate them.
        step_sizes: of each chain, in the place of the sampler's; None where they share that one.
        keeps_gradient: of the log density, flat, in the details, where the sampler's state has it.

    Returns:
        The solution, leading axis `chain`, with `samplers.base.Details`. What `plan.max_iterations` did not suffice for
        was left to the sequential loop.
    """

    def solve(sampler: Sampler, states: PyTree, inputs: PyTree, chains: bool) -> Solution:
        return evaluate(
            dataclasses.replace(sampler.transition, keeps_gradient=keeps_gradient),
            states,
            inputs,
            method=plan.method,
            window=plan.window,
            atol=plan.atol,
            rtol=plan.rtol,
            max_iterations=plan.max_iterations,
            history="steps" if plan.history and not is_loop(plan) else False,
            throw=False,
            chains=chains,
            stopping=Stopping(finish=True),
            details=True,
        )

    if is_loop(plan):
        sampler = _for_loop(sampler, jax.tree.leaves(states)[0].shape[0])
    if step_sizes is None:
        return solve(sampler, states, inputs, chains=True)

    def own(step_size: Array, states: PyTree, inputs: PyTree) -> Solution:
        changed = eqx.tree_at(lambda row: row.step_size, sampler, step_size)
        return solve(changed, states, inputs, chains=False)

    return jax.vmap(own)(step_sizes, states, inputs)
