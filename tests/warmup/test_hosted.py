"""What a fit to the runs of a model outside of JAX foresees, in JAX."""

import jax
import jax.numpy as jnp
import numpy as np

from parsample.warmup.hosted import _value
from parsample.workers.polynomial import Polynomial, reach

DIM = 3
TILT, BEND, TWIST = (np.random.default_rng(0).normal(size=(DIM,) * order) for order in (1, 2, 3))


def expected(point: np.ndarray) -> float:
    return TILT @ point + point @ BEND @ point - point @ point / 2 + np.einsum("ijk,i,j,k", TWIST, point, point, point)


def test_it_is_the_polynomial_where_runs_were() -> None:
    for point in (np.zeros(DIM), np.array([0.3, -1.2, 2.0])):
        value, slope = jax.value_and_grad(lambda z: _value(Polynomial(TILT, BEND, TWIST), z))(jnp.asarray(point))
        np.testing.assert_allclose(value, expected(point), rtol=1e-5, atol=1e-6)
        assert np.isfinite(slope).all()


def test_far_out_the_third_order_grows_no_more() -> None:
    second, third = Polynomial(TILT, BEND, None), Polynomial(TILT, BEND, TWIST)
    along = np.array([0.6, 0.0, 0.8])
    limit = np.sqrt(reach(DIM)) * along
    for times in (1.0, 2.0, 50.0):
        point = jnp.asarray(times * limit)
        added = float(_value(third, point) - _value(second, point))
        np.testing.assert_allclose(added, np.einsum("ijk,i,j,k", TWIST, limit, limit, limit), rtol=2e-3)
