"""The random numbers of a block: of the distributions that they are named after, all of one call of the generator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from parsample.samplers.noise import draw_normal, draw_uniforms, log_uniform, logistic, normal

DTYPES = [jnp.dtype(name) for name in ("float32", "float16", "bfloat16")]


@pytest.mark.parametrize("dtype", DTYPES)
def test_uniform_numbers_of_some_shapes_never_reach_an_end(dtype: jnp.dtype) -> None:
    shapes = (1000, 3), (500,), (0, 2), (7, 2, 5)
    drawn = draw_uniforms(jax.random.key(0), dtype, *shapes)
    assert [part.shape for part in drawn] == list(shapes)
    assert all(part.dtype == dtype for part in drawn)
    every = np.concatenate([np.asarray(part, float).ravel() for part in drawn])
    assert np.abs(every).max() < 1
    assert scipy.stats.kstest(every, "uniform", (-1, 2)).pvalue > (1e-3 if dtype == DTYPES[0] else 0)
    ends = jnp.asarray([np.nextafter(np.asarray(-1, dtype), np.asarray(0, dtype)), 0.0], dtype)
    for turn in (normal, logistic, log_uniform):
        found = turn(ends)
        assert found.dtype == dtype
        assert bool(jnp.isfinite(found).all())


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (normal, lambda share: scipy.stats.norm.ppf(share)),
        (logistic, lambda share: scipy.stats.logistic.ppf(share)),
        (log_uniform, lambda share: np.log(share)),
    ],
)
def test_they_are_turned_by_the_quantiles(turn, expected) -> None:
    uniform = np.linspace(-1, 1, 2003)[1:-1]
    np.testing.assert_allclose(turn(jnp.asarray(uniform)), expected((1 + uniform) / 2), rtol=1e-9, atol=1e-12)


def test_blocks_of_other_keys_are_other_numbers() -> None:
    one, other = (np.asarray(draw_normal(key, 128, 3, DTYPES[0])) for key in jax.random.split(jax.random.key(1)))
    assert one.shape == (128, 3)
    assert not np.intersect1d(one, other).size
    assert len(np.unique(one)) == one.size
