"""Lifted Newton: beside the states, the points where a step reads the log density are unknown."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from parsample.engine.iteration import PRECISION, Around, Memory, Update, shift, solve, update_of
from parsample.engine.lifted import Lifted, Quadratics, expand
from parsample.engine.matrices import Dense
from parsample.engine.methods.base import Method, Prepared, check_gate
from parsample.engine.methods.newton import Newton
from parsample.engine.transition import FlatTransition, first_row


class LiftedNewton(Method):
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
        is how many gradients are one after the other. Where steps are large, and most of all where the density is far
        from normal, it takes more iterations than Newton's, though at most points + 1 a step.

    Source: ours. Multiple shooting (Bock & Plitt 1984) and the lifted Newton method (Albersmeyer & Diehl 2010), which
    make the inner values of a function unknowns; here for a Markov chain with accept/reject, and with models that bend.
    """

    is_lifted: ClassVar[bool] = True

    gate: str = eqx.field(static=True, default="frozen")
    radius: float = eqx.field(static=True, default=0.2)

    def __check_init__(self):
        """Check the options."""
        check_gate(self.gate)
        if not self.radius > 0:
            raise ValueError(f"radius is {self.radius!r}, expected a number above 0, such as 0.2.")

    def tangents(self, dim: int) -> int:
        """Return one for each coordinate."""
        return dim

    def turns(self, transition: FlatTransition, state: Array | jax.ShapeDtypeStruct, inputs: PyTree) -> int:
        """Return one for each point, and one."""
        lifted = transition.transition.lifted()
        if lifted is None:
            return 1
        first = jax.eval_shape(first_row, inputs)
        points = jax.eval_shape(
            lambda state, input: _points(transition, lifted, lifted.density, state, input), state, first
        )
        return 1 + points.shape[0]

    def prepare(self, transition: FlatTransition, initial_state: Float[Array, " dim"], inputs: PyTree) -> Prepared:
        """Run the surrogate's chain, if there is one."""
        found = transition.surrogate()
        if transition.transition.lifted() is None or found is None:
            return Prepared()

        def step(state: Array, input: PyTree) -> tuple[Array, Array]:
            value = found(state, input)
            return value, value

        return Prepared(None, jax.lax.scan(step, initial_state, inputs)[1])

    def start(self, transition: FlatTransition, around: Around) -> Memory:
        """Remember no points yet: rows are (turns, points), numbers the curvature far from a point.

        The turns of a row are its iterations since the state before it is known; -1 while its points are not.
        """
        lifted = transition.transition.lifted()
        if lifted is None:
            return Memory()
        rows, dim = around.guesses.shape
        points = jnp.zeros(
            (rows, self.turns(transition, around.boundary, around.inputs) - 1, dim), around.guesses.dtype
        )
        density = lifted.density if lifted.surrogate is None else lifted.surrogate
        base = expand(lambda vector: density(transition.unravel(vector)), around.boundary).hessian
        return Memory((jnp.full(rows, -1), points), jnp.where(jnp.isfinite(base).all(), base, 0))

    def iterate(self, transition: FlatTransition, around: Around, memory: Memory) -> Update:
        """Read the log density at all points, make every step with its models, and solve."""
        lifted = transition.transition.lifted()
        if lifted is None:
            return Newton(self.gate).iterate(transition, around, memory)
        (turns, last), base = memory

        def points(density, state, input):
            return _points(transition, lifted, density, state, input)

        def model(quadratics: Quadratics) -> FlatTransition:
            inner = lifted.on(quadratics).with_gate(self.gate)
            return FlatTransition(inner, transition.unravel, transition.detailed)

        def read(state: Array, input: PyTree, known: Array, last: Array) -> tuple[Quadratics, Array]:
            density = lambda vector: lifted.density(transition.unravel(vector))  # noqa: E731
            first = state if lifted.surrogate is None else points(lifted.surrogate, state, input)
            at = jnp.where(known, last, first)
            rows = jnp.concatenate([state[None], at])
            return Quadratics(jax.vmap(lambda row: expand(density, row))(rows), base, self.radius), at

        def step(quadratics: Quadratics, state: Array, input: PyTree) -> tuple[Array, Array, Array, PyTree]:
            def value_twice(state):
                value, details = model(quadratics).with_details(state, input)
                return value, (value, details)

            jacobian, (value, details) = jax.jacfwd(value_twice, has_aux=True)(state)
            return value, jacobian, points(quadratics, state, input), details

        previous = around.previous()
        quadratics, at = jax.lax.stop_gradient(jax.vmap(read)(previous, around.inputs, turns >= 0, last))
        with jax.default_matmul_precision(PRECISION):
            made = jax.vmap(step)(quadratics, previous, around.inputs)
            values, jacobians, reached, details = jax.lax.stop_gradient(made)
            correction, guesses = solve(around, values, Dense(jacobians))
            following = jax.vmap(points)(quadratics, shift(around.boundary, guesses), around.inputs)
        # What leaves the finite numbers there and here is the same; a comparison with NaN is False.
        near = jnp.abs(reached - at) <= around.tolerance[:, None]
        waiting = ~(near | ~(jnp.isfinite(reached) | jnp.isfinite(at))).all((1, 2))
        turns = jnp.where(shift(jnp.ones(1, bool), ~around.open[:, None])[:, 0], jnp.maximum(turns, 0) + 1, 0)
        waiting = waiting & around.open & (turns <= last.shape[1])
        # Points that the models made of a wild guess are none.
        kept = jnp.where(jnp.isfinite(following).all((1, 2), keepdims=True), following, reached)
        memory = Memory((turns, jax.lax.stop_gradient(kept)), base)
        return update_of(around, values, correction, guesses, details, memory)._replace(waiting=waiting)


def _points(
    transition: FlatTransition, lifted: Lifted, density, state: Float[Array, " dim"], input: PyTree
) -> Float[Array, "points dim"]:
    """Return the points of a step on a density, from a flat state."""
    return lifted.points(density, transition.unravel(state), input)
