"""The ordinary models that defaults are judged on: how many, of which kinds, and whether they can be sampled at all."""

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from benchmarks.ordinary import EXPECTED_NOT_GOOD, KIND_OF, KINDS, MODELS
from parsample.targets import NumPyroModel
from parsample.warmup.coordinates import plain
from parsample.warmup.starts import starts

WANTED = {
    *("regression", "hierarchical", "mixture", "time series", "ODE", "Gaussian process", "survival", "item response"),
    *("capture-recapture", "sparse"),
}
FIRST = [builders[0].__name__ for builders in KINDS.values()]


def test_there_are_enough_models_of_every_kind() -> None:
    assert len(MODELS) == sum(map(len, KINDS.values())) >= 44  # no two share a name
    assert set(KINDS) >= WANTED
    assert set(EXPECTED_NOT_GOOD) < set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_data_are_finite_and_the_same_every_time(name: str) -> None:
    model, args, kwargs = MODELS[name]()
    assert callable(model)
    assert all(np.isfinite(value).all() for value in [*args, *kwargs.values()])
    jax.tree.map(np.testing.assert_array_equal, (args, kwargs), MODELS[name]()[1:])


@pytest.mark.parametrize("name", [n if n in FIRST else pytest.param(n, marks=pytest.mark.grid) for n in MODELS])
def test_log_density_and_gradient_are_finite_where_numpyro_starts(name: str) -> None:
    model, args, kwargs = MODELS[name]()
    target = NumPyroModel(model, *args, **kwargs)
    position = plain(target).unravel(starts(target, jax.random.split(jax.random.key(0), 1))[0])
    value, gradient = jax.jit(jax.value_and_grad(target.logdensity))(position)
    vector, _ = ravel_pytree(gradient)
    assert np.isfinite(value), KIND_OF[name]
    assert np.isfinite(vector).all()
    assert (vector != 0).all()
