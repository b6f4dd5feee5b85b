"""The Ising model against its definition written out on the lattice."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.samplers import Gibbs
from parsample.targets.ising import CRITICAL_TEMPERATURE, Ising
from tests.samplers.moments import check_moments
from tests.tolerances import SAME_COMPUTATION

SIZE, TEMPERATURE = 6, 1.7


def energy(lattice: np.ndarray) -> np.ndarray:
    """Minus the sum over neighbouring pairs of the products of their spins."""
    return -sum((lattice * np.roll(lattice, 1, axis)).sum((-2, -1)) for axis in (-2, -1))


def test_the_log_density_is_the_energy_over_the_temperature():
    ising = Ising(SIZE, TEMPERATURE)
    for seed in range(3):
        position = ising.initial_position(jax.random.key(seed))
        SAME_COMPUTATION.check(ising(position), np.float32(-energy(np.asarray(ising.lattice(position))) / TEMPERATURE))


@pytest.mark.usefixtures("x64")
def test_the_heat_bath_is_the_conditional_distribution():
    ising = Ising(SIZE, TEMPERATURE)
    position = ising.initial_position(jax.random.key(0))
    for block, update, _ in ising.conditional_updates:
        for site in itertools.product(range(SIZE), range(SIZE // 2)):
            up, down = ({**position, block: position[block].at[site].set(spin)} for spin in (1, -1))
            probability = 1 / (1 + np.exp(float(ising(down) - ising(up))))
            for shift, expected in ((-1e-9, 1), (1e-9, -1)):
                spins = update(position, jnp.full((SIZE, SIZE // 2), probability + shift))
                assert spins[site] == expected


def test_the_law_on_a_lattice_that_can_be_counted():
    size, temperature = 4, 3.0
    every = 1 - 2 * ((np.arange(2**16)[:, None] >> np.arange(16)) & 1).reshape(-1, size, size)
    weights = np.exp(-energy(every) / temperature)
    weights /= weights.sum()
    ising = Ising(size, temperature)
    gibbs = Gibbs(ising)

    @jax.jit
    @jax.vmap
    def chain(rng_key):
        start = ising.initial_position(rng_key)
        inputs = gibbs.draw_inputs(rng_key, 3000, start)
        _, states = jax.lax.scan(lambda state, input: (gibbs.step(state, input)[0],) * 2, gibbs.init(start), inputs)
        return jax.vmap(ising.lattice)(states.position), states.logdensity

    lattices, logdensity = map(np.asarray, chain(jax.random.split(jax.random.key(0), 8)))
    SAME_COMPUTATION.check(logdensity, (-energy(lattices) / temperature).astype(np.float32))
    draws = lattices[:, 300:].astype(float)
    expected = {
        "energy": energy,
        "magnetisation": lambda x: x.mean((-2, -1)),
        "square of it": lambda x: x.mean((-2, -1)) ** 2,
    }
    check_moments({name: (of(draws), float(of(every) @ weights)) for name, of in expected.items()})


def test_sweeps_with_the_same_numbers_keep_the_order():
    ising = Ising(SIZE, CRITICAL_TEMPERATURE)
    gibbs = Gibbs(ising)
    low, high = ({color: jnp.full((SIZE, SIZE // 2), spin) for color in ("black", "white")} for spin in (-1, 1))
    inputs = gibbs.draw_inputs(jax.random.key(0), 200, low)

    def step(pair, input):
        pair = tuple(gibbs.transition(state, input) for state in pair)
        return pair, pair

    lows, highs = jax.jit(lambda inputs: jax.lax.scan(step, (low, high), inputs)[1])(inputs)
    assert all(np.all(lows[color] <= highs[color]) for color in low)
    assert any(np.any(lows[color] < highs[color]) for color in low)
    assert all(np.array_equal(lows[color][-1], highs[color][-1]) for color in low), "they have met"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 2.0), "size is 5, expected an even whole number of at least 4"),
        ((2, 2.0), "size is 2, expected an even"),
        ((4, 0.0), "temperature holds 0, expected numbers above 0"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Ising(*arguments)
