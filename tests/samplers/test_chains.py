"""All chains over a segment: their inputs, and the same draws by the loop and by a parallel evaluation."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine import methods
from parsample.samplers import MALA, SAMPLERS
from parsample.samplers.base import BLOCK
from parsample.samplers.chains import Plan, Segment, decided_by_the_states, draw, evaluate_chains, run_segment
from parsample.targets import LogisticRegression
from parsample.warmup.coordinates import plain
from tests.covering import each_once
from tests.tolerances import CONVERGED, SAME_COMPUTATION

STEPS = 2 * BLOCK
KEYS = jax.vmap(lambda chain: jax.random.fold_in(jax.random.key(0), chain))(jnp.arange(3))
STARTS = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)


@pytest.mark.parametrize(("name", "segment"), each_once(sorted(SAMPLERS), [(0, 37), (BLOCK, 200)]))
def test_inputs_are_those_of_each_chain_s_sampler(name: str, segment: tuple[int, int]) -> None:
    start, num_steps = segment
    sampler = SAMPLERS[name](lambda x: -x @ x)
    found = draw(sampler, KEYS, STARTS, start, num_steps)
    for chain, key in enumerate(KEYS):
        expected = sampler.draw_inputs(key, num_steps, STARTS[chain], start)
        jax.tree.map(SAME_COMPUTATION.check, jax.tree.map(lambda leaf, chain=chain: leaf[chain], found), expected)


def test_inputs_of_chains_and_of_blocks_differ() -> None:
    noise = np.asarray(draw(MALA(lambda x: -x @ x), KEYS, STARTS, 0, STEPS).noise)
    assert noise.shape == (3, STEPS, 4)
    assert len(np.unique(noise)) > 0.999 * noise.size


@functools.cache
def sampler() -> MALA:
    return MALA(plain(LogisticRegression()), jnp.asarray(0.02))


compiled = eqx.filter_jit(run_segment)


def run(method: methods.Method, states: Any = STARTS, keys: Any = KEYS, max_iterations: int = STEPS) -> Segment:
    inputs = draw(sampler(), keys, states, 0, STEPS)
    return compiled(sampler(), states, inputs, Plan(method, 16, STEPS, max_iterations, 1e-5, 1e-5))


@pytest.fixture(scope="module")
def loop() -> Segment:
    return run(methods.Sequential())


@pytest.fixture(scope="module")
def parallel() -> Segment:
    return run(methods.QuasiNewton())


def test_the_loop_is_the_sampler_s_own_steps(loop: Segment) -> None:
    inputs = draw(sampler(), KEYS, STARTS, 0, STEPS)
    step = jax.jit(lambda state, input: sampler().step(state, input))
    for chain in range(2):
        state = sampler().init(STARTS[chain])
        for t in range(20):
            state, info = step(state, jax.tree.map(lambda leaf, chain=chain, t=t: leaf[chain, t], inputs))
            SAME_COMPUTATION.check(loop.states[chain, t], state.position)
            SAME_COMPUTATION.check(loop.lp[chain, t], state.logdensity)
            # The exponential of a difference of log densities: it has their absolute errors as its relative one.
            CONVERGED.check(loop.info["acceptance_rate"][chain, t], info.acceptance_rate)
            assert bool(loop.info["is_accepted"][chain, t]) == bool(info.is_accepted)


def test_what_the_loop_costs(loop: Segment) -> None:
    np.testing.assert_array_equal(loop.residual, np.zeros((3, STEPS)))
    for name, expected in {"iterations": STEPS, "evaluations": STEPS, "finished": 0}.items():
        np.testing.assert_array_equal(getattr(loop, name), np.full(3, expected))


def check_same_draws(found: Segment, loop: Segment) -> None:
    np.testing.assert_array_equal(found.info["is_accepted"], loop.info["is_accepted"])
    assert 0.1 < np.mean(loop.info["is_accepted"]) < 0.95
    CONVERGED.check(found.info["acceptance_rate"], loop.info["acceptance_rate"])
    for name in ("states", "lp"):
        CONVERGED.check(getattr(found, name), getattr(loop, name))
    CONVERGED.check(found.position, loop.position)


def test_the_parallel_evaluation_gives_the_same(loop: Segment, parallel: Segment) -> None:
    check_same_draws(parallel, loop)
    assert np.all(np.asarray(parallel.iterations) < STEPS)
    assert np.all(np.asarray(parallel.finished) == 0)
    bound = 1e-5 + 1e-5 * np.abs(np.asarray(parallel.states)).max(-1)
    assert np.all(np.asarray(parallel.residual) <= bound * 1.001)


def test_a_rejected_step_stays_where_it_was(parallel: Segment) -> None:
    states, accepted = np.asarray(parallel.states), np.asarray(parallel.info["is_accepted"])
    moved = np.abs(np.diff(states, axis=1)).max(-1)
    assert moved[accepted[:, 1:]].min() > 1e-3
    assert moved[~accepted[:, 1:]].max() < 1e-3


def test_too_few_iterations_are_finished_by_the_loop(loop: Segment) -> None:
    found = run(methods.QuasiNewton(), max_iterations=5)
    check_same_draws(found, loop)
    finished = np.asarray(found.finished)
    assert np.all((finished > 0) & (finished < STEPS))
    np.testing.assert_array_equal(found.iterations, np.full(3, 5))
    for chain in range(3):
        np.testing.assert_array_equal(found.residual[chain, STEPS - finished[chain] :], 0)


def test_a_chain_does_not_depend_on_the_others(parallel: Segment) -> None:
    others = jnp.asarray([2, 1, 1])
    found = run(methods.QuasiNewton(), STARTS[others], KEYS[others])
    np.testing.assert_array_equal(found.info["is_accepted"], parallel.info["is_accepted"][others])
    for name in ("states", "iterations"):
        np.testing.assert_array_equal(getattr(found, name), getattr(parallel, name)[others])


def test_the_log_density_belongs_to_the_draw(parallel: Segment) -> None:
    target = LogisticRegression()
    expected = jax.jit(jax.vmap(jax.vmap(plain(target))))(parallel.position)
    CONVERGED.check(parallel.lp, expected)


@pytest.mark.parametrize("force", ["accept", "reject"])
def test_a_decision_is_that_of_the_states(loop: Segment, force: str) -> None:
    """A chain that decided one step otherwise than its inputs say, as rounding may: the details have to follow it."""
    states, inputs = STARTS[:1], draw(sampler(), KEYS[:1], STARTS[:1], 0, STEPS)
    accepted = np.asarray(loop.info["is_accepted"][0])
    step = int(np.flatnonzero(accepted[5:] != (force == "accept"))[0]) + 5
    other = inputs._replace(log_uniform=inputs.log_uniform.at[0, step].set(-np.inf if force == "accept" else np.inf))
    plan = Plan(methods.Sequential(), 16, STEPS, STEPS, 1e-5, 1e-5)
    chain = evaluate_chains(sampler(), states, other, plan)
    assert bool(chain.details[2]["is_accepted"][0, step]) == (force == "accept")
    first, ends = jax.tree.map(lambda leaf: leaf[0], (states, chain.states))
    before = jnp.concatenate([first[None], ends[:-1]])

    @jax.jit
    def details(before: jax.Array, inputs: Any, ends: jax.Array, is_within: jax.Array) -> Any:
        found, info = jax.vmap(sampler().transition.step)(before, inputs)
        given = found.position, found.logdensity, info._asdict()
        return decided_by_the_states(sampler(), before, ends, given, is_within, plan)

    exact = jnp.ones(STEPS, bool)
    found = details(before, jax.tree.map(lambda leaf: leaf[0], inputs), ends, exact)
    expected = jax.tree.map(lambda leaf: leaf[0], chain.details)
    for one, two in zip(found[:2], expected[:2], strict=True):
        CONVERGED.check(one, two)
    np.testing.assert_array_equal(found[2]["is_accepted"], expected[2]["is_accepted"])
    CONVERGED.check(found[2]["acceptance_rate"], expected[2]["acceptance_rate"])
    # Steps that are only approximate keep theirs.
    kept = details(before, jax.tree.map(lambda leaf: leaf[0], inputs), ends, exact.at[step].set(False))
    assert bool(kept[2]["is_accepted"][step]) != (force == "accept")
