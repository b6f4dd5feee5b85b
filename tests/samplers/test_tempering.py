"""Parallel tempering: moves and swaps by NumPy, the balance of swaps, and barriers that they cross."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsample
from parsample.engine.transition import GATES
from parsample.samplers import MALA, SAMPLERS, SGHMC, ULA, AdjustedMCLMC, Gibbs, Tempering
from parsample.samplers.base import BLOCK, PositionSampler
from parsample.samplers.metropolis import MetropolisInput, decide
from parsample.targets import MultivariateNormal, TwoWells
from tests.samplers import textbook
from tests.samplers.moments import check_moments
from tests.samplers.test_mala import counted
from tests.tolerances import SAME_COMPUTATION

STEP_SIZE = 0.2
LADDER = np.array([1.0, 0.6, 0.35, 0.1])
EYE = np.eye(textbook.DIM)


def normal(x):
    return -0.5 * x @ x


# --- one step


def move_by_numpy(x, noise, log_uniform, beta):
    """A step of MALA on the density to the power beta, with a step size over beta."""
    h = STEP_SIZE / beta
    drift = lambda x: x + h * beta * textbook.gradient(x)  # noqa: E731
    proposal = drift(x) + np.sqrt(2 * h) * noise
    log_q = lambda to, origin: -np.sum((to - drift(origin)) ** 2) / (4 * h)  # noqa: E731
    ratio = beta * (textbook.logdensity(proposal) - textbook.logdensity(x)) + log_q(x, proposal) - log_q(proposal, x)
    return (proposal, ratio) if log_uniform < ratio else (x, ratio)


def step_by_numpy(replicas, moves, log_uniforms, parity):
    """All replicas after a step, the cold one's log ratio, and the pairs that were swapped."""
    moved = [
        move_by_numpy(x, noise, log_uniform, beta)
        for x, noise, log_uniform, beta in zip(replicas, *moves, LADDER, strict=True)
    ]
    replicas, swapped, rates = [x for x, _ in moved], [], []
    for k in range(len(LADDER) - 1):
        values = textbook.logdensity(replicas[k]), textbook.logdensity(replicas[k + 1])
        rates.append((LADDER[k] - LADDER[k + 1]) * (values[1] - values[0]))
    for k in range(parity, len(LADDER) - 1, 2):
        if log_uniforms[k] < rates[k]:
            replicas[k], replicas[k + 1] = replicas[k + 1], replicas[k]
            swapped.append(k)
    return np.array(replicas), moved[0][1], np.mean(np.exp(np.minimum(rates, 0))), swapped


def many_steps(tempering, number=80):
    key_start, key_inputs = jax.random.split(jax.random.key(0))
    starts = jax.random.normal(key_start, (number, LADDER.size, textbook.DIM))
    return starts, tempering.draw_inputs(key_inputs, number, jnp.zeros(textbook.DIM))


@pytest.mark.usefixtures("x64")
def test_a_step_is_the_textbooks():
    tempering = Tempering(textbook.Quartic(), STEP_SIZE, inverse_temperatures=LADDER)
    starts, inputs = many_steps(tempering)
    states, infos = jax.jit(jax.vmap(tempering.transition.step))(starts, inputs)
    swaps = []
    for t, start in enumerate(np.asarray(starts)):
        moves, log_uniforms, parity = jax.tree.map(lambda leaf, t=t: np.asarray(leaf[t]), inputs)
        assert parity == t % 2
        expected, log_ratio, rate, swapped = step_by_numpy(start, moves, log_uniforms, parity)
        SAME_COMPUTATION.check(states.replicas.position[t], expected)
        SAME_COMPUTATION.check(infos.acceptance_rate[t], np.exp(min(log_ratio, 0)))
        SAME_COMPUTATION.check(infos.swap_acceptance_rate[t], rate)
        assert infos.is_accepted[t] == np.any(expected[0] != start[0])
        swaps += swapped
    assert set(swaps) == {0, 1, 2}
    assert 40 < len(swaps) < 110
    # What a step leaves is what a fresh start at the same positions would compute.
    fresh = jax.vmap(tempering.resume)(states.replicas.position)
    jax.tree.map(SAME_COMPUTATION.check, states, fresh)
    np.testing.assert_array_equal(states.position, states.replicas.position[:, 0])


def test_a_sequential_step_costs_one_gradient_a_temperature(rng_key):
    density, calls = counted(textbook.Quartic())
    tempering = Tempering(density, STEP_SIZE)
    start = tempering.unknowns(tempering.init(jnp.zeros(textbook.DIM)))
    inputs = tempering.draw_inputs(rng_key, 20, jnp.zeros(textbook.DIM))
    solution = parsample.evaluate_sequential(tempering.transition, start, inputs)
    jax.block_until_ready(solution.states)
    jax.effects_barrier()
    # All replicas are evaluated at once: when they were made, as the loop began, and in every step.
    assert len(calls) == 22


@pytest.mark.parametrize("inner", [*SAMPLERS.values(), AdjustedMCLMC], ids=lambda inner: inner.__name__)
@pytest.mark.usefixtures("x64")
def test_a_hot_replica_of_a_normal_target_is_the_cold_one_stretched(inner):
    """Whatever a sampler's step size is measured in: so each replica accepts as often as the cold one."""
    if not issubclass(inner, PositionSampler):
        with pytest.raises(ValueError, match="expected the class of a sampler that knows but the position"):
            Tempering(normal, inner=inner)
        return
    tempering = Tempering(normal, 0.6, inner, inverse_temperatures=[1, 0.5, 0.1, 0.003])
    stretch = np.asarray(tempering.inverse_temperatures)[:, None] ** -0.5
    start = jax.random.normal(jax.random.key(1), (10,))
    inputs = tempering.draw_inputs(jax.random.key(0), 100, start)
    moves = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:, :1], leaf.shape), inputs.moves)
    inputs = inputs._replace(moves=moves, log_uniforms=jnp.full_like(inputs.log_uniforms, jnp.inf))
    states = parsample.evaluate_sequential(tempering.transition, stretch * start, inputs).states
    np.testing.assert_allclose(states / stretch, np.broadcast_to(states[:, :1], states.shape), rtol=1e-6, atol=1e-6)
    assert np.any(np.diff(states[:, 0], axis=0) != 0, axis=1).mean() > 0.05, "next to nothing was accepted"


class WithCache(NamedTuple):
    """A state that keeps more than log density and gradient."""

    position: Any
    logdensity: Any
    last_noise: Any


class Walk(PositionSampler):
    """A random walk whose state keeps something of its own."""

    power_of_length = 2

    logdensity_fn: Any
    step_size: Any

    def init(self, position, rng_key=None):
        return WithCache(position, self.logdensity_fn(position), jnp.zeros_like(position))

    def draw_block(self, rng_key, num_steps, dim, dtype):
        return MALA(self.logdensity_fn).draw_block(rng_key, num_steps, dim, dtype)

    def step(self, state, input, gate="frozen"):
        proposal = self.init(state.position + jnp.sqrt(self.step_size) * input.noise)
        return decide(gate, input.log_uniform, proposal.logdensity - state.logdensity, proposal, state)

    def with_diagonal(self, unknowns, input):
        return None


@pytest.mark.slow
@pytest.mark.parametrize("inner", [ULA, Gibbs, Walk])
@pytest.mark.usefixtures("x64")
def test_any_sampler_of_positions_can_move_the_replicas(inner):
    tempering = Tempering(textbook.Quartic(), STEP_SIZE, inner, inverse_temperatures=LADDER)
    starts, inputs = many_steps(tempering, 40)
    states, infos = jax.jit(jax.vmap(tempering.transition.step))(starts, inputs)
    fresh = jax.vmap(tempering.resume)(states.replicas.position)
    jax.tree.map(SAME_COMPUTATION.check, states, fresh)
    alone = inner(lambda x: 0.35 * textbook.Quartic()(x), STEP_SIZE * 0.35 ** -(inner.power_of_length / 2))
    for t in range(40):
        move = jax.tree.map(lambda leaf, t=t: leaf[t, 2], inputs.moves)
        moved = alone.transition(starts[t, 2], move)
        distance = np.abs(states.replicas.position[t] - moved).max(1)
        # It is where the inner sampler would have taken it, or with a neighbour.
        assert np.argmin(distance) in (1, 2, 3)
        assert distance.min() < 1e-9
    assert 0 < infos.swap_acceptance_rate.mean() < 1


# --- derivatives


@pytest.mark.usefixtures("x64")
def test_the_derivative_of_a_swap_is_a_permutation_of_replicas():
    tempering = Tempering(textbook.Quartic(), STEP_SIZE, inverse_temperatures=LADDER)
    starts, inputs = many_steps(tempering, 40)
    frozen, relaxed = (
        jax.jit(jax.vmap(jax.jacfwd(tempering.transition.with_gate(gate))))(starts, inputs) for gate in GATES
    )
    assert np.isfinite(relaxed).all()
    assert np.abs(relaxed - frozen).max() > 0.01
    # Axes: step, replica after, coordinate, replica before, coordinate.
    sizes = np.abs(np.asarray(frozen)).sum((2, 4))
    np.testing.assert_array_equal((sizes > 0).sum(1), 1)
    np.testing.assert_array_equal((sizes > 0).sum(2), 1)
    assert 10 < np.sum(np.argmax(sizes, 2) != np.arange(4))
    for t, before in enumerate(np.argmax(sizes, 2)):
        for after, k in enumerate(before):
            alone = MALA(lambda x, k=k: LADDER[k] * textbook.Quartic()(x), STEP_SIZE / LADDER[k])
            if t < 3:
                move = jax.tree.map(lambda leaf, t=t, k=k: leaf[t, k], inputs.moves)
                SAME_COMPUTATION.check(frozen[t, after, :, k], jax.jacfwd(alone.transition)(starts[t, k], move))


# --- the balance of swaps, and the laws of the replicas


def test_swaps_are_in_detailed_balance():
    """Between exact draws and what swaps make of them, flows are the same there and back."""
    shape, ladder, count = 2.0, np.array([1.0, 0.5, 0.25]), 200_000
    # With p(x) = exp(a x - e^x) to the power b, e^x has the gamma distribution with shape b a and rate b.
    rng = np.random.default_rng(0)
    before = np.log(rng.gamma(shape * ladder, 1 / ladder, size=(count, 3)))[:, :, None].astype(np.float32)
    # Steps too short to matter, so that only swaps move anything.
    tempering = Tempering(lambda x: jnp.sum(shape * x - jnp.exp(x)), 1e-12, inverse_temperatures=ladder)

    @jax.jit
    def step(before):
        inputs = tempering.draw_inputs(jax.random.key(1), count, before[0, 0])
        return jax.vmap(tempering.transition)(before, inputs)

    after = np.asarray(step(before), np.float64)[..., 0]
    before = before[..., 0].astype(np.float64)
    for pair in (0, 1):
        moved = np.abs(after - before)[pair::2, [pair, pair + 1]].min(1) > 1e-3
        assert 0.2 < moved.mean() < 0.9
        # The third replica had no turn.
        assert np.abs(after - before)[pair::2, 2 * (1 - pair)].max() < 1e-3
    for name, one, other in [
        ("cold, warm", lambda x: x[:, 0], lambda x: x[:, 1]),
        ("cold, its square", lambda x: x[:, 0], lambda x: x[:, 0] ** 2),
        ("warm > 1, hot", lambda x: x[:, 1] > 1, lambda x: x[:, 2]),
    ]:
        flow = one(before) * other(after) - other(before) * one(after)
        error = flow.std() / np.sqrt(count)
        assert abs(flow.mean()) < 4 * error, f"{name}: {flow.mean() / error:.1f} standard errors"


def run(sampler, start, num_steps, chains=8):
    """The unknowns of chains, after a tenth."""

    @jax.jit
    @jax.vmap
    def chain(rng_key):
        unknowns = sampler.unknowns(sampler.init(start))
        inputs = sampler.draw_inputs(rng_key, num_steps, start)
        return parsample.evaluate_sequential(sampler.transition, unknowns, inputs).states

    return np.asarray(chain(jax.random.split(jax.random.key(0), chains)), np.float64)[:, num_steps // 10 :]


def test_each_replica_has_the_law_of_its_temperature():
    ladder = [1.0, 0.4, 0.1]
    tempering = Tempering(lambda x: -0.5 * jnp.sum(x**2), 0.6, inverse_temperatures=ladder)
    draws = run(tempering, jnp.zeros(1), 4000)[..., 0]
    moments = {f"mean {k}": (draws[..., k], 0.0) for k in range(3)}
    check_moments(moments | {f"variance {k}": (draws[..., k] ** 2, 1 / beta) for k, beta in enumerate(ladder)})


@pytest.mark.slow
def test_it_crosses_a_barrier_that_its_moves_alone_do_not():
    target = TwoWells(weight=0.3, means=((-4.0,), (4.0,)), variances=((0.5,), (0.5,)))
    density = lambda x: target.logdensity({"x": x})  # noqa: E731
    start = jnp.asarray([4.0])
    assert np.all(run(MALA(density, 0.3), start, 2000) > 0)
    draws = run(Tempering(density, 0.3, num_temperatures=5, hottest=0.02), start, 8000)[..., 0, 0]
    check_moments({"left well": ((draws < 0).astype(float), 0.3), "x": (draws, 0.3 * -4 + 0.7 * 4)})


def test_the_swap_rates_of_a_step_are_those_of_each_pair():
    tempering = Tempering(textbook.Quartic(), STEP_SIZE, inverse_temperatures=LADDER)
    starts, inputs = many_steps(tempering, 20)
    _, infos = jax.jit(jax.vmap(tempering.transition.step))(starts, inputs)
    assert infos.swap_rates.shape == (20, 3)
    np.testing.assert_allclose(infos.swap_rates.mean(1), infos.swap_acceptance_rate, rtol=1e-6)


# --- in parallel


@pytest.mark.usefixtures("x64")
@pytest.mark.slow
def test_methods_that_hold_a_permutation_gain_most():
    tempering = Tempering(MultivariateNormal(covariance=np.eye(3)).logdensity, 0.5)
    position = {"x": jnp.ones(3)}
    start = tempering.unknowns(tempering.init(position))
    inputs = tempering.draw_inputs(jax.random.key(0), 256, position)
    loop = parsample.evaluate_sequential(tempering.transition, start, inputs).states["x"]
    iterations = {}
    for method in ("newton", "permutation", "quasi_newton"):
        solution = parsample.evaluate(tempering.transition, start, inputs, method=method, atol=1e-9, rtol=1e-9)
        np.testing.assert_allclose(solution.states["x"], loop, atol=1e-6)
        iterations[method] = int(solution.iterations)
    assert iterations["newton"] <= 16
    assert iterations["permutation"] <= 16
    assert iterations["quasi_newton"] > 2 * iterations["permutation"]


# --- inputs, and what does not fit


class Unscaled(PositionSampler):
    """A sampler that does not say how its step size scales."""

    target_acceptance = None


def test_the_turns_of_pairs_follow_the_steps_of_the_chain(rng_key):
    tempering = Tempering(textbook.Quartic())
    for start in (0, 1, BLOCK - 1, BLOCK + 2):
        inputs = tempering.draw_inputs(rng_key, BLOCK + 5, jnp.zeros(3), start)
        np.testing.assert_array_equal(inputs.parity, (start + np.arange(BLOCK + 5)) % 2)
        assert inputs.moves.noise.shape == (BLOCK + 5, 4, 3)
        assert inputs.log_uniforms.shape == (BLOCK + 5, 3)


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf])
def test_a_replica_without_a_density_does_not_come_into_the_cold(value):
    tempering = Tempering(lambda x: jnp.where(x[0] > 5, value, -0.5 * x @ x), 1e-9, num_temperatures=2)
    input = tempering.draw_inputs(jax.random.key(0), 1, jnp.zeros(1))
    input = jax.tree.map(lambda leaf: leaf[0], input)._replace(log_uniforms=jnp.asarray([-1e9]))
    replicas = jnp.asarray([[1.0], [6.0]])
    for gate in GATES:
        state, info = tempering.step(tempering.resume(replicas), input, gate)
        np.testing.assert_allclose(state.replicas.position[0], 1.0, atol=1e-3)
        assert all(np.isfinite(leaf).all() for leaf in info)
    # The other way round the cold one is rid of it.
    if value == -np.inf:
        state, _ = tempering.step(tempering.resume(replicas[::-1]), input)
        np.testing.assert_allclose(state.position, 1.0, atol=1e-3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inner": SGHMC}, "inner is <class .*SGHMC'>, expected the class of a sampler that knows but the position"),
        ({"inner": MetropolisInput}, "inner is .*, expected the class of a sampler"),
        ({"inner": Unscaled}, "Unscaled does not say how its step size goes with .*; set the class attribute power_of"),
        ({"num_temperatures": 1}, "num_temperatures is 1, expected a whole number of at least 2; with one temperature"),
        ({"hottest": 1.0}, r"hottest is 1\.0, expected an inverse temperature between 0 and 1"),
        ({"hottest": 0.0}, r"hottest is 0\.0, expected an inverse temperature"),
        ({"inverse_temperatures": [1.0]}, r"inverse_temperatures is \[1\.0\], expected at least two numbers"),
        ({"inverse_temperatures": [0.9, 0.5]}, "expected at least two numbers that fall from 1"),
        ({"inverse_temperatures": [1.0, 0.5, 0.7]}, "expected at least two numbers that fall from 1"),
        ({"inverse_temperatures": [1.0, 0.0]}, "expected at least two numbers that fall from 1 and stay above 0"),
    ],
)
def test_what_does_not_fit_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Tempering(textbook.Quartic(), **given)
