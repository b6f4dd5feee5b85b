"""The law that MALA leaves invariant: moments of long chains against the truth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import polygamma, psi

import parsample
from parsample.samplers import MALA
from parsample.targets import LogGamma, MultivariateNormal, TwoWells
from tests.samplers.moments import check_moments

CHAINS = 8


def draw(target, step_size, num_steps, inverse_mass_matrix=None, seed=0):
    """Positions of all chains, shape (chain, draw, dim), without the first tenth, which forgets the start."""
    mala = MALA(target.logdensity, step_size, inverse_mass_matrix)

    def chain(rng_key):
        key_start, key_inputs = jax.random.split(rng_key)
        start = target.initial_position(key_start)
        inputs = mala.draw_inputs(key_inputs, num_steps, start)
        return parsample.evaluate_sequential(mala.transition, start, inputs).states["x"]

    keys = jax.random.split(jax.random.key(seed), CHAINS)
    return np.asarray(jax.jit(jax.vmap(chain))(keys), np.float64)[:, num_steps // 10 :]


@pytest.mark.parametrize("mass", [None, [2.0, 0.5], [[1.0, 0.7], [0.7, 0.8]]], ids=["identity", "diagonal", "dense"])
def test_a_correlated_gaussian(mass):
    correlation = 0.95
    target = MultivariateNormal(covariance=[[1.0, correlation], [correlation, 1.0]])
    matrix = None if mass is None else np.asarray(mass, np.float32)
    draws = draw(target, 0.15 if np.ndim(mass) == 2 else 0.06, 20_000, matrix)
    first, second = draws[..., 0], draws[..., 1]
    check_moments(
        {
            "x0": (first, 0.0),
            "x1": (second, 0.0),
            "x0^2": (first**2, 1.0),
            "x1^2": (second**2, 1.0),
            "x0 x1": (first * second, correlation),
            # The narrow direction, whose variance hides behind the wide one above.
            "(x0 - x1)^2": ((first - second) ** 2, 2 - 2 * correlation),
        }
    )


def test_a_skewed_target():
    concentration = np.array([0.5, 1.0, 3.0])
    target = LogGamma(concentration.astype(np.float32))
    draws = draw(target, 0.3, 20_000)
    moments: dict[str, tuple[np.ndarray, float]] = {}
    for i, a in enumerate(concentration):
        x, mean = draws[..., i], float(psi(a))
        moments |= {
            f"x{i}": (x, mean),
            f"variance of x{i}": ((x - mean) ** 2, float(polygamma(1, a))),
            f"third moment of x{i}": ((x - mean) ** 3, float(polygamma(2, a))),
            f"exp(x{i})": (np.exp(x), a),
        }
    check_moments(moments)


def test_two_wells():
    target = TwoWells()
    # Moments by quadrature on a grid that holds all but 1e-12 of the mass.
    axis = np.linspace(-9.0, 9.0, 361)
    x0, x1 = np.meshgrid(axis, axis, indexing="ij")
    grid = jnp.asarray(np.stack([x0, x1], -1).reshape(-1, 2), jnp.float32)
    density = np.exp(np.asarray(jax.jit(jax.vmap(lambda x: target.logdensity({"x": x})))(grid), np.float64))
    density = density.reshape(x0.shape)
    cell = (axis[1] - axis[0]) ** 2
    np.testing.assert_allclose(density.sum() * cell, 1, rtol=1e-5)

    draws = draw(target, 0.4, 20_000)
    statistics = {
        "x0": lambda a, b: a,
        "x1": lambda a, b: b,
        "x0^2": lambda a, b: a**2,
        "x1^2": lambda a, b: b**2,
        "x0^3": lambda a, b: a**3,
        "x0 x1": lambda a, b: a * b,
        "right well": lambda a, b: (a > 0.0).astype(float),
        "on the barrier": lambda a, b: (np.abs(a - 0.1) < 0.375).astype(float),
    }
    check_moments(
        {
            name: (function(draws[..., 0], draws[..., 1]), float(np.sum(function(x0, x1) * density) * cell))
            for name, function in statistics.items()
        }
    )
