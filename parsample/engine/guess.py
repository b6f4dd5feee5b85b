"""A chain that costs little, such as a surrogate's, as a guess: the loop over it, or a few iterations."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from parsample.engine.iteration import Around, Linearised, Steps, solve
from parsample.engine.matrices import Matrix
from parsample.engine.rules import Conditioning

# A guess is good enough where no number of a state moves by more than this share of the largest that it has in the
# chain.
CLOSE = 1e-3


def in_turn(
    model: Callable[[Array, PyTree], tuple[Array, Matrix]], initial_state: Float[Array, " dim"], inputs: PyTree
) -> tuple[Float[Array, "steps dim"], Matrix]:
    """Return a chain and the matrices along it, one step after the other.

    Args:
        model: of a state and an input, the next state and the matrix there.
        initial_state: step 0.
        inputs: one for each step.
    """

    def step(state: Array, input: PyTree) -> tuple[Array, tuple[Array, Matrix]]:
        value, matrix = model(state, input)
        return value, (value, matrix)

    return jax.lax.scan(step, initial_state, inputs)[1]


def at_once(
    linearise: Callable[[Steps], Linearised],
    initial_state: Float[Array, " dim"],
    inputs: PyTree,
    most: int,
    close: float = CLOSE,
) -> tuple[Float[Array, "steps dim"], Matrix]:
    """Return nearly the same by iterations over the whole chain.

    Args:
        linearise: of steps, their values and matrices.
        initial_state: step 0.
        inputs: one for each step.
        most: how many iterations to make.
        close: when to stop before, as a share of the largest state.

    Returns:
        The chain, and the matrices along what it was one iteration before.
    """
    steps = jax.tree.leaves(inputs)[0].shape[0]
    start = jnp.broadcast_to(initial_state, (steps, initial_state.size))
    around = Around(
        boundary=initial_state,
        guesses=start,
        open=jnp.ones(steps, bool),
        latest=initial_state,
        inputs=inputs,
        prepared=None,
        tolerance=jnp.zeros_like(start),
        rng_key=jax.random.key(0),
        conditioning=Conditioning(projection=True),
        capacity=None,
    )

    def iterate(number: Array, guesses: Array) -> tuple[Array, Array, Matrix, Array]:
        now = around._replace(guesses=guesses, rng_key=jax.random.key(number))
        found = linearise(now.steps())
        correction, guesses = solve(now, found.values, found.matrices)
        moved = jnp.abs(correction).max(0) > close * jnp.abs(guesses).max(0)
        return number + 1, guesses, found.matrices, moved.any()

    going = lambda carry: carry[3] & (carry[0] < most)  # noqa: E731
    shapes = jax.eval_shape(lambda: linearise(around.steps()).matrices)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    first = jnp.asarray(0), start, nothing, jnp.asarray(True)
    _, guesses, matrices, _ = jax.lax.while_loop(going, lambda carry: iterate(*carry[:2]), first)
    return guesses, matrices
