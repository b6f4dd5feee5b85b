"""What a method is: a choice of the matrix A[t]."""

import abc

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key, PyTree

from parsample.engine.matrices import Matrix
from parsample.engine.transition import GATES, FlatTransition


class Method(eqx.Module):
    """A choice of A[t], and nothing else. The driver in `evaluate.py` does the rest, once for all methods."""

    @abc.abstractmethod
    def linearise(
        self,
        transition: FlatTransition,
        previous: Float[Array, "steps dim"],
        inputs: PyTree,
        rng_key: Key[Array, ""],
    ) -> tuple[Float[Array, "steps dim"], Matrix]:
        """Evaluate the transition at every step of a window, and choose its matrices.

        Args:
            transition: between flat vectors.
            previous: the state before each step, in the units of the state.
            inputs: one for each step.
            rng_key: fresh for every iteration, for methods with random probes.

        Returns:
            The values f(previous[t], inputs[t]), and A with leading axis `steps`.
        """


def check_gate(gate: str) -> None:
    """Raise ValueError unless `gate` is the name of one."""
    if gate not in GATES:
        raise ValueError(f"gate is {gate!r}, expected one of {', '.join(map(repr, GATES))}.")


def evaluate_all(transition: FlatTransition, previous: Float[Array, "steps dim"], inputs: PyTree) -> Array:
    """Evaluate the transition at every step of a window: shape (steps, dim)."""
    return jax.vmap(transition)(previous, inputs)
