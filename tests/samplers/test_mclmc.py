"""One step of MCLMC against BlackJAX and the differential equation, and the law it leaves nearly invariant."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import parsample
from parsample.samplers import MCLMC
from parsample.samplers.isokinetic import kick
from parsample.samplers.mclmc import MCLMCInput, MCLMCState, MCLMCUnknowns
from tests.samplers import textbook
from tests.samplers.densities import counted
from tests.samplers.moments import check_moments
from tests.tolerances import SAME_COMPUTATION

STEP_SIZE, LENGTH = 0.4, 1.5


@pytest.mark.usefixtures("x64")
def test_a_step_is_blackjaxs(rng):
    import blackjax

    density = textbook.Quartic()
    theirs, ours = blackjax.mclmc(density, LENGTH, STEP_SIZE), MCLMC(density, STEP_SIZE, LENGTH)

    def both(key, start):
        state = theirs.init(start, key)
        key_step = jax.random.fold_in(key, 1)
        after, info = theirs.step(key_step, state)
        # Of the kernel's keys the first is the refreshments', one each.
        keys = jax.random.split(jax.random.split(key_step, 3)[0])
        noise = jax.vmap(lambda key: jax.random.normal(key, start.shape, start.dtype))(keys)
        mine, known = ours.transition.step(MCLMCUnknowns(start, state.momentum), MCLMCInput(noise))
        return after, info, mine, known

    starts = jnp.asarray(rng.standard_normal((20, textbook.DIM)))
    after, info, mine, known = jax.jit(jax.vmap(both))(jax.random.split(jax.random.key(0), 20), starts)
    SAME_COMPUTATION.check(mine.position, after.position)
    SAME_COMPUTATION.check(mine.direction, after.momentum)
    SAME_COMPUTATION.check(mine.logdensity, after.logdensity)
    SAME_COMPUTATION.check(mine.gradient, after.logdensity_grad)
    np.testing.assert_allclose(known.energy_change, info.energy_change, rtol=1e-8, atol=1e-10)
    assert np.abs(known.energy_change).max() > 1e-4
    assert known.is_accepted.all()


@pytest.mark.usefixtures("x64")
def test_a_kick_solves_the_differential_equation(rng):
    gradient, direction = 3 * rng.standard_normal(4), rng.standard_normal(4)
    direction /= np.linalg.norm(direction)
    turn = lambda t, u: (gradient - u * (u @ gradient)) / 3  # noqa: E731
    expected = solve_ivp(turn, (0, 0.8), direction, rtol=1e-11, atol=1e-12).y[:, -1]
    turned, growth = kick(jnp.asarray(direction), jnp.asarray(gradient), jnp.asarray(0.8))
    np.testing.assert_allclose(turned, expected, rtol=1e-8)
    # The energy grows by the integral of u^T gradient: that is (dim - 1) log of the growth of the speed.
    speed = lambda t, y: [*turn(t, y[:4]), y[:4] @ gradient]  # noqa: E731
    np.testing.assert_allclose(
        growth, solve_ivp(speed, (0, 0.8), [*direction, 0], rtol=1e-11, atol=1e-12).y[4, -1], rtol=1e-8
    )


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25, 1e36])
def test_single_precision_turns_as_double_does(scale):
    """Where the square of the gradient overflows, or is 0, as well."""
    gradient = np.asarray([0.6, -2.0, 0.3], np.float32)
    for direction in (np.asarray([0.6, 0.0, 0.8], np.float32), gradient / np.linalg.norm(gradient)):
        for time in (0.7, 0.7 / scale):
            turned, growth = jax.jit(kick)(direction, np.float32(scale) * gradient, np.float32(time))
            with jax.enable_x64(True):
                given = (np.asarray(x, np.float64) for x in (direction, np.float32(scale) * gradient, np.float32(time)))
                expected = jax.jit(kick)(*given)
            np.testing.assert_allclose(turned, expected[0], atol=2e-6)
            np.testing.assert_allclose(growth, expected[1], rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("delta", [1.0, 20.0, 1e30])
def test_straight_against_the_gradient_a_direction_stays(delta):
    along = jnp.asarray([0.0, 0.0, 1.0])
    turned, growth = kick(-along, 2 * delta * along, jnp.ones(()))
    np.testing.assert_allclose(turned, -along, atol=1e-6)
    np.testing.assert_allclose(growth, -2 * delta, rtol=1e-5)


@pytest.mark.slow
def test_a_steep_density_turns_in_single_precision_as_in_double():
    """The slope is above 1.8e19, whose square float32 does not hold."""
    found = []
    for x64 in (False, True):
        with jax.enable_x64(x64):
            dtype = np.float64 if x64 else np.float32
            chain = MCLMC(lambda x: 1e20 * (x[0] + 2 * x[1] - 0.5 * x[2]), 0.3)
            inputs = chain.draw_inputs(jax.random.key(0), 5, jnp.zeros(3, jnp.float32))
            inputs = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), inputs)
            start = chain.unknowns(chain.init(jnp.zeros(3, dtype)))
            found.append(parsample.evaluate_sequential(chain.transition, start, inputs).states)
    for single, double in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(single, double, atol=1e-5)
    assert np.abs(jax.tree.leaves(found[1])[0]).max() > 0.5


def test_directions_are_put_back_to_length_1():
    mclmc = MCLMC(textbook.Quartic(), STEP_SIZE)
    input = MCLMCInput(jnp.ones((2, textbook.DIM)))
    near, far = (MCLMCUnknowns(jnp.zeros(3), scale * jnp.asarray([0.6, 0.0, 0.8])) for scale in (1, 7))
    np.testing.assert_allclose(mclmc.resume(far).direction, near.direction, rtol=1e-6)
    for one, other in zip(mclmc.transition(near, input), mclmc.transition(far, input), strict=True):
        SAME_COMPUTATION.check(one, other)


def test_where_the_gradient_vanishes_values_and_derivatives_are_finite():
    mclmc = MCLMC(lambda x: -0.5 * x @ x, STEP_SIZE)
    phase = MCLMCUnknowns(jnp.zeros(3), jnp.asarray([1.0, 0.0, 0.0]))
    jacobian = jax.jacfwd(lambda phase: mclmc.transition(phase, MCLMCInput(jnp.ones((2, 3)))))(phase)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jacobian))


def test_moments_of_a_gaussian():
    scales = jnp.asarray([0.5, 1.0, 1.5, 1.0])
    mclmc = MCLMC(lambda x: -0.5 * jnp.sum((x / scales) ** 2), 0.15)

    def chain(key):
        start = mclmc.init(scales * jax.random.normal(key, (4,)), key)
        inputs = mclmc.draw_inputs(key, 20_000, start.position)
        return parsample.evaluate_sequential(mclmc.transition, mclmc.unknowns(start), inputs).states.position

    draws = np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(0), 4)), np.float64)
    moments = {f"x{i}": (draws[..., i], 0.0) for i in range(4)}
    check_moments(moments | {f"x{i}^2": (draws[..., i] ** 2, float(scale**2)) for i, scale in enumerate(scales)})


def test_a_sequential_step_costs_two_gradients(rng_key):
    density, calls = counted(textbook.Quartic())
    mclmc = MCLMC(density, STEP_SIZE)
    start = jnp.zeros(textbook.DIM)
    inputs = mclmc.draw_inputs(rng_key, 20, start)
    solution = parsample.evaluate_sequential(mclmc.transition, MCLMCUnknowns(start, jnp.ones(3) / 3**0.5), inputs)
    jax.block_until_ready(solution.states)
    jax.effects_barrier()
    assert len(calls) == 1 + 2 * 20


def test_the_direction_of_the_start_is_drawn_with_the_key(rng_key):
    state = MCLMC(textbook.Quartic()).init(jnp.zeros(3), rng_key)
    assert isinstance(state, MCLMCState)
    np.testing.assert_allclose(np.linalg.norm(state.direction), 1, rtol=1e-6)


@pytest.mark.parametrize("length", [0.0, -1.0, np.nan, "1", True])
def test_a_length_that_is_no_positive_number(length):
    with pytest.raises(ValueError, match=r"L is .*, expected a number above 0, or None"):
        MCLMC(textbook.Quartic(), L=length)


def test_a_single_number():
    with pytest.raises(ValueError, match="the position holds 1 number, but mclmc needs at least 2"):
        MCLMC(lambda x: -0.5 * x @ x).init(jnp.zeros(1))
