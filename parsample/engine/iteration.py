"""One iteration: what it starts from, what a method makes of it, and the linear system in between."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from parsample.engine.matrices import Matrix
from parsample.engine.rules import Conditioning
from parsample.engine.scan import solve_lds

# Of the products in linear systems: with less, iterations may double. A transition keeps the caller's setting.
PRECISION = "highest"


class Steps(NamedTuple):
    """Steps to linearise, in any order.

    Attributes:
        previous: the state before each step, shape (steps, dim), in the units of the state.
        inputs: one for each step.
        prepared: for each step what the method prepared before the first iteration, or None.
        rng_key: fresh for every iteration, for methods with random probes.
        common: what the method prepared for all steps, or None.
    """

    previous: Float[Array, "steps dim"]
    inputs: PyTree
    prepared: PyTree
    rng_key: Key[Array, ""]
    common: PyTree = None


class Around(NamedTuple):
    """The trajectory that an iteration starts from: the guesses of a window, and what is fixed about its steps.

    A window does not go beyond the end of its chain: there it stays where it is, and its first rows are accepted.

    Attributes:
        boundary: the exact state before the window, shape (dim,).
        guesses: of every state in the window, shape (window, dim).
        open: which rows are not accepted yet; those before them are final.
        latest: the state before the first open row, shape (dim,).
        inputs: one for each step.
        prepared: for each step what the method prepared before the first iteration, or None.
        tolerance: of every state, shape (window, dim), in its units.
        rng_key: fresh for every iteration.
        conditioning: of the matrices.
        capacity: how many steps are gathered at a time when only the active ones are evaluated; None to evaluate all.
        accept_early: the share of the tolerance within which a state is accepted before the ones after it.
        common: what the method prepared for all steps, or None.
    """

    boundary: Float[Array, " dim"]
    guesses: Float[Array, "window dim"]
    open: Bool[Array, " window"]
    latest: Float[Array, " dim"]
    inputs: PyTree
    prepared: PyTree
    tolerance: Float[Array, "window dim"]
    rng_key: Key[Array, ""]
    conditioning: Conditioning
    capacity: int | None
    accept_early: float = 1.0
    common: PyTree = None

    def previous(self) -> Float[Array, "window dim"]:
        """Return the state before each step of the window."""
        return shift(self.boundary, self.guesses)

    def early(self) -> Float[Array, "window dim"]:
        """Return what the error of a state may be that is accepted before the ones after it."""
        return self.accept_early * self.tolerance

    def steps(self) -> Steps:
        """Return all steps of the window."""
        return Steps(self.previous(), self.inputs, self.prepared, self.rng_key, self.common)


class Linearised(NamedTuple):
    """A linear model of the transition at some steps.

    Attributes:
        values: f(previous[t], inputs[t]), shape (steps, dim).
        matrices: A, leading axis `steps`.
        details: of every step, as `FlatTransition.with_details` has them.
    """

    values: Float[Array, "steps dim"]
    matrices: Matrix
    details: PyTree = None


class Memory(NamedTuple):
    """What a method remembers from one iteration to the next.

    Attributes:
        rows: a pytree with leading axis `window`, which moves with the window; rows that enter are those of the start.
        numbers: a pytree that stays as it is.
    """

    rows: PyTree = None
    numbers: PyTree = None


class Update(NamedTuple):
    """What a method makes of an iteration.

    Attributes:
        states: the trajectory that was evaluated, and is judged.
        values: the transition's values along it, f(states[t-1], inputs[t]).
        correction: what the iteration would still change about `states`: an estimate of their error.
        guesses: the next trajectory.
        evaluations: calls of the transition.
        memory: for the next iteration.
        details: of the steps, from the very evaluation that gave `values`.
        waiting: rows whose value is not the transition's there, because their evaluation was put off or is not exact
            yet: they are not accepted. None where there are none; not the first open row for ever.
    """

    states: Float[Array, "window dim"]
    values: Float[Array, "window dim"]
    correction: Float[Array, "window dim"]
    guesses: Float[Array, "window dim"]
    evaluations: Int[Array, ""]
    memory: Memory
    details: PyTree = None
    waiting: Bool[Array, " window"] | None = None


def update_of(
    around: Around,
    values: Float[Array, "window dim"],
    correction: Float[Array, "window dim"],
    guesses: Float[Array, "window dim"],
    details: PyTree,
    memory: Memory = Memory(),  # noqa: B008
) -> Update:
    """Return the update of a method that evaluates the transition once at every step of the window."""
    evaluations = jnp.asarray(around.guesses.shape[0])
    return Update(around.guesses, values, correction, guesses, evaluations, memory, details)


def shift(boundary: Float[Array, " dim"], rows: Float[Array, "window dim"]) -> Float[Array, "window dim"]:
    """Return the row before each row, `boundary` before the first."""
    return jnp.concatenate([boundary[None], rows[:-1]])


def solve(
    around: Around, values: Float[Array, "window dim"], matrices: Matrix, at: Float[Array, "window dim"] | None = None
) -> tuple[Float[Array, "window dim"], Float[Array, "window dim"]]:
    """Solve x_new[t] = f(x[t-1]) + A[t] (x_new[t-1] - x[t-1]), with A conditioned.

    Where the values are those at other states `at`, each is first moved to the present one: f(at[t]) + A (x[t-1] - at).

    The system is solved for the correction: it is small near convergence, so its rounding errors are too, and its size
    estimates the error of the trajectory where the residual is only the error of one step. A step whose value or
    matrix is not finite forgets its past and starts again from the latest state that is final; such guesses are never
    accepted. Rows that are accepted already stay as they are.

    Returns:
        The correction x_new - x, and x_new, both of shape (window, dim).
    """
    usable = jnp.isfinite(values).all(1) & matrices.isfinite()
    nothing = jnp.zeros_like(around.boundary)
    with jax.default_matmul_precision(PRECISION):
        matrices = around.conditioning.apply(matrices.where(usable & around.open))
        if at is not None:
            values = values + matrices.apply(jnp.where(jnp.isfinite(at), around.previous() - at, 0))
        targets = jnp.where(usable[:, None], values, around.latest)
        targets = jnp.where(around.open[:, None], targets, around.guesses)
        correction = solve_lds(matrices, targets - around.guesses, nothing)
        updated = targets + matrices.apply(shift(nothing, correction))
    return correction, jnp.where(jnp.isfinite(updated).all(1, keepdims=True), updated, around.latest)
