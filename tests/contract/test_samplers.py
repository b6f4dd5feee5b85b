"""What every sampler in the table promises, with its defaults, on positions that are pytrees."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import parsample
from parsample.engine.transition import GATES, Transition
from parsample.samplers import SAMPLERS
from tests.tolerances import SAME_COMPUTATION

STEPS = 20

pytestmark = pytest.mark.parametrize("name", SAMPLERS)


def density(position):
    return -0.5 * position["a"] ** 2 - jnp.sum(jnp.cosh(position["b"]))


def example(dtype=jnp.float32):
    return {"a": jnp.asarray(0.3, dtype), "b": jnp.asarray([-0.2, 0.8], dtype)}


def run(sampler, position, rng_key, num_steps=STEPS):
    """Run a chain by `step`: its states and infos."""

    def step(state, input):
        state, info = sampler.step(state, input)
        return state, (state, info)

    inputs = sampler.draw_inputs(rng_key, num_steps, position)
    return jax.lax.scan(step, sampler.init(position), inputs)[1]


def check_trees(one, other):
    assert str(jax.tree.structure(one)) == str(jax.tree.structure(other))
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        SAME_COMPUTATION.check(left, right)


def test_it_works_with_its_defaults(name, rng_key):
    required = [
        parameter.name
        for parameter in inspect.signature(SAMPLERS[name]).parameters.values()
        if parameter.default is parameter.empty
    ]
    assert required == ["logdensity_fn"]
    rate = SAMPLERS[name].target_acceptance
    assert rate is None or 0 < rate < 1

    states, infos = jax.jit(lambda position: run(SAMPLERS[name](density), position, rng_key))(example())
    assert str(jax.tree.structure(states.position)) == str(jax.tree.structure(example()))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((states, infos)))
    SAME_COMPUTATION.check(states.logdensity, jax.vmap(density)(states.position))
    assert infos.acceptance_rate.shape == infos.is_accepted.shape == (STEPS,)
    assert infos.is_accepted.dtype == bool
    assert np.all((infos.acceptance_rate >= 0) & (infos.acceptance_rate <= 1))
    # Steps that were accepted moved the position, and the others did not.
    before = jax.tree.map(lambda new, old: jnp.concatenate([old[None], new[:-1]]), states.position, example())
    moved = np.any([np.asarray(new != old).reshape(STEPS, -1).any(1) for new, old in zip(
        jax.tree.leaves(states.position), jax.tree.leaves(before), strict=True
    )], axis=0)  # fmt: skip
    np.testing.assert_array_equal(moved, infos.is_accepted)


def test_the_same_chain_by_step_by_transition_and_by_the_engine(name, rng_key):
    sampler = SAMPLERS[name](density)
    assert isinstance(sampler.transition, Transition)

    @jax.jit
    def three_ways(position):
        start = sampler.unknowns(sampler.init(position))
        inputs = sampler.draw_inputs(rng_key, STEPS, position)
        transition = lambda unknowns, input: (sampler.transition(unknowns, input),) * 2  # noqa: E731
        by_transition = jax.lax.scan(transition, start, inputs)[1]
        by_engine = parsample.evaluate_sequential(sampler.transition, start, inputs).states
        return jax.vmap(sampler.unknowns)(run(sampler, position, rng_key)[0]), by_transition, by_engine

    by_step, by_transition, by_engine = three_ways(example())
    check_trees(by_transition, by_step)
    check_trees(by_engine, by_step)


def test_a_state_follows_from_its_unknowns(name, rng_key):
    sampler = SAMPLERS[name](density)
    states = jax.jit(lambda position: run(sampler, position, rng_key)[0])(example())
    again = jax.jit(jax.vmap(lambda state: sampler.resume(sampler.unknowns(state))))(states)
    check_trees(again, states)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(sampler.unknowns(states))}
    assert dtypes == {jnp.dtype(jnp.float32)}


def test_a_batch_of_chains_is_a_loop_over_chains(name):
    sampler = SAMPLERS[name](density)
    chain = jax.jit(lambda position, key: run(sampler, position, key))
    keys = jax.random.split(jax.random.key(0), 3)
    starts = [jax.tree.map(lambda leaf, shift=shift: leaf + shift, example()) for shift in (0.0, -0.5, 1.0)]
    batch = jax.jit(jax.vmap(chain))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts), keys)
    alone = [chain(start, key) for start, key in zip(starts, keys, strict=True)]
    check_trees(batch, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone))
    first = batch[0].position["b"]
    assert not np.any(first[0] == first[1])


@pytest.mark.usefixtures("x64")
def test_it_can_be_differentiated(name, rng_key):
    if SAMPLERS[name].loop_only:
        pytest.skip(f"{name} is evaluated by the loop alone: nothing asks for its derivative")

    def end(scale, position, step_size, gate):
        sampler = SAMPLERS[name](lambda x: scale * density(x), step_size)
        inputs = sampler.draw_inputs(rng_key, 5, position)
        transition = sampler.transition.with_gate(gate)
        start = sampler.unknowns(sampler.init(position))
        last, _ = jax.lax.scan(lambda x, input: (transition(x, input), None), start, inputs)
        return ravel_pytree(last)[0].sum()

    given = 1.3, example(jnp.float64), 0.1
    value_and_gradient = jax.jit(jax.value_and_grad(end, (0, 1, 2)), static_argnums=3)
    values, gradients = zip(*(value_and_gradient(*given, gate) for gate in GATES), strict=True)
    # Two programs, which may round differently; the gate concerns the derivative alone.
    SAME_COMPUTATION.check(*values)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    # No decision changes within a step this small, so the frozen gate has the derivative of the function itself.
    width = 1e-6
    ahead, behind = (value_and_gradient(1.3 + sign * width, *given[1:], "frozen")[0] for sign in (1, -1))
    np.testing.assert_allclose(gradients[0][0], (ahead - behind) / (2 * width), rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_the_dtype_is_that_of_the_position(name, rng_key):
    sampler = SAMPLERS[name](density, 0.1)
    for dtype in (jnp.float32, jnp.float64):
        shapes = jax.eval_shape(lambda position: run(sampler, position, rng_key), example(dtype))
        dtypes = {leaf.dtype for leaf in jax.tree.leaves(shapes)}
        assert {jnp.dtype(dtype), jnp.dtype(bool)} <= dtypes
        assert not {jnp.dtype(other) for other in (jnp.float32, jnp.float64) if other != dtype} & dtypes


def test_the_chain_depends_on_its_key_only(name):
    sampler = SAMPLERS[name](density)
    chain = jax.jit(lambda key: run(sampler, example(), key)[0].position["b"])
    first, again, other = (np.asarray(chain(jax.random.key(seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.any(first == other)


@pytest.mark.usefixtures("x64")
def test_the_analytic_diagonal_where_there_is_one(name, rng_key):
    class Separate:
        def __call__(self, x):
            return -jnp.sum(jnp.cosh(x))

        def hessian_diagonal(self, x):
            return -jnp.cosh(x)

    sampler = SAMPLERS[name](Separate())
    transition = sampler.transition
    position = jnp.asarray([0.3, -0.2, 0.8])
    unknowns = sampler.unknowns(sampler.init(position))
    inputs = sampler.draw_inputs(rng_key, STEPS, position)
    if transition.with_diagonal(unknowns, jax.tree.map(lambda leaf: leaf[0], inputs)) is None:
        pytest.skip(f"{name} knows no diagonal of its Jacobian")

    @jax.jit
    @jax.vmap
    def both(input):
        flat, unravel = ravel_pytree(unknowns)
        jacobian = jax.jacfwd(lambda x: ravel_pytree(transition(unravel(x), input))[0])(flat)
        known: Any = transition.with_diagonal(unknowns, input)
        (carry, _), diagonal = known
        return (transition.state_of(carry), diagonal), (transition(unknowns, input), unravel(jnp.diagonal(jacobian)))

    known, expected = both(inputs)
    check_trees(known, expected)
