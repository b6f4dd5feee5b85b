"""A plain log density as a target: what it accepts, where it starts, what its variables are called."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.targets.density import LogDensity, check_scalar


def normal(position: Any) -> jax.Array | float:
    return -0.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(position))


@pytest.mark.parametrize(
    ("position", "names"),
    [
        (jnp.zeros(3), {"x": (3,)}),
        (0.0, {"x": ()}),
        ({"a": jnp.zeros(2), "b": jnp.zeros(())}, {"a": (2,), "b": ()}),
        ({"a": {"b": jnp.zeros(2)}, "c": [jnp.zeros(1), jnp.zeros((2, 3))]}, {"a.b": (2,), "c.0": (1,), "c.1": (2, 3)}),
        ((jnp.zeros(1), jnp.zeros(2)), {"0": (1,), "1": (2,)}),
    ],
)
def test_variables_are_named_by_their_paths(position: Any, names: dict[str, tuple[int, ...]]) -> None:
    target = LogDensity(normal, position)
    found = target.constrain(target.position_template())
    assert {name: value.shape for name, value in found.items()} == names


def test_the_log_density_is_the_function_itself() -> None:
    target = LogDensity(normal, {"a": jnp.zeros(2)})
    position = {"a": jnp.asarray([1.0, 2.0])}
    assert target.logdensity(position) == -2.5
    assert target.name == "log_density"
    assert (target.dims, target.coords, target.moments()) == ({}, {}, None)


def test_starts_lie_around_the_position_and_differ() -> None:
    center = {"a": jnp.full(500, 10.0), "b": jnp.asarray(-5.0)}
    target = LogDensity(normal, center)
    first, second = (target.initial_position(jax.random.key(seed)) for seed in (0, 1))
    offsets = np.asarray(first["a"] - 10)
    assert -1 <= offsets.min() < -0.9
    assert 0.9 < offsets.max() <= 1
    assert abs(first["b"] + 5) <= 1
    assert not np.array_equal(first["a"], second["a"])
    np.testing.assert_array_equal(first["a"], target.initial_position(jax.random.key(0))["a"])


def test_leaves_of_one_shape_start_apart() -> None:
    start = LogDensity(normal, {"a": jnp.zeros(3), "b": jnp.zeros(3)}).initial_position(jax.random.key(0))
    assert not np.array_equal(start["a"], start["b"])


def test_the_template_is_zero_in_the_dtypes_that_came() -> None:
    target = LogDensity(normal, {"a": np.ones(2, np.float32), "b": 3})
    template = target.position_template()
    assert {leaf.dtype for leaf in jax.tree.leaves(template)} == {jnp.dtype("float32")}
    assert all(float(jnp.abs(leaf).max()) == 0 for leaf in jax.tree.leaves(template))


@pytest.mark.usefixtures("x64")
def test_double_precision_stays() -> None:
    target = LogDensity(normal, {"a": np.ones(2), "b": 3})
    assert {leaf.dtype for leaf in jax.tree.leaves(target.initial_position(jax.random.key(0)))} == {
        jnp.dtype("float64")
    }


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: -0.5 * x**2, r"the log density returned float32\[3\], expected one real.*; sum it over its axes"),
        (lambda x: jnp.sum(x, keepdims=True), r"returned float32\[1\], expected one real"),
        (lambda x: jnp.sum(x) + 1j, r"returned complex64\[\], expected one real floating-point number; return one"),
        (lambda x: jnp.sum(x).astype(int), r"returned int32\[\], expected one real floating-point number"),
        (lambda x: jnp.sum(x) > 0, r"returned bool\[\], expected one real floating-point number"),
        (lambda x: (jnp.sum(x), x), r"returned tuple, expected one real floating-point number; return one real"),
        (lambda x: None, r"returned NoneType, expected one real floating-point number"),
    ],
)
def test_a_log_density_is_one_real_number(function: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LogDensity(function, jnp.zeros(3))


@pytest.mark.parametrize(
    ("position", "message"),
    [
        ({}, "initial_position holds no arrays, expected a pytree with at least one"),
        (None, "initial_position holds no arrays"),
        (jnp.zeros((0, 3)), "initial_position holds no numbers"),
        ({"a": jnp.zeros(2, complex)}, "initial_position holds dtype complex64, expected real floating-point numbers"),
        (jnp.zeros(2, bool), "initial_position holds dtype bool, expected real floating-point numbers"),
        ({"a": "high"}, "initial_position holds 'high', expected real floating-point numbers"),
    ],
)
def test_a_position_that_does_not_fit(position: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LogDensity(normal, position)


def test_what_cannot_be_called_is_no_log_density() -> None:
    with pytest.raises(ValueError, match="logdensity_fn is a int, expected a function of a position"):
        LogDensity(3, jnp.zeros(2))  # type: ignore[arg-type]


def test_a_number_is_a_scalar() -> None:
    check_scalar(jnp.zeros(()))
    check_scalar(jax.ShapeDtypeStruct((), jnp.bfloat16))
    with pytest.raises(ValueError, match="returned float, expected one real floating-point number"):
        check_scalar(1.0)
