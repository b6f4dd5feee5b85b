"""One step of preconditioned Crank-Nicolson, against the textbook, and what it does on its own reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.stats import multivariate_normal

import parsample
from parsample.engine.transition import GATES
from parsample.samplers import PCN
from parsample.samplers.metropolis import MetropolisInput
from tests.samplers import textbook
from tests.samplers.densities import HOLES, counted, without_a_derivative
from tests.tolerances import SAME_COMPUTATION

STEP_SIZE = 0.4
MEAN = np.array([0.3, -0.5, 0.2])
# What `mean` and `covariance` may be, and the same written out.
REFERENCES = {
    "standard": (None, None, np.zeros(textbook.DIM), np.eye(textbook.DIM)),
    "one number": (0.25, None, np.full(textbook.DIM, 0.25), np.eye(textbook.DIM)),
    "diagonal": (MEAN, textbook.DIAGONAL, MEAN, np.diag(textbook.DIAGONAL)),
    "dense": (MEAN, textbook.DENSE, MEAN, textbook.DENSE),
}


def random_steps(rng, number):
    shape = (number, textbook.DIM)
    return rng.standard_normal(shape), rng.standard_normal(shape), np.log(rng.uniform(size=number))


def propose(x, noise, mean, covariance):
    """Cotter et al. 2013 in their own letters: sqrt(1 - beta^2) of the way back, beta times a draw of the reference."""
    beta = np.sqrt(1 - np.exp(-2 * STEP_SIZE))
    return mean + np.sqrt(1 - beta**2) * (x - mean) + beta * np.linalg.cholesky(covariance) @ noise


def log_ratio(x, proposal, mean, covariance):
    """log p(x') q(x | x') / (p(x) q(x' | x)) with the transition density of the proposal written out."""
    beta = np.sqrt(1 - np.exp(-2 * STEP_SIZE))

    def log_q(to, origin):
        return multivariate_normal.logpdf(to, mean + np.sqrt(1 - beta**2) * (origin - mean), beta**2 * covariance)

    return textbook.logdensity(proposal) + log_q(x, proposal) - textbook.logdensity(x) - log_q(proposal, x)


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.usefixtures("x64")
def test_a_step_is_the_textbooks(reference, rng):
    mean, covariance, *written_out = REFERENCES[reference]
    pcn = PCN(textbook.Quartic(), STEP_SIZE, mean, covariance)
    positions, noises, log_uniforms = random_steps(rng, 60)
    step = lambda x, *input: pcn.step(pcn.init(x), MetropolisInput(*input))  # noqa: E731
    states, infos = jax.jit(jax.vmap(step))(positions, noises, log_uniforms)

    proposals = np.array([propose(x, noise, *written_out) for x, noise in zip(positions, noises, strict=True)])
    log_ratios = np.array([log_ratio(x, y, *written_out) for x, y in zip(positions, proposals, strict=True)])
    accepted = log_uniforms < log_ratios
    assert 10 < accepted.sum() < 50
    expected = np.where(accepted[:, None], proposals, positions)
    np.testing.assert_array_equal(infos.is_accepted, accepted)
    SAME_COMPUTATION.check(infos.acceptance_rate, np.exp(np.minimum(log_ratios, 0)))
    SAME_COMPUTATION.check(states.position, expected)
    SAME_COMPUTATION.check(states.logdensity, np.array([textbook.logdensity(x) for x in expected]))


@pytest.mark.parametrize("step_size", [1e-6, 0.3, 20.0, 1e18])
def test_on_its_own_reference_every_proposal_is_accepted(step_size, rng_key):
    """Whatever the step size and the dimension, and with the reference's variance kept: in single precision, too."""
    dim = 500
    pcn = PCN(lambda x: -0.5 * jnp.sum((x - 1) ** 2 / 4), step_size, 1.0, np.full(dim, 4.0, np.float32))

    @jax.jit
    def chain(start):
        step = lambda state, input: (lambda pair: (pair[0], (pair[0].position, pair[1])))(pcn.step(state, input))  # noqa: E731
        return jax.lax.scan(step, pcn.init(start), pcn.draw_inputs(rng_key, 50, start))[1]

    states, infos = chain(1 + 2 * jax.random.normal(jax.random.key(1), (dim,)))
    # The log density of 500 dimensions is about -250, known to 3e-5.
    np.testing.assert_allclose(infos.acceptance_rate, 1, atol=2e-4)
    assert np.mean(infos.is_accepted) > 0.99
    assert np.std(np.asarray(states)[-1]) == pytest.approx(2, rel=4 / np.sqrt(2 * dim))


@pytest.mark.parametrize("reference", ["standard", "dense"])
@pytest.mark.usefixtures("x64")
def test_the_derivative_of_a_step(reference, rng):
    mean, covariance, *written_out = REFERENCES[reference]
    transition = PCN(textbook.Quartic(), STEP_SIZE, mean, covariance).transition
    positions, noises, log_uniforms = random_steps(rng, 8)

    @jax.jit
    @jax.vmap
    def jacobians(x, *input):
        input = MetropolisInput(*input)
        return [jax.jacfwd(transition.with_gate(gate))(x, input) for gate in GATES], transition.with_diagonal(x, input)

    (frozen, relaxed), (_, diagonals) = jacobians(positions, noises, log_uniforms)
    precision = np.linalg.inv(written_out[1])
    back, accepted = np.exp(-STEP_SIZE), 0
    for step, (x, noise, log_uniform) in enumerate(zip(positions, noises, log_uniforms, strict=True)):
        proposal = propose(x, noise, *written_out)
        odds = log_ratio(x, proposal, *written_out) - log_uniform
        accepted += odds > 0
        factor = back if odds > 0 else 1
        SAME_COMPUTATION.check(frozen[step], factor * np.eye(textbook.DIM))
        SAME_COMPUTATION.check(diagonals[step], np.full(textbook.DIM, factor))
        ratio = lambda y, sign: sign * (textbook.gradient(y) + precision @ (y - written_out[0]))  # noqa: E731
        through_odds = back * ratio(proposal, 1) + ratio(x, -1)
        slope = 1 / (2 + np.exp(odds) + np.exp(-odds))
        by_hand = factor * np.eye(textbook.DIM) + slope * np.outer(proposal - x, through_odds)
        np.testing.assert_allclose(relaxed[step], by_hand, rtol=1e-9, atol=1e-12)
    assert 0 < accepted < 8


@pytest.mark.parametrize("density", [name for name in HOLES if name != "gradient nan"])
def test_a_proposal_without_a_density_is_rejected(density):
    pcn = PCN(HOLES[density], 1.0)
    input = MetropolisInput(jnp.asarray([-10.0, 0.0]), jnp.asarray(-80.0))
    state, info = jax.jit(lambda x: pcn.transition.step(x, input))(jnp.zeros(2))
    assert not info.is_accepted
    assert info.acceptance_rate == 0
    np.testing.assert_array_equal(state.position, jnp.zeros(2))


def test_a_sequential_step_costs_one_log_density_and_no_gradient(rng_key):
    density, calls = counted(textbook.Quartic())
    pcn = PCN(without_a_derivative(density), STEP_SIZE)
    start = jnp.zeros(textbook.DIM)
    inputs = pcn.draw_inputs(rng_key, 20, start)
    jax.block_until_ready(parsample.evaluate_sequential(pcn.transition, start, inputs).states)
    jax.effects_barrier()
    assert len(calls) == 21


@pytest.mark.usefixtures("x64")
def test_positions_may_be_any_pytree(rng_key):
    def density(position):
        return textbook.Quartic()(jnp.concatenate([position["a"][None], position["b"]]))

    start = {"a": jnp.asarray(0.1), "b": jnp.asarray([0.2, -0.3])}
    flat = ravel_pytree(start)[0]
    tree, vector = (PCN(f, STEP_SIZE, MEAN, textbook.DENSE) for f in (density, textbook.Quartic()))
    inputs = tree.draw_inputs(rng_key, 50, start)
    states = parsample.evaluate_sequential(tree.transition, start, inputs).states
    expected = parsample.evaluate_sequential(vector.transition, flat, inputs).states
    SAME_COMPUTATION.check(jnp.concatenate([states["a"][:, None], states["b"]], 1), expected)


def test_bad_arguments():
    density, input = textbook.Quartic(), MetropolisInput(jnp.zeros(3), jnp.asarray(-1.0))
    with pytest.raises(ValueError, match=r"step_size is -0\.1, expected one finite number above 0"):
        PCN(density, -0.1)
    with pytest.raises(ValueError, match=r"mean has shape \(2, 2\), expected \(dim,\), in the order of the ravelled"):
        PCN(density, 0.1, np.ones((2, 2)))
    with pytest.raises(ValueError, match="mean is not finite, expected finite numbers"):
        PCN(density, 0.1, np.array([0.0, np.nan, 1.0]))
    with pytest.raises(ValueError, match="mean is for 2 dimensions, but the position holds 3 numbers"):
        PCN(density, 0.1, np.ones(2)).transition(jnp.zeros(3), input)
    with pytest.raises(ValueError, match="covariance is not positive definite, expected variances above 0"):
        PCN(density, 0.1, None, np.array([1.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match=r"covariance has shape \(2, 3\), expected \(dim,\) for a diagonal"):
        PCN(density, 0.1, None, np.ones((2, 3)))
    with pytest.raises(ValueError, match="covariance is for 2 dimensions, but the position holds 3 numbers"):
        PCN(density, 0.1, None, np.ones(2)).transition(jnp.zeros(3), input)
