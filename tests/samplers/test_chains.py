"""All chains over a segment: their inputs, and the same draws by the loop and by a parallel evaluation."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine import methods
from parsample.engine.evaluate import evaluate
from parsample.engine.solution import Solution
from parsample.samplers import HMC, MALA, SAMPLERS
from parsample.samplers.base import BLOCK
from parsample.samplers.chains import Plan, begin, draw, evaluate_chains, room_of_the_loop, run_part
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


compiled = eqx.filter_jit(evaluate_chains)


def run(method: methods.Method, states: Any = STARTS, keys: Any = KEYS, max_iterations: int = STEPS) -> Solution:
    inputs = draw(sampler(), keys, states, 0, STEPS)
    return compiled(sampler(), states, inputs, Plan(method, 16, STEPS, max_iterations, 1e-5, 1e-5))


@pytest.fixture(scope="module")
def loop() -> Solution:
    return run(methods.Sequential())


@pytest.fixture(scope="module")
def parallel() -> Solution:
    return run(methods.QuasiNewton())


def test_the_loop_is_the_sampler_s_own_steps(loop: Solution) -> None:
    inputs = draw(sampler(), KEYS, STARTS, 0, STEPS)
    step = jax.jit(lambda state, input: sampler().step(state, input))
    for chain in range(2):
        state = sampler().init(STARTS[chain])
        for t in range(20):
            state, info = step(state, jax.tree.map(lambda leaf, chain=chain, t=t: leaf[chain, t], inputs))
            SAME_COMPUTATION.check(loop.states[chain, t], state.position)
            SAME_COMPUTATION.check(loop.details.lp[chain, t], state.logdensity)
            # The exponential of a difference of log densities: it has their absolute errors as its relative one.
            CONVERGED.check(loop.details.info["acceptance_rate"][chain, t], info.acceptance_rate)
            assert bool(loop.details.info["is_accepted"][chain, t]) == bool(info.is_accepted)


def test_what_the_loop_costs(loop: Solution) -> None:
    np.testing.assert_array_equal(loop.residual, np.zeros((3, STEPS)))
    for name, expected in {"iterations": STEPS, "evaluations": STEPS, "finished": 0}.items():
        np.testing.assert_array_equal(getattr(loop, name), np.full(3, expected))


def check_same_draws(found: Solution, loop: Solution) -> None:
    np.testing.assert_array_equal(found.details.info["is_accepted"], loop.details.info["is_accepted"])
    assert 0.1 < np.mean(loop.details.info["is_accepted"]) < 0.95
    CONVERGED.check(found.details.info["acceptance_rate"], loop.details.info["acceptance_rate"])
    CONVERGED.check(found.states, loop.states)
    CONVERGED.check(found.details.lp, loop.details.lp)
    CONVERGED.check(found.details.position, loop.details.position)


def test_the_parallel_evaluation_gives_the_same(loop: Solution, parallel: Solution) -> None:
    check_same_draws(parallel, loop)
    assert np.all(np.asarray(parallel.iterations) < STEPS)
    assert np.all(np.asarray(parallel.finished) == 0)
    bound = 1e-5 + 1e-5 * np.abs(np.asarray(parallel.states)).max(-1)
    assert np.all(np.asarray(parallel.residual) <= bound * 1.001)


def test_a_rejected_step_stays_where_it_was(parallel: Solution) -> None:
    states, accepted = np.asarray(parallel.states), np.asarray(parallel.details.info["is_accepted"])
    moved = np.abs(np.diff(states, axis=1)).max(-1)
    assert moved[accepted[:, 1:]].min() > 1e-3
    assert moved[~accepted[:, 1:]].max() < 1e-3


def test_too_few_iterations_are_finished_by_the_loop(loop: Solution) -> None:
    found = run(methods.QuasiNewton(), max_iterations=5)
    check_same_draws(found, loop)
    finished = np.asarray(found.finished)
    assert np.all((finished > 0) & (finished < STEPS))
    np.testing.assert_array_equal(found.iterations, np.full(3, 5))
    for chain in range(3):
        np.testing.assert_array_equal(found.residual[chain, STEPS - finished[chain] :], 0)


def test_a_chain_does_not_depend_on_the_others(parallel: Solution) -> None:
    others = jnp.asarray([2, 1, 1])
    found = run(methods.QuasiNewton(), STARTS[others], KEYS[others])
    np.testing.assert_array_equal(found.details.info["is_accepted"], parallel.details.info["is_accepted"][others])
    for name in ("states", "iterations"):
        np.testing.assert_array_equal(getattr(found, name), getattr(parallel, name)[others])


def test_the_log_density_belongs_to_the_draw(parallel: Solution) -> None:
    target = LogisticRegression()
    expected = jax.jit(jax.vmap(jax.vmap(plain(target))))(parallel.details.position)
    CONVERGED.check(parallel.details.lp, expected)


class Torn(MALA):
    """A sampler whose decisions hang on a rounding error, which another program would make otherwise."""

    def __init__(self, logdensity_fn: Any, step_size: Any):
        """Keep both."""
        super().__init__(logdensity_fn, step_size)

    def step(self, state: Any, input: Any, gate: str = "frozen") -> Any:
        found, (_, info) = self.init(state.position + 0.2 * input.noise), super().step(state, input, gate)
        total = jnp.sum(jnp.sin(1e3 * state.position) * input.noise)
        odd = jnp.floor(1e7 * jnp.abs(total)) % 2 == 1
        return jax.tree.map(lambda one, other: jnp.where(odd, one, other), found, state), info._replace(is_accepted=odd)


@pytest.mark.parametrize("method", [methods.Sequential(), methods.QuasiNewton(), methods.Newton()])
def test_a_draw_is_the_state_and_goes_with_its_decision(method: methods.Method) -> None:
    torn = Torn(plain(LogisticRegression()), jnp.asarray(0.02))
    inputs = draw(torn, KEYS, STARTS, 0, STEPS)
    found = compiled(torn, STARTS, inputs, Plan(method, 16, STEPS, STEPS, 1e-5, 1e-5))
    before = jnp.concatenate([STARTS[:, None], found.states[:, :-1]], 1)
    moved = np.abs(found.details.position - before).max(-1) > 1e-4
    np.testing.assert_array_equal(moved, found.details.info["is_accepted"])
    CONVERGED.check(found.details.position, found.states)


def test_one_program_of_the_loop_serves_trajectories_of_all_lengths(rng_key):
    looked: list[None] = []

    def density(x):
        looked.append(None)
        return -jnp.sum(jnp.cosh(x))

    starts = jnp.asarray([[0.3, -0.2], [1.0, 0.5]])
    keys = jax.random.split(rng_key, 2)
    run = eqx.filter_jit(evaluate_chains)
    plan = Plan(methods.Sequential(), 1, 20, 20, 0.0, 0.0)
    traces = []
    for length in (3, 5):
        sampler = HMC(density, 0.2, num_integration_steps=length)
        states, inputs = begin(sampler, starts, keys), draw(sampler, keys, starts, 0, 20)
        looked.clear()
        open_length = run(sampler.for_loop(), states, inputs, plan)
        traces.append(len(looked))
        known = run(sampler, states, inputs, plan)
        SAME_COMPUTATION.check(open_length.states, known.states)
        np.testing.assert_array_equal(open_length.details.info["num_integration_steps"], length)
    assert traces[0] > 0
    assert traces[1] == 0, "traced anew for another length"


def test_a_trajectory_that_is_solved_in_parallel_keeps_its_length():
    sampler = HMC(lambda x: -x @ x, 0.2, leapfrog="block_quasi_newton")
    assert sampler.for_loop() is sampler


def flat_density(x: Any) -> Any:
    return -0.5 * jnp.sum(x**2) - jnp.sum(jnp.cosh(x / 3))


CASES: list[tuple[Any, str]] = [
    (MALA, "sequential"),
    (HMC, "sequential"),
    (SAMPLERS["rwm"], "sequential"),  # its state holds no gradient
    (SAMPLERS["mclmc"], "sequential"),  # more is unknown than the position
    (MALA, "quasi_newton"),
]


@pytest.mark.parametrize(("kind", "method"), CASES, ids=[f"{kind.__name__}-{method}" for kind, method in CASES])
def test_a_part_is_those_steps_of_the_chain_with_a_step_size_of_each(kind: Any, method: str) -> None:
    """Wherever it begins and, for the loop, whatever number of steps it has of those that there is room for."""
    made, sizes = kind(flat_density, jnp.asarray(1.0)), np.array([0.3, 0.2, 0.1], np.float32)
    inputs = draw(made, KEYS, STARTS, 0, STEPS)
    states = begin(made, STARTS, KEYS)
    room = 40 if method == "sequential" else 24
    plan = Plan(methods.find(method), 8, room, 500, 1e-6, 1e-6)
    start, count = 100, 24
    last, found, details = run_part((made, plan, True), states, inputs, np.int32(start), np.int32(count), sizes)
    slope = jax.grad(flat_density)
    for chain, size in enumerate(sizes):
        own = lambda tree, chain=chain: jax.tree.map(lambda leaf: leaf[chain], tree)  # noqa: E731
        transition = kind(flat_density, jnp.asarray(size)).transition
        rows = jax.tree.map(lambda leaf: leaf[start : start + count], own(inputs))
        expected = evaluate(transition, own(states), rows, method="sequential", details=True)
        some = lambda tree, own=own: jax.tree.map(lambda leaf: leaf[:count], own(tree))  # noqa: E731
        jax.tree.map(CONVERGED.check, some(found), expected.states)
        jax.tree.map(CONVERGED.check, own(last), jax.tree.map(lambda leaf: leaf[-1], expected.states))
        CONVERGED.check(some(details.lp), expected.details.lp)
        assert len(details.lp[chain]) == room
        np.testing.assert_allclose(
            some(details.gradient), jax.vmap(slope)(some(details.position)), rtol=1e-4, atol=1e-5
        )
    if method == "sequential":
        assert all(not np.asarray(leaf[:, count:]).any() for leaf in jax.tree.leaves(found))


def test_on_an_accelerator_a_part_is_as_long_as_its_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the number of steps is known as it is compiled; the unknowns are those after as many as were asked for."""
    made, sizes = MALA(flat_density, jnp.asarray(1.0)), np.full(3, 0.2, np.float32)
    given = (made, Plan(methods.Sequential(), 1, 25, 1, 0.0, 0.0), False)
    rest = begin(made, STARTS, KEYS), draw(made, KEYS, STARTS, 0, STEPS), np.int32(100), np.int32(10), sizes
    last, found, _ = run_part(given, *rest)
    jax.clear_caches()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    there, made_there, _ = run_part(given, *rest)
    SAME_COMPUTATION.check(there, last)
    SAME_COMPUTATION.check(made_there[:, :10], found[:, :10])
    assert not np.any(found[:, 10:])
    assert np.all(made_there[:, 10:])


def test_the_loop_has_room_for_a_block_where_that_is_little() -> None:
    assert room_of_the_loop(sampler(), jnp.zeros((4, 512))) == BLOCK
    assert room_of_the_loop(sampler(), jnp.zeros((4, 513))) is None
    # Of what is not used the gradients would be worked out.
    assert room_of_the_loop(SAMPLERS["rwm"](flat_density), jnp.zeros((4, 2))) is None
