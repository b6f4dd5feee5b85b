"""A step with a log density put into its holes is the step with that log density."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import Array

from parsample.samplers import SAMPLERS
from parsample.workers.holes import Holes, fill, find_holes
from tests.tolerances import SAME_COMPUTATION

DIM = 3


def logdensity(point: Array) -> Array:
    return -0.5 * jnp.sum(jnp.array([1.0, 2.0, 0.5]) * point**2) - 0.1 * jnp.sum(point**4)


def ask(point: Array) -> tuple[Array, Array]:
    return jax.value_and_grad(logdensity)(point)


def chain(name: str, density: Any) -> tuple[Any, Any, Any]:
    """A sampler's transition, unknowns where it begins, and the inputs of a step."""
    sampler = SAMPLERS[name](density, 0.3)
    begun = SAMPLERS[name](logdensity, 0.3)
    state = begun.init(jnp.array([0.3, -0.2, 0.5]), jax.random.key(1))
    inputs = begun.draw_inputs(jax.random.key(0), 1, jnp.zeros(DIM))
    return sampler.transition, begun.unknowns(state), jax.tree.map(lambda leaf: leaf[0], inputs)


# NUTS decides as it goes how often it evaluates; see below.
@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "nuts"])
def test_a_filled_step_is_the_step(name: str) -> None:
    (holed, unknowns, input), (whole, _, _) = chain(name, Holes()), chain(name, logdensity)
    carry = fill(holed.start, unknowns, ask=ask)
    found = fill(holed.advance, carry, input, ask=ask)
    expected = whole.advance(whole.start(unknowns), input)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        SAME_COMPUTATION.check(one, other)


@pytest.mark.parametrize(("name", "holes"), [("rwm", 1), ("mala", 1), ("gibbs", DIM), ("hmc", 8)])
def test_holes_are_counted(name: str, holes: int) -> None:
    transition, unknowns, input = chain(name, Holes())
    carry = fill(transition.start, unknowns, ask=ask)
    points = find_holes(transition.advance, carry, input)
    assert [point.shape for point in points] == [(DIM,)] * holes


@pytest.mark.parametrize("reverse", [False, True])
def test_a_loop_of_known_length_is_unrolled(reverse: bool) -> None:
    def climb(point: Array, steps: Array) -> Any:
        def step(carry: Array, size: Array) -> tuple[Array, Array]:
            carry = carry + size * jax.grad(density)(carry)
            return carry, density(carry)

        return jax.lax.scan(step, point, steps, reverse=reverse)

    density: Any = Holes()
    steps = jnp.array([0.1, 0.2, 0.3])
    found = fill(climb, jnp.ones(DIM), steps, ask=ask)
    density = logdensity
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(climb(jnp.ones(DIM), steps)), strict=True):
        SAME_COMPUTATION.check(one, other)


def test_an_unknown_number_of_evaluations_is_refused() -> None:
    def until_high(point: Array) -> Array:
        return jax.lax.while_loop(lambda x: Holes()(x) < 0, lambda x: x / 2, point)

    with pytest.raises(ValueError, match=r"inside of a `while`.* such as 'rwm', 'mala' or 'hmc'"):
        find_holes(until_high, jnp.ones(DIM))
