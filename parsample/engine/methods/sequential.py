"""The sequential loop, as a method."""

from jaxtyping import Array, Float, Key, PyTree

from parsample.engine.matrices import Matrix
from parsample.engine.methods.base import Method
from parsample.engine.transition import FlatTransition


class Sequential(Method):
    """One step after the other, by `lax.scan`: T evaluations, no iteration, exact.

    The driver knows this method and runs the loop instead of iterating; a sampler's transition keeps what the next
    step can reuse (for MALA the gradient), so a step costs what it costs in a sequential sampler.
    """

    def linearise(
        self,
        transition: FlatTransition,
        previous: Float[Array, "steps dim"],
        inputs: PyTree,
        rng_key: Key[Array, ""],
    ) -> tuple[Float[Array, "steps dim"], Matrix]:
        """Refuse: there is nothing to linearise."""
        raise TypeError("the sequential loop does not linearise")
