"""NUTS: BlackJAX's own chain, evaluated by the loop alone, and right about posteriors with known moments."""

from typing import Any

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsample as ps
from parsample.samplers import NUTS
from tests.tolerances import SAME_COMPUTATION


def logdensity(position):
    return -0.5 * position["a"] ** 2 - jnp.sum(jnp.cosh(position["b"]))


START = {"a": jnp.asarray(0.3), "b": jnp.asarray([-0.2, 0.8])}
DENSE = np.array([[2.0, 0.3, 0.0], [0.3, 1.0, 0.2], [0.0, 0.2, 0.5]])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mass", [None, np.diagonal(DENSE), DENSE], ids=["unit", "diagonal", "dense"])
def test_a_chain_is_blackjax_s(mass, rng_key):
    start = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), START)
    sampler = NUTS(logdensity, 0.3, mass)
    theirs = blackjax.nuts(logdensity, 0.3, jnp.ones(3) if mass is None else mass)
    inputs = sampler.draw_inputs(rng_key, 30, start)

    def step(states, words):
        ours, info = sampler.step(states[0], words)
        other, expected = theirs.step(jax.random.wrap_key_data(words), states[1])
        return (ours, other), (ours.position, other.position, info, expected)

    start_both = sampler.init(start), theirs.init(start)
    _, (ours, other, info, expected) = jax.jit(lambda: jax.lax.scan(step, start_both, inputs))()
    jax.tree.map(SAME_COMPUTATION.check, ours, other)
    for name in ("acceptance_rate", "is_divergent", "energy", "num_integration_steps"):
        SAME_COMPUTATION.check(getattr(info, name), getattr(expected, name))
    SAME_COMPUTATION.check(info.tree_depth, expected.num_trajectory_expansions)
    assert info.num_integration_steps.max() > 1


@pytest.mark.slow
def test_at_the_front_door_it_is_right_and_the_verdict_names_the_loop():
    trace = ps.sample("log_gamma", sampler="nuts", progress=False)
    verdict = ps.read_verdict(trace)
    assert verdict.method == "sequential"
    assert verdict.choice == "the loop, by which alone NUTS is evaluated"
    assert ps.judge(trace).is_good
    assert {"tree_depth", "n_steps", "energy", "diverging"} <= set(trace["sample_stats"])
    target: Any = ps.targets.LogGamma()
    for name, (mean, deviation) in target.moments().items():
        found = np.asarray(trace["posterior"][name], float).reshape(4000, -1)
        np.testing.assert_allclose(found.mean(0), mean, atol=0.12 * np.max(deviation))
        np.testing.assert_allclose(found.std(0), deviation, rtol=0.12)


@pytest.mark.parametrize("option", ["method", "warmup_method"])
@pytest.mark.parametrize("method", ["newton", ps.methods.QuasiNewton()], ids=["name", "instance"])
def test_a_parallel_method_is_refused(option, method):
    with pytest.raises(ValueError, match=rf"{option} is .*NUTS is evaluated by the sequential loop alone"):
        ps.sample("banana", sampler="nuts", progress=False, **{option: method})


@pytest.mark.parametrize("method", ["auto", "sequential", ps.methods.Sequential()], ids=str)
def test_the_loop_by_any_name_is_taken(method):
    short: dict[str, Any] = {"num_warmup": 80, "num_samples": 128, "num_chains": 2}
    trace = ps.sample("banana", sampler="nuts", progress=False, method=method, **short)
    assert ps.read_verdict(trace).method == "sequential"


@pytest.mark.parametrize("depth", [0, 2.5, True])
def test_a_depth_that_is_none(depth):
    with pytest.raises(ValueError, match=r"max_num_doublings is .*expected"):
        NUTS(logdensity, 0.1, max_num_doublings=depth)


def test_a_gate_that_is_not_frozen_is_refused(rng_key):
    sampler = NUTS(logdensity)
    words = jax.tree.map(lambda leaf: leaf[0], sampler.draw_inputs(rng_key, 1, START))
    with pytest.raises(ValueError, match="gate is 'straight_through', but a tree of NUTS"):
        sampler.step(sampler.init(START), words, "straight_through")
