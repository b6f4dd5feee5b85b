"""Adjusted MCLMC against BlackJAX's trajectory, and in parallel over the chain."""

from typing import Any

import blackjax.mcmc.adjusted_mclmc as theirs
import blackjax.mcmc.integrators as integrators
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsample as ps
from parsample.results.trace import as_datatree
from parsample.samplers import HMC, AdjustedMCLMC
from parsample.targets import Banana, EightSchools
from tests.tolerances import CONVERGED, SAME_COMPUTATION


def density(position):
    return EightSchools().logdensity(position)


@pytest.mark.usefixtures("x64")
def test_a_trajectory_is_blackjaxs():
    """The same direction, as many steps of the integrator: the same end, and the same chance of acceptance."""
    position = EightSchools().initial_position(jax.random.key(1))
    sampler = AdjustedMCLMC(density, 0.6, 5, step_size_jitter=0)
    state, inputs = sampler.init(position), sampler.draw_inputs(jax.random.key(2), 1, position)
    input = jax.tree.map(lambda leaf: leaf[0], inputs)
    _, unravel = jax.flatten_util.ravel_pytree(position)
    direction = unravel(input.noise / jnp.linalg.norm(input.noise))
    start = integrators.new_integrator_state(density, position, direction)
    propose = theirs.adjusted_mclmc_proposal(
        integrators.with_isokinetic_maruyama(integrators.isokinetic_mclachlan(density)), 0.6, jnp.inf, 5
    )
    _, info, _ = propose(jax.random.key(0), start)
    sure = input._replace(log_uniform=jnp.asarray(-jnp.inf))
    found, told = sampler.step(state, sure)
    jax.tree.map(SAME_COMPUTATION.check, found.position, info.proposal.position)
    SAME_COMPUTATION.check(told.acceptance_rate, info.acceptance_rate)
    assert not told.is_divergent


def test_a_trajectory_into_nowhere_is_rejected():
    sampler = AdjustedMCLMC(lambda x: jnp.where(x[0] > 0, jnp.log(x[0]), -jnp.inf), 50.0, 3)
    start = jnp.asarray([0.1, 0.1])
    state, info = jax.vmap(sampler.transition.step, (None, 0))(start, sampler.draw_inputs(jax.random.key(0), 64, start))
    stayed = ~np.asarray(info.is_accepted)
    assert stayed.any()
    assert np.all(np.asarray(info.is_divergent) <= stayed)
    np.testing.assert_array_equal(np.asarray(state.position)[stayed], np.broadcast_to(start, (64, 2))[stayed])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["quasi_newton", "newton"])
def test_the_chain_in_parallel_is_that_of_the_loop(method):
    target = Banana()
    sampler = AdjustedMCLMC(target.logdensity, 0.3, 3)
    start = target.initial_position(jax.random.key(3))
    inputs = sampler.draw_inputs(jax.random.key(4), 200, start)
    loop = ps.evaluate_sequential(sampler.transition, start, inputs)
    found = ps.evaluate(sampler.transition, start, inputs, method=method, window=32, atol=1e-6, rtol=1e-6)
    jax.tree.map(CONVERGED.check, found.states, loop.states)


@pytest.mark.slow
def test_at_the_front_door():
    settings: dict[str, Any] = {
        "num_warmup": 500,
        "num_samples": 1000,
        "progress": False,
        "compare": False,
        "method": "sequential",
    }
    trace = as_datatree(ps.sample("eight_schools", AdjustedMCLMC, **settings))
    assert trace.attrs["sampler"] == "AdjustedMCLMC"
    assert 0.8 < float(trace["sample_stats"]["acceptance_rate"].mean()) < 0.97
    assert float(ps.summarize(trace)["r_hat"].max()) < 1.02


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_jitter_is_another_step_size():
    start = jnp.asarray([0.3, -1.0, 2.0])
    sampler = AdjustedMCLMC(lambda x: -0.5 * x @ x, 0.8, 3, step_size_jitter=0.4)
    inputs = sampler.draw_inputs(jax.random.key(0), 20, start)
    assert np.abs(inputs.jitter).max() < 1
    for t in range(20):
        input = jax.tree.map(lambda leaf, t=t: leaf[t], inputs)
        plain = AdjustedMCLMC(sampler.logdensity_fn, 0.8 * (1 + 0.4 * float(input.jitter)), 3, step_size_jitter=0)
        expected = plain.transition(start, input._replace(jitter=None))
        SAME_COMPUTATION.check(sampler.transition(start, input), expected)
    assert plain.draw_inputs(jax.random.key(0), 20, start).jitter is None


# Trajectories as long as the period of a normal target of unit variances: 2 pi of the time of HMC, and as long a way at
# the speed of 1 round a circle of radius sqrt(dim).
DIM = 10
PERIODIC = {"hmc": (HMC, 2 * np.pi / 20, 20), "adjusted mclmc": (AdjustedMCLMC, 2 * np.pi * DIM**0.5 / 20, 20)}


@pytest.mark.parametrize("name", PERIODIC)
def test_trajectories_as_long_as_the_period_do_not_come_back(name):
    make, step_size, steps = PERIODIC[name]

    def correlation(**options):
        sampler = make(lambda x: -0.5 * x @ x, step_size, num_integration_steps=steps, **options)
        key_start, key_inputs = jax.random.split(jax.random.key(0))
        starts = jax.random.normal(key_start, (4000, DIM))
        after = jax.jit(jax.vmap(sampler.transition))(starts, sampler.draw_inputs(key_inputs, 4000, starts[0]))
        return np.corrcoef(np.ravel(starts), np.ravel(after))[0, 1]

    assert correlation(step_size_jitter=0) > 0.8
    assert abs(correlation()) < 0.3


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"step_size_jitter is 1\.0, expected a number in \[0, 1\); 0 is none"):
        AdjustedMCLMC(density, 0.1, step_size_jitter=1.0)
    with pytest.raises(ValueError, match="num_integration_steps is 0, expected a whole number of at least 1"):
        AdjustedMCLMC(density, 0.1, 0)
    with pytest.raises(ValueError, match="the position holds 1 number, but adjusted MCLMC needs at least 2"):
        AdjustedMCLMC(lambda x: -(x**2)).init(jnp.zeros(()))
