"""A function compiled for a first argument: it sees new arrays, and is compiled anew for what is no array."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine.fixed import RUN_ONCE, fixed_first, once
from parsample.targets.banana import Banana


class Line(eqx.Module):
    """a x^power + b, the power known when it is compiled."""

    slope: Any
    offset: Any
    power: int = eqx.field(static=True)
    function: Callable = jnp.abs

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.function(self.slope) * x**self.power + self.offset


def traced() -> tuple[fixed_first, list[int]]:
    powers: list[int] = []

    @fixed_first
    def value(line: Line, x: jax.Array, more: dict) -> jax.Array:
        powers.append(line.power)
        return line(x) + more["more"]

    return value, powers


@pytest.mark.parametrize("array", [jnp.asarray, np.asarray, np.float32], ids=["jax", "numpy", "scalar"])
def test_new_arrays_need_no_new_program(array: Callable) -> None:
    value, powers = traced()
    for slope in (1.0, -2.0, 3.0):
        of = value.of(Line(array(slope), array(0.5), 2))
        for x in (1.0, 4.0):
            assert of(jnp.asarray(x), {"more": np.float32(7)}) == abs(slope) * x**2 + 7.5
    assert powers == [2]


def test_what_is_no_array_is_compiled_for() -> None:
    value, powers = traced()
    for power, function in ((1, jnp.abs), (2, jnp.abs), (2, jnp.negative), (1, jnp.abs)):
        found = value.of(Line(jnp.asarray(-3.0), jnp.asarray(1.0), power, function))(jnp.asarray(5.0), {"more": 0.0})
        assert found == 3 * 5.0**power + 1
    assert powers == [1, 2, 2]


def test_it_is_what_filter_jit_does() -> None:
    line, x = Line(jnp.asarray(-3.0), 1.25, 3), jnp.linspace(-1, 1, 5)
    value, _ = traced()
    expected = eqx.filter_jit(lambda line, x: line(x))(line, x)
    np.testing.assert_array_equal(value.of(line)(x, {"more": 0.0}), expected)


def test_it_has_the_name_and_the_words_of_the_function() -> None:
    value, _ = traced()
    assert value.jitted.__name__ == value.__name__ == "value"


def test_it_works_out_once_what_is_known_of_an_object() -> None:
    asked: list[float] = []

    @once
    def zeros(target: Banana) -> jax.ShapeDtypeStruct:
        asked.append(float(target.scale))
        return jax.eval_shape(lambda: jnp.zeros(2))

    target, equal = Banana(), Banana()
    assert zeros(target) is zeros(target)
    assert zeros(equal) == zeros(target)
    assert len(asked) == 2
    before = zeros(target).dtype
    with jax.enable_x64(before == jnp.float32):
        assert zeros(target).dtype == jnp.zeros(1).dtype != before
    assert zeros(target).dtype == before
    assert len(asked) == 3


def test_what_is_known_of_an_object_goes_with_it() -> None:
    scale = once(lambda target: float(target.scale))
    places = set()
    for number in range(1, 50):
        banana = Banana(scale=float(number))
        places.add(id(banana))
        assert scale(banana) == number
        del banana
    assert len(places) < 49, "another object has had the place of an earlier one"


def test_of_a_users_class_it_is_asked_every_time() -> None:
    asked = []
    line = Line(1.0, 2.0, 3)
    power = once(lambda line: asked.append(line.power))
    power(line)
    power(line)
    assert asked == [3, 3]


@pytest.mark.parametrize(("backend", "options"), [("cpu", RUN_ONCE), ("gpu", None)])
def test_what_runs_once_is_not_optimised_on_a_cpu(
    backend: str, options: dict | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    given: list[Any] = []
    jit = jax.jit

    def noted(*args: Any, compiler_options: Any, **kwargs: Any) -> Any:
        given.append(compiler_options)
        return jit(*args, **kwargs)

    monkeypatch.setattr(jax, "jit", noted)
    for runs_once in (True, False):
        value = fixed_first(lambda line, x: line(x), runs_once)
        assert value(Line(jnp.asarray(2.0), jnp.asarray(1.0), 1), jnp.asarray(3.0)) == 7
    assert given == [options, None]
