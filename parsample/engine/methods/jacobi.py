"""Jacobi iteration: A = 0."""

from typing import ClassVar

from parsample.engine.iteration import Linearised, Steps
from parsample.engine.matrices import Zero
from parsample.engine.methods.base import LinearMethod, evaluate_all
from parsample.engine.transition import FlatTransition


class Jacobi(LinearMethod):
    """A[t] = 0: every step is evaluated at the last guess, with no scan and no derivative.

    For transitions that forget their state at once; otherwise it gains one step an iteration.

    Source: Ortega & Rheinboldt 1970; Song et al. 2021, "Accelerating feedforward computation via parallel nonlinear
    equation solving".
    """

    needs_derivative: ClassVar[bool] = False

    def linearise(self, transition: FlatTransition, steps: Steps) -> Linearised:
        """Return the values and zero matrices."""
        values, details = evaluate_all(transition, steps)
        return Linearised(values, Zero(), details)
