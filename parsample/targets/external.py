"""A model that runs outside of JAX, as a target: a plain Python function, on as many workers as there are."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from parsample.targets.base import Position, Target
from parsample.targets.density import LogDensity, check_scalar
from parsample.targets.distribution import Distribution
from parsample.targets.numpyro_model import NumPyroModel
from parsample.workers.callback import call
from parsample.workers.polynomial import Seen
from parsample.workers.pool import Workers


class External(Target):
    """A simulator: a plain Python function that needs nothing of JAX, and may take a minute a run.

    `parsample.sample` runs it many steps of every chain ahead, on all workers, and its chain is that of the loop.
    The position is a dict of NumPy arrays in double precision. It is that of `initial_position` or, with a prior, the
    prior's latent variables in their own coordinates.

    Args:
        simulate: `simulate(position) -> float`, the log density, or with a prior the log likelihood; with
            `gradient=True` it returns `(float, gradient)`, the gradient a dict like the position. The same position
            must give the same number.
        initial_position: a dict of arrays by name, all of them unconstrained. Chains start at it plus uniform noise on
            (-1, 1). With a prior: values of its variables, all or some, where all chains start; None for where the
            prior has them start.
        prior: a NumPyro model (with its arguments: `parsample.targets.NumPyroModel(model, ...)`), a target, a distrax
            distribution, or with an `initial_position` a log density, in JAX. It costs nothing, and what is outside of
            its support is never sent.
        executor: a `concurrent.futures.Executor`, such as that of Dask or MPI; "processes", "threads" or None for a
            pool of processes over the cores.
        gradient: True where `simulate` returns one; "finite_differences" to have it made of further runs, in the same
            round; None for none.
        vectorized: whether `simulate` takes many positions at once, every array with an axis in front.
        workers: runs at a time; None for what the executor has.
        timeout: seconds that a run may take.
        retries: how often a run that fails is tried again.
        on_error: "raise" ends the run of `parsample.sample`, with everything saved; "reject" counts a failed run as
            outside of the support, and the verdict tells how many there were.
        emulator: in JAX, a function that resembles `simulate`: it foresees what chains will do, and makes no
            difference to where they go. None for the normal distribution that warm-up finds.

    Raises:
        ValueError: an argument is not what it should be, or the function is not fit to be sent to workers.
    """

    name: ClassVar[str] = "external"

    prior: Target | None
    center: PyTree[Array]
    workers: Workers = eqx.field(static=True)
    seen: Seen = eqx.field(static=True)
    emulator: Callable | None = eqx.field(static=True)

    def __init__(
        self,
        simulate: Callable,
        initial_position: Any = None,
        prior: Any = None,
        *,
        executor: Executor | str | None = None,
        gradient: bool | str | None = None,
        vectorized: bool = False,
        workers: int | None = None,
        timeout: float | None = None,
        retries: int = 0,
        on_error: str = "raise",
        emulator: Callable | None = None,
    ):
        """Check the arguments, and make the workers ready; nothing is run yet."""
        if prior is None and initial_position is None:
            raise ValueError(
                "initial_position is None, expected arrays by name to start around, such as {'k': 0.0}, or a prior."
            )
        self.prior = None if prior is None else _prior_of(prior, initial_position)
        # A log density as a prior has its own place to start around.
        has_start = initial_position is None or isinstance(self.prior, LogDensity)
        self.center = None if has_start else _position(initial_position)
        self.emulator, self.seen = emulator, Seen()
        template = jax.eval_shape(lambda: self.values(self.position_template()))
        if emulator is not None:
            check_scalar(jax.eval_shape(emulator, template))
        self.workers = Workers(
            simulate,
            {name: np.zeros(leaf.shape, np.float64) for name, leaf in template.items()},
            gradient=gradient,
            executor=executor,
            workers=workers,
            vectorized=vectorized,
            timeout=timeout,
            retries=retries,
            on_error=on_error,
        )

    @property
    def has_gradient(self) -> bool:
        """Whether the model has a gradient."""
        return self.workers.has_gradient

    def logdensity(self, position: Position) -> Float[Array, ""]:
        """Return the log density from inside of a compiled program, which waits for the run.

        `parsample.sample` does not call it: it runs many positions at once (`parsample.workers.speculate`).
        """
        return self.logprior(position) + call(self.workers, self.values(position))

    def logprior(self, position: Position) -> Float[Array, ""]:
        """Return the prior's log density with the log-Jacobians, 0 without one."""
        if self.prior is None:
            return jnp.zeros((), jnp.result_type(*jax.tree.leaves(position)))
        return self.prior.logdensity(position)

    def values(self, position: Position) -> dict[str, Array]:
        """Return what the model is given: the variables that a position is, by name, in their own coordinates."""
        if self.prior is None:
            return dict(position)
        found = self.prior.constrain(position)
        return {name: found[name] for name in self.prior.start_shapes()}

    def look(self, vectors: Float[Array, "run dim"]) -> tuple[Float[Array, " run"], Float[Array, "run dim"]]:
        """Return log densities and gradients at flat positions, in one round; zeros for gradients where there are none.

        Cost: a run each.
        """
        known = np.isfinite(jax.device_get(_priors(self, vectors)))
        sent = jax.device_get(values_at(self, vectors))
        found = self.workers.submit(
            [{n: leaf[row] for n, leaf in sent.items()} for row in np.flatnonzero(known)], self.has_gradient
        )
        found.wait_all()
        values = np.full(len(known), -np.inf)
        values[known] = found.logdensity
        slopes: Any = None
        if self.has_gradient:
            slopes = {name: np.zeros(leaf.shape, vectors.dtype) for name, leaf in sent.items()}
            for name, leaf in slopes.items():
                leaf[known] = (found.gradient or {})[name]
        return whole(self, vectors, jnp.asarray(values, vectors.dtype), slopes)

    def levels(self, vectors: Float[Array, "run dim"]) -> Float[np.ndarray, " run"]:
        """Return log densities at flat positions, in double precision, in one round.

        Cost: a run each.
        """
        priors, sent = jax.device_get((_priors(self, vectors), values_at(self, vectors)))
        found, known = priors.astype(np.float64), np.isfinite(priors)
        round = self.workers.submit([{n: leaf[row] for n, leaf in sent.items()} for row in np.flatnonzero(known)])
        round.wait_all()
        found[known] += round.logdensity
        return found

    def position_template(self) -> Position:
        """Return zeros like a position."""
        return self.prior.position_template() if self.prior is not None else jax.tree.map(jnp.zeros_like, self.center)

    def initial_position(self, rng_key: Key[Array, ""]) -> Position:
        """Draw a start: around the initial position, or where the prior has it."""
        if self.prior is None:
            return LogDensity(_zero, self.center).initial_position(rng_key)
        if self.center is None:
            return self.prior.initial_position(rng_key)
        return self.prior.unconstrain(self.center, rng_key)

    def constrain(self, position: Position) -> dict[str, Array]:
        """Return the variables of the trace: the prior's, or the position."""
        return dict(position) if self.prior is None else self.prior.constrain(position)

    def start_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Name the variables that a position is made of."""
        return super().start_shapes() if self.prior is None else self.prior.start_shapes()

    def unconstrain(self, values: Mapping[str, Array], rng_key: Key[Array, ""]) -> Position:
        """Return a position with given values, where they are not given that of `initial_position`."""
        if self.prior is None:
            return {**self.initial_position(rng_key), **values}
        return self.prior.unconstrain(values, rng_key)

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Those of the prior."""
        return {} if self.prior is None else self.prior.dims

    @property
    def coords(self) -> dict[str, Sequence]:
        """Those of the prior."""
        return {} if self.prior is None else self.prior.coords


@eqx.filter_jit
def values_at(target: External, vectors: Float[Array, "run dim"]) -> dict[str, Array]:
    """Return what the model is given at flat positions: the same bits whichever others are beside them."""
    unravel = ravel_pytree(target.position_template())[1]
    return jax.lax.map(lambda vector: target.values(unravel(vector)), vectors)


@eqx.filter_jit
def whole(
    target: External,
    vectors: Float[Array, "run dim"],
    values: Float[Array, " run"],
    slopes: Mapping[str, Array] | None,
) -> tuple[Float[Array, " run"], Float[Array, "run dim"]]:
    """Return log density and gradient at flat positions, from what the model returned there.

    Run after run, so that what one gives does not depend on which others are beside it.
    """
    unravel = ravel_pytree(target.position_template())[1]

    def one(row: tuple[Array, Array, Any]) -> tuple[Array, Array]:
        vector, value, slope = row
        prior, gradient = jax.value_and_grad(lambda vector: target.logprior(unravel(vector)))(vector)
        if slope is None:
            return prior + value, jnp.zeros_like(vector)
        return prior + value, gradient + jax.vjp(lambda vector: target.values(unravel(vector)), vector)[1](slope)[0]

    return jax.lax.map(one, (vectors, values, slopes))


@eqx.filter_jit
def _priors(target: External, vectors: Float[Array, "run dim"]) -> Float[Array, " run"]:
    """Return the prior's log density; minus infinity where there are no numbers, and nothing is sent either."""
    unravel = ravel_pytree(target.position_template())[1]
    found = jax.lax.map(lambda vector: target.logprior(unravel(vector)), vectors)
    return jnp.where(jnp.isfinite(vectors).all(-1), found, -jnp.inf)


def _zero(position: PyTree) -> Float[Array, ""]:
    return jnp.zeros((), jnp.result_type(*jax.tree.leaves(position)))


def _prior_of(prior: Any, initial_position: Any) -> Target:
    """Return what is given as a prior, as a target."""
    if isinstance(prior, Target):
        return prior
    if all(hasattr(prior, name) for name in ("log_prob", "sample", "event_shape")):
        return Distribution(prior, None, None)
    if not callable(prior) or isinstance(prior, type):
        raise ValueError(
            f"prior is a {type(prior).__name__}, expected a NumPyro model, a target, a distrax distribution, or with "
            "an initial_position a log density."
        )
    try:
        return NumPyroModel(prior)
    except ValueError:
        if initial_position is None:
            raise
        return LogDensity(prior, initial_position)


def _position(given: Any) -> dict[str, Array]:
    """Return an initial position as arrays by name."""
    if not (isinstance(given, Mapping) and given and all(isinstance(name, str) for name in given)):
        raise ValueError(
            f"initial_position is {'empty' if given == {} else f'a {type(given).__name__}'}, expected arrays by name, "
            "such as {'k': 0.0, 'r': np.zeros(3)}: that is what simulate is given."
        )
    return dict(LogDensity(_zero, dict(given)).center)
