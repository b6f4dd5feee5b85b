"""The sequential loop, as a method."""

from typing import ClassVar

from parsample.engine.iteration import Around, Memory, Update
from parsample.engine.methods.base import Method
from parsample.engine.transition import FlatTransition


class Sequential(Method):
    """One step after the other, by `lax.scan`: T evaluations, no iteration, exact.

    The driver knows this method and runs the loop instead of iterating; a sampler's transition keeps what the next
    step can reuse (for MALA the gradient), so a step costs what it costs in a sequential sampler.
    """

    needs_derivative: ClassVar[bool] = False
    has_active_set: ClassVar[bool] = True  # as every option that does not concern a loop, it changes nothing

    def iterate(self, transition: FlatTransition, around: Around, memory: Memory) -> Update:
        """Refuse: there is nothing to iterate."""
        raise TypeError("the sequential loop does not iterate")
