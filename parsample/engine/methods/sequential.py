"""The sequential loop, as a method."""

from typing import ClassVar

from jaxtyping import Array, Float, PyTree

from parsample.engine.iteration import Around, Memory, Update
from parsample.engine.methods.base import Method, Prepared
from parsample.engine.transition import FlatTransition


class Sequential(Method):
    """One step after the other, by `lax.scan`: T evaluations, no iteration, exact.

    The driver knows this method and runs the loop instead of iterating; a sampler's transition keeps what the next
    step can reuse (for MALA the gradient), so a step costs what it costs in a sequential sampler.
    """

    has_active_set: ClassVar[bool] = True  # as every option that does not concern a loop, it changes nothing

    @property
    def needs_derivative(self) -> bool:
        """Whether the transition is differentiated: it is not."""
        return False

    def prepare(self, transition: FlatTransition, initial_state: Float[Array, " dim"], inputs: PyTree) -> Prepared:
        """Prepare nothing."""
        return Prepared()

    def start(self, transition: FlatTransition, around: Around) -> Memory:
        """Remember nothing."""
        return Memory()

    def iterate(self, transition: FlatTransition, around: Around, memory: Memory) -> Update:
        """Refuse: there is nothing to iterate."""
        raise TypeError("the sequential loop does not iterate")
