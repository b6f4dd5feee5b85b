"""What was compiled of a function serves only while all stays the same that the function reads."""

import functools
import types
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.reparam import LocScaleReparam

import parsample as ps
from parsample.engine.reads import Pinned, Unknown, pinned, pinned_class, reads
from parsample.results.trace import as_datatree
from parsample.samplers import diffusion
from parsample.samplers.mala import MALA
from parsample.samplers.rwm import RWM
from parsample.targets.base import Target

# What the functions below read, and what the tests change.
number, array, held = 1.0, np.zeros(3), {"inner": [1.0]}
own_module = types.ModuleType("of_the_user")


def helper(x: Any) -> Any:
    return x * number


class Layer(eqx.Module):
    weight: jax.Array

    def __call__(self, x: Any) -> Any:
        return self.weight * x * number


class Plain:
    def __init__(self, value: float):
        self.value = value

    def apply(self, x: Any) -> Any:
        return x * self.value


def closure(value: Any) -> Callable:
    return lambda x: x * value


def nested(x: Any) -> Any:
    return [helper(row) for row in [x]]


def reading(x: Any) -> Any:
    return x * number


def reading_array(x: Any) -> Any:
    return x + array


def reading_held(x: Any) -> Any:
    return x + held["inner"][0]


def reading_module(x: Any) -> Any:
    return x * own_module.value


def with_default(x: Any, scale: float = 1.0) -> Any:
    return x * scale


def set_number(value: float) -> None:
    globals()["number"] = value


def change_array() -> None:
    array[1] += 1


def change_held() -> None:
    held["inner"][0] += 1


def change_module() -> None:
    own_module.value = own_module.value + 1  # type: ignore[attr-defined]


def change_default() -> None:
    with_default.__defaults__ = (with_default.__defaults__[0] + 1,)  # type: ignore[index]


@pytest.fixture(autouse=True)
def as_at_first() -> None:
    set_number(1.0)
    own_module.value = 1.0  # type: ignore[attr-defined]


def raise_number() -> None:
    set_number(number + 1)


plain = Plain(1.0)
FOLLOWED: dict[str, tuple[Callable[[], Any], Callable[[], None]]] = {
    "a global number": (lambda: reading, raise_number),
    "of a function that it calls": (lambda: nested, raise_number),
    "an array, in place": (lambda: reading_array, change_array),
    "inside a table": (lambda: reading_held, change_held),
    "in the user's own module": (lambda: reading_module, change_module),
    "a default": (lambda: with_default, change_default),
    "through a partial": (lambda: functools.partial(nested, 1.0), raise_number),
    "through jit": (lambda: jax.jit(reading), raise_number),
    "through vmap": (lambda: jax.vmap(reading), raise_number),
    "through a handler": (lambda: handlers.reparam(reading, {"a": LocScaleReparam(0)}), raise_number),
    "a method's object": (lambda: plain.apply, lambda: setattr(plain, "value", plain.value + 1)),
    "a method's global": (lambda: Layer(jnp.ones(2)), raise_number),
    "in a closure": (lambda: closure(plain), lambda: setattr(plain, "value", plain.value + 1)),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_a_function_is_another_once_it_reads_something_else(name: str) -> None:
    make, change = FOLLOWED[name]
    before = reads(make())
    assert before == reads(make()), "the same while nothing changes"
    assert hash(before) == hash(reads(make()))
    change()
    assert before != reads(make())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (closure(1), closure(1.0)),
        (closure(1), closure(True)),
        (closure(np.ones(2)), closure(np.ones(2, np.float32))),
        (closure(jnp.ones(2)), closure(jnp.zeros(2))),
        (closure(jax.random.key(0)), closure(jax.random.key(1))),
        (closure([1, [2]]), closure([1, 2])),
        (closure({"a": 1}), closure({"b": 1})),
        (closure({1, 2}), closure({1, 3})),
        (closure(dist.Normal(0.0, 1.0)), closure(dist.Normal(0.0, 2.0))),
        (closure(LocScaleReparam(0)), closure(LocScaleReparam(0.5))),
        (lambda x: x + 1, lambda x: x + 2),
        (handlers.reparam(reading, {"a": LocScaleReparam(0)}), handlers.reparam(reading, {"b": LocScaleReparam(0)})),
    ],
)
def test_other_numbers_are_another_function(one: Any, other: Any) -> None:
    assert reads(one) != reads(other)
    assert Pinned(one) != Pinned(other)


def test_the_same_made_twice_is_one() -> None:
    for make in (lambda: closure(np.ones(2)), lambda: closure(dist.Normal(0.0, jnp.ones(2)))):
        assert Pinned(make()) == Pinned(make())
        assert hash(Pinned(make())) == hash(Pinned(make()))


@pytest.mark.parametrize(
    "value", [np.random.default_rng(0), np.random.default_rng(0).normal, open, iter([1]), memoryview(b"1")]
)
def test_what_may_change_unseen_is_said_to_be_unknown(value: Any) -> None:
    function = closure(value)
    if value is open:  # of Python, and never another
        assert reads(function) == reads(function)
        return
    with pytest.raises(Unknown):
        reads(function)
    assert Pinned(function) != Pinned(function), "nothing is shared"


def test_a_traced_array_is_unknown() -> None:
    def look(x: jax.Array) -> jax.Array:
        with pytest.raises(Unknown):
            reads(closure(x))
        return x

    jax.eval_shape(look, jnp.zeros(2))


def test_a_pinned_function_is_called_like_the_function() -> None:
    found = Pinned(with_default)
    assert found(2.0) == with_default(2.0)
    assert found.__name__ == "with_default"
    assert found.__wrapped__ is with_default
    with pytest.raises(AttributeError, match="missing"):
        _ = found.missing


def test_a_module_of_a_users_class_stays_what_it_is() -> None:
    layer = pinned(Layer(jnp.full(2, 3.0)))
    assert isinstance(layer, Layer)
    assert type(layer).__name__ == "Layer"
    assert (layer(2.0) == 6.0).all()
    assert type(pinned(Layer(jnp.zeros(2)))) is type(layer), "its arrays are arguments of what is compiled"
    assert type(pinned(layer)) is type(layer)
    raise_number()
    assert type(pinned(layer)) is not type(layer)
    assert pinned_class(MALA) is MALA


SHORT: dict[str, Any] = {"num_samples": 8, "num_chains": 1, "method": "sequential", "compare": False, "progress": False}
WALK: dict[str, Any] = {"sampler": "rwm", "step_size": 0.5, "num_warmup": 0}


def linear(x: Any, u: Any) -> Any:
    return 0.1 * number * x + u


def density(x: Any) -> Any:
    return -0.5 * jnp.sum((x - number) ** 2)


def constant(x: Any, t: Any) -> Any:
    return jnp.zeros_like(x) + number


def times_number(draw: Any) -> Any:
    return {"y": draw["x"] * number}


def sampled(target: Any, **options: Any) -> Any:
    trace = as_datatree(ps.sample(target, **SHORT, **options))
    return next(iter(trace["posterior"].data_vars.values())).values


PROCESS = diffusion.DDIM(constant, num_steps=5, prediction="x0")
DOORS: dict[str, Callable[[], Any]] = {
    "evaluate": lambda: ps.evaluate(linear, jnp.zeros(()), jnp.ones(10)).states[-1],
    "lyapunov_exponent": lambda: ps.lyapunov_exponent(linear, jnp.ones(()), jnp.ones(10)).exponent,
    "diffuse": lambda: ps.diffuse(PROCESS, shape=(3,), num_samples=1, method="scaled_identity").samples,
    "a log density": lambda: sampled(density, initial_position=jnp.zeros(2), num_warmup=40),
    "a target": lambda: sampled(Shifted(), **WALK),
    "a sampler": lambda: sampled(Standard(), **{**WALK, "sampler": Numbered}),
    "a transform": lambda: sampled(Standard(), transform=times_number, **WALK),
}


class Shifted(Target):
    name = "shifted"

    def logdensity(self, position: Any) -> jax.Array:
        return density(position["x"])

    def position_template(self) -> Any:
        return {"x": jnp.zeros(2)}


class Standard(Shifted):
    def logdensity(self, position: Any) -> jax.Array:
        return -0.5 * jnp.sum(position["x"] ** 2)


class Sized(Shifted):
    def logdensity(self, position: Any) -> jax.Array:
        return -0.5 * jnp.sum((position["x"] - jnp.arange(int(number))) ** 2)

    def position_template(self) -> Any:
        return {"x": jnp.zeros(int(number))}


class Numbered(RWM):
    def draw_block(self, *args: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf * number, super().draw_block(*args))


# Every door compiles three times; those of `sample` share a way in, of which a transform takes the most.
SLOW = ("a log density", "a target", "a sampler")


@pytest.mark.parametrize("door", [pytest.param(door, marks=pytest.mark.slow if door in SLOW else ()) for door in DOORS])
def test_every_door_computes_with_the_number_that_is_there_now(door: str) -> None:
    """A number that changes between two calls counts: the second is what it would be if it were the first."""
    first = np.asarray(DOORS[door]())
    set_number(3.0)
    second = np.asarray(DOORS[door]())
    jax.clear_caches()
    np.testing.assert_allclose(second, np.asarray(DOORS[door]()), rtol=1e-5)
    assert not np.allclose(first, second, rtol=1e-3)


def test_a_target_has_the_size_that_its_class_reads_now() -> None:
    target = Sized()
    for size in (2, 3, 2):
        set_number(float(size))
        assert sampled(target, **WALK).shape == (1, 8, size)


def test_a_counter_of_calls_is_not_what_a_function_reads() -> None:
    calls, seen = 0, []

    def counting(x: Any, u: Any) -> Any:
        nonlocal calls
        calls += 1
        seen.append(calls)
        return linear(x, u)

    ps.evaluate(counting, jnp.zeros(()), jnp.ones(10))
    first = calls
    for _ in range(2):
        ps.evaluate(counting, jnp.zeros(()), jnp.ones(10))
    assert calls <= first + 2, "at most the check of what the function returns looks at it again"
    set_number(2.0)
    ps.evaluate(counting, jnp.zeros(()), jnp.ones(10))
    assert calls > first + 3, "the number that it reads through another function still counts"
