"""SGLD and SGHMC: a step by NumPy and by BlackJAX, and the laws that are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_discrete_lyapunov

import parsample
from parsample.engine.transition import GATES
from parsample.samplers import SGHMC, SGLD, ULA
from parsample.samplers.sgld import DEFAULT_SHARE, StochasticInput
from parsample.samplers.ula import ULAInput
from parsample.targets import LogisticRegression
from parsample.targets.density import LogDensity
from parsample.warmup.coordinates import Standardised
from tests.samplers import textbook
from tests.samplers.moments import check_moments
from tests.samplers.test_mala import counted
from tests.tolerances import SAME_COMPUTATION

STEP_SIZE = 0.03
FRICTION, VARIANCE = 1.5, 3.0


class Mean:
    """The mean of normal data of variance 1, under a normal prior: the gradient's noise does not depend on it."""

    data = np.random.default_rng(0).normal(0.7, 1.3, size=40)
    precision = 40 + 1 / 2.0**2

    @property
    def num_data(self):
        return self.data.size

    def __call__(self, x):
        return self.minibatch(x, jnp.arange(self.num_data))

    def minibatch(self, x, indices):
        data = jnp.asarray(self.data, x.dtype)[indices]
        return -0.5 * jnp.sum((x / 2) ** 2) - 0.5 * self.num_data / indices.size * jnp.sum((data - x) ** 2)

    def estimate(self, x, indices):
        """The gradient of the minibatch by NumPy."""
        return -x / 4 + 40 * np.mean(self.data[indices] - x)

    def gradient_variance(self, batch_size):
        """Of the estimate, over batches that are drawn with replacement."""
        return 40**2 * self.data.var() / batch_size

    @property
    def mean(self):
        return self.data.sum() / self.precision


# --- one step


@pytest.mark.usefixtures("x64")
def test_a_step_is_the_textbooks(rng):
    density, indices = Mean(), rng.integers(0, 40, (5, 6))
    sgld = SGLD(density, STEP_SIZE / 40, batch_size=6)
    sghmc = SGHMC(density, STEP_SIZE, FRICTION, VARIANCE, batch_size=6)
    for batch in indices:
        x, p, noise = rng.standard_normal(3)
        input = StochasticInput(jnp.asarray([noise]), jnp.asarray(batch))
        state, info = sgld.step(sgld.init(jnp.asarray([x])), input)
        h = STEP_SIZE / 40
        SAME_COMPUTATION.check(state.position, np.array([x + h * density.estimate(x, batch) + np.sqrt(2 * h) * noise]))
        SAME_COMPUTATION.check(state.logdensity, density(state.position))
        assert info.is_accepted
        assert info.acceptance_rate == 1

        moved, _ = sghmc.step(sghmc.resume((jnp.asarray([x]), jnp.asarray([p]))), input)
        x += STEP_SIZE * p
        p += STEP_SIZE * (density.estimate(x, batch) - FRICTION * p)
        p += np.sqrt(2 * (FRICTION - STEP_SIZE * VARIANCE / 2) * STEP_SIZE) * noise
        SAME_COMPUTATION.check(moved.position, np.array([x]))
        SAME_COMPUTATION.check(moved.momentum, np.array([p]))


@pytest.mark.usefixtures("x64")
def test_a_step_is_blackjaxs(rng):
    import blackjax
    from blackjax.sgmcmc import diffusions
    from blackjax.util import generate_gaussian_noise

    target = LogisticRegression()
    estimate = jax.grad(lambda x, batch: target.minibatch({"coefficients": x}, batch))
    density = Standardised(target, jnp.zeros(4), jnp.eye(4), lambda x: {"coefficients": x})
    sgld = SGLD(density, STEP_SIZE, batch_size=10)
    sghmc = SGHMC(density, STEP_SIZE, FRICTION, VARIANCE, batch_size=10)
    kernel, integrate = blackjax.sgld.build_kernel(), diffusions.sghmc(FRICTION, VARIANCE)
    for seed in range(3):
        x, p = jnp.asarray(rng.standard_normal((2, 4)))
        key, batch = jax.random.key(seed), jnp.asarray(rng.integers(0, 200, 10))
        input = StochasticInput(generate_gaussian_noise(key, x), batch)
        theirs = kernel(key, x, estimate, batch, STEP_SIZE)
        SAME_COMPUTATION.check(sgld.step(sgld.init(x), input)[0].position, theirs)
        # Their integrator takes the gradient as given; the source has it at the new position.
        theirs = integrate(key, x, p, estimate(x + STEP_SIZE * p, batch), STEP_SIZE)
        ours = sghmc.step(sghmc.resume((x, p)), input)[0]
        SAME_COMPUTATION.check(ours.position, theirs[0])
        SAME_COMPUTATION.check(ours.momentum, theirs[1])


@pytest.mark.parametrize("mass", textbook.MASSES)
@pytest.mark.usefixtures("x64")
def test_a_log_density_without_minibatches_makes_it_ula(mass, rng):
    given = textbook.MASSES[mass][0]
    sgld, ula = (sampler(textbook.Quartic(), 0.3, given) for sampler in (SGLD, ULA))
    x, noise = jnp.asarray(rng.standard_normal((2, textbook.DIM)))
    assert jax.tree.leaves(sgld.draw_inputs(jax.random.key(0), 5, x))[0].shape == (5, textbook.DIM)
    one, other = sgld.transition(x, StochasticInput(noise, None)), ula.transition(x, ULAInput(noise))
    SAME_COMPUTATION.check(one, other)
    known, expected = (
        sampler.transition.with_diagonal(x, input)
        for sampler, input in ((sgld, StochasticInput(noise, None)), (ula, ULAInput(noise)))
    )
    if expected is None:
        assert known is None
    else:
        assert known is not None
        SAME_COMPUTATION.check(known[0][0].position, expected[0][0].position)
        SAME_COMPUTATION.check(known[1], expected[1])


# --- minibatches


@pytest.mark.usefixtures("x64")
def test_the_estimate_is_unbiased():
    """The mean over all batches of one is the log density, and its gradient the gradient."""
    target = LogisticRegression()
    position = {"coefficients": jnp.asarray([0.3, -1.0, 0.7, 2.0])}
    batches = jnp.arange(target.num_data)[:, None]
    values, gradients = jax.vmap(lambda batch: jax.value_and_grad(target.minibatch)(position, batch))(batches)
    SAME_COMPUTATION.check(values.mean(), target.logdensity(position))
    expected = jax.grad(target.logdensity)(position)["coefficients"]
    np.testing.assert_allclose(gradients["coefficients"].mean(0), expected, rtol=1e-10)
    SAME_COMPUTATION.check(target.minibatch(position, jnp.arange(200)), target.logdensity(position))


def test_minibatches_are_uniform_and_new_in_every_step(rng_key):
    sgld = SGLD(Mean(), batch_size=10)
    indices = np.asarray(sgld.draw_inputs(rng_key, 2000, jnp.zeros(1)).indices)
    assert indices.shape == (2000, 10)
    counts = np.bincount(indices.ravel(), minlength=40)
    assert counts.size == 40
    # Chi-squared with 39 degrees of freedom.
    assert np.sum((counts - 500) ** 2 / 500) < 39 + 4 * np.sqrt(2 * 39)
    assert abs(np.corrcoef(indices[1:, 0], indices[:-1, 0])[0, 1]) < 4 / np.sqrt(2000)
    assert SGLD(Mean()).batch_size == SGHMC(Mean()).batch_size == 40 // DEFAULT_SHARE


def test_minibatches_reach_the_sampler_through_the_front_doors_coordinates():
    for density in (Mean(), lambda x: -jnp.sum(x**2)):
        target = LogDensity(density, jnp.zeros(1))
        standardised = Standardised(target, jnp.ones(1), 2 * jnp.eye(1), lambda x: x)
        sgld = SGLD(standardised)
        if isinstance(density, Mean):
            assert sgld.batch_size == 40 // DEFAULT_SHARE
            z, batch = jnp.asarray([0.3]), jnp.asarray([1, 4, 4])
            estimate = standardised.minibatch
            assert estimate is not None
            SAME_COMPUTATION.check(estimate(z, batch), density.minibatch(1 + 2 * z, batch))
        else:
            assert sgld.batch_size is None


class Counting:
    """The same with minibatches that are counted; its log density as a whole is not."""

    num_data = Mean.data.size

    def __init__(self):
        self.counting, self.calls = counted(lambda given: Mean().minibatch(given[0], given[1].astype(int)))

    def __call__(self, x):
        return jnp.zeros(())

    def minibatch(self, x, indices):
        return self.counting((x, indices.astype(x.dtype)))


@pytest.mark.parametrize("sampler", [SGLD, SGHMC])
def test_a_step_costs_one_gradient_of_its_minibatch(sampler, rng_key):
    density = Counting()
    made = sampler(density, 0.001)
    start = made.unknowns(made.init(jnp.zeros(1)))
    solution = parsample.evaluate_sequential(made.transition, start, made.draw_inputs(rng_key, 20, jnp.zeros(1)))
    jax.block_until_ready(solution.states)
    jax.effects_barrier()
    assert len(density.calls) == 20


# --- the laws they leave invariant


def draw(sampler, num_steps=8000):
    @jax.jit
    @jax.vmap
    def chain(rng_key):
        start = sampler.unknowns(sampler.init(jnp.full(1, 0.7), rng_key))
        inputs = sampler.draw_inputs(rng_key, num_steps, jnp.zeros(1))
        return parsample.evaluate_sequential(sampler.transition, start, inputs).states

    states = chain(jax.random.split(jax.random.key(0), 8))
    return [np.asarray(leaf, np.float64)[:, num_steps // 10 :, 0] for leaf in jax.tree.leaves(states)]


@pytest.mark.parametrize("batch_size", [1, 8])
def test_the_stationary_variance_of_sgld(batch_size):
    density, h = Mean(), 0.3 / 40
    noise = h * density.gradient_variance(batch_size)
    expected = (2 + noise) / (density.precision * (2 - h * density.precision))
    assert expected * density.precision > 1.5 + (5 if batch_size == 1 else 0)
    (x,) = draw(SGLD(density, h, batch_size=batch_size))
    check_moments({"mean": (x, density.mean), "variance": ((x - density.mean) ** 2, expected)})


@pytest.mark.parametrize("corrected", [False, True])
def test_the_stationary_covariance_of_sghmc(corrected):
    density, h, friction = Mean(), 0.08, 5.0
    variance = density.gradient_variance(20)
    given = 0.8 * variance if corrected else 0.0
    # (x, p) -> (x + h p, (1 - h c) p - h P (x + h p) + noise), about the mean.
    matrix = np.array([[1, h], [-h * density.precision, 1 - h * friction - h**2 * density.precision]])
    added = h * (2 * friction - h * given) + h**2 * variance
    expected = solve_discrete_lyapunov(matrix, np.diag([0, added]))
    x, p = draw(SGHMC(density, h, friction, given, batch_size=20))
    centred = x - density.mean
    moments = {"mean": (x, density.mean), "x^2": (centred**2, expected[0, 0]), "p^2": (p**2, expected[1, 1])}
    check_moments(moments | {"x p": (centred * p, expected[0, 1])})
    # The correction takes most of the inflation away.
    assert (expected[0, 0] * density.precision - 1 > 0.3) != corrected


# --- in parallel, and what does not fit


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sampler", [SGLD, SGHMC])
def test_in_parallel(sampler, rng_key):
    density = Standardised(LogisticRegression(), jnp.zeros(4), 0.2 * jnp.eye(4), lambda x: {"coefficients": x})
    made = sampler(density, 0.05 if sampler is SGLD else 0.2)
    start = made.unknowns(made.init(jnp.zeros(4), rng_key))
    inputs = made.draw_inputs(rng_key, 200, jnp.zeros(4))
    loop = parsample.evaluate_sequential(made.transition, start, inputs).states
    # Position and momentum turn into each other: projected, their Jacobian would lose that.
    solution = parsample.evaluate(
        made.transition,
        start,
        inputs,
        method="newton",
        conditioning=parsample.Conditioning(projection=False),
        atol=1e-10,
        rtol=1e-10,
    )
    assert int(solution.iterations) <= 12
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-8), solution.states, loop)


def test_the_gate_changes_nothing():
    sgld = SGLD(textbook.Quartic(), 0.1)
    input = StochasticInput(jnp.ones(3), None)
    one, other = (jax.jacfwd(sgld.transition.with_gate(gate))(jnp.ones(3), input) for gate in GATES)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("sampler", [SGLD, SGHMC])
@pytest.mark.parametrize(
    ("density", "batch_size", "message"),
    [
        (Mean(), 0, "batch_size is 0, expected a whole number of data of at least 1"),
        (Mean(), 2.5, r"batch_size is 2\.5, expected a whole number"),
        (Mean(), True, "batch_size is True, expected a whole number"),
        (
            textbook.Quartic(),
            8,
            "batch_size is 8, but the log density has no minibatches, expected one with",
        ),
    ],
)
def test_a_batch_size_that_does_not_fit(sampler, density, batch_size, message):
    with pytest.raises(ValueError, match=message):
        sampler(density, batch_size=batch_size)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"friction": 0}, "friction is 0, expected a number above 0"),
        ({"gradient_variance": -1}, "gradient_variance is -1, expected a number from 0 to 2 friction / step_size = 40"),
        ({"gradient_variance": 41}, "gradient_variance is 41, expected a number from 0 to .*; use a smaller step size"),
        ({"step_size": 0}, "step_size is 0, expected one finite number above 0"),
    ],
)
def test_numbers_of_sghmc_that_do_not_fit(given, message):
    with pytest.raises(ValueError, match=message):
        SGHMC(Mean(), **given)
