"""A log density around a place is the same one, and rounded less."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from parsample.targets import TARGETS
from parsample.warmup.coordinates import plain, rounded_less
from tests.targets.builders import build

AROUND = sorted(name for name, row in TARGETS.items() if hasattr(row, "around"))


def at(name: str, folder: Path, dtype: Any = np.float64) -> tuple[Any, Any, Any, Any]:
    """The target, a position in the midst of its posterior, a basis as long as one, and places in it."""
    target: Any = build(name, folder)
    likelihood = target.likelihood
    triangle = np.asarray(likelihood.triangle, np.float64)
    mode = np.linalg.lstsq(triangle[:, :-1], triangle[:, -1], rcond=None)[0]
    template, unravel = ravel_pytree(target.position_template())
    columns = jax.vmap(lambda row: target.coefficients(unravel(row)))(jnp.eye(template.size, dtype=template.dtype))
    vector = np.asarray(columns, np.float64) @ mode
    log_sigma = float(likelihood.log_spread(jnp.asarray(mode, template.dtype)))
    spread = np.asarray(jax.vmap(lambda row: unravel(row)["log_sigma"])(jnp.eye(template.size, dtype=template.dtype)))
    place = jnp.asarray(vector + spread * log_sigma, dtype)
    hessian = np.asarray(jax.hessian(lambda vector: target.logdensity(unravel(vector)))(place.astype(template.dtype)))
    basis = jnp.asarray(np.linalg.inv(np.linalg.cholesky(-hessian)).T, dtype)
    return target, unravel(place), basis, jax.random.normal(jax.random.key(1), (20, template.size), dtype)


def test_the_linear_regressions_have_one() -> None:
    assert AROUND == ["autoregressive", "blr", "kidscore_interaction"]


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", AROUND)
def test_it_is_the_same_log_density_with_its_derivatives(name: str, tmp_path: Path) -> None:
    target, place, basis, places = at(name, tmp_path)
    vector, unravel = ravel_pytree(place)
    near, whole = target.around(place, basis), lambda z: target.logdensity(unravel(vector + basis @ z))
    for derivative in (lambda f: f, jax.grad, jax.hessian):
        found, expected = (jax.vmap(derivative(f))(places) for f in (near, whole))
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_the_coordinates_take_it() -> None:
    density = plain(TARGETS["multivariate_normal"]())
    assert rounded_less(density) is density
