"""One step of underdamped Langevin dynamics against the textbook, and the laws its schemes leave invariant."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.linalg import expm, solve_discrete_lyapunov

import parsample
from parsample.samplers import UnderdampedLangevin
from parsample.samplers.momentum import Phase
from parsample.samplers.underdamped_langevin import SCHEMES, UnderdampedLangevinInput, free_flight
from tests.samplers import textbook
from tests.tolerances import SAME_COMPUTATION

STEP_SIZE, FRICTION = 0.3, 0.7
GRADIENTS = {"baoab": 1, "randomized_midpoint": 2}


def baoab(x, w, input, root):
    """Leimkuhler & Matthews: B A O A B."""
    w = w + STEP_SIZE / 2 * root.T @ textbook.gradient(x)
    x = x + STEP_SIZE / 2 * root @ w
    kept = np.exp(-FRICTION * STEP_SIZE)
    w = kept * w + np.sqrt(1 - kept**2) * np.asarray(input.noise[0])
    x = x + STEP_SIZE / 2 * root @ w
    return x, w + STEP_SIZE / 2 * root.T @ textbook.gradient(x)


def flight(w, time, noise):
    """Displacement and momentum of free flight: its moments by the matrix exponential (Van Loan 1978)."""
    drift, noise_matrix = np.array([[0, 1], [0, -FRICTION]]), np.diag([0, 2 * FRICTION])
    blocks = expm(time * np.block([[-drift, noise_matrix], [np.zeros((2, 2)), drift.T]]))
    propagator = blocks[2:, 2:].T
    covariance = propagator @ blocks[:2, 2:]
    # The noise is that of the momentum first.
    root = np.linalg.cholesky(covariance[::-1, ::-1])[::-1]
    return propagator @ np.stack([np.zeros_like(w), w]) + root @ noise


def randomized_midpoint(x, w, input, root):
    """Shen & Lee, algorithm 1, for any friction: increments W1, W2, W3 from the parts of the step."""
    noise, time = np.asarray(input.noise), float(input.midpoint) * STEP_SIZE
    rest = STEP_SIZE - time
    w1, p1 = flight(np.zeros_like(w), time, noise[:2])
    w2, w3 = np.stack([w1, 0 * w1]) + flight(p1, rest, noise[2:])
    force = lambda at: root.T @ textbook.gradient(at)  # noqa: E731
    reach = lambda t: (1 - np.exp(-FRICTION * t)) / FRICTION  # noqa: E731
    middle = x + root @ (reach(time) * w + (time - reach(time)) / FRICTION * force(x) + w1)
    after_x = x + root @ (reach(STEP_SIZE) * w + STEP_SIZE * reach(rest) * force(middle) + w2)
    return after_x, np.exp(-FRICTION * STEP_SIZE) * w + STEP_SIZE * np.exp(-FRICTION * rest) * force(middle) + w3


TEXTBOOK = {"baoab": baoab, "randomized_midpoint": randomized_midpoint}


@pytest.mark.parametrize("mass", textbook.MASSES)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.usefixtures("x64")
def test_a_step_is_the_textbooks(scheme, mass, rng):
    given, written_out = textbook.MASSES[mass]
    sampler = UnderdampedLangevin(textbook.Quartic(), STEP_SIZE, given, FRICTION, scheme)
    step = jax.jit(lambda phase, input: sampler.transition.step(phase, input))
    for input in draw_some(sampler, 5):
        x, w = rng.standard_normal((2, textbook.DIM))
        state, info = step(Phase(jnp.asarray(x), jnp.asarray(w)), input)
        expected = TEXTBOOK[scheme](x, w, input, np.linalg.cholesky(written_out))
        SAME_COMPUTATION.check(state.position, expected[0])
        SAME_COMPUTATION.check(state.momentum, expected[1])
        SAME_COMPUTATION.check(state.gradient, textbook.gradient(expected[0]))
        energy = expected[1] @ expected[1] / 2 - textbook.logdensity(expected[0])
        SAME_COMPUTATION.check(info.energy, np.asarray(energy))
        assert info.is_accepted
        assert info.acceptance_rate == 1


def draw_some(sampler, number):
    inputs = sampler.draw_inputs(jax.random.key(3), number, jnp.zeros(textbook.DIM))
    return [jax.tree.map(lambda leaf, i=i: leaf[i], inputs) for i in range(number)]


@pytest.mark.parametrize("time", [1e-6, 1e-3, 0.1, 0.19999, 0.20001, 0.5, 3.0])
def test_free_flight_keeps_its_digits_in_single_precision(time):
    single = free_flight(*(jnp.zeros(1, jnp.float32),) * 2, jnp.float32(time), jnp.float32(1.0), jnp.ones((2, 1)))
    with jax.enable_x64(True):
        given = jnp.zeros(1), jnp.zeros(1), jnp.asarray(time), jnp.asarray(1.0), jnp.asarray([[0.0], [1.0]])
        spread = float(free_flight(*given)[0][0])
        known = float(np.sqrt(max(0, 2 * (time - 2 * np.tanh(time / 2))))) if time > 0.01 else np.sqrt(time**3 / 6)
        np.testing.assert_allclose(spread, known, rtol=1e-6)
        both = free_flight(*given[:4], jnp.ones((2, 1)))
    np.testing.assert_allclose(single, both, rtol=1e-4)


def linear_step(sampler, covariance_root, midpoint):
    """Matrices A and B of a step on a Gaussian: the next (x, w) is A (x, w) + B noise."""
    dim = len(covariance_root)
    size = {"baoab": 1, "randomized_midpoint": 4}[sampler.scheme]
    flat, unravel = ravel_pytree(Phase(jnp.zeros(dim), jnp.zeros(dim)))

    def step(flat, noise):
        return ravel_pytree(sampler.transition(unravel(flat), UnderdampedLangevinInput(noise, midpoint)))[0]

    jacobians = jax.jit(jax.jacfwd(step, (0, 1)))(flat, jnp.zeros((size, dim)))
    return np.asarray(jacobians[0]), np.asarray(jacobians[1]).reshape(2 * dim, -1)


@pytest.mark.usefixtures("x64")
def test_the_stationary_covariance_of_baoab_on_a_gaussian():
    covariance, mass, step_size = np.array([[2.0, 0.9], [0.9, 1.0]]), np.array([[1.0, 0.5], [0.5, 1.5]]), 0.6
    precision = np.linalg.inv(covariance)
    sampler = UnderdampedLangevin(lambda x: -0.5 * x @ precision @ x, step_size, mass, FRICTION)
    matrix, noise = linear_step(sampler, covariance, None)
    stationary = solve_discrete_lyapunov(matrix, noise @ noise.T)
    root = np.linalg.cholesky(mass)
    # As the docstring has it: the positions' is the target's, the momentum's I - h^2 L^T P L / 4.
    SAME_COMPUTATION.check(stationary[:2, :2], covariance)
    SAME_COMPUTATION.check(stationary[2:, 2:], np.eye(2) - step_size**2 / 4 * root.T @ precision @ root)
    SAME_COMPUTATION.check(stationary[:2, 2:], np.zeros((2, 2)))


def stationary_moments(scheme, step_size):
    """Of (x, w) on a standard normal: E[A S A^T + B B^T] = S over the midpoints."""
    sampler = UnderdampedLangevin(lambda x: -0.5 * x @ x, step_size, None, FRICTION, scheme)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    both = jax.jit(lambda midpoint: jax.jacfwd(one, (0, 1))(jnp.zeros(2), jnp.zeros((4, 1)), midpoint))

    def one(flat, noise, midpoint):
        noise, midpoint = (noise[:1], None) if scheme == "baoab" else (noise, midpoint)
        after = sampler.transition(Phase(flat[:1], flat[1:]), UnderdampedLangevinInput(noise, midpoint))
        return jnp.concatenate([after.position, after.momentum])

    pairs = [both(jnp.asarray((1 + node) / 2)) for node in nodes]
    left = sum(w / 2 * np.kron(a, a) for w, (a, _) in zip(weights, pairs, strict=True))
    right = sum(w / 2 * (b[..., 0] @ b[..., 0].T) for w, (_, b) in zip(weights, pairs, strict=True))
    return np.linalg.solve(np.eye(4) - left, np.asarray(right).ravel())


# Of the bias of E[w^2], the worst of the two moments of BAOAB, and of E[x^2].
@pytest.mark.parametrize(("scheme", "moment", "order"), [("baoab", 3, 2), ("randomized_midpoint", 0, 3)])
@pytest.mark.usefixtures("x64")
def test_the_order_of_the_bias(scheme, moment, order):
    bias = [abs(stationary_moments(scheme, step_size)[moment] - 1) for step_size in (0.1, 0.05)]
    assert 0 < bias[1] < 0.01
    np.testing.assert_allclose(np.log2(bias[0] / bias[1]), order, atol=0.15)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_gradients_of_a_sequential_step(scheme, rng_key):
    density, calls = textbook.counted(textbook.Quartic())
    sampler = UnderdampedLangevin(density, STEP_SIZE, scheme=scheme)
    start = jnp.zeros(textbook.DIM)
    inputs = sampler.draw_inputs(rng_key, 20, start)
    solution = parsample.evaluate_sequential(sampler.transition, sampler.unknowns(sampler.init(start)), inputs)
    jax.block_until_ready(solution.states)
    jax.effects_barrier()
    # One to make the unknowns, one to resume from them, and those of the steps.
    assert len(calls) == 2 + 20 * GRADIENTS[scheme]


def test_the_momentum_of_the_start_is_drawn_with_the_key(rng_key):
    sampler = UnderdampedLangevin(textbook.Quartic())
    momentum = jax.vmap(lambda key: sampler.init(jnp.zeros(3), key).momentum)(jax.random.split(rng_key, 4000))
    assert np.abs(np.cov(momentum.T) - np.eye(3)).max() < 4 * np.sqrt(2 / 4000)
    np.testing.assert_array_equal(sampler.init(jnp.zeros(3)).momentum, np.zeros(3))


@pytest.mark.parametrize("friction", [0.0, -1.0, np.inf, np.nan, "1", True])
def test_a_friction_that_is_no_positive_number(friction):
    with pytest.raises(ValueError, match=r"friction is .*, expected one finite number above 0, such as 1\.0"):
        UnderdampedLangevin(textbook.Quartic(), friction=friction)


def test_an_unknown_scheme():
    with pytest.raises(ValueError, match=r"scheme is 'boab', expected one of baoab, .* Did you mean 'baoab'\?"):
        UnderdampedLangevin(textbook.Quartic(), scheme="boab")


def test_a_mass_matrix_for_another_dimension():
    sampler = UnderdampedLangevin(textbook.Quartic(), 0.1, np.ones(2))
    with pytest.raises(ValueError, match="inverse_mass_matrix is for 2 dimensions, but the position holds 3 numbers"):
        sampler.transition(Phase(jnp.zeros(3), jnp.zeros(3)), UnderdampedLangevinInput(jnp.zeros((1, 3))))
