"""One step of MALA, against the textbook, against BlackJAX, and where the density ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import parsample
from parsample.engine.transition import GATES
from parsample.samplers import MALA
from parsample.samplers.metropolis import MetropolisInput
from tests.samplers import textbook
from tests.samplers.densities import HOLES, counted
from tests.tolerances import SAME_COMPUTATION

STEP_SIZE = 0.3


def random_steps(rng, number, dim=textbook.DIM):
    """Positions, and inputs that accept some proposals and reject others."""
    positions = rng.standard_normal((number, dim))
    return positions, rng.standard_normal((number, dim)), np.log(rng.uniform(size=number))


@pytest.mark.parametrize("mass", textbook.MASSES)
@pytest.mark.usefixtures("x64")
def test_a_step_is_the_textbooks(mass, rng):
    given, written_out = textbook.MASSES[mass]
    mala = MALA(textbook.Quartic(), STEP_SIZE, given)
    positions, noises, log_uniforms = random_steps(rng, 60)
    step = lambda x, *input: mala.step(mala.init(x), MetropolisInput(*input))  # noqa: E731
    states, infos = jax.jit(jax.vmap(step))(positions, noises, log_uniforms)

    proposals = np.array(
        [textbook.propose(x, n, STEP_SIZE, written_out) for x, n in zip(positions, noises, strict=True)]
    )
    log_ratios = np.array(
        [textbook.log_ratio(x, y, STEP_SIZE, written_out) for x, y in zip(positions, proposals, strict=True)]
    )
    accepted = log_uniforms < log_ratios
    assert 10 < accepted.sum() < 50
    expected = np.where(accepted[:, None], proposals, positions)
    np.testing.assert_array_equal(infos.is_accepted, accepted)
    SAME_COMPUTATION.check(infos.acceptance_rate, np.exp(np.minimum(log_ratios, 0)))
    SAME_COMPUTATION.check(states.position, expected)
    SAME_COMPUTATION.check(states.logdensity, np.array([textbook.logdensity(x) for x in expected]))
    SAME_COMPUTATION.check(states.gradient, np.array([textbook.gradient(x) for x in expected]))


@pytest.mark.usefixtures("x64")
def test_a_step_is_blackjaxs(rng):
    import blackjax

    kernel, density = blackjax.mala.build_kernel(), textbook.Quartic()
    starts = jnp.asarray(rng.standard_normal((200, textbook.DIM)))
    states = jax.vmap(lambda x: blackjax.mala.init(x, density))(starts)
    keys = jax.random.split(jax.random.key(0), 200)
    after, theirs = jax.jit(jax.vmap(lambda key, state: kernel(key, state, density, STEP_SIZE)))(keys, states)

    # Where BlackJAX accepted, its noise can be told from the state it moved to.
    moved = np.asarray(theirs.is_accepted)
    noise = (after.position - starts - STEP_SIZE * states.logdensity_grad) / np.sqrt(2 * STEP_SIZE)
    mala = MALA(density, STEP_SIZE)
    step = lambda x, n: mala.step(mala.init(x), MetropolisInput(n, jnp.asarray(-np.inf)))  # noqa: E731
    ours, infos = jax.vmap(step)(starts[moved], noise[moved])
    rates = np.asarray(theirs.acceptance_rate)[moved]
    assert moved.sum() > 100
    assert rates.min() < 0.6
    assert (rates < 1).sum() > 30
    np.testing.assert_allclose(infos.acceptance_rate, rates, rtol=1e-10)
    SAME_COMPUTATION.check(ours.position, after.position[moved])
    SAME_COMPUTATION.check(ours.logdensity, after.logdensity[moved])


@pytest.mark.usefixtures("x64")
def test_a_dense_mass_matrix_is_the_identity_in_whitened_coordinates(rng):
    root = np.linalg.cholesky(textbook.DENSE)
    density = textbook.Quartic()
    here = MALA(density, STEP_SIZE, textbook.DENSE)
    there = MALA(lambda z: density(root @ z), STEP_SIZE)
    start = jnp.asarray(rng.standard_normal(textbook.DIM))
    inputs = here.draw_inputs(jax.random.key(0), 100, start)
    states = parsample.evaluate_sequential(here.transition, start, inputs).states
    whitened = parsample.evaluate_sequential(there.transition, np.linalg.solve(root, start), inputs).states
    assert len(np.unique(np.asarray(states)[:, 0])) > 30
    np.testing.assert_allclose(states, whitened @ root.T, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("density", HOLES)
def test_a_proposal_without_a_density_is_rejected(density, gate):
    mala = MALA(HOLES[density], 0.5)
    start = jnp.zeros(2)
    # With numbers this small every proposal that has any chance is accepted.
    inputs = MetropolisInput(jnp.asarray([[-10.0, 0.0], [0.5, 0.0]]), jnp.asarray([-80.0, -80.0]))

    def step(state, input):
        state, info = mala.step(state, input, gate)
        return state, (state, info)

    _, (states, infos) = jax.jit(lambda start, inputs: jax.lax.scan(step, mala.init(start), inputs))(start, inputs)
    np.testing.assert_array_equal(infos.is_accepted, [False, True])
    assert infos.acceptance_rate[0] == 0
    np.testing.assert_array_equal(states.position[0], start)
    assert all(np.isfinite(leaf).all() for leaf in states)


@pytest.mark.parametrize("density", HOLES)
def test_the_derivative_at_a_proposal_without_a_density_is_that_of_staying(density):
    mala = MALA(HOLES[density], 0.5)
    input = MetropolisInput(jnp.asarray([-10.0, 0.0]), jnp.asarray(-1.0))
    jacobians = jax.jit(lambda x: [jax.jacfwd(mala.transition.with_gate(gate))(x, input) for gate in GATES])
    for jacobian in jacobians(jnp.zeros(2)):
        np.testing.assert_array_equal(jacobian, np.eye(2))


def test_a_start_without_a_density_is_left_at_the_first_chance():
    mala = MALA(lambda x: jnp.where(x[0] < -0.5, -jnp.inf, -0.5 * x @ x), 0.5)
    state, info = mala.step(
        mala.init(jnp.asarray([-1.0, 0.0])), MetropolisInput(jnp.asarray([1.0, 0.0]), jnp.asarray(-1e-3))
    )
    assert info.is_accepted
    assert np.isfinite(state.logdensity)


def test_a_cached_state_is_the_one_at_its_position(rng_key):
    mala = MALA(textbook.Quartic(), STEP_SIZE, textbook.DENSE.astype(np.float32))

    @jax.jit
    def both(start):
        def step(state, input):
            state, info = mala.step(state, input)
            return state, (state, info.is_accepted)

        _, (states, accepted) = jax.lax.scan(step, mala.init(start), mala.draw_inputs(rng_key, 50, start))
        return states, jax.vmap(mala.init)(states.position), accepted

    states, fresh, accepted = both(jnp.zeros(textbook.DIM))
    assert 5 < accepted.sum() < 45
    for one, other in zip(states, fresh, strict=True):
        SAME_COMPUTATION.check(one, other)


def test_the_transition_from_a_position_is_the_step_from_its_state(rng_key):
    mala = MALA(textbook.Quartic(), STEP_SIZE)

    @jax.jit
    def three_ways(position):
        input = jax.tree.map(lambda leaf: leaf[0], mala.draw_inputs(rng_key, 1, position))
        state, info = mala.step(mala.init(position), input)
        return (state, info), mala.transition.step(position, input), mala.transition(position, input)

    by_state, by_position, position = three_ways(jnp.asarray([0.3, -0.2, 0.5]))
    for one, other in zip(jax.tree.leaves(by_state), jax.tree.leaves(by_position), strict=True):
        SAME_COMPUTATION.check(one, other)
    SAME_COMPUTATION.check(position, by_state[0].position)


def test_a_sequential_step_costs_one_gradient(rng_key):
    density, calls = counted(textbook.Quartic())
    mala = MALA(density, STEP_SIZE)
    start = jnp.zeros(textbook.DIM)
    inputs = mala.draw_inputs(rng_key, 20, start)
    solution = parsample.evaluate_sequential(mala.transition, start, inputs)
    jax.block_until_ready(solution.states)
    jax.effects_barrier()
    # One for the start, and one for the proposal of every step.
    assert len(calls) == 21


def test_positions_may_be_any_pytree(rng_key):
    def density(position):
        return textbook.Quartic()(jnp.concatenate([position["a"][None], position["b"]]))

    start = {"a": jnp.asarray(0.1), "b": jnp.asarray([0.2, -0.3])}
    flat = ravel_pytree(start)[0]
    for mass in (None, textbook.DIAGONAL, textbook.DENSE):
        tree, vector = MALA(density, STEP_SIZE, mass), MALA(textbook.Quartic(), STEP_SIZE, mass)
        inputs = tree.draw_inputs(rng_key, 50, start)
        for one, other in zip(inputs, vector.draw_inputs(rng_key, 50, flat), strict=True):
            np.testing.assert_array_equal(one, other)
        states = parsample.evaluate_sequential(tree.transition, start, inputs).states
        expected = parsample.evaluate_sequential(vector.transition, flat, inputs).states
        assert str(jax.tree.structure(states)) == str(jax.tree.structure(start))
        SAME_COMPUTATION.check(jnp.concatenate([states["a"][:, None], states["b"]], 1), expected)


@pytest.mark.usefixtures("x64")
def test_single_precision_positions_stay_single(rng_key):
    mala = MALA(lambda x: -0.5 * jnp.sum(x**2), STEP_SIZE, np.full(4, 2.0))

    def step(position):
        inputs = mala.draw_inputs(rng_key, 5, position)
        return inputs, mala.step(mala.init(position), jax.tree.map(lambda leaf: leaf[0], inputs))[0]

    shapes = jax.eval_shape(step, jnp.zeros(4, jnp.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
