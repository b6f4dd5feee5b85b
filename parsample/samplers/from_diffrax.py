"""diffrax's solvers as transitions with fixed inputs: the input of a step is the interval of time that it crosses."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree


class Remembering(NamedTuple):
    """A state of a solver that hands more than y from step to step, such as a multistep or a reversible one.

    Attributes:
        y: of the equation.
        memory: the solver's own state.
    """

    y: PyTree
    memory: PyTree


class FromDiffrax(eqx.Module):
    """A differential equation, its solver and its times, as what the engine evaluates. See `from_diffrax`."""

    solver: Any
    terms: PyTree
    args: PyTree
    times: Float[Array, " times"]

    @property
    def inputs(self) -> tuple[Float[Array, " steps"], Float[Array, " steps"]]:
        """The start and the end of every step."""
        return self.times[:-1], self.times[1:]

    def init(self, y0: PyTree) -> PyTree:
        """Return the state at the first time: `y0`, and with it what the solver hands from step to step, if it does.

        Args:
            y0: as for `diffrax.diffeqsolve`.
        """
        import diffrax

        y0 = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf, self.times)), y0)
        memory = self.solver.init(self.terms, self.times[0], self.times[1], y0, self.args)
        # What these remember follows from y and the times: their first stage, or coefficients of a step.
        follows = isinstance(self.solver, diffrax.AbstractRungeKutta | diffrax.AbstractFosterLangevinSRK)
        return y0 if follows or not jax.tree.leaves(memory) else Remembering(y0, memory)

    def transition(self, state: PyTree, input: tuple[Float[Array, ""], Float[Array, ""]]) -> PyTree:
        """Make one step of the solver; NaN where it fails, such as an implicit one whose root is not found."""
        import diffrax

        # Brownian paths have no derivative in time, and refuse to be asked for one.
        start, end = jax.tree.map(jax.lax.stop_gradient, input)
        remembers = isinstance(state, Remembering)
        y = state.y if remembers else state
        memory = state.memory if remembers else self.solver.init(self.terms, start, end, y, self.args)
        y, _, _, memory, result = self.solver.step(self.terms, start, end, y, self.args, memory, False)
        okay = diffrax.is_okay(result)
        y = jax.tree.map(lambda leaf: jnp.where(okay, leaf, jnp.nan), y)
        return Remembering(y, memory) if remembers else y

    def values(self, states: PyTree) -> PyTree:
        """Return y of states, such as those of a `Solution`, without what the solver remembers."""
        return states.y if isinstance(states, Remembering) else states


def from_diffrax(solver: Any, terms: PyTree, times: Any, args: PyTree = None) -> FromDiffrax:
    """Turn a differential equation and a diffrax solver into a transition whose steps the engine can evaluate at once.

    Args:
        solver: a `diffrax.AbstractSolver`, used with fixed steps. Where its `scan_kind` was left open, one is
            chosen that can be differentiated forwards as well, as methods do.
        terms: as for `diffrax.diffeqsolve`: an `ODETerm`, or for an SDE a `MultiTerm` with a `ControlTerm` of a
            `VirtualBrownianTree`, or what the solver asks for.
        times: rising, of the steps' ends and the start before them, in the units of the equation's time.
        args: handed to the vector fields.

    Returns:
        An object with `init(y0)`, `inputs`, `transition` and `values(states)`. The states are those of `diffeqsolve`
        with `StepTo(times)`, each a step, up to rounding.

    Raises:
        ValueError: an argument is not what it should be; the sentence says which and how to mend it.

    Cost: that of the solver's step, and for solvers that reuse their last stage (Tsit5, Dopri5) one call of the vector
        field more. A Brownian tree is walked anew in every evaluation, O(log((t1 - t0) / tol)) numbers a step.

    Example:
        equation = from_diffrax(diffrax.Heun(), diffrax.ODETerm(field), jnp.linspace(0, 1, 257))
        solution = parsample.evaluate(equation.transition, equation.init(y0), equation.inputs, method="newton")
        y = equation.values(solution.states)

    With a solver that remembers more than y (multistep, reversible) use `Conditioning(projection=False)`: the matrix of
    a step has a large norm then, though the product of many is small. Equations that forget their start solve in
    few iterations, chaotic ones and steps beyond the solver's stability in as many as there are steps;
    `parsample.diagnose(equation.transition, equation.init(y0), equation.inputs)` foresees which.

    Source: Kidger 2022, "On neural differential equations", for diffrax.
    """
    import diffrax

    if not isinstance(solver, diffrax.AbstractSolver):
        raise ValueError(f"solver is a {type(solver).__name__}, expected a diffrax solver such as diffrax.Heun().")
    is_term = lambda leaf: isinstance(leaf, diffrax.AbstractTerm)  # noqa: E731
    wrong = [leaf for leaf in jax.tree.leaves(terms, is_leaf=is_term) if not is_term(leaf)]
    if wrong or not jax.tree.leaves(terms, is_leaf=is_term):
        found = type(wrong[0]).__name__ if wrong else "nothing"
        raise ValueError(f"terms holds a {found}, expected diffrax terms such as diffrax.ODETerm(field).")
    rows = times if isinstance(times, jax.core.Tracer) else np.asarray(times)
    if rows.ndim != 1 or rows.size < 2:
        raise ValueError(f"times has shape {rows.shape}, expected one row of at least two times.")
    if not isinstance(rows, jax.core.Tracer) and not (np.isfinite(rows).all() and (np.diff(rows) > 0).all()):
        raise ValueError(
            "times do not rise, expected finite times each above the last; for time that falls, write the terms in -t."
        )
    _check_root_finder(solver)
    dtype = jnp.result_type(rows) if jnp.issubdtype(rows.dtype, jnp.floating) else jnp.result_type(float)
    return FromDiffrax(_forwards(solver), terms, args, jnp.asarray(rows, dtype))


def _forwards(solver: Any) -> Any:
    """Return the solver, and those inside it, with stages that can be differentiated forwards and in reverse."""
    if hasattr(solver, "solver"):
        return eqx.tree_at(lambda outer: outer.solver, solver, _forwards(solver.solver))
    if getattr(solver, "scan_kind", "") is not None:
        return solver
    # diffrax's own choice cannot be differentiated forwards. The loop over Runge-Kutta stages has no fixed length, so
    # that a plain one could not be differentiated in reverse.
    import diffrax

    kind = "bounded" if isinstance(solver, diffrax.AbstractRungeKutta) else "lax"
    return eqx.tree_at(lambda inner: inner.scan_kind, solver, kind, is_leaf=lambda leaf: leaf is None)


def _check_root_finder(solver: Any) -> None:
    import diffrax

    if not isinstance(solver, diffrax.AbstractImplicitSolver):
        return
    finder: Any = getattr(solver, "root_finder", None)
    if not all(isinstance(getattr(finder, name, 0.0), float | int) for name in ("rtol", "atol")):
        raise ValueError(
            f"solver is {type(solver).__name__} without tolerances for its root finder, expected some, because steps "
            "are fixed; for example root_finder=diffrax.VeryChord(rtol=1e-6, atol=1e-6, norm=optimistix.max_norm)."
        )
