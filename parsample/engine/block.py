"""A block of steps of a batch of chains, and what is fixed about the chains."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from parsample.engine.iteration import Memory
from parsample.engine.methods.base import Method
from parsample.engine.options import Options
from parsample.engine.solution import History
from parsample.engine.transition import FlatTransition
from parsample.engine.window import cut, each

# A block is so many windows long, and at least so many steps: the longer, the less chains wait for each other; the
# shorter, the less memory.
WINDOWS, SHORTEST = 8, 256


class Rows(NamedTuple):
    """What is known of the steps of a block.

    Attributes:
        states: shape (chain, rows, dim).
        residual: shape (chain, rows), the largest component; infinite where no step was accepted.
        details: of the steps, leading axes (chain, rows), from the evaluation that accepted them.
    """

    states: Float[Array, "chain rows dim"]
    residual: Float[Array, "chain rows"]
    details: PyTree


class Place(NamedTuple):
    """Where the chains of a batch stand, each array of shape (chain,).

    Attributes:
        start: the first step of the window.
        done: steps accepted.
        reached: steps that have been in the window, or have a guess.
        stuck: whether the next step is not finite.
        iterations: so far.
        evaluations: calls of the transition, those while a chain waits included.
        finished: steps that were left to the sequential loop.
    """

    start: Int[Array, " chain"]
    done: Int[Array, " chain"]
    reached: Int[Array, " chain"]
    stuck: Bool[Array, " chain"]
    iterations: Int[Array, " chain"]
    evaluations: Int[Array, " chain"]
    finished: Int[Array, " chain"]


class Problem(NamedTuple):
    """What does not change from iteration to iteration.

    Attributes:
        transition: of every chain.
        method: of every iteration.
        chosen: the options.
        rtol: tolerance relative to the state.
        atol: tolerance of every step, shape (steps,).
        initial: step 0 of every chain.
        inputs: leading axes (chain, steps).
        prepared: what the method prepared for every step, leading axes (chain, steps).
        common: what it prepared for all steps, leading axis `chain`.
        guess: leading axes (chain, steps); None where there is none.
        entering: what a method remembers of rows that enter a window, leading axes (chain, window).
    """

    transition: FlatTransition
    method: Method
    chosen: Options
    rtol: Float[Array, ""]
    atol: Float[Array, " steps"]
    initial: Float[Array, "chain dim"]
    inputs: PyTree
    prepared: PyTree
    common: PyTree
    guess: Float[Array, "chain steps dim"] | None
    entering: PyTree = None

    @property
    def steps(self) -> int:
        """Steps of a chain."""
        return self.atol.shape[0]

    @property
    def stride(self) -> int:
        """Steps by which a block follows the last one."""
        return max(WINDOWS * self.chosen.window, SHORTEST)

    @property
    def rows(self) -> int:
        """Steps of a block: beyond its stride a window must have room."""
        # The states of a whole trajectory can only be recorded where it is one block.
        return self.steps if self.chosen.history == "states" else min(self.steps, self.stride + self.chosen.window)


class Loop(NamedTuple):
    """What the loop carries from iteration to iteration; `before` is the state before the block."""

    before: Float[Array, "chain dim"]
    rows: Rows
    place: Place
    memory: Memory
    history: History | None


def state_before(loop: Loop, at: Int[Array, " chain"]) -> Float[Array, "chain dim"]:
    """Return the state before a row of the block."""

    def state(states: Array, at: Array) -> Array:
        return cut(states, jnp.maximum(at - 1, 0), 1)[0]

    return jnp.where((at == 0)[:, None], loop.before, each(state)(loop.rows.states, at))
