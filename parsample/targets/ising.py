"""The Ising model on a torus: a discrete target, for Gibbs sampling alone."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from parsample.targets import checks

# Below this temperature an infinite lattice is magnetised (Onsager 1944).
CRITICAL_TEMPERATURE = 2 / math.log(1 + math.sqrt(2))

Spins = dict[str, Int[Array, "size half"]]


class Ising(eqx.Module):
    """The Ising model: spins -1 and 1 on a square lattice whose edges are joined, p proportional to exp(-E / T).

    E is minus the sum over neighbouring pairs of the products of their spins. The lattice is kept as a checkerboard:
    `black` holds the sites (i, 2 j + i % 2) and `white` the sites (i, 2 j + 1 - i % 2), each of shape (size, size / 2).
    All neighbours of a site are of the other colour, so a colour is updated as one block.

    It is no row of `TARGETS`, because spins are integers. `parsample.samplers.Gibbs(Ising())` sweeps over the two
    colours by heat bath: a spin is 1 where its uniform number is below 1 / (1 + exp(-2 n / T)), for a sum n of its
    neighbours. The larger the neighbours, the larger the spin: sweeps with the same numbers keep an order between
    states, which is why they meet above the critical temperature.

    Args:
        size: sites a side, even, at least 4.
        temperature: T, above 0, in units of the coupling.

    Raises:
        ValueError: an odd or small size, or a temperature that is not above 0.

    Source: Geman & Geman 1984 for the heat bath; Propp & Wilson 1996, section 4, for its order.
    """

    size: int = eqx.field(static=True)
    temperature: Float[Array, ""]
    thresholds: Float[Array, "5"]

    def __init__(self, size: int = 16, temperature: float = CRITICAL_TEMPERATURE):
        """Work out the probability of a spin of 1 for every sum of its neighbours."""
        if isinstance(size, bool) or not isinstance(size, int) or size < 4 or size % 2:
            raise ValueError(f"size is {size!r}, expected an even whole number of at least 4, for a checkerboard.")
        self.size = size
        self.temperature = jnp.asarray(checks.positive("temperature", temperature), float)
        self.thresholds = jnp.asarray(1 / (1 + np.exp(-2 * np.arange(-4, 5, 2) / float(temperature))), float)

    def __call__(self, position: Spins) -> Float[Array, ""]:
        """Return -E / T, the log density up to a constant."""
        black, white = position["black"], position["white"]
        return jnp.sum(black * self._neighbours(white, 0)) / self.temperature

    def _neighbours(self, others: Int[Array, "size half"], offset: int) -> Int[Array, "size half"]:
        """Return the sums over the neighbours of the sites of one colour; `offset` is 0 for black and 1 for white."""
        # In its own row a site has the other colour's columns j and j - 1, or j and j + 1, by turns.
        row = jnp.arange(self.size)[:, None]
        aside = jnp.where((row + offset) % 2 == 0, jnp.roll(others, 1, 1), jnp.roll(others, -1, 1))
        return jnp.roll(others, 1, 0) + jnp.roll(others, -1, 0) + others + aside

    @property
    def conditional_updates(self) -> tuple[tuple[str, Callable, Callable], ...]:
        """The heat bath of each colour given the other: (block, update, draw)."""
        return ("black", self._update_black, self._draw), ("white", self._update_white, self._draw)

    def _draw(self, rng_key: Key[Array, ""], num_steps: int, dtype: jnp.dtype) -> Float[Array, "steps size half"]:
        return jax.random.uniform(rng_key, (num_steps, self.size, self.size // 2), dtype)

    def _update_black(self, position: Spins, uniform: Float[Array, "size half"]) -> Int[Array, "size half"]:
        return self._heat_bath(self._neighbours(position["white"], 0), uniform)

    def _update_white(self, position: Spins, uniform: Float[Array, "size half"]) -> Int[Array, "size half"]:
        return self._heat_bath(self._neighbours(position["black"], 1), uniform)

    def _heat_bath(self, sums: Int[Array, "size half"], uniform: Float[Array, "size half"]) -> Int[Array, "size half"]:
        # From a table, so that a decision never depends on how an exponential was rounded. A guess of a trajectory may
        # hold other numbers than -1 and 1.
        threshold = self.thresholds[jnp.clip((sums + 4) // 2, 0, 4)]
        return jnp.where(uniform < threshold, 1, -1).astype(sums.dtype)

    def initial_position(self, rng_key: Key[Array, ""]) -> Spins:
        """Draw every spin by the toss of a coin."""
        spins = jax.random.rademacher(rng_key, (2, self.size, self.size // 2), jnp.int32)
        return {"black": spins[0], "white": spins[1]}

    def lattice(self, position: Spins) -> Int[Array, "size size"]:
        """Return the spins in their places."""
        pairs = jnp.stack([position["black"], position["white"]], -1)
        odd = (jnp.arange(self.size) % 2 == 1)[:, None, None]
        return jnp.where(odd, pairs[..., ::-1], pairs).reshape(self.size, self.size)
