"""Lifted Newton and quasi-Newton: beside the states, the points where a step reads the log density are unknown."""

import abc
import functools
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from parsample.engine.guess import at_once
from parsample.engine.iteration import PRECISION, Around, Memory, Update, shift, solve, update_of
from parsample.engine.lifted import Quadratics, expand
from parsample.engine.matrices import Dense, Diagonal, Matrix
from parsample.engine.methods.base import Method, Prepared, check_gate, check_probes, draw_signs
from parsample.engine.methods.newton import Newton
from parsample.engine.methods.quasi_newton import QuasiNewton
from parsample.engine.transition import FlatTransition, first_row

# Iterations on the surrogate's chain, which take none of the log density's gradients.
TURNS_OF_THE_GUESS = 8


class _Lifted(Method):
    """An iteration on the states and on the points inside of each step, with one gradient in sequence."""

    is_lifted: ClassVar[bool] = True

    gate: eqx.AbstractVar[str]
    radius: eqx.AbstractVar[float]

    @property
    @abc.abstractmethod
    def plain(self) -> Method:
        """The method that this one is where a transition does not say where it reads a log density."""

    @abc.abstractmethod
    def probes(self, around: Around, shape: tuple[int, ...]) -> Float[Array, "*shape probes dim"] | None:
        """Return random signs for an estimate of each Hessian's diagonal; None for the whole Hessian."""

    @abc.abstractmethod
    def jacobian(
        self, value: Callable[[Array], tuple[Array, PyTree]], state: Float[Array, " dim"], probes: Array | None
    ) -> tuple[Matrix, Float[Array, " dim"], PyTree]:
        """Return the matrix of a step that the models make, its value, and what the function has beside that."""

    def __check_init__(self):
        """Check the options."""
        check_gate(self.gate)
        if not self.radius > 0:
            raise ValueError(f"radius is {self.radius!r}, expected a number above 0, such as 0.2.")

    def tangents(self, dim: int) -> int:
        """Return those of the method that is not lifted."""
        return self.plain.tangents(dim)

    def turns(self, transition: FlatTransition, state: Array | jax.ShapeDtypeStruct, inputs: PyTree) -> int:
        """Return one for each point, and one."""
        lifted = transition.transition.lifted()
        if lifted is None:
            return 1
        points = lambda state, input: lifted.points(lifted.density, transition.unravel(state), input)  # noqa: E731
        return 1 + jax.eval_shape(points, state, jax.eval_shape(first_row, inputs)).shape[0]

    def prepare(self, transition: FlatTransition, initial_state: Float[Array, " dim"], inputs: PyTree) -> Prepared:
        """Solve for the surrogate's chain, if there is one, as far as a guess is worth."""
        found = transition.surrogate()
        if transition.transition.lifted() is None or found is None:
            return Prepared()

        linearise = functools.partial(QuasiNewton().linearise, found)
        states, _ = at_once(linearise, initial_state, inputs, TURNS_OF_THE_GUESS, close=0.0)
        return Prepared(None, jax.lax.stop_gradient(states))

    def start(self, transition: FlatTransition, around: Around) -> Memory:
        """Remember no points yet: rows are (turns, points), numbers the curvature far from a point.

        The turns of a row are its iterations since the state before it is known; -1 while its points are not.
        """
        lifted = transition.transition.lifted()
        if lifted is None:
            return Memory()
        (rows, dim), count = around.guesses.shape, self.turns(transition, around.boundary, around.inputs) - 1
        points = jnp.zeros((rows, count, dim), around.guesses.dtype)
        density = lifted.density if lifted.surrogate is None else lifted.surrogate
        flat = lambda vector: density(transition.unravel(vector))  # noqa: E731
        base = expand(flat, around.boundary, self.probes(around, ())).hessian
        return Memory((jnp.full(rows, -1), points), jnp.where(jnp.isfinite(base).all(), base, 0))

    def iterate(self, transition: FlatTransition, around: Around, memory: Memory) -> Update:
        """Read the log density at all points, make every step with its models, and solve."""
        lifted = transition.transition.lifted()
        if lifted is None:
            return self.plain.iterate(transition, around, memory)
        (turns, last), base = memory
        probes = self.probes(around, (last.shape[0], 1 + last.shape[1]))

        def points(density: Callable, state: Array, input: PyTree) -> Array:
            return lifted.points(density, transition.unravel(state), input)

        def read(state: Array, input: PyTree, known: Array, last: Array, probes: Array | None) -> tuple:
            density = lambda vector: lifted.density(transition.unravel(vector))  # noqa: E731
            first = state if lifted.surrogate is None else points(lifted.surrogate, state, input)
            at = jnp.where(known, last, first)
            rows = jnp.concatenate([state[None], at])
            return Quadratics(jax.vmap(lambda *row: expand(density, *row))(rows, probes), base, self.radius), at

        def step(quadratics: Quadratics, state: Array, input: PyTree, probes: Array | None) -> tuple:
            inner = FlatTransition(lifted.on(quadratics).with_gate(self.gate), transition.unravel, transition.detailed)
            matrix, value, details = self.jacobian(
                lambda state: inner.with_details(state, input), state, None if probes is None else probes[0]
            )
            return value, matrix, points(quadratics, state, input), details

        previous = around.previous()
        quadratics, at = jax.lax.stop_gradient(jax.vmap(read)(previous, around.inputs, turns >= 0, last, probes))
        with jax.default_matmul_precision(PRECISION):
            made = jax.vmap(step)(quadratics, previous, around.inputs, probes)
            values, matrices, reached, details = jax.lax.stop_gradient(made)
            correction, guesses = solve(around, values, matrices)
            following = jax.vmap(points)(quadratics, shift(around.boundary, guesses), around.inputs)
        # What leaves the finite numbers there and here is the same; a comparison with NaN is False.
        near = jnp.abs(reached - at) <= around.tolerance[:, None]
        waiting = ~(near | ~(jnp.isfinite(reached) | jnp.isfinite(at))).all((1, 2))
        after_final = jnp.concatenate([jnp.ones(1, bool), ~around.open[:-1]])
        turns = jnp.where(after_final, jnp.maximum(turns, 0) + 1, 0)
        waiting = waiting & around.open & (turns <= last.shape[1])
        # Points that the models made of a wild guess are none.
        kept = jnp.where(jnp.isfinite(following).all((1, 2), keepdims=True), following, reached)
        memory = Memory((turns, jax.lax.stop_gradient(kept)), base)
        return update_of(around, values, correction, guesses, details, memory)._replace(waiting=waiting)


class LiftedNewton(_Lifted):
    """Newton's iteration on the states and on the points inside of each step, with one gradient in sequence.

    A step of HMC with L leapfrog steps has L + 1 gradients that wait for each other, and so has an iteration of
    `Newton`. Here the position after every leapfrog step is an unknown as well. An iteration reads the log density,
    its gradient and its Hessian at all of them at once, makes every step with the quadratic models that these are
    (which decide about acceptance, too), solves the linear system over the states, and makes the steps once more from
    there, which gives the next points. So an iteration waits for one gradient, however long trajectories are. A step is
    accepted when its points are within the tolerance of those that the models lead to: then the models are exact there.
    Where the state before it is known, the first point that is wrong is right after an iteration, whatever the models.

    Far from its point a model is not to be trusted: there it bends over to a curvature that holds for the whole
    density, that of the surrogate (of a sampler in standardised coordinates: a standard normal), or else that at the
    first state. The surrogate's chain and its points are the guess, where there is a surrogate.

    With a transition that does not say where it reads a log density this is `Newton`.

    Args:
        gate: how the derivative treats accept/reject.
        radius: how far a model is trusted, dimensionless: in standard deviations, the root of the mean over the
            coordinates.

    Raises:
        ValueError: an unknown gate, or a radius that is not above 0.

    Cost: an iteration takes as much work as one of `Newton`, and points x dim^2 numbers a step in memory; what differs
        is how many gradients are one after the other. Before the first one, eight iterations on the surrogate's chain,
        which take none. Where steps are large, and most of all where the density is far from normal, it takes more
        iterations than Newton's, though at most points + 1 a step.

    Source: ours. Multiple shooting (Bock & Plitt 1984) and the lifted Newton method (Albersmeyer & Diehl 2010), which
    make the inner values of a function unknowns; here for a Markov chain with accept/reject, and with models that bend.
    """

    gate: str = eqx.field(static=True, default="frozen")
    radius: float = eqx.field(static=True, default=0.2)

    @property
    def plain(self) -> Newton:
        """Newton's method."""
        return Newton(self.gate)

    def probes(self, around: Around, shape: tuple[int, ...]) -> None:
        """Return None."""
        return

    def jacobian(
        self, value: Callable[[Array], tuple[Array, PyTree]], state: Float[Array, " dim"], probes: Array | None
    ) -> tuple[Matrix, Float[Array, " dim"], PyTree]:
        """Return the whole Jacobian."""

        def value_twice(state: Array) -> tuple[Array, tuple[Array, PyTree]]:
            found = value(state)
            return found[0], found

        jacobian, found = jax.jacfwd(value_twice, has_aux=True)(state)
        return Dense(jacobian), *found


class LiftedQuasiNewton(_Lifted):
    """`LiftedNewton` with the diagonals of the Hessians and of the Jacobians alone: O(dim) a point and step.

    For coordinates that are weakly coupled, as standardised ones are.

    Args:
        num_probes: random signs v for the estimate of a diagonal, the mean of v * H v.
        gate: how the derivative treats accept/reject.
        radius: as for `LiftedNewton`.

    Raises:
        ValueError: num_probes below 1, an unknown gate, or a radius that is not above 0.

    Cost: a gradient and `num_probes` of its derivatives at every point.

    Source: ours; the probes are those of Zoltowski et al. 2025, section 3.
    """

    num_probes: int = eqx.field(static=True, default=1)
    gate: str = eqx.field(static=True, default="frozen")
    radius: float = eqx.field(static=True, default=0.2)

    def __check_init__(self):
        """Check the options."""
        check_probes(self.num_probes)

    @property
    def plain(self) -> QuasiNewton:
        """Quasi-Newton."""
        return QuasiNewton("hutchinson", self.num_probes, self.gate)

    def probes(self, around: Around, shape: tuple[int, ...]) -> Float[Array, "*shape probes dim"]:
        """Return random signs."""
        return draw_signs(around.rng_key, (*shape, self.num_probes, around.guesses.shape[1]), around.guesses.dtype)

    def jacobian(
        self, value: Callable[[Array], tuple[Array, PyTree]], state: Float[Array, " dim"], probes: Array | None
    ) -> tuple[Matrix, Float[Array, " dim"], PyTree]:
        """Return its diagonal: exact with a mass matrix that is diagonal, as the models are."""
        assert probes is not None
        found, along, details = jax.linearize(value, state, has_aux=True)
        return Diagonal(jnp.mean(probes * jax.vmap(along)(probes), 0)), found, details
