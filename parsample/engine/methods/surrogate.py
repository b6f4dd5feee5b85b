"""Surrogate: the matrices, and the guess, of a cheaper transition in the place of the real one."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from parsample._former import takes_former
from parsample.engine.iteration import Around, Linearised, Steps, shift, solve
from parsample.engine.matrices import Dense, Diagonal, Matrix
from parsample.engine.methods.base import Prepared, PreparedMethod, evaluate_all
from parsample.engine.rules import Conditioning
from parsample.engine.transition import FlatTransition

STRUCTURES = ("diagonal", "dense")
# Off the CPU the surrogate's chain, which is only a guess, is iterated until no number of a state moves by more than
# this share of the largest that it has in the chain.
CLOSE = 1e-3


@takes_former(stand_in="surrogate")
class Surrogate(PreparedMethod):
    """A[t] from a surrogate, worked out once: no derivative of the transition in any iteration.

    The surrogate is a transition of the same states and inputs, usually the same sampler on a Gaussian that resembles
    the target. Its own chain with the same inputs is the guess to start from, and its Jacobians along that chain, the
    accept decisions included, are the matrices.

    Args:
        surrogate: that transition; None for the one that is known (of a sampler in standardised coordinates: the
            same sampler on a standard normal), or else the transition linearised at the initial state.
        structure: "diagonal" or "dense" matrices. Diagonal ones are good in coordinates where the surrogate's
            covariance is diagonal (its eigenbasis).
        start_from_it: whether the surrogate's chain is the guess; otherwise the guess is the driver's.

    Raises:
        ValueError: an unknown structure.

    Cost: the surrogate's chain before the first iteration, on a CPU by the loop, elsewhere by iterations of its own,
        which wait for one another a few times and not at every step; then nothing beyond the transition. Memory O(steps
        dim) for diagonal matrices.

    Source: ours; a fixed linearisation is the chord method of Ortega & Rheinboldt 1970, and a coarse model as the guess
    is Parareal's (Lions et al. 2001). A constant A is only as good as its Gaussian: where it is not, use `Lagged`.
    """

    surrogate: Callable | None = None
    structure: str = eqx.field(static=True, default="diagonal")
    start_from_it: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        """Check the structure."""
        if self.structure not in STRUCTURES:
            raise ValueError(f"structure is {self.structure!r}, expected one of {', '.join(map(repr, STRUCTURES))}.")

    def prepare(self, transition: FlatTransition, initial_state: Float[Array, " dim"], inputs: PyTree) -> Prepared:
        """Run the surrogate's chain, and linearise along it."""
        found = transition.surrogate() if self.surrogate is None else transition.like(self.surrogate)
        if found is None:
            return self._linearised_at_the_start(transition, initial_state, inputs)

        model = lambda state, input: (found(state, input), self._matrix(found, state, input))  # noqa: E731
        guess, matrices = jax.lax.platform_dependent(
            initial_state,
            inputs,
            cpu=lambda *chain: in_turn(model, *chain),
            default=lambda *chain: at_once(model, *chain),
        )
        return Prepared(matrices, guess if self.start_from_it else None)

    def linearise(self, transition: FlatTransition, steps: Steps) -> Linearised:
        """Return the values, and the matrices that were prepared."""
        values, details = evaluate_all(transition, steps)
        return Linearised(values, steps.prepared, details)

    def _matrix(self, transition: FlatTransition, state: Array, input: PyTree) -> Matrix:
        known = transition.with_diagonal(state, input) if self.structure == "diagonal" else None
        if known is not None:
            return Diagonal(known[1])
        jacobian = jax.jacfwd(lambda state: transition(state, input))(state)
        return Dense(jacobian) if self.structure == "dense" else Diagonal(jnp.diagonal(jacobian))

    def _linearised_at_the_start(self, transition: FlatTransition, initial_state: Array, inputs: PyTree) -> Prepared:
        return Prepared(jax.vmap(lambda input: self._matrix(transition, initial_state, input))(inputs))


# Of a transition, as a function of a state and an input: the next state, and the matrix A there.
Model = Callable[[Array, PyTree], tuple[Array, Matrix]]


def in_turn(model: Model, initial_state: Float[Array, " dim"], inputs: PyTree) -> tuple[Array, Matrix]:
    """Return a chain, shape (steps, dim), and the matrices along it, one step after the other."""

    def step(state: Array, input: PyTree) -> tuple[Array, tuple[Array, Matrix]]:
        value, matrix = model(state, input)
        return value, (value, matrix)

    return jax.lax.scan(step, initial_state, inputs)[1]


def at_once(model: Model, initial_state: Float[Array, " dim"], inputs: PyTree) -> tuple[Array, Matrix]:
    """Return nearly the same, the matrices from where the last iteration started: all steps in every iteration."""
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

    def iterate(number: Array | int, guesses: Array) -> tuple[Array | int, Array, Matrix, Array]:
        values, matrices = jax.vmap(model)(shift(initial_state, guesses), inputs)
        correction, guesses = solve(around._replace(guesses=guesses), values, matrices)
        moved = jnp.abs(correction).max(0) > CLOSE * jnp.abs(guesses).max(0)
        return number + 1, guesses, matrices, moved.any()

    going = lambda carry: carry[3] & (carry[0] < steps)  # noqa: E731
    _, guesses, matrices, _ = jax.lax.while_loop(
        going, lambda carry: iterate(*carry[:2]), iterate(jnp.asarray(0), start)
    )
    return guesses, matrices
