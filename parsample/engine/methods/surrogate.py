"""Surrogate: the matrices, and the guess, of a cheaper transition in the place of the real one."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from parsample._former import takes_former
from parsample.engine.guess import at_once, in_turn
from parsample.engine.iteration import Linearised, Steps
from parsample.engine.matrices import Dense, Diagonal, Matrix
from parsample.engine.methods.base import Prepared, PreparedMethod, evaluate_all
from parsample.engine.transition import FlatTransition

STRUCTURES = ("diagonal", "dense")


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
        many = lambda steps: Linearised(*jax.vmap(model)(steps.previous, steps.inputs))  # noqa: E731
        steps = jax.tree.leaves(inputs)[0].shape[0]
        guess, matrices = jax.lax.platform_dependent(
            initial_state,
            inputs,
            cpu=lambda *chain: in_turn(model, *chain),
            default=lambda state, inputs: at_once(many, state, inputs, steps),
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
