"""Langevin dynamics on minibatches: stochastic gradients, with and without a momentum."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key, PyTree

from parsample.samplers.base import PositionSampler, Sampler, check_step_size
from parsample.samplers.langevin import LangevinState, drift_diagonal, propose
from parsample.samplers.mass import Mass
from parsample.samplers.metropolis import MetropolisState
from parsample.samplers.noise import draw_normal
from parsample.samplers.ula import ULAInfo

# The default batch is one in so many of the data. In standardised coordinates the variance of a stochastic gradient is
# about num_data / batch_size, whatever the model: smaller batches need smaller steps, and gain nothing for it.
DEFAULT_SHARE = 4


class StochasticInput(NamedTuple):
    """What a step on a minibatch is given.

    Attributes:
        noise: standard normal, shape (dim,).
        indices: of the data in the batch, drawn with replacement; None for all of the data.
    """

    noise: Float[Array, " dim"]
    indices: Int[Array, " batch"] | None


class Minibatches(eqx.Module):
    """A log density that may be estimated from some of its data.

    It is, if it has both `num_data`, how many data there are, and `minibatch(position, indices)`: an unbiased estimate
    of the log density from the data with these indices, integers from 0 to num_data - 1 of shape (batch,), where each
    is drawn uniformly: the log density of the prior plus num_data / batch times that of these data. Otherwise every
    step takes the log density as a whole.
    """

    logdensity_fn: Callable
    batch_size: int | None = eqx.field(static=True)

    @classmethod
    def of(cls, logdensity_fn: Callable, batch_size: Any) -> "Minibatches":
        """Check the size of a batch, and fill it in.

        Raises:
            ValueError: it is not a whole number of at least 1, or was given for a log density without minibatches.
        """
        num_data: Any = getattr(logdensity_fn, "num_data", None)
        has_minibatches = num_data is not None and getattr(logdensity_fn, "minibatch", None) is not None
        if batch_size is None:
            return cls(logdensity_fn, max(1, num_data // DEFAULT_SHARE) if has_minibatches else None)
        if isinstance(batch_size, bool) or not hasattr(batch_size, "__index__") or batch_size.__index__() < 1:
            raise ValueError(f"batch_size is {batch_size!r}, expected a whole number of data of at least 1.")
        if not has_minibatches:
            raise ValueError(
                f"batch_size is {batch_size}, but the log density has no minibatches, expected one with `num_data` and "
                "`minibatch(position, indices)`; leave batch_size out to take it as a whole."
            )
        return cls(logdensity_fn, batch_size.__index__())

    def draw(self, rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype) -> StochasticInput:
        """Draw the noise and the minibatches of `num_steps` steps."""
        key_noise, key_indices = jax.random.split(rng_key)
        noise = draw_normal(key_noise, num_steps, dim, dtype)
        if self.batch_size is None:
            return StochasticInput(noise, None)
        density: Any = self.logdensity_fn
        indices = jax.random.randint(key_indices, (num_steps, self.batch_size), 0, density.num_data)
        return StochasticInput(noise, indices)

    def gradient(self, position: PyTree, indices: Int[Array, " batch"] | None) -> Float[Array, " dim"]:
        """Return the gradient of the log density, or its estimate from a minibatch, as a flat vector."""
        density: Any = self.logdensity_fn
        estimate = density if indices is None else lambda position: density.minibatch(position, indices)
        return ravel_pytree(jax.grad(estimate)(position))[0]


class SGLD(PositionSampler):
    """Stochastic-gradient Langevin dynamics: ULA with the gradient estimated from a minibatch in every step.

    A step is x + step_size M^-1 grad + sqrt(2 step_size) M^-1/2 noise, where grad is that of `minibatch(x, indices)`
    (see `Minibatches`) and the step size stays as it is. To the bias of ULA the variance V of that gradient adds: for a
    Gaussian of precision P and identity mass the variance is (2 + step_size V) / (P (2 - step_size P)) instead of 1/P.

    A log density without minibatches is taken as a whole, and then this is ULA.

    Args:
        logdensity_fn: position -> log density, up to a constant, perhaps with minibatches.
        step_size: BlackJAX's, in squared units of the position where the mass matrix is the identity.
        inverse_mass_matrix: None (identity), (dim,) or (dim, dim), in the order of the ravelled position.
        batch_size: data of a minibatch; None for a quarter of them.

    Raises:
        ValueError: the step size is not positive, the matrix not positive definite, or the batch size does not fit.

    Cost: one gradient of a minibatch a step. The state's `logdensity` is of all the data: compiled programs leave it
        out where nobody reads it, as in `evaluate`; the trace of `sample` reads it.

    Source: Welling & Teh 2011, equation 4, with a constant step; Coullon & Nemeth 2022 for the scaling, which is
    BlackJAX's.
    """

    target_acceptance: ClassVar[None] = None
    power_of_length: ClassVar[float] = 2

    logdensity_fn: Callable
    step_size: Float[Array, ""] | float
    mass: Mass
    batch_size: int | None = eqx.field(static=True)

    def __init__(
        self,
        logdensity_fn: Callable,
        step_size: Any = 0.1,
        inverse_mass_matrix: Any = None,
        batch_size: Any = None,
    ):
        """Check the arguments, and factor the mass matrix."""
        check_step_size(step_size)
        self.logdensity_fn, self.step_size, self.mass = logdensity_fn, step_size, Mass.of(inverse_mass_matrix)
        self.batch_size = Minibatches.of(logdensity_fn, batch_size).batch_size

    @property
    def minibatches(self) -> Minibatches:
        """The log density and how many of its data are taken at a time."""
        return Minibatches(self.logdensity_fn, self.batch_size)

    def init(self, position: PyTree, rng_key: Key[Array, ""] | None = None) -> MetropolisState:
        """Return the state at a position, with its log density."""
        return MetropolisState(position, self.logdensity_fn(position))

    def draw_block(self, rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype) -> StochasticInput:
        """Draw the noise and the minibatches of `num_steps` steps."""
        return self.minibatches.draw(rng_key, num_steps, dim, dtype)

    def step(
        self, state: MetropolisState, input: StochasticInput, gate: str = "frozen"
    ) -> tuple[MetropolisState, ULAInfo]:
        """Make one step. There is no decision, so `gate` changes nothing."""
        at = LangevinState(state.position, state.logdensity, self.minibatches.gradient(state.position, input.indices))
        state = self.init(propose(at, input.noise, self.step_size, self.mass))
        return state, ULAInfo(jnp.ones_like(state.logdensity), jnp.asarray(True))

    def with_diagonal(self, unknowns: PyTree, input: StochasticInput) -> tuple[tuple[Any, Any], PyTree] | None:
        """Return the step and the diagonal of I + step_size M^-1 H, for a log density taken as a whole."""
        if input.indices is not None:
            return None
        diagonal = drift_diagonal(self.logdensity_fn, unknowns, self.step_size, self.mass)
        if diagonal is None:
            return None
        return self.step(self.init(unknowns), input), ravel_pytree(unknowns)[1](diagonal)


class SGHMCState(NamedTuple):
    """A position with its momentum, a flat vector, and the log density of all the data."""

    position: PyTree
    momentum: Float[Array, " dim"]
    logdensity: Float[Array, ""]


class SGHMC(Sampler):
    """Stochastic-gradient Hamiltonian Monte Carlo: a momentum with friction, and gradients from minibatches.

    With step size h, friction c and an estimate V of the variance of the stochastic gradient, a step is

        x' = x + h p
        p' = (1 - h c) p + h grad(x') + sqrt(h (2 c - h V)) noise

    A log density without minibatches is taken as a whole. Unknown are the position and the momentum.

    Args:
        logdensity_fn: position -> log density, up to a constant, perhaps with minibatches (see `Minibatches`).
        step_size: h, in units of the position.
        friction: c, above 0, in inverse units of the step size.
        gradient_variance: V, at least 0, the same for all coordinates. With it less noise is added, for the gradient
            brings its own.
        batch_size: data of a minibatch; None for a quarter of them.

    Raises:
        ValueError: the step size or the friction is not positive, V is negative or larger than 2 c / h, or the batch
            size does not fit.

    Cost: one gradient of a minibatch a step; of `logdensity` see `SGLD`.

    Source: Chen, Fox & Guestrin 2014, algorithm 2 with one step and no resampling of the momentum, unit mass, and
    B = h V / 2; the order of the two updates is theirs.
    """

    target_acceptance: ClassVar[None] = None
    power_of_length: ClassVar[float] = 1

    logdensity_fn: Callable
    step_size: Float[Array, ""] | float
    friction: Float[Array, ""] | float
    gradient_variance: Float[Array, ""] | float
    batch_size: int | None = eqx.field(static=True)

    def __init__(
        self,
        logdensity_fn: Callable,
        step_size: Any = 0.1,
        friction: Any = 2.0,
        gradient_variance: Any = 0.0,
        batch_size: Any = None,
    ):
        """Check the arguments."""
        check_step_size(step_size)
        known = not any(isinstance(x, jax.core.Tracer) for x in (step_size, friction, gradient_variance))
        if known and not float(friction) > 0:
            raise ValueError(f"friction is {friction}, expected a number above 0, such as 2.")
        if known and not 0 <= float(gradient_variance) < 2 * float(friction) / float(step_size):
            raise ValueError(
                f"gradient_variance is {gradient_variance}, expected a number from 0 to 2 friction / step_size = "
                f"{2 * float(friction) / float(step_size):.3g}, excluded; use a smaller step size or larger batches."
            )
        self.logdensity_fn, self.step_size = logdensity_fn, step_size
        self.friction, self.gradient_variance = friction, gradient_variance
        self.batch_size = Minibatches.of(logdensity_fn, batch_size).batch_size

    @property
    def minibatches(self) -> Minibatches:
        """The log density and how many of its data are taken at a time."""
        return Minibatches(self.logdensity_fn, self.batch_size)

    def init(self, position: PyTree, rng_key: Key[Array, ""] | None = None) -> SGHMCState:
        """Return the state at a position; the momentum is standard normal, or 0 without a key."""
        vector = ravel_pytree(position)[0]
        momentum = jnp.zeros_like(vector) if rng_key is None else jax.random.normal(rng_key, vector.shape, vector.dtype)
        return self.resume((position, momentum))

    def unknowns(self, state: SGHMCState) -> tuple[PyTree, Array]:
        """Return the position and the momentum."""
        return state.position, state.momentum

    def resume(self, unknowns: tuple[PyTree, Array]) -> SGHMCState:
        """Return the state with this position and momentum."""
        return SGHMCState(*unknowns, self.logdensity_fn(unknowns[0]))

    def draw_block(self, rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype) -> StochasticInput:
        """Draw the noise and the minibatches of `num_steps` steps."""
        return self.minibatches.draw(rng_key, num_steps, dim, dtype)

    def step(self, state: SGHMCState, input: StochasticInput, gate: str = "frozen") -> tuple[SGHMCState, ULAInfo]:
        """Make one step. There is no decision, so `gate` changes nothing."""
        vector, unravel = ravel_pytree(state.position)
        position = unravel((vector + self.step_size * state.momentum).astype(vector.dtype))
        gradient = self.minibatches.gradient(position, input.indices)
        spread = jnp.sqrt(self.step_size * (2 * self.friction - self.step_size * self.gradient_variance))
        kept = (1 - self.step_size * self.friction) * state.momentum
        momentum = (kept + self.step_size * gradient + spread * input.noise).astype(vector.dtype)
        state = self.resume((position, momentum))
        return state, ULAInfo(jnp.ones_like(state.logdensity), jnp.asarray(True))

    def with_diagonal(self, unknowns: PyTree, input: StochasticInput) -> None:
        """Return None: position and momentum are coupled, and a diagonal would leave that out."""
        return None
