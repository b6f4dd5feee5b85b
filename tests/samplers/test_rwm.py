"""One step of random-walk Metropolis, against the textbook, against BlackJAX, and where the density ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsample
from parsample.engine.transition import GATES
from parsample.samplers import RWM
from parsample.samplers.metropolis import MetropolisInput
from tests.samplers import textbook
from tests.samplers.densities import HOLES, counted, without_a_derivative
from tests.tolerances import SAME_COMPUTATION

STEP_SIZE = 0.8


def random_steps(rng, number, dim=textbook.DIM):
    """Positions, and inputs that accept some proposals and reject others."""
    return rng.standard_normal((number, dim)), rng.standard_normal((number, dim)), np.log(rng.uniform(size=number))


def propose(x, noise, inverse_mass):
    return x + STEP_SIZE * np.linalg.cholesky(inverse_mass) @ noise


@pytest.mark.parametrize("mass", textbook.MASSES)
@pytest.mark.usefixtures("x64")
def test_a_step_is_the_textbooks(mass, rng):
    given, inverse_mass = textbook.MASSES[mass]
    rwm = RWM(textbook.Quartic(), STEP_SIZE, given)
    positions, noises, log_uniforms = random_steps(rng, 60)
    step = lambda x, *input: rwm.step(rwm.init(x), MetropolisInput(*input))  # noqa: E731
    states, infos = jax.jit(jax.vmap(step))(positions, noises, log_uniforms)

    proposals = np.array([propose(x, noise, inverse_mass) for x, noise in zip(positions, noises, strict=True)])
    log_ratios = np.array(
        [textbook.logdensity(y) - textbook.logdensity(x) for x, y in zip(positions, proposals, strict=True)]
    )
    accepted = log_uniforms < log_ratios
    assert 10 < accepted.sum() < 50
    expected = np.where(accepted[:, None], proposals, positions)
    np.testing.assert_array_equal(infos.is_accepted, accepted)
    SAME_COMPUTATION.check(infos.acceptance_rate, np.exp(np.minimum(log_ratios, 0)))
    SAME_COMPUTATION.check(states.position, expected)
    SAME_COMPUTATION.check(states.logdensity, np.array([textbook.logdensity(x) for x in expected]))


@pytest.mark.usefixtures("x64")
def test_a_step_is_blackjaxs(rng):
    import blackjax

    density = textbook.Quartic()
    kernel = blackjax.additive_step_random_walk.normal_random_walk(density, STEP_SIZE * jnp.ones(textbook.DIM))
    starts = jnp.asarray(rng.standard_normal((300, textbook.DIM)))
    keys = jax.random.split(jax.random.key(0), 300)
    after, theirs = jax.jit(jax.vmap(lambda key, x: kernel.step(key, kernel.init(x))))(keys, starts)

    # Where BlackJAX accepted, its noise can be told from the state it moved to.
    moved = np.asarray(theirs.is_accepted)
    noise = (after.position - starts) / STEP_SIZE
    rwm = RWM(density, STEP_SIZE)
    step = lambda x, n: rwm.step(rwm.init(x), MetropolisInput(n, jnp.asarray(-np.inf)))  # noqa: E731
    ours, infos = jax.vmap(step)(starts[moved], noise[moved])
    rates = np.asarray(theirs.acceptance_rate)[moved]
    assert (rates < 1).sum() > 30
    np.testing.assert_allclose(infos.acceptance_rate, rates, rtol=1e-10)
    SAME_COMPUTATION.check(ours.position, after.position[moved])
    SAME_COMPUTATION.check(ours.logdensity, after.logdensity[moved])
    # The unit of the step size: all of BlackJAX's increments, if they had been accepted, have it as standard deviation.
    flat = blackjax.additive_step_random_walk.normal_random_walk(lambda x: 0.0, STEP_SIZE * jnp.ones(textbook.DIM))
    increments = jax.jit(jax.vmap(lambda key, x: flat.step(key, flat.init(x))[0].position))(keys, starts) - starts
    assert np.std(increments) == pytest.approx(STEP_SIZE, rel=0.1)


@pytest.mark.parametrize("mass", textbook.MASSES)
@pytest.mark.usefixtures("x64")
def test_the_derivative_of_a_step(mass, rng):
    given, inverse_mass = textbook.MASSES[mass]
    transition = RWM(textbook.Quartic(), STEP_SIZE, given).transition
    positions, noises, log_uniforms = random_steps(rng, 8)

    @jax.jit
    @jax.vmap
    def jacobians(x, *input):
        input = MetropolisInput(*input)
        return [jax.jacfwd(transition.with_gate(gate))(x, input) for gate in GATES], transition.with_diagonal(x, input)

    (frozen, relaxed), ((state, _), diagonals) = jacobians(positions, noises, log_uniforms)
    # Accepted or not: the claim on which Picard being Newton rests. To the bit.
    np.testing.assert_array_equal(frozen, np.broadcast_to(np.eye(textbook.DIM), frozen.shape))
    np.testing.assert_array_equal(diagonals, np.ones_like(positions))
    for step, (x, noise, log_uniform) in enumerate(zip(positions, noises, log_uniforms, strict=True)):
        proposal = propose(x, noise, inverse_mass)
        odds = textbook.logdensity(proposal) - textbook.logdensity(x) - log_uniform
        through_odds = textbook.gradient(proposal) - textbook.gradient(x)
        slope = 1 / (2 + np.exp(odds) + np.exp(-odds))
        by_hand = np.eye(textbook.DIM) + slope * np.outer(proposal - x, through_odds)
        np.testing.assert_allclose(relaxed[step], by_hand, rtol=1e-9, atol=1e-12)
        SAME_COMPUTATION.check(state.position[step], proposal if odds > 0 else x)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("density", [name for name in HOLES if name != "gradient nan"])
def test_a_proposal_without_a_density_is_rejected(density, gate):
    rwm = RWM(HOLES[density], 1.0)
    start = jnp.zeros(2)
    inputs = MetropolisInput(jnp.asarray([[-10.0, 0.0], [0.5, 0.0]]), jnp.asarray([-80.0, -80.0]))
    transition = rwm.transition.with_gate(gate)
    step = lambda state, input: (lambda pair: (pair[0], pair))(rwm.step(state, input, gate))  # noqa: E731
    _, (states, infos) = jax.jit(lambda start, inputs: jax.lax.scan(step, rwm.init(start), inputs))(start, inputs)
    np.testing.assert_array_equal(infos.is_accepted, [False, True])
    assert infos.acceptance_rate[0] == 0
    np.testing.assert_array_equal(states.position, [[0.0, 0.0], [0.5, 0.0]])
    jacobian = jax.jacfwd(transition)(start, jax.tree.map(lambda leaf: leaf[0], inputs))
    np.testing.assert_array_equal(jacobian, np.eye(2))


def test_a_sequential_step_costs_one_log_density_and_no_gradient(rng_key):
    density, calls = counted(textbook.Quartic())
    rwm = RWM(without_a_derivative(density), STEP_SIZE)
    start = jnp.zeros(textbook.DIM)
    inputs = rwm.draw_inputs(rng_key, 20, start)
    jax.block_until_ready(parsample.evaluate_sequential(rwm.transition, start, inputs).states)
    jax.effects_barrier()
    assert len(calls) == 21


@pytest.mark.parametrize("method", ["picard", "quasi_newton"])
def test_a_parallel_evaluation_needs_no_gradient(method, rng_key):
    rwm = RWM(without_a_derivative(textbook.Quartic()), STEP_SIZE)
    start = jnp.zeros(textbook.DIM)
    inputs = rwm.draw_inputs(rng_key, 50, start)
    loop = parsample.evaluate_sequential(rwm.transition, start, inputs)
    found = parsample.evaluate(rwm.transition, start, inputs, method=method, window=8, atol=1e-5)
    SAME_COMPUTATION.check(found.states, loop.states)


@pytest.mark.usefixtures("x64")
def test_picard_is_newton(rng_key):
    """The same matrices, so the same iterates and as many of them; Newton differentiates the density for nothing."""
    rwm = RWM(textbook.Quartic(), STEP_SIZE)
    start = jnp.zeros(textbook.DIM)
    inputs = rwm.draw_inputs(rng_key, 200, start)
    solutions = [
        parsample.evaluate(rwm.transition, start, inputs, method=method, window=20, atol=1e-9, rtol=1e-9)
        for method in ("picard", "quasi_newton", "newton")
    ]
    assert 20 < int(solutions[0].iterations) < 100
    for other in solutions[1:]:
        assert int(other.iterations) == int(solutions[0].iterations)
        SAME_COMPUTATION.check(other.states, solutions[0].states)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"step_size is -1, expected one finite number above 0"):
        RWM(textbook.Quartic(), -1)
    with pytest.raises(ValueError, match="inverse_mass_matrix is not positive definite, expected variances above 0"):
        RWM(textbook.Quartic(), 0.1, np.array([1.0, -1.0, 1.0]))
    rwm = RWM(textbook.Quartic(), 0.1, np.ones(2))
    with pytest.raises(ValueError, match="inverse_mass_matrix is for 2 dimensions, but the position holds 3 numbers"):
        rwm.transition(jnp.zeros(3), MetropolisInput(jnp.zeros(3), jnp.asarray(-1.0)))
