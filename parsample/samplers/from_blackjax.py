"""BlackJAX's algorithms as chains with fixed inputs: the input of a step is its random key."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from parsample.samplers.base import Chain


class Unknowns(NamedTuple):
    """What has to be known of a state whose position is not all.

    Attributes:
        position: as BlackJAX has it.
        others: the other floating-point leaves of the state that `init` draws at random (a momentum), in their order.
    """

    position: PyTree
    others: tuple[Float[Array, "..."], ...]


class FromBlackJAX(Chain):
    """A chain of a BlackJAX algorithm: its states and its infos are BlackJAX's own. See `from_blackjax`."""

    algorithm: Any

    def init(self, position: PyTree, rng_key: Key[Array, ""] | None = None) -> Any:
        """Return BlackJAX's state at a position; what else is unknown is drawn, with the key 0 if none is given.

        Raises:
            ValueError: the position holds integers, and the algorithm takes a gradient in them.
        """
        try:
            return self.algorithm.init(position, jax.random.key(0) if rng_key is None else rng_key)
        except TypeError as error:
            check_differentiable(position, error)
            raise

    def unknowns(self, state: Any) -> PyTree:
        """Return the position, or `Unknowns` where the state holds more that is random."""
        leaves = jax.tree.leaves(state)
        others = tuple(leaves[number] for number in self._drawn(state.position, floating=True))
        return Unknowns(state.position, others) if others else state.position

    def resume(self, unknowns: PyTree) -> Any:
        """Return the state with these unknowns; the rest of it (log density, gradient) is what `init` gives there."""
        if not isinstance(unknowns, Unknowns):
            return self.init(unknowns)
        numbers = self._drawn(unknowns.position, floating=True)
        return _replace(self.init(unknowns.position), dict(zip(numbers, unknowns.others, strict=True)))

    def draw_block(self, rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype) -> Key[Array, " steps"]:
        """Return a key a step."""
        return jax.random.split(rng_key, num_steps)

    def step(self, state: Any, input: Key[Array, ""], gate: str = "frozen") -> tuple[Any, Any]:
        """Make BlackJAX's step with the key `input`.

        Raises:
            ValueError: the gate is not "frozen".
        """
        if gate != "frozen":
            raise ValueError(
                f"gate is {gate!r}, but BlackJAX's kernels keep their accept/reject to themselves; "
                "use gate='frozen', the derivative of the kernel as it is, or a sampler of parsample."
            )
        numbers = self._drawn(state.position, floating=False)
        if numbers:
            # Drawing them anew leaves the law as it is, and a step then depends on nothing but unknowns and key.
            fresh = jax.tree.leaves(self.init(state.position, jax.random.fold_in(input, 1)))
            state = _replace(state, {number: fresh[number] for number in numbers})
        try:
            return self.algorithm.step(input, state)
        except TypeError as error:
            check_differentiable(state.position, error)
            raise

    def with_diagonal(self, unknowns: PyTree, input: Key[Array, ""]) -> None:
        """Return None: the diagonal is left to the method's estimator."""
        return None

    def surrogate(self) -> None:
        """Return None: a BlackJAX algorithm does not show its log density."""
        return None

    def _drawn(self, position: PyTree, floating: bool) -> tuple[int, ...]:
        """Return the numbers of the state's leaves that `init` draws at random, floating-point ones or the others."""
        leaves, structure = jax.tree.flatten(jax.eval_shape(self.init, position, jax.random.key(0)))
        known = jax.tree.leaves(jax.tree.unflatten(structure, range(len(leaves))).position)
        random = _depends_on_key(self.init, position)
        return tuple(
            number
            for number, (leaf, drawn) in enumerate(zip(leaves, random, strict=True))
            if drawn and number not in known and jnp.issubdtype(leaf.dtype, jnp.floating) == floating
        )


def from_blackjax(algorithm: Any) -> FromBlackJAX:
    """Turn a BlackJAX sampling algorithm into a chain whose transition the engine can evaluate.

    Args:
        algorithm: what `blackjax.mala(logdensity_fn, step_size)` and its like return: anything with `init(position,
            rng_key)` and `step(rng_key, state) -> (state, info)` whose state has a `position`.

    Returns:
        A chain with `init`, `draw_inputs`, `step` and `transition`. Unknown are the position and every other
        floating-point leaf of the state that `init` draws at random; log density and gradient follow from the
        position. Leaves that are drawn and are no floating-point numbers (the dynamic algorithms keep a key there) are
        drawn anew in every step from its key. With the same keys, the chain is the one that BlackJAX's `step` makes.

    Raises:
        ValueError: `algorithm` has no `init` and `step`, or, at the first use, its state has no position.

    Cost: a parallel evaluation pays for `init` beside every step, one gradient for most algorithms. BlackJAX exposes
        no proposal beside its decision, so the only gate is the frozen one, JAX's derivative of the kernel as it
        is; there is no analytic diagonal, so quasi-Newton pays one JVP of the kernel a probe.

    Example:
        chain = from_blackjax(blackjax.mala(logdensity_fn, 0.1))
        keys = chain.draw_inputs(rng_key, 1000, position)
        solution = parsample.evaluate(chain.transition, chain.unknowns(chain.init(position)), keys)

    Source: BlackJAX (Cabezas et al. 2024), `SamplingAlgorithm`.
    """
    missing = [name for name in ("init", "step") if not callable(getattr(algorithm, name, None))]
    if missing:
        raise ValueError(
            f"algorithm is a {type(algorithm).__name__} without {' and '.join(missing)}, expected a sampling algorithm "
            "such as blackjax.mala(logdensity_fn, step_size)."
        )
    return FromBlackJAX(_Checked(algorithm.init, algorithm.step))


def check_differentiable(position: PyTree, error: TypeError) -> None:
    """Raise ValueError in place of what JAX says of a gradient in integers, if that is what it said."""
    if "inexact" not in str(error):
        return
    for path, leaf in jax.tree_util.tree_leaves_with_path(position):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise ValueError(
                f"position{jax.tree_util.keystr(path)} has dtype {dtype}, expected floating point, because the "
                "algorithm takes a gradient in it; convert it, for example with jnp.asarray(value, float), or close "
                "over what is not to be sampled."
            ) from error


class _Checked(NamedTuple):
    """The two functions of an algorithm."""

    raw_init: Any
    step: Any

    def init(self, position: PyTree, rng_key: Array) -> Any:
        state = self.raw_init(position, rng_key)
        if not hasattr(state, "position"):
            raise ValueError(
                f"algorithm has the state {type(state).__name__} with {', '.join(getattr(state, '_fields', ()))}, "
                "expected one with a position from which init can rebuild the rest."
            )
        return state


def _replace(tree: PyTree, leaves: dict[int, Any]) -> PyTree:
    """Return a tree with some of its leaves, by number, replaced."""
    old, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [leaves.get(number, leaf) for number, leaf in enumerate(old)])


def _depends_on_key(init: Any, position: PyTree) -> list[bool]:
    """Say for every leaf of the initial state whether the key enters it, following the program of `init`.

    What happens inside a compiled or branching part of it counts for all results of that part: then more is taken to
    be unknown than has to be, which is right all the same.
    """
    given = position, jax.random.key(0)
    program = jax.make_jaxpr(init)(*given).jaxpr
    tainted = {program.invars[-1]}
    for equation in program.eqns:
        # Literals have no hash; they never depend on anything.
        if any(not hasattr(variable, "val") and variable in tainted for variable in equation.invars):
            tainted.update(equation.outvars)
    return [not hasattr(variable, "val") and variable in tainted for variable in program.outvars]
