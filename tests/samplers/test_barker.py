"""One step of the Barker proposal, against the textbook, against BlackJAX, and where the density ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import norm

import parsample
from parsample.engine.transition import GATES
from parsample.samplers import Barker
from parsample.samplers.barker import BarkerInput
from tests.samplers import textbook
from tests.samplers.densities import HOLES, counted
from tests.tolerances import SAME_COMPUTATION

STEP_SIZE = 0.9


def random_steps(rng, number, dim=textbook.DIM):
    """Positions, noise, uniform numbers for the signs, and uniform numbers that accept some and reject others."""
    return (*rng.standard_normal((2, number, dim)), rng.uniform(size=(number, dim)), rng.uniform(size=number))


def propose(x, noise, uniforms, inverse_mass):
    """Livingstone & Zanella's algorithm: draw z, keep its sign with probability sigmoid(z c), move by it."""
    root = np.linalg.cholesky(inverse_mass)
    z = STEP_SIZE * noise
    sign = np.where(uniforms < expit(z * (root.T @ textbook.gradient(x))), 1, -1)
    return x + root @ (sign * z)


def log_ratio(x, proposal, inverse_mass):
    """log p(x') q(x | x') / (p(x) q(x' | x)), with q = prod over i of 2 N(z_i; 0, h^2) sigmoid(z_i c_i)."""
    root = np.linalg.cholesky(inverse_mass)

    def log_q(to, origin):
        z = np.linalg.solve(root, to - origin)
        kept = expit(z * (root.T @ textbook.gradient(origin)))
        return np.sum(np.log(2 * norm.pdf(z, scale=STEP_SIZE) * kept))

    return textbook.logdensity(proposal) + log_q(x, proposal) - textbook.logdensity(x) - log_q(proposal, x)


def take(barker):
    return lambda x, noise, uniform, accept: barker.step(
        barker.init(x), BarkerInput(noise, jnp.log(uniform) - jnp.log1p(-uniform), jnp.log(accept))
    )


@pytest.mark.parametrize("mass", textbook.MASSES)
@pytest.mark.usefixtures("x64")
def test_a_step_is_the_textbooks(mass, rng):
    given, inverse_mass = textbook.MASSES[mass]
    positions, noises, uniforms, accepts = random_steps(rng, 60)
    states, infos = jax.jit(jax.vmap(take(Barker(textbook.Quartic(), STEP_SIZE, given))))(
        positions, noises, uniforms, accepts
    )
    proposals = np.array([propose(x, n, u, inverse_mass) for x, n, u in zip(positions, noises, uniforms, strict=True)])
    log_ratios = np.array([log_ratio(x, y, inverse_mass) for x, y in zip(positions, proposals, strict=True)])
    accepted = np.log(accepts) < log_ratios
    assert 10 < accepted.sum() < 50
    expected = np.where(accepted[:, None], proposals, positions)
    np.testing.assert_array_equal(infos.is_accepted, accepted)
    SAME_COMPUTATION.check(infos.acceptance_rate, np.exp(np.minimum(log_ratios, 0)))
    SAME_COMPUTATION.check(states.position, expected)
    SAME_COMPUTATION.check(states.logdensity, np.array([textbook.logdensity(x) for x in expected]))
    SAME_COMPUTATION.check(states.gradient, np.array([textbook.gradient(x) for x in expected]))


@pytest.mark.parametrize("mass", ["identity", "diagonal"])
@pytest.mark.usefixtures("x64")
def test_a_step_is_blackjaxs(mass, rng):
    """BlackJAX scales by the root of the mass matrix where everything else scales by that of its inverse."""
    import blackjax

    given, density = textbook.MASSES[mass][0], textbook.Quartic()
    kernel = blackjax.barker(density, STEP_SIZE, None if given is None else 1 / given)
    starts = jnp.asarray(rng.standard_normal((200, textbook.DIM)))
    keys = jax.random.split(jax.random.key(0), 200)
    _, theirs = jax.jit(jax.vmap(lambda key, x: kernel.step(key, kernel.init(x))))(keys, starts)

    # Our step with the noise of their proposals, signs included, which a logistic number of -inf keeps as they are.
    noise = (theirs.proposal.position - starts) / STEP_SIZE / (1 if given is None else np.sqrt(given))
    ours = Barker(density, STEP_SIZE, given)
    certain = jnp.full(textbook.DIM, -jnp.inf)
    step = lambda x, n: ours.step(ours.init(x), BarkerInput(n, certain, jnp.asarray(-np.inf)))  # noqa: E731
    states, infos = jax.vmap(step)(starts, noise)
    assert (np.asarray(theirs.acceptance_rate) < 1).sum() > 50
    np.testing.assert_allclose(infos.acceptance_rate, theirs.acceptance_rate, rtol=1e-9)
    SAME_COMPUTATION.check(states.position, theirs.proposal.position)
    SAME_COMPUTATION.check(states.gradient, theirs.proposal.logdensity_grad)


@pytest.mark.usefixtures("x64")
def test_a_dense_mass_matrix_is_the_identity_in_whitened_coordinates(rng):
    """Appendix G of the paper."""
    root = np.linalg.cholesky(textbook.DENSE)
    density = textbook.Quartic()
    here = Barker(density, STEP_SIZE, textbook.DENSE)
    there = Barker(lambda z: density(root @ z), STEP_SIZE)
    start = jnp.asarray(rng.standard_normal(textbook.DIM))
    inputs = here.draw_inputs(jax.random.key(0), 100, start)
    states = parsample.evaluate_sequential(here.transition, start, inputs).states
    whitened = parsample.evaluate_sequential(there.transition, np.linalg.solve(root, start), inputs).states
    assert len(np.unique(np.asarray(states)[:, 0])) > 30
    np.testing.assert_allclose(states, whitened @ root.T, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_signs_follow_the_gradient_as_often_as_they_should(rng_key):
    """For log p = c x a proposal goes up with probability sigmoid(c |z|): the inputs are what they are said to be."""
    barker = Barker(lambda x: jnp.sum(1.5 * x), STEP_SIZE)
    inputs = barker.draw_inputs(rng_key, 20_000, jnp.zeros(1))
    up = np.asarray(STEP_SIZE * inputs.noise * 1.5 > inputs.logistic) == (np.asarray(inputs.noise) > 0)
    expected = expit(1.5 * STEP_SIZE * np.abs(inputs.noise))
    error = np.sqrt(np.sum(expected * (1 - expected)))
    assert abs(up.sum() - expected.sum()) < 4 * error
    # A number each, so that a key used twice would show.
    assert abs(np.corrcoef(np.ravel(inputs.noise), np.ravel(inputs.logistic))[0, 1]) < 4 / np.sqrt(20_000)


@pytest.mark.parametrize("mass", ["identity", "dense"])
@pytest.mark.usefixtures("x64")
def test_the_derivative_of_a_step(mass, rng):
    given, inverse_mass = textbook.MASSES[mass]
    root = np.linalg.cholesky(inverse_mass)
    transition = Barker(textbook.Quartic(), STEP_SIZE, given).transition
    positions, noises, uniforms, _ = random_steps(rng, 8)
    # Of every two the first is accepted for certain, the second rejected: the derivative of the signs stands alone.
    accepts = np.where(np.arange(8) % 2, 0.0, -80.0)
    inputs = BarkerInput(jnp.asarray(noises), jnp.asarray(logit(uniforms)), jnp.asarray(accepts))

    @jax.jit
    @jax.vmap
    def jacobians(x, input):
        frozen, relaxed = (jax.jacfwd(transition.with_gate(gate))(x, input) for gate in GATES)
        return frozen, relaxed, transition.with_diagonal(x, input), transition(x, input)

    frozen, relaxed, ((state, _), diagonals), expected = jacobians(jnp.asarray(positions), inputs)
    np.testing.assert_array_equal(frozen, np.broadcast_to(np.eye(textbook.DIM), frozen.shape))
    np.testing.assert_array_equal(diagonals, np.ones_like(positions))
    SAME_COMPUTATION.check(state.position, expected)
    # exp(-80) is what is left of the derivative of the decision where it is certain.
    for step in range(0, 8, 2):
        z, odds = STEP_SIZE * noises[step], STEP_SIZE * noises[step] * (root.T @ textbook.gradient(positions[step]))
        odds -= logit(uniforms[step])
        slope = 2 * z**2 / (2 + np.exp(odds) + np.exp(-odds))
        by_hand = np.eye(textbook.DIM) + root @ np.diag(slope) @ root.T @ textbook.hessian(positions[step])
        np.testing.assert_allclose(relaxed[step], by_hand, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("density", HOLES)
def test_a_proposal_without_a_density_is_rejected(density, gate):
    barker = Barker(HOLES[density], 1.0)
    start = jnp.zeros(2)
    # The logistic numbers keep every sign as it is, and with these uniform numbers what has any chance is accepted.
    keep = jnp.full((2, 2), -1e3)
    inputs = BarkerInput(jnp.asarray([[-10.0, 0.0], [0.5, 0.0]]), keep, jnp.asarray([-80.0, -80.0]))
    step = lambda state, input: (lambda pair: (pair[0], pair))(barker.step(state, input, gate))  # noqa: E731
    _, (states, infos) = jax.jit(lambda start, inputs: jax.lax.scan(step, barker.init(start), inputs))(start, inputs)
    np.testing.assert_array_equal(infos.is_accepted, [False, True])
    assert infos.acceptance_rate[0] == 0
    assert all(np.isfinite(leaf).all() for leaf in states)
    jacobian = jax.jacfwd(barker.transition.with_gate(gate))(start, jax.tree.map(lambda leaf: leaf[0], inputs))
    np.testing.assert_array_equal(jacobian, np.eye(2))


def test_steep_densities_neither_overflow_nor_stop_the_chain(rng_key):
    """log p = -exp(20 x^2): the gradient is infinite in single precision where x is 2.2, and huge well before."""
    barker = Barker(lambda x: -jnp.sum(jnp.exp(20 * x**2)), 0.5)
    states, infos = jax.jit(lambda start: jax.lax.scan(
        lambda state, input: (lambda pair: (pair[0], pair))(barker.step(state, input)),
        barker.init(start),
        barker.draw_inputs(rng_key, 2000, start),
    )[1])(jnp.asarray([1.5, -1.5]))  # fmt: skip
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((states, infos)))
    assert np.abs(states.position[199]).max() < 0.7
    # In the long run it is 0.17.
    assert 0.15 < np.mean(infos.is_accepted[50:]) < 0.19


def test_a_sequential_step_costs_one_gradient(rng_key):
    density, calls = counted(textbook.Quartic())
    barker = Barker(density, STEP_SIZE)
    start = jnp.zeros(textbook.DIM)
    inputs = barker.draw_inputs(rng_key, 20, start)
    jax.block_until_ready(parsample.evaluate_sequential(barker.transition, start, inputs).states)
    jax.effects_barrier()
    assert len(calls) == 21


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"step_size is 0, expected one finite number above 0"):
        Barker(textbook.Quartic(), 0)
    with pytest.raises(ValueError, match="inverse_mass_matrix is not symmetric"):
        Barker(textbook.Quartic(), 0.1, np.array([[1.0, 0.5], [0.3, 1.0]]))
    barker, three = Barker(textbook.Quartic(), 0.1, np.ones(2)), jnp.zeros(3)
    with pytest.raises(ValueError, match="inverse_mass_matrix is for 2 dimensions, but the position holds 3 numbers"):
        barker.transition(three, BarkerInput(three, three, jnp.asarray(-1.0)))
