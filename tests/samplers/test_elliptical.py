"""Elliptical slice sampling with its angles drawn in advance: the textbook's loop, BlackJAX's, and the law."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import polygamma, psi
from scipy.stats import multivariate_normal

import parsample
from parsample.samplers import SAMPLERS, EllipticalSlice
from parsample.samplers.base import BLOCK
from parsample.samplers.elliptical import EllipticalInput, shrink
from tests.samplers import textbook
from tests.samplers.densities import HOLES, counted, without_a_derivative
from tests.samplers.moments import check_moments
from tests.tolerances import CONVERGED, SAME_COMPUTATION

MEAN = np.array([0.3, -0.5, 0.2])
BRACKETS = 6


def narrow(x):
    """A target a tenth as wide as the reference, so that many angles miss."""
    return 40 * textbook.Quartic()(x)


def textbook_step(x, noise, log_uniform, uniforms, mean, covariance):
    """Murray, Adams & MacKay 2010, figure 2, with the likelihood as ratio of target to reference."""

    def log_likelihood(y):
        return 40 * textbook.logdensity(y) - multivariate_normal.logpdf(y, mean, covariance)

    threshold = log_likelihood(x) + log_uniform
    nu = mean + np.linalg.cholesky(covariance) @ noise
    angle = 2 * math.pi * uniforms[0]
    low, high = angle - 2 * math.pi, angle
    for tried, uniform in enumerate([*uniforms[1:], None], 1):
        proposal = mean + (x - mean) * np.cos(angle) + (nu - mean) * np.sin(angle)
        if log_likelihood(proposal) > threshold:
            return proposal, angle, tried
        if uniform is None:
            return x, 0.0, tried
        if angle < 0:
            low = angle
        else:
            high = angle
        angle = low + uniform * (high - low)
    raise AssertionError("not reached")


@pytest.mark.parametrize("reference", ["standard", "dense"])
@pytest.mark.usefixtures("x64")
def test_a_step_is_the_textbooks(reference, rng):
    given = (None, None) if reference == "standard" else (MEAN, textbook.DENSE)
    written_out = (np.zeros(3), np.eye(3)) if reference == "standard" else given
    chain = EllipticalSlice(narrow, given[0], given[1], num_brackets=BRACKETS)
    positions, noises = 0.3 * rng.standard_normal((80, textbook.DIM)), rng.standard_normal((80, textbook.DIM))
    log_uniforms, uniforms = np.log(rng.uniform(size=80)), rng.uniform(size=(80, BRACKETS))
    step = lambda x, noise, log_uniform, uniforms: chain.step(  # noqa: E731
        chain.init(x), EllipticalInput(noise, log_uniform, shrink(uniforms))
    )
    states, infos = jax.jit(jax.vmap(step))(positions, noises, log_uniforms, uniforms)

    rows = [textbook_step(*row, *written_out) for row in zip(positions, noises, log_uniforms, uniforms, strict=True)]
    expected, angles, tried = (np.array(column) for column in zip(*rows, strict=True))
    assert set(tried) == set(range(1, BRACKETS + 1))
    stayed = angles == 0
    assert 5 < stayed.sum() < 60
    SAME_COMPUTATION.check(states.position, expected)
    SAME_COMPUTATION.check(states.logdensity, np.array([40 * textbook.logdensity(x) for x in expected]))
    SAME_COMPUTATION.check(infos.angle, angles)
    np.testing.assert_array_equal(infos.num_proposals, tried)
    np.testing.assert_array_equal(infos.is_accepted, ~stayed)
    np.testing.assert_array_equal(infos.acceptance_rate, (~stayed).astype(float))


@pytest.mark.usefixtures("x64")
def test_a_step_is_blackjaxs(rng):
    """With the numbers that BlackJAX draws from its keys, for the steps it makes within our brackets."""
    import blackjax

    variances = np.array([0.5, 2.0, 1.2])
    prior = lambda x: jnp.sum(-0.5 * (x - MEAN) ** 2 / variances)  # noqa: E731
    theirs = blackjax.elliptical_slice(lambda x: narrow(x) - prior(x), mean=jnp.asarray(MEAN), cov=variances)
    ours = EllipticalSlice(narrow, MEAN, variances, num_brackets=BRACKETS)

    def both(key, x):
        key_slice, key_momentum, key_uniform, key_angle = jax.random.split(key, 4)
        uniforms = [jax.random.uniform(key_angle)]
        uniforms += [jax.random.uniform(jax.random.fold_in(key_slice, count)) for count in range(1, BRACKETS)]
        noise = jax.random.normal(key_momentum, x.shape, x.dtype)
        input = EllipticalInput(noise, jnp.log(jax.random.uniform(key_uniform)), shrink(jnp.stack(uniforms)))
        return theirs.step(key, theirs.init(x)), ours.step(ours.init(x), input)

    keys = jax.random.split(jax.random.key(0), 100)
    (after, found), (states, infos) = jax.jit(jax.vmap(both))(keys, 0.3 * rng.standard_normal((100, textbook.DIM)))
    within = np.asarray(found.subiter) <= BRACKETS
    assert 50 < within.sum() < 100
    np.testing.assert_array_equal(infos.is_accepted, within)
    np.testing.assert_array_equal(infos.num_proposals[within], found.subiter[within])
    np.testing.assert_allclose(infos.angle[within], found.theta[within], rtol=1e-9)
    np.testing.assert_allclose(states.position[within], after.position[within], rtol=1e-9, atol=1e-12)


def test_angles_lie_in_the_brackets_that_the_ones_before_left(rng_key):
    chain = EllipticalSlice(narrow, num_brackets=BRACKETS)
    inputs = chain.draw_inputs(rng_key, 4000, jnp.zeros(3))
    angles = np.asarray(inputs.angles, np.float64)
    assert angles.shape == (4000, BRACKETS)
    assert inputs.noise.shape == (4000, 3)
    first = angles[:, 0] / (2 * math.pi)
    assert stats.kstest(first, "uniform").pvalue > 1e-3
    low, high = angles[:, 0] - 2 * math.pi, angles[:, 0]
    for angle in angles.T[1:]:
        assert np.all((angle >= low) & (angle <= high))
        assert stats.kstest((angle - low) / (high - low), "uniform").pvalue > 1e-3
        low, high = np.where(angle < 0, angle, low), np.where(angle < 0, high, angle)
    part = chain.draw_inputs(rng_key, 30, jnp.zeros(3), start=BLOCK - 10)
    for one, other in zip(part, inputs, strict=True):
        np.testing.assert_array_equal(one, other[BLOCK - 10 : BLOCK + 20])


@pytest.mark.parametrize("num_brackets", [1, 2, 12])
def test_the_law_is_the_targets_however_soon_it_gives_up(num_brackets):
    """A skewed target, x = log of a gamma variable: with one bracket the chain stays where it is in many steps."""
    a = 3.0
    density = lambda x: jnp.sum(a * x - jnp.exp(x))  # noqa: E731
    chain = EllipticalSlice(density, 0.7, np.full(2, 1.5, np.float32), num_brackets=num_brackets)

    @jax.jit
    @jax.vmap
    def run(key):
        start = jnp.zeros(2)
        inputs = chain.draw_inputs(key, 10_000, start)
        return parsample.evaluate_sequential(chain.transition, start, inputs).states

    draws = np.asarray(run(jax.random.split(jax.random.key(3), 8)), np.float64)[:, 500:]
    stays = (np.diff(draws[..., 0], axis=1) == 0).mean()
    assert {1: 0.2 < stays < 0.7, 2: 0.05 < stays < 0.4, 12: stays < 0.01}[num_brackets], stays
    x0, x1 = draws[..., 0], draws[..., 1]
    check_moments(
        {
            "x0": (x0, float(psi(a))),
            "variance of x0": ((x0 - psi(a)) ** 2, float(polygamma(1, a))),
            "third moment of x1": ((x1 - psi(a)) ** 3, float(polygamma(2, a))),
            "exp(x1)": (np.exp(x1), a),
            "exp(x0 + x1)": (np.exp(x0 + x1), a**2),
        }
    )


@pytest.mark.usefixtures("x64")
def test_the_derivative_of_a_step_is_a_cosine(rng):
    chain = EllipticalSlice(narrow, MEAN, textbook.DENSE, num_brackets=BRACKETS)
    positions = jnp.asarray(0.3 * rng.standard_normal((20, 3)))
    inputs = chain.draw_inputs(jax.random.key(0), 20, positions[0])
    forward, backward, ((known, at_once), diagonals), (states, infos) = jax.jit(
        jax.vmap(
            lambda x, input: (
                jax.jacfwd(chain.transition)(x, input),
                jax.jacrev(chain.transition)(x, input),
                chain.transition.with_diagonal(x, input),
                chain.transition.step(x, input),
            )
        )
    )(positions, inputs)
    cosines = np.where(infos.is_accepted, np.cos(infos.angle), 1)
    assert 0 < np.sum(infos.is_accepted) < 20
    for jacobian in (forward, backward):
        SAME_COMPUTATION.check(jacobian, cosines[:, None, None] * np.eye(3))
    SAME_COMPUTATION.check(diagonals, np.broadcast_to(cosines[:, None], (20, 3)))
    SAME_COMPUTATION.check(known.position, states.position)
    SAME_COMPUTATION.check(known.logdensity, states.logdensity)
    assert set(np.asarray(infos.num_proposals)) > {1, BRACKETS}
    for one, other in zip(at_once, infos, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("method", ["picard", "quasi_newton"])
@pytest.mark.usefixtures("x64")
def test_the_parallel_chain_is_that_of_the_loop(method, rng_key):
    chain = EllipticalSlice(without_a_derivative(textbook.Quartic()))
    start = jnp.zeros(textbook.DIM)
    inputs = chain.draw_inputs(rng_key, 200, start)
    loop = parsample.evaluate_sequential(chain.transition, start, inputs)
    found = parsample.evaluate(chain.transition, start, inputs, method=method, window=32, atol=1e-10, rtol=1e-10)
    CONVERGED.check(found.states, loop.states)
    if method == "quasi_newton":
        assert int(found.iterations) < 100


def test_a_sequential_step_costs_a_log_density_an_angle_that_is_tried(rng_key):
    density, calls = counted(narrow)
    chain = EllipticalSlice(density)
    start = jnp.zeros(textbook.DIM)
    inputs = chain.draw_inputs(rng_key, 30, start)

    @jax.jit
    def run(start, inputs):
        step = lambda state, input: (lambda pair: (pair[0], pair[1].num_proposals))(chain.step(state, input))  # noqa: E731
        return jax.lax.scan(step, chain.init(start), inputs)[1]

    tried = np.asarray(run(start, inputs))
    jax.effects_barrier()
    assert tried.max() > 3
    assert len(calls) == 1 + tried.sum()


def test_a_parallel_evaluation_tries_all_angles_at_once(rng_key):
    """Its steps would wait for twelve log densities in turn, whichever angle each of them takes."""
    chain = EllipticalSlice(narrow)
    input = jax.tree.map(lambda leaf: leaf[0], chain.draw_inputs(rng_key, 1, jnp.zeros(3)))
    in_turn, at_once = (
        {row.primitive.name for row in jax.make_jaxpr(function)(jnp.zeros(3), input).eqns}
        for function in (chain.transition.step, chain.transition.with_diagonal)
    )
    assert "scan" in in_turn
    assert not at_once & {"scan", "while", "cond"}


@pytest.mark.parametrize("density", [name for name in HOLES if name != "gradient nan"])
def test_a_point_without_a_density_is_missed(density):
    chain = EllipticalSlice(HOLES[density], num_brackets=2)
    # At the first angle, a right angle, the ellipse is at -10 times its noise; at the second at less than 0.5.
    input = EllipticalInput(jnp.asarray([-10.0, 0.0]), jnp.asarray(-80.0), jnp.asarray([math.pi / 2, -0.04]))
    state, info = jax.jit(lambda x: chain.transition.step(x, input))(jnp.zeros(2))
    assert info.is_accepted
    assert info.num_proposals == 2
    (same, seen), _ = jax.jit(lambda x: chain.transition.with_diagonal(x, input))(jnp.zeros(2))
    np.testing.assert_array_equal(same.position, state.position)
    assert seen == info
    np.testing.assert_allclose(state.position, [10 * np.sin(0.04), 0], rtol=1e-6)
    one = EllipticalSlice(HOLES[density], num_brackets=1)
    stayed, info = jax.jit(lambda x: one.transition.step(x, input._replace(angles=input.angles[:1])))(jnp.zeros(2))
    assert not info.is_accepted
    np.testing.assert_array_equal(stayed.position, jnp.zeros(2))


def test_bad_arguments():
    for number in (0, -1, True):
        with pytest.raises(ValueError, match=f"num_brackets is {number!r}, expected a whole number of at least 1"):
            EllipticalSlice(narrow, num_brackets=number)
    with pytest.raises(ValueError, match="covariance is not positive definite"):
        EllipticalSlice(narrow, None, np.zeros(3))
    chain = EllipticalSlice(narrow)
    input = jax.tree.map(lambda leaf: leaf[0], chain.draw_inputs(jax.random.key(0), 1, jnp.zeros(3)))
    with pytest.raises(ValueError, match="gate is 'straight_through', but a choice between angles"):
        chain.transition.with_gate("straight_through")(jnp.zeros(3), input)


def test_it_is_a_class_beside_the_table():
    assert "elliptical_slice" not in SAMPLERS
    assert parsample.samplers.EllipticalSlice is EllipticalSlice
    assert EllipticalSlice(narrow).surrogate() is None
