"""The compiled half of speculation: chains rolled out with what is known and, where a run is missing, with a guess."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from parsample.engine.fixed import fixed_first
from parsample.engine.transition import Transition
from parsample.workers.holes import Ask, fill, find_holes


class Problem(eqx.Module):
    """Chains on a log density of which one part is worked out elsewhere: a prior here, plus a simulator's there.

    Points are flat vectors, in coordinates where the posterior has about unit scale.
    """

    # Whether the simulator returns a gradient.
    has_gradient: eqx.AbstractVar[bool]

    @abc.abstractmethod
    def transition(self, step_size: Float[Array, ""]) -> Transition:
        """Return the sampler's transition on `Holes`."""

    @abc.abstractmethod
    def vector(self, point: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Return the position that stands for a point: where the simulator is run."""

    @abc.abstractmethod
    def prior(self, point: Float[Array, " dim"]) -> Float[Array, ""]:
        """Return what is added to the simulator's log density. Where it is not finite, nothing is sent."""

    @abc.abstractmethod
    def guess(self, point: Float[Array, " dim"]) -> Float[Array, ""] | None:
        """Return a log density, up to a constant, that resembles the whole; None where nothing resembles it."""

    @abc.abstractmethod
    def sent(self, vectors: Float[np.ndarray, "run dim"]) -> dict[str, np.ndarray]:
        """Return what the simulator is given at positions, leading axis `run`; not to be traced."""

    @abc.abstractmethod
    def whole(
        self, vectors: np.ndarray, values: np.ndarray, slopes: dict[str, np.ndarray] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the log density with the prior, and its gradient in the coordinates of points; not to be traced.

        Args:
            vectors: positions, shape (run, dim).
            values: what the simulator returned there, shape (run,).
            slopes: its gradients; None where it has none.
        """

    @abc.abstractmethod
    def learnt(self) -> "Problem":
        """Return the same with a better guess, by the runs so far; not to be traced."""


class Rows(NamedTuple):
    """What is known of holes: where the model was last run for each, and what it returned.

    Attributes:
        is_known: whether it was.
        point: where.
        value: the log density there, the prior included.
        gradient: of it; zeros where there is none.
        base: the log density of the state from which the step began that asked.
    """

    is_known: Bool[Array, "*holes"]
    point: Float[Array, "*holes dim"]
    value: Float[Array, "*holes"]
    gradient: Float[Array, "*holes dim"]
    base: Float[Array, "*holes"]


class Queries(NamedTuple):
    """What a rollout asks for.

    Attributes:
        is_exact: whether the hole holds what the model returns at this very point.
        point: where.
        vector: the position that stands for it.
        base: see `Rows`.
        distance: from where the model was run, in the largest coordinate; 0 where it was not.
    """

    is_exact: Bool[Array, "*holes"]
    point: Float[Array, "*holes dim"]
    vector: Float[Array, "*holes dim"]
    base: Float[Array, "*holes"]
    distance: Float[Array, "*holes"]


class Standing(NamedTuple):
    """Where a chain stands.

    Attributes:
        is_known: 1 where the model was run there, 0 where only the unknowns of the carry are meant.
        carry: of the transition.
        vector: the position at which the model was run, or is to be.
    """

    is_known: Float[Array, "*chain"]
    carry: PyTree
    vector: Float[Array, "*chain dim"]


class Rollout(NamedTuple):
    """Chains as they go by what is known so far; leading axis `chain`, then `span` for what is of every step.

    Attributes:
        start: the carry where they stand.
        asked_at_start: for it, with an axis `holes`.
        carries: after every step.
        details: of every step.
        asked: by every step, with an axis `holes`.
    """

    start: PyTree
    asked_at_start: Queries
    carries: PyTree
    details: PyTree
    asked: Queries


class Counted(NamedTuple):
    """How many evaluations one chain's start and one step of it need, and the form of a point."""

    of_start: int
    of_step: int
    point: jax.ShapeDtypeStruct


def count(problem: Problem, carry: PyTree, input: PyTree) -> Counted:
    """Count the evaluations of a chain.

    Raises:
        ValueError: a step has none, or an unknown number.
    """
    transition = problem.transition(jnp.ones(()))
    points = [find_holes(transition.start, transition.state_of(carry)), find_holes(transition.advance, carry, input)]
    if not (points[0] and points[1]):
        raise ValueError(
            "this sampler makes steps without the log density, so that there is nothing to run; a model outside JAX "
            "needs one that evaluates it, such as 'rwm' or 'mala'."
        )
    return Counted(len(points[0]), len(points[1]), points[0][0])


@eqx.filter_jit
def stand(problem: Problem, states: PyTree, vectors: Float[Array, "chain dim"]) -> Standing:
    """Return chains that stand at these unknowns, where the model was not run yet.

    Args:
        problem: the chains.
        states: the unknowns, leading axis `chain`.
        vectors: where the model is to be run for them.
    """

    def chain(state: PyTree) -> PyTree:
        transition = problem.transition(jnp.ones(()))
        nothing = lambda point: (jnp.zeros((), point.dtype), jnp.zeros_like(point))  # noqa: E731
        return fill(transition.start, state, ask=nothing)

    return Standing(jnp.zeros(len(vectors)), jax.vmap(chain)(states), vectors)


@fixed_first
def roll_out(
    problem: Problem,
    step_sizes: Float[Array, " chain"],
    standing: Standing,
    at_start: Rows,
    inputs: PyTree,
    rows: Rows,
    tolerances: tuple[Array, Array],
) -> Rollout:
    """Run every chain on from where it stands, with what is known in the holes, and guesses where nothing is.

    Args:
        problem: the chains.
        step_sizes: of each.
        standing: of each.
        at_start: what is known of where they stand, axes (chain, holes).
        inputs: of the steps, axes (chain, span).
        rows: what is known of these, axes (chain, span, holes).
        tolerances: absolute and relative: with a gradient, a run that is no further than that from where it is asked
            for counts as there, to second order in the distance. Without a gradient only the very point does.
    """

    def chain(step_size: Array, standing: Standing, at_start: Rows, inputs: PyTree, rows: Rows) -> Rollout:
        transition = problem.transition(step_size)
        asked: list[Queries] = []
        restart = lambda carry: transition.start(transition.state_of(carry))  # noqa: E731
        began = fill(restart, standing.carry, ask=_asking(problem, None, at_start, tolerances, asked))
        is_known = standing.is_known > 0
        start = jax.tree.map(lambda old, new: jnp.where(is_known, old, new), standing.carry, began)

        def step(carry: PyTree, turn: tuple[PyTree, Rows]) -> tuple[PyTree, tuple[PyTree, PyTree, Queries]]:
            of_step: list[Queries] = []
            ask = _asking(problem, carry, turn[1], tolerances, of_step)
            carry, diagnostics = fill(transition.advance, carry, turn[0], ask=ask)
            return carry, (carry, transition.details(carry, diagnostics), _stack(of_step))

        _, (carries, details, queries) = jax.lax.scan(step, start, (inputs, rows))
        return Rollout(start, _stack(asked), carries, details, queries)

    return jax.vmap(chain)(step_sizes, standing, at_start, inputs, rows)


def _asking(problem: Problem, carry: PyTree, rows: Rows, tolerances: tuple[Array, Array], asked: list[Queries]) -> Ask:
    """Return what is asked at the holes of one step, one after the other; `asked` collects the queries."""
    state: Any = carry
    logdensity: Any = getattr(state, "logdensity", None)
    position: Any = getattr(state, "position", None)
    slope_there: Any = getattr(state, "gradient", None) if problem.has_gradient else None
    has_guess = problem.guess(rows.point[0]) is not None

    def guess(point: Array) -> tuple[Array, Array]:
        if not has_guess:
            return jnp.zeros((), point.dtype), jnp.zeros_like(point)
        some: Callable[[Array], Any] = problem.guess
        return jax.value_and_grad(some)(point)

    def without(point: Array, value: Array, slope: Array) -> tuple[Array, Array]:
        """Guess where the model was never run for this hole: from the state that the step began at."""
        if logdensity is None or np.shape(position) != point.shape:
            return value, slope
        if slope_there is None and not has_guess:
            # Most proposals of a random walk are rejected.
            return jnp.full_like(value, -jnp.inf), slope
        at_state, slope_at_state = guess(position)
        excess = jnp.zeros_like(point) if slope_there is None else slope_there - slope_at_state
        return value + logdensity - at_state + jnp.vdot(excess, point - position), slope + excess

    def ask(point: Array) -> tuple[Array, Array]:
        row = jax.tree.map(lambda leaf: leaf[len(asked)], rows)
        apart = point - row.point
        value, slope = guess(point)
        known_value, known_slope = guess(row.point)
        excess = jnp.where(problem.has_gradient, row.gradient - known_slope, jnp.zeros_like(point))
        near_value = row.value + value - known_value + jnp.vdot(excess, apart)
        if not problem.has_gradient and not has_guess and logdensity is not None:
            # What a proposal gains over its state changes less than what it is.
            near_value = near_value + logdensity - row.base
        is_there = row.is_known & (apart == 0).all()
        is_exact = is_there
        if problem.has_gradient:
            absolute, relative = tolerances
            is_exact = row.is_known & (jnp.abs(apart) <= absolute + relative * jnp.abs(point)).all()
        missing_value, missing_slope = without(point, value, slope)
        answer = jnp.where(is_there, row.value, jnp.where(row.is_known, near_value, missing_value))
        gradient = jnp.where(row.is_known, slope + excess, missing_slope)
        gradient = jnp.where(is_there, row.gradient, gradient)
        # Nothing is sent from outside of the prior's support, or from where there are no numbers.
        is_inside = jnp.isfinite(point).all() & jnp.isfinite(problem.prior(point))
        base = jnp.zeros_like(value) if logdensity is None else logdensity
        distance = jnp.where(row.is_known, jnp.max(jnp.abs(apart)), 0)
        asked.append(Queries(is_exact | ~is_inside, point, problem.vector(point), base, distance))
        return jnp.where(is_inside, answer, -jnp.inf), jnp.where(is_inside, gradient, 0)

    return ask


def _stack(asked: list[Queries]) -> Queries:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *asked)
