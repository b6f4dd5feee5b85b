"""The ladder of tempering: geometric at first, then moved so that all pairs of replicas swap equally often."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.samplers import MALA, RWM, Tempering
from parsample.samplers.configured import Configured
from parsample.samplers.tempering import equal_swaps, geometric_ladder
from parsample.targets.density import LogDensity
from parsample.warmup.adapt import adapt
from parsample.warmup.starts import starts
from tests.samplers import textbook

STEP_SIZE = 0.2
LADDER = np.array([1.0, 0.6, 0.35, 0.1])


def box(x):
    """A normal density inside walls: hot replicas fill the box, and are hardly told apart."""
    return -0.5 * x @ x - jnp.sum((x / 4) ** 8)


def spread_of_rates(ladder, step_size=0.3):
    tempering = Tempering(box, step_size, inverse_temperatures=ladder)
    start = jnp.zeros(5)

    def step(state, input):
        state, info = tempering.step(state, input)
        return state, info.swap_rates

    @jax.jit
    @jax.vmap
    def rates(rng_key):
        return jax.lax.scan(step, tempering.init(start), tempering.draw_inputs(rng_key, 2000, start))[1][200:]

    found = np.asarray(rates(jax.random.split(jax.random.key(0), 64))).mean((0, 1))
    return found, found.max() - found.min()


@pytest.mark.slow
def test_equal_swaps_makes_them_equal():
    ladder = geometric_ladder(5, 1e-3)
    found, before = spread_of_rates(ladder)
    assert before > 0.4
    for _ in range(3):
        ladder = equal_swaps(ladder, found)
        found, after = spread_of_rates(ladder)
    assert after < 0.1
    assert ladder[0] == 1
    assert ladder[-1] == pytest.approx(1e-3)


def test_equal_swaps_by_hand():
    np.testing.assert_allclose(equal_swaps([1, 0.1, 0.01], [0.5, 0.5]), [1, 0.1, 0.01])
    # Of a barrier of 1.2 the half is two thirds of the way from 0.1 to 0.01 into the first 0.9.
    np.testing.assert_allclose(equal_swaps([1, 0.1, 0.01], [0.1, 0.7]), [1, 10 ** (-2 / 3), 0.01])
    assert np.all(np.diff(equal_swaps([1, 0.5, 0.2, 0.1], [1, 1, 0])) < 0)
    assert np.all(np.diff(equal_swaps([1, 0.5, 0.2, 0.1], [1, 1, 1])) < 0)


@pytest.mark.slow
@pytest.mark.parametrize(("inner", "share"), [(MALA, 0.4), (RWM, 0.8)])
def test_warm_up_moves_the_ladder_towards_equal_swaps(inner, share):
    target, keys = LogDensity(box, jnp.zeros(5)), jax.random.split(jax.random.key(0), 4)
    make = Configured(Tempering, {"inner": inner, "num_temperatures": 5, "hottest": 1e-3})
    found = adapt(target, make, starts(target, keys), jax.random.split(jax.random.key(1), 4), 1000)
    assert found.sampler_options is not None
    assert set(found.sampler_options) == {"inner", "inverse_temperatures"}
    ladder = found.sampler_options["inverse_temperatures"]
    assert spread_of_rates(ladder)[1] < share * spread_of_rates(geometric_ladder(5, 1e-3))[1]


def test_a_ladder_that_is_given_stays():
    options = {"inverse_temperatures": LADDER}
    tempering = Tempering(textbook.Quartic(), STEP_SIZE, **options)
    seen = {"swap_rates": np.asarray([[[0.9, 0.5, 0.1]] * 2] * 3, np.float32)}
    assert tempering.options_learnt(options, seen) is None
    learnt = tempering.options_learnt({"inner": MALA, "hottest": 0.1}, seen)
    assert learnt is not None
    assert set(learnt) == {"inner", "inverse_temperatures"}
    halfway = np.sqrt(equal_swaps(LADDER, [0.9, 0.5, 0.1]) * LADDER)
    np.testing.assert_allclose(learnt["inverse_temperatures"], halfway, rtol=1e-6)


def test_the_geometric_ladder():
    np.testing.assert_allclose(geometric_ladder(3, 0.01), [1, 0.1, 0.01])
    np.testing.assert_allclose(
        Tempering(textbook.Quartic()).inverse_temperatures, 10 ** -np.linspace(0, 1, 4), rtol=1e-6
    )


@pytest.mark.parametrize("rates", [[0.5], [0.5, 1.5], [np.nan, 0.5], 0.5])
def test_swap_rates_that_are_none_are_refused(rates):
    with pytest.raises(ValueError, match=r"swap_rates is .*, expected 2 numbers from 0 to 1, one for each pair"):
        equal_swaps([1, 0.5, 0.2], rates)
