"""One step of ULA, and the law it leaves invariant, which is known on a Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_discrete_lyapunov

import parsample
from parsample.samplers import ULA
from parsample.samplers.ula import ULAInput
from tests.samplers import textbook
from tests.samplers.moments import check_moments
from tests.tolerances import SAME_COMPUTATION

STEP_SIZE = 0.3


@pytest.mark.parametrize("mass", textbook.MASSES)
@pytest.mark.usefixtures("x64")
def test_a_step_is_the_textbooks(mass, rng):
    given, written_out = textbook.MASSES[mass]
    ula = ULA(textbook.Quartic(), STEP_SIZE, given)
    for _ in range(5):
        x, noise = rng.standard_normal((2, textbook.DIM))
        state, info = ula.step(ula.init(jnp.asarray(x)), ULAInput(jnp.asarray(noise)))
        expected = textbook.propose(x, noise, STEP_SIZE, written_out)
        SAME_COMPUTATION.check(state.position, expected)
        SAME_COMPUTATION.check(state.logdensity, np.asarray(textbook.logdensity(expected)))
        SAME_COMPUTATION.check(state.gradient, textbook.gradient(expected))
        assert info.is_accepted
        assert info.acceptance_rate == 1


def test_the_gate_changes_nothing(rng):
    ula = ULA(textbook.Quartic(), STEP_SIZE)
    x, noise = jnp.asarray(rng.standard_normal((2, textbook.DIM)), jnp.float32)
    frozen, relaxed = (
        jax.jacfwd(ula.transition.with_gate(gate))(x, ULAInput(noise)) for gate in ("frozen", "straight_through")
    )
    np.testing.assert_array_equal(frozen, relaxed)
    SAME_COMPUTATION.check(frozen, np.eye(textbook.DIM) + STEP_SIZE * textbook.hessian(np.asarray(x)))


# Covariance of the target, and inverse mass matrix.
GAUSSIANS = {
    "identity": (np.array([[1.0]]), None),
    "diagonal": (np.diag([1.0, 4.0]), np.array([0.5, 2.0])),
    "dense": (np.array([[2.0, 0.9], [0.9, 1.0]]), np.array([[1.0, 0.5], [0.5, 1.5]])),
}


@pytest.mark.parametrize("case", GAUSSIANS)
def test_the_stationary_covariance_on_a_gaussian(case):
    covariance, mass = GAUSSIANS[case]
    dim, step_size, precision = len(covariance), 0.6, np.linalg.inv(covariance)
    written_out = np.eye(dim) if mass is None else np.diag(mass) if mass.ndim == 1 else mass
    # x' = A x + sqrt(2 h) L n has the covariance S = A S A^T + 2 h M^-1.
    matrix = np.eye(dim) - step_size * written_out @ precision
    expected = solve_discrete_lyapunov(matrix, 2 * step_size * written_out)
    if dim == 1:
        np.testing.assert_allclose(expected, 1 / (1 - step_size / 2))  # as the docstring has it
    assert np.abs(np.diagonal(expected) / np.diagonal(covariance) - 1).max() > 0.1

    ula = ULA(lambda x: -0.5 * x @ precision.astype(np.float32) @ x, step_size, mass)

    def chain(rng_key):
        start = jnp.zeros(dim)
        inputs = ula.draw_inputs(rng_key, 11_000, start)
        return parsample.evaluate_sequential(ula.transition, start, inputs).states[1000:]

    draws = np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(0), 8)), np.float64)
    products = {f"x{i} x{j}": (draws[..., i] * draws[..., j], expected[i, j]) for i in range(dim) for j in range(i + 1)}
    check_moments(products | {f"x{i}": (draws[..., i], 0.0) for i in range(dim)})


@pytest.mark.usefixtures("x64")
def test_a_coarser_level_is_the_same_dynamics_in_longer_steps(rng):
    """Where there is no drift the long steps lead where the short ones do, and on the textbook's target one by one."""
    noise = rng.standard_normal((11, textbook.DIM))
    start = jnp.asarray(rng.standard_normal(textbook.DIM))
    flat = ULA(lambda x: 0 * x.sum(), STEP_SIZE)
    transition, inputs = flat.coarsen(ULAInput(jnp.asarray(noise)), 3)
    fine = parsample.evaluate_sequential(flat.transition, start, ULAInput(jnp.asarray(noise))).states
    coarse = parsample.evaluate_sequential(transition, start, inputs).states
    SAME_COMPUTATION.check(coarse, fine[2::3])
    transition, inputs = ULA(textbook.Quartic(), STEP_SIZE).coarsen(ULAInput(jnp.asarray(noise)), 3)
    merged = noise[3:6].sum(0) / np.sqrt(3)
    expected = textbook.propose(np.asarray(start), merged, 3 * STEP_SIZE, np.eye(textbook.DIM))
    SAME_COMPUTATION.check(transition(start, ULAInput(inputs.noise[1])), expected)


@pytest.mark.parametrize("factor", [0, 12])
def test_a_factor_beyond_the_chain_is_refused(factor):
    with pytest.raises(ValueError, match=f"factor is {factor}, expected a whole number from 1 to 11"):
        ULA(textbook.Quartic(), STEP_SIZE).coarsen(ULAInput(jnp.zeros((11, textbook.DIM))), factor)
