"""What computes with data before they meet what varies, by the program; and that a model says the same."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from parsample.targets import NumPyroModel
from parsample.targets.data_alone import CONSTANT, GIVEN, VARIES, computes_with_data_alone

# What is made of data x (5, 3), integers k (5,) and a position z (3,), and whether data alone are computed with.
FUNCTIONS: dict[str, tuple[Callable, bool]] = {
    "a product": (lambda x, k, z: jnp.sum(x @ z), False),
    "a difference": (lambda x, k, z: jnp.sum(jnp.square((x - z) / jnp.exp(z))), False),
    "moved": (lambda x, k, z: jnp.sum(x.T[:, 1:].reshape(-1, 3)[::-1] * z), False),
    "in a function": (lambda x, k, z: jax.jit(lambda x, z: jnp.sum(x * z))(x, z), False),
    "asked": (lambda x, k, z: jnp.where((x == x).all() & (x != jnp.inf).all() & (x == 1).any(), z.sum(), 0), False),
    "integers": (lambda x, k, z: jnp.sum(jax.lax.lgamma(k + 1.0)) + z.sum(), False),
    "looked up by integers": (lambda x, k, z: jnp.sum(z[k % 3]), False),
    "meets in a loop": (lambda x, k, z: jax.lax.scan(lambda c, row: (c + row @ z, None), 0.0, x)[0], True),
    "meets in a branch": (lambda x, k, z: jax.lax.cond(z[0] > 0, lambda: jnp.sum(jnp.log(x) @ z), lambda: 0.0), True),
    "meets where it is not kept": (lambda x, k, z: jax.checkpoint(lambda x, z: jnp.sum(jnp.log(x) @ z))(x, z), True),
    "a logarithm": (lambda x, k, z: jnp.sum(jnp.log(x) * z), True),
    "scaled": (lambda x, k, z: jnp.sum((x * 1e6) @ z), True),
    "centred": (lambda x, k, z: jnp.sum((x - x.mean(0)) @ z), True),
    "distances": (lambda x, k, z: jnp.sum(jnp.exp(-jnp.square(x[:, None] - x[None]) / z)), True),
    "with integers": (lambda x, k, z: jnp.sum(x * k[:, None]) * z.sum(), True),
    "a logarithm in a function": (lambda x, k, z: jax.jit(lambda x, z: jnp.sum(jnp.log(x) * z))(x, z), True),
    "a square that a function returns": (lambda x, k, z: jax.jit(jnp.square)(x).sum() * z.sum(), True),
    "moved by a function, then squared": (lambda x, k, z: jnp.square(jax.jit(jnp.transpose)(x)).sum() * z.sum(), True),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_computed_is_read_from_the_program(name: str) -> None:
    function, expected = FUNCTIONS[name]
    program = jax.make_jaxpr(function)(
        np.ones((5, 3), np.float32), np.arange(5, dtype=np.int32), np.ones(3, np.float32)
    )
    assert computes_with_data_alone(program, [GIVEN, CONSTANT, VARIES]) is expected


def model(x: Any, y: Any) -> None:
    slope = numpyro.sample("slope", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(x @ slope, 1), obs=y)


def with_scale(x: Any, y: Any) -> None:
    model((x - x.min()) * 1e6, y)


@pytest.mark.parametrize("function", [model, with_scale])
def test_the_log_density_is_that_of_all_digits(function: Callable) -> None:
    x, y = 1e3 + 1e-6 * np.random.default_rng(0).normal(size=(6, 2)), np.linspace(-1, 1, 6)
    target = NumPyroModel(function, x, y)
    z = np.asarray([0.3, -0.2])
    design = x if function is model else (x - x.min()) * 1e6
    expected = -0.5 * np.sum((y - design @ z) ** 2) - 0.5 * np.sum(z**2) - 4 * np.log(2 * np.pi)
    found = target.logdensity({"slope": jnp.asarray(z, jnp.float32)})
    np.testing.assert_allclose(found, expected, rtol=1e-4)
