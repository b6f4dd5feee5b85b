"""Parallel tempering: replicas at several temperatures that trade places, as one chain."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from parsample.engine.transition import floating_dtype
from parsample.samplers.base import PositionSampler, Sampler, check_power_of_length, check_step_size
from parsample.samplers.gate import choose
from parsample.samplers.mala import MALA
from parsample.samplers.noise import draw_uniforms, log_uniform

# What of a state is proportional to the inverse temperature, so that a replica takes it along when it trades places.
PROPORTIONAL = ("logdensity", "gradient")


class Tempered(eqx.Module):
    """A log density times an inverse temperature: flatter where it is below 1."""

    logdensity_fn: Callable
    inverse_temperature: Float[Array, ""] | float

    def __call__(self, position: PyTree) -> Float[Array, ""]:
        """Return the product."""
        value = self.logdensity_fn(position)
        return value * jnp.asarray(self.inverse_temperature, value.dtype)


class TemperingInput(NamedTuple):
    """What a step is given.

    Attributes:
        moves: the inner sampler's input of each replica, leading axis `temperature`.
        log_uniforms: one for each pair of neighbours; a swap is made if its log ratio is above it.
        parity: 0 to swap the pairs (0, 1), (2, 3), ..., 1 for (1, 2), (3, 4), ...
    """

    moves: PyTree
    log_uniforms: Float[Array, " pairs"]
    parity: Int[Array, ""]


class TemperingState(NamedTuple):
    """The replicas, and the cold one by itself.

    Attributes:
        position: of the cold replica, which samples from the target.
        logdensity: there.
        replicas: the inner sampler's states, leading axis `temperature`, the cold one first; their log densities are
            those of `Tempered`.
    """

    position: PyTree
    logdensity: Float[Array, ""]
    replicas: Any


class TemperingInfo(NamedTuple):
    """Diagnostics of a step.

    Attributes:
        acceptance_rate: of the cold replica's own move.
        is_accepted: whether its position changed, by that move or by a swap.
        swap_acceptance_rate: the probability with which neighbours would be swapped, mean over the pairs.
        swap_rates: that of each pair, the coldest first; their means over a chain are what `equal_swaps` takes.
    """

    acceptance_rate: Float[Array, ""]
    is_accepted: Bool[Array, ""]
    swap_acceptance_rate: Float[Array, ""]
    swap_rates: Float[Array, " pairs"]


class Tempering(Sampler):
    """Parallel tempering: the cold replica crosses barriers by trading places with hotter ones.

    The replicas x_k have the densities p(x_k)^b_k, with inverse temperatures 1 = b_0 > b_1 > ... A step moves each of
    them by the inner sampler, with the step size that it wants where a normal target is b_k^-1/2 times as wide
    (`Sampler.power_of_length`), and then swaps neighbours with the probability
    min(1, exp((b_k - b_k+1) (log p(x_k+1) - log p(x_k)))), even pairs and odd pairs by turns. Unknown are the positions
    of all replicas, with a leading axis `temperature`.

    A swap is a decision, as accept/reject is: with the frozen gate the Jacobian of a swap is a permutation of replicas.
    Newton has it, and so has the method `permutation` as far as the Jacobians of the moves are diagonal; diagonal
    methods lose it. A swap that was guessed wrong puts every replica's future wrong until it is mended: far from a
    Gaussian even Newton gains little on the loop. On the banana the chain is chaotic (the hot replicas' steps are long
    for its curvature), and then no tolerance brings a parallel evaluation to the loop's states: `lyapunov_exponent`
    tells. Steps that grow less with the temperature would be predictable there, and mix several times more slowly.

    Args:
        logdensity_fn: position -> log density, up to a constant.
        step_size: that of the cold replica, as the inner sampler has it.
        inner: the class of a sampler whose only unknown is the position. Warm-up steers the cold replica to its
            acceptance.
        num_temperatures: replicas, at least 2.
        hottest: the inverse temperature of the last replica, between 0 and 1; those before are a geometric sequence,
            which warm-up moves to equal swap rates.
        inverse_temperatures: the ladder itself, in place of these two: 1 first, falling, above 0.

    Raises:
        ValueError: the step size is not positive, the inner sampler has other unknowns, or the ladder is none.

    Cost: what the inner sampler costs, times the number of temperatures; swaps cost no further log density for inner
        samplers that keep nothing but log density and gradient (MALA), and a fresh start of every replica otherwise.

    Source: Geyer 1991; Syed et al. 2022 for taking even and odd pairs by turns instead of by chance, and for equal swap
    rates, with which round trips between the hottest and the cold replica are most frequent.
    """

    target_acceptance: ClassVar[float] = MALA.target_acceptance
    power_of_length: ClassVar[float] = MALA.power_of_length
    learns_from: ClassVar[tuple[str, ...]] = ("swap_rates",)

    logdensity_fn: Callable
    step_size: Float[Array, ""] | float
    inverse_temperatures: Float[Array, " temperature"]
    inner: type[PositionSampler] = eqx.field(static=True)

    def __init__(
        self,
        logdensity_fn: Callable,
        step_size: Any = 0.1,
        inner: Any = MALA,
        num_temperatures: Any = 4,
        hottest: Any = 0.1,
        inverse_temperatures: Any = None,
    ):
        """Check the arguments, and fill in the ladder."""
        check_step_size(step_size)
        _check_inner(inner)
        if inverse_temperatures is None:
            inverse_temperatures = geometric_ladder(num_temperatures, hottest)
        self.logdensity_fn, self.step_size, self.inner = logdensity_fn, step_size, inner
        self.inverse_temperatures = jnp.asarray(_check_ladder(inverse_temperatures), float)

    @classmethod
    def steered_as(cls, options: Mapping[str, Any]) -> type[Sampler]:
        """Return the class of the inner sampler."""
        inner = options.get("inner", MALA)
        _check_inner(inner)
        return inner

    def init(self, position: PyTree, rng_key: Key[Array, ""] | None = None) -> TemperingState:
        """Return the state with every replica at the position. Nothing is drawn."""
        count = self.inverse_temperatures.size
        return self.resume(jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *np.shape(leaf))), position))

    def unknowns(self, state: TemperingState) -> PyTree:
        """Return the positions of all replicas, leading axis `temperature`."""
        return state.replicas.position

    def resume(self, unknowns: PyTree) -> TemperingState:
        """Return the state with the replicas at these positions."""
        ladder = self._ladder(unknowns)
        return _state(jax.vmap(lambda beta, position: self._sampler(beta).init(position))(ladder, unknowns))

    def draw_block(self, rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype) -> TemperingInput:
        """Draw what moves and swaps the replicas in `num_steps` steps."""
        key_moves, key_swaps = jax.random.split(rng_key)
        count = self.inverse_temperatures.size
        draw = lambda key: self._sampler(1.0).draw_block(key, num_steps, dim, dtype)  # noqa: E731
        moves = jax.vmap(draw, out_axes=1)(jax.random.split(key_moves, count))
        log_uniforms = log_uniform(draw_uniforms(key_swaps, dtype, (num_steps, count - 1))[0])
        # Blocks have an even length, so this is the parity of the step in the chain.
        return TemperingInput(moves, log_uniforms, jnp.arange(num_steps) % 2)

    def step(
        self, state: TemperingState, input: TemperingInput, gate: str = "frozen"
    ) -> tuple[TemperingState, TemperingInfo]:
        """Move every replica, then swap neighbours."""
        ladder = self._ladder(state.position)
        move = lambda beta, replica, input: self._sampler(beta).step(replica, input, gate)  # noqa: E731
        replicas, infos = jax.vmap(move)(ladder, state.replicas, input.moves)
        replicas, log_ratio = self._swap(ladder, replicas, input, gate)
        found = _state(replicas)
        changed = jax.tree.map(lambda new, old: jnp.any(new != old), found.position, state.position)
        is_accepted = jnp.any(jnp.stack(jax.tree.leaves(changed)))
        rates = jnp.exp(jnp.minimum(log_ratio, 0))
        return found, TemperingInfo(infos.acceptance_rate[0], is_accepted, rates.mean(), rates)

    def options_learnt(self, options: Mapping[str, Any], seen: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
        """Move the temperatures between the first and the last towards equal swap rates, unless they are given."""
        if options.get("inverse_temperatures") is not None:
            return None
        rates = np.mean(seen["swap_rates"], (0, 1), dtype=float)
        # Half of the way, in logarithms: the rates of so short a stretch are not known well, and there is a next one.
        ladder = np.sqrt(self.inverse_temperatures * equal_swaps(self.inverse_temperatures, rates))
        kept = {name: value for name, value in options.items() if name not in ("num_temperatures", "hottest")}
        return {**kept, "inverse_temperatures": [1.0, *ladder[1:].tolist()]}

    def _swap(
        self, ladder: Float[Array, " temperature"], replicas: Any, input: TemperingInput, gate: str
    ) -> tuple[Any, Float[Array, " pairs"]]:
        """Return the replicas after the swaps, and the log ratios of all pairs."""
        values = replicas.logdensity / ladder
        log_ratio = _log_ratio(ladder, values, values)
        # Every replica has its turn with one neighbour, the pair to its right or to its left, or at an end with none.
        replica = jnp.arange(ladder.size)
        pair = jnp.where(replica % 2 == input.parity, replica, replica - 1)
        partner = jnp.where(replica % 2 == input.parity, replica + 1, replica - 1)
        has_turn = (partner >= 0) & (partner < ladder.size)
        pair, partner = jnp.clip(pair, 0, ladder.size - 2), jnp.clip(partner, 0, ladder.size - 1)
        odds = jnp.where(has_turn, (log_ratio - input.log_uniforms)[pair], -jnp.inf)
        others = self._rescale(jax.tree.map(lambda leaf: leaf[partner], replicas), ladder, ladder / ladder[partner])
        return jax.vmap(partial(choose, gate))(odds > 0, odds, others, replicas), log_ratio

    def _rescale(self, replicas: Any, ladder: Array, factors: Array) -> Any:
        """Return states at the temperatures of the ladder, given at temperatures that differ by these factors."""
        names = getattr(replicas, "_fields", ())
        if not set(names) <= {"position", *PROPORTIONAL}:
            return jax.vmap(lambda beta, position: self._sampler(beta).init(position))(ladder, replicas.position)
        scale = lambda leaf: leaf * factors.reshape(-1, *[1] * (leaf.ndim - 1))  # noqa: E731
        return replicas._replace(**{name: scale(getattr(replicas, name)) for name in PROPORTIONAL if name in names})

    def _sampler(self, beta: Array | float) -> Any:
        return self.inner.at_length(Tempered(self.logdensity_fn, beta), self.step_size, beta**-0.5)

    def _ladder(self, position: PyTree) -> Float[Array, " temperature"]:
        return self.inverse_temperatures.astype(floating_dtype(position))

    def with_diagonal(self, unknowns: PyTree, input: TemperingInput) -> None:
        """Return None: where replicas are swapped the diagonal says nothing."""
        return None


def _state(replicas: Any) -> TemperingState:
    return TemperingState(jax.tree.map(lambda leaf: leaf[0], replicas.position), replicas.logdensity[0], replicas)


def equal_swaps(inverse_temperatures: Any, swap_rates: Any) -> np.ndarray:
    """Return a ladder with the same ends, and as many temperatures, whose neighbours are swapped equally often.

    What neighbours are not swapped adds up, from the cold to the hottest, to a barrier that hardly depends on the
    ladder. It is taken to grow evenly with the logarithm of the temperature between two of them, as it does for a
    normal target, and parted into equal shares. Rates that were measured on the new ladder improve it further.

    Args:
        inverse_temperatures: of the ladder that was measured, falling from 1, shape (temperature,).
        swap_rates: mean probability with which neighbours were swapped, shape (temperature - 1,); the means over steps
            and chains of `TemperingInfo.swap_rates`.

    Raises:
        ValueError: the ladder is none, or the rates are not one in [0, 1] for each pair.

    Source: Syed, Bouchard-Cote, Deligiannidis & Doucet 2022, "Non-reversible parallel tempering", section 5.1 and
    algorithm 2; linear instead of cubic between the temperatures.
    """
    ladder, rates = _check_ladder(np.asarray(inverse_temperatures, float)), np.asarray(swap_rates, float)
    if rates.shape != (ladder.size - 1,) or not np.all((rates >= 0) & (rates <= 1)):
        raise ValueError(
            f"swap_rates is {swap_rates}, expected {ladder.size - 1} numbers from 0 to 1, one for each pair."
        )
    # Where every swap was made temperatures are as good as the same; a little keeps them apart.
    barrier = np.concatenate([[0.0], np.cumsum(np.maximum(1 - rates, 1e-3))])
    shares = np.linspace(0, barrier[-1], ladder.size)[1:-1]
    between = np.exp(np.interp(shares, barrier, np.log(ladder)))
    return np.concatenate([ladder[:1], between, ladder[-1:]])


def _check_inner(inner: Any) -> None:
    if not (isinstance(inner, type) and issubclass(inner, PositionSampler)):
        raise ValueError(
            f"inner is {inner!r}, expected the class of a sampler that knows but the position, such as MALA."
        )
    check_power_of_length(inner)


def _log_ratio(
    ladder: Float[Array, " temperature"], values: Float[Array, "..."], others: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Return the log ratios of swaps, last axis `pairs`, given log densities, and `others` of the hotter replicas."""
    colder, hotter = values[..., :-1], others[..., 1:]
    log_ratio = (ladder[:-1] - ladder[1:]) * (hotter - colder)
    # A replica without a density does not come into the cold; a comparison with NaN is False.
    has_chance = jnp.isfinite(hotter) & (log_ratio > -jnp.inf)
    return jnp.where(has_chance, log_ratio, -jnp.inf)


def geometric_ladder(num_temperatures: Any, hottest: Any) -> np.ndarray:
    """Return inverse temperatures that fall from 1 by equal factors.

    Args:
        num_temperatures: how many, at least 2.
        hottest: the last one, between 0 and 1, both excluded.

    Raises:
        ValueError: either is out of its range.
    """
    if isinstance(num_temperatures, bool) or not isinstance(num_temperatures, int) or num_temperatures < 2:
        raise ValueError(
            f"num_temperatures is {num_temperatures!r}, expected a whole number of at least 2; with one temperature "
            "use the inner sampler itself."
        )
    if not 0 < hottest < 1:
        raise ValueError(f"hottest is {hottest}, expected an inverse temperature between 0 and 1, such as 0.1.")
    return hottest ** (np.arange(num_temperatures) / (num_temperatures - 1))


def _check_ladder(inverse_temperatures: Any) -> np.ndarray:
    ladder = np.asarray(inverse_temperatures, float)
    falls = ladder.ndim == 1 and ladder.size >= 2 and ladder[0] == 1 and np.all(np.diff(ladder) < 0) and ladder[-1] > 0
    if not falls:
        raise ValueError(
            f"inverse_temperatures is {inverse_temperatures}, expected at least two numbers that fall from 1 and stay "
            "above 0, such as [1, 0.5, 0.2]."
        )
    return ladder
