"""Lyapunov exponents against closed forms and NumPy, and the bounds of the conditioning against singular values."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsample as ps
from parsample.engine.predictability import conditioning_bounds
from tests.engine.recursions import tanh_problem
from tests.tolerances import CONVERGED, SAME_COMPUTATION, check_mean

pytestmark = pytest.mark.usefixtures("x64")


def linear(matrix: np.ndarray) -> Callable:
    return lambda state, input: jnp.asarray(matrix) @ state


def multiply(state: jax.Array, matrix: jax.Array) -> jax.Array:
    """A linear recursion whose matrices are its inputs."""
    return matrix @ state


def logistic(state: jax.Array, input: jax.Array) -> jax.Array:
    return 4 * state * (1 - state)


def lorenz(state: jax.Array, input: jax.Array) -> jax.Array:
    """A step of 0.01 by the classical Runge-Kutta method."""

    def slope(point: jax.Array) -> jax.Array:
        x, y, z = point
        return jnp.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])

    first = slope(state)
    second = slope(state + 0.005 * first)
    third = slope(state + 0.005 * second)
    return state + 0.01 / 6 * (first + 2 * second + 2 * third + slope(state + 0.01 * third))


def test_a_constant_matrix_has_the_logarithm_of_its_spectral_radius() -> None:
    # Not normal: its norm is above 1 although its spectral radius is below.
    matrix = np.array([[0.9, 2.0, 0.3], [0.0, 0.5, -1.0], [0.0, 0.0, -0.2]])
    found = ps.lyapunov_exponent(linear(matrix), jnp.ones(3), jnp.arange(400), num_directions=3)
    SAME_COMPUTATION.check(found.spectrum, np.log([0.9, 0.5, 0.2]))
    assert found.exponent == found.spectrum[0]
    assert found.standard_error < 1e-12
    assert found.growth.shape == (400, 3)


def test_chaotic_maps_have_their_closed_forms() -> None:
    found = ps.lyapunov_exponent(logistic, jnp.asarray(0.3), jnp.arange(20_000))
    check_mean(found.exponent, math.log(2), found.standard_error)
    assert 0 < found.standard_error < 0.01
    # The tent map forgets a bit of its state a step, so it is driven by noise that fills in new ones.
    noise = 1e-6 * jax.random.uniform(jax.random.key(0), (200,), jnp.float64)
    tent = ps.lyapunov_exponent(lambda x, u: 0.999 * (1 - jnp.abs(1 - 2 * x)) + u, jnp.asarray(0.3), noise)
    SAME_COMPUTATION.check(tent.exponent, np.log(2 * 0.999))


def test_the_lorenz_flow() -> None:
    found = ps.lyapunov_exponent(lorenz, jnp.array([-9.8, -15.0, 20.5]), jnp.arange(20_000), num_directions=3)
    # 0.906, 0 and -14.57 per unit of time (Sprott 2003, table A.5); a step is 0.01.
    check_mean(found.exponent, 0.00906, found.standard_error)
    assert abs(found.exponent - 0.00906) < 5e-4
    np.testing.assert_allclose(found.spectrum[1:], [0, -0.1457], atol=1e-3)


def test_random_matrices_against_numpy(rng: np.random.Generator) -> None:
    matrices = rng.normal(size=(60, 4, 4))
    found = ps.lyapunov_exponent(multiply, jnp.ones(4), jnp.asarray(matrices), num_directions=4, burn_in=7)
    frame, growth = np.linalg.qr(np.array(jax.random.normal(jax.random.key(0), (4, 4), jnp.float64)).T)[0], []
    for matrix in matrices:
        frame, triangle = np.linalg.qr(matrix @ frame)
        growth.append(np.log(np.abs(np.diagonal(triangle))))
    SAME_COMPUTATION.check(found.growth, np.array(growth))
    SAME_COMPUTATION.check(found.spectrum, np.mean(growth[7:], axis=0))
    # Together they are the volume.
    SAME_COMPUTATION.check(found.growth.sum(1), np.linalg.slogdet(matrices)[1])
    one = ps.lyapunov_exponent(multiply, jnp.ones(4), jnp.asarray(matrices), burn_in=0)
    direction = np.array(jax.random.normal(jax.random.key(0), (1, 4), jnp.float64))[0]
    image = np.linalg.multi_dot([*matrices[::-1], direction / np.linalg.norm(direction)])
    SAME_COMPUTATION.check(one.exponent, np.log(np.linalg.norm(image)) / 60)


def test_the_standard_error_knows_that_steps_are_correlated() -> None:
    """Its square, times the number of steps, is the variance of an autoregression of order one at frequency zero."""
    noise = jax.random.normal(jax.random.key(1), (200, 4_000), jnp.float64)
    loop = lambda noise: ps.evaluate_sequential(lambda x, u: 0.8 * x + u, jnp.zeros(()), noise).states  # noqa: E731
    series = jax.vmap(loop)(noise)
    found = jax.vmap(
        lambda logs: ps.lyapunov_exponent(lambda x, u: x * jnp.exp(u), jnp.ones(()), logs, burn_in=0).standard_error
    )(0.01 * series)
    expected = 0.01 / (1 - 0.8) / math.sqrt(4_000)
    assert float(jnp.sqrt(jnp.mean(found**2))) == pytest.approx(expected, rel=0.1)


def test_pytrees() -> None:
    """All directions of a linear recursion of two arrays: the logarithm of the determinant."""

    def step(state: dict, input: jax.Array) -> dict:
        return {"a": 0.5 * state["a"] + input * state["b"].sum(), "b": 0.9 * state["b"] - input * state["a"]}

    inputs = jnp.asarray([0.1, -0.4, 0.3])
    found = ps.lyapunov_exponent(step, {"a": jnp.ones(()), "b": jnp.zeros(2)}, inputs, num_directions=3)
    matrices = [np.array([[0.5, u, u], [-u, 0.9, 0], [-u, 0, 0.9]]) for u in np.asarray(inputs)]
    SAME_COMPUTATION.check(found.growth.sum(1), np.linalg.slogdet(matrices)[1])


def test_jit_and_vmap() -> None:
    problem = tanh_problem(np.float64)
    inputs = jnp.stack([problem.inputs, 0.5 * problem.inputs])

    def measure(inputs: jax.Array) -> jax.Array:
        return ps.lyapunov_exponent(problem.transition, problem.initial_state, inputs).exponent

    loop = jnp.stack([measure(chain) for chain in inputs])
    SAME_COMPUTATION.check(jax.jit(measure)(inputs[0]), loop[0])
    SAME_COMPUTATION.check(jax.vmap(measure)(inputs), loop)


def test_frozen_rejections_neither_grow_nor_shrink() -> None:
    """The Jacobian of a step that is rejected is the identity."""
    target = ps.targets.MultivariateNormal()
    mala = ps.samplers.MALA(target.logdensity, 1e6)  # nothing is accepted
    start = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), target.initial_position(jax.random.key(0)))
    inputs = mala.draw_inputs(jax.random.key(1), 20, start)
    found = ps.lyapunov_exponent(mala.transition, start, inputs)
    assert abs(float(found.exponent)) < 1e-12


def test_a_tangent_that_becomes_zero_is_minus_infinity() -> None:
    flat = lambda x, u: jnp.where(u == 30, 0 * x, 0.5 * x) + 1.0  # noqa: E731
    for count in (1, 2):
        found = ps.lyapunov_exponent(flat, jnp.ones(2), jnp.arange(40), num_directions=count)
        assert np.isneginf(found.exponent)
        assert np.isnan(found.standard_error)
    SAME_COMPUTATION.check(found.growth[:30], np.full((30, 2), np.log(0.5)))


def test_nan_is_not_hidden() -> None:
    found = ps.lyapunov_exponent(lambda x, u: jnp.where(u == 30, jnp.nan, 0.5) * x, jnp.ones(2), jnp.arange(40))
    assert np.isnan(found.exponent)
    assert not np.isnan(found.growth[:30]).any()


@pytest.mark.parametrize("factor", [1e-200, 1e200])
def test_lengths_whose_squares_leave_the_numbers(factor: float) -> None:
    found = ps.lyapunov_exponent(lambda x, u: factor * x, jnp.ones(2), jnp.ones(1))
    SAME_COMPUTATION.check(found.exponent, np.log(factor))


def test_one_step_and_float32() -> None:
    found = ps.lyapunov_exponent(lambda x, u: 3 * x, jnp.ones((), jnp.float32), jnp.zeros(1))
    assert found.exponent.dtype == jnp.float32
    CONVERGED.check(found.exponent, np.log(np.float32(3)))
    assert np.isnan(found.standard_error)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"num_directions": 3}, r"num_directions is 3, but the state holds 2 numbers; expected at most that many"),
        ({"num_directions": 0}, r"num_directions is 0, expected a whole number of at least 1; 1 measures the largest"),
        ({"burn_in": 9}, r"burn_in is 9, expected a whole number from 0 to 8, which leaves a step to average"),
        ({"burn_in": True}, r"burn_in is True, expected a whole number from 0 to 8"),
        ({"gate": "straight_through"}, r"gate is 'straight_through', but a plain function has no accept/reject"),
    ],
)
def test_messages(keywords: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ps.lyapunov_exponent(lambda x, u: x, jnp.ones(2), jnp.arange(9), **keywords)


def smallest_singular_value(matrix: np.ndarray, steps: int) -> float:
    """Of the residual Jacobian of x[t] = A x[t-1], written out."""
    dim = len(matrix)
    jacobian = np.eye(steps * dim) - np.kron(np.eye(steps, k=-1), matrix)
    return np.linalg.svd(jacobian, compute_uv=False)[-1]


@pytest.mark.parametrize("radius", [0.5, 0.95, 1.0, 1.05, 1.4])
@pytest.mark.parametrize("steps", [1, 2, 12])
def test_the_bounds_hold_the_smallest_singular_value(rng: np.random.Generator, radius: float, steps: int) -> None:
    matrix = rng.normal(size=(3, 3))
    matrix *= radius / np.abs(np.linalg.eigvals(matrix)).max()
    exponent = math.log(radius)
    norms = [np.linalg.norm(np.linalg.matrix_power(matrix, k), 2) / radius**k for k in range(steps)]
    lower, upper = conditioning_bounds(exponent, steps, transient=float(max(norms)), least=float(min(norms)))
    exact = smallest_singular_value(matrix, steps)
    assert lower <= exact * (1 + 1e-12)
    assert exact <= upper * (1 + 1e-12)


def test_the_bounds_in_closed_form() -> None:
    rate = math.exp(0.3)
    lower, upper = conditioning_bounds(0.3, 50, transient=2.0, least=0.5)
    assert lower == pytest.approx((rate - 1) / (2 * (rate**50 - 1)), rel=1e-12)
    assert upper == pytest.approx(2 * rate**-49, rel=1e-12)
    assert conditioning_bounds(0.0, 8) == pytest.approx((1 / 8, 1))
    assert conditioning_bounds(-math.inf, 8) == (1, 1)
    assert conditioning_bounds(-0.01, 10**9)[0] == pytest.approx(-math.expm1(-0.01), rel=1e-12)
    assert conditioning_bounds(2.0, 10**6) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((math.nan, 3), {}, r"exponent is nan, expected a number, or -inf"),
        ((0.1, 0), {}, r"steps is 0, expected a whole number of at least 1"),
        ((0.1, 3), {"transient": 0.5}, r"transient is 0.5, expected at least 1"),
        ((0.1, 3), {"least": 0.0}, r"least is 0.0, expected a number above 0"),
    ],
)
def test_messages_of_the_bounds(arguments: tuple, keywords: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conditioning_bounds(*arguments, **keywords)
