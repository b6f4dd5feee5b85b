"""Whatever is guessed, and whenever runs come back, the chain is the loop's."""

import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsample as ps
from parsample.engine import methods
from parsample.engine.evaluate import evaluate_sequential
from parsample.engine.solution import Solution
from parsample.samplers.chains import Plan, begin, draw
from parsample.targets.density import LogDensity
from parsample.targets.external import External
from parsample.warmup.coordinates import Standardised, plain
from parsample.warmup.hosted import place, speculate
from tests.tolerances import CONVERGED

DIM, STEPS, CHAINS = 4, 60, 2
SCALES = np.array([1.0, 0.5, 2.0, 1.5])
# The first steps, then the rest: runs ahead are under way in between.
PARTS = (25, 35)


def logdensity(x: Any, numpy: Any = np) -> Any:
    return -0.5 * numpy.sum((x / SCALES) ** 2) - 0.05 * numpy.sum(x**4) + 0.3 * x[0] * x[1]


def gradient(x: np.ndarray) -> np.ndarray:
    slope = -x / SCALES**2 - 0.2 * x**3
    return slope + 0.3 * np.array([x[1], x[0], 0, 0])


def simulate(position: dict[str, np.ndarray]) -> float:
    return float(logdensity(position["x"]))


def with_gradient(position: dict[str, np.ndarray]) -> tuple[float, dict[str, np.ndarray]]:
    return simulate(position), {"x": gradient(position["x"])}


def external(has_gradient: bool = False, run: Callable | None = None, workers: int = 6, **options: Any) -> External:
    run = run or (with_gradient if has_gradient else simulate)
    start = {"x": np.zeros(DIM)}
    return External(run, start, executor="threads", workers=workers, gradient=has_gradient or None, **options)


def chains(
    target: Any, name: str, method: Any, window: int = 12, atol: float = 1e-5, parts: tuple[int, ...] = PARTS
) -> Solution:
    """Run chains from the same starts, with the same inputs, in coordinates of about unit scale."""
    first = plain(target)
    density = Standardised(target, first.center, jnp.asarray(SCALES, jnp.float32), first.unravel)
    # Long trajectories let rounding grow.
    sampler = ps.SAMPLERS[name](density, jnp.asarray(0.15 if name == "hmc" else 0.7))
    keys = jax.random.split(jax.random.key(0), CHAINS)
    points = jax.random.normal(jax.random.key(1), (CHAINS, DIM))
    states = begin(sampler, points, keys)
    drawn = jax.device_get(draw(sampler, keys, points, 0, 128))
    if not isinstance(target, External):
        one = lambda state, inputs: evaluate_sequential(sampler.transition, state, inputs)  # noqa: E731
        return jax.vmap(one)(states, jax.tree.map(lambda leaf: leaf[:, :STEPS], drawn))
    standing = place(sampler, states, jax.vmap(density.vector)(points))
    plan = Plan(method, window, 128, 1, atol, atol)
    rows = lambda first, last: jax.tree.map(lambda leaf: leaf[:, first:last], drawn)  # noqa: E731
    found = speculate(sampler, standing, rows, STEPS, plan)
    rows_of: list[Any] = []
    for steps in parts:
        told: list[int] = []
        rows_of.append(found.evaluate(steps, told.append))
        assert sum(told) == steps
        assert min(told) > 0
    found.close()
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, 1) if np.ndim(leaves[0]) > 1 else leaves[0], *rows_of)


def positions(found: Any) -> np.ndarray:
    return np.asarray(found.states.carry.position if hasattr(found.states, "carry") else found.states)


@pytest.mark.parametrize("name", ["rwm", "gibbs", "pcn"])
@pytest.mark.parametrize("method", [methods.Picard(), methods.Surrogate()])
def test_the_chain_is_the_loops_to_the_last_bit(name: str, method: Any) -> None:
    loop = positions(chains(external(), name, methods.Sequential(), 1))
    np.testing.assert_array_equal(positions(chains(external(), name, method)), loop)


@pytest.mark.parametrize("name", ["rwm", "mala", "hmc", "barker"])
def test_the_chain_is_that_of_the_same_model_in_jax(name: str) -> None:
    has_gradient = name != "rwm"
    found: Any = chains(external(has_gradient), name, methods.Surrogate(), atol=1e-6)
    inside = LogDensity(lambda position: logdensity(position["x"], jnp), {"x": jnp.zeros(DIM)})
    expected = chains(inside, name, None)
    CONVERGED.check(positions(found), positions(expected))


def test_steps_that_were_made_ahead_are_told_of_when_they_are_asked_for() -> None:
    loop = positions(chains(external(), "rwm", methods.Sequential(), 1))
    found = chains(external(workers=40), "rwm", methods.Surrogate(), window=30, parts=(1,) * STEPS)
    np.testing.assert_array_equal(positions(found), loop)


def test_runs_that_come_back_late_and_out_of_order_make_no_difference() -> None:
    random, lock = np.random.default_rng(0), threading.Lock()

    def late(position: dict[str, np.ndarray]) -> float:
        with lock:
            seconds = random.choice([0, 0.001, 0.02])
        time.sleep(seconds)
        return simulate(position)

    loop = positions(chains(external(), "rwm", methods.Sequential(), 1))
    found = chains(external(run=late), "rwm", methods.Surrogate())
    np.testing.assert_array_equal(positions(found), loop)


def test_a_round_is_many_steps_and_a_run_is_never_made_twice() -> None:
    seen: list[bytes] = []

    def counted(position: dict[str, np.ndarray]) -> float:
        seen.append(position["x"].tobytes())
        time.sleep(0.005)
        return simulate(position)

    target = external(run=counted)
    found = chains(target, "rwm", methods.Surrogate())
    # The first run is made once more, to see whether it returns the same.
    assert target.workers.counts.checks == 1
    assert len(seen) == len(set(seen)) + 1 == target.workers.counts.runs + 1
    assert int(found.iterations[0]) < STEPS * CHAINS / 4
    loop = external()
    chains(loop, "rwm", methods.Sequential(), 1)
    assert loop.workers.counts.runs == CHAINS * (STEPS + 1)


def test_a_proposal_outside_of_the_prior_is_never_run() -> None:
    asked: list[float] = []

    def positive(position: dict[str, np.ndarray]) -> float:
        asked.append(float(position["x"].min()))
        return simulate(position)

    def prior(position: dict[str, Any]) -> Any:
        return jnp.where((position["x"] > -1).all(), 0.0, -jnp.inf)

    target = external(run=positive, prior=prior)
    chains(target, "rwm", methods.Surrogate())
    assert min(asked) > -1
    assert min(asked) < -0.5


@pytest.mark.parametrize("certain", [True, False])
def test_a_run_that_fails_ends_the_chain_only_where_it_is_needed(certain: bool) -> None:
    """The loop runs only what is needed."""
    needed: set[bytes] = set()

    def noted(position: dict[str, np.ndarray]) -> float:
        needed.add(position["x"].tobytes())
        return simulate(position)

    loop = chains(external(run=noted), "rwm", methods.Sequential(), 1)

    def fails(position: dict[str, np.ndarray]) -> float:
        if (position["x"].tobytes() in needed) == certain:
            raise RuntimeError("the solver did not converge")
        return simulate(position)

    target = external(run=fails)
    if certain:
        with pytest.raises(RuntimeError, match=r"did not converge.*Finished runs are kept"):
            chains(target, "rwm", methods.Picard())
    else:
        found = chains(target, "rwm", methods.Picard())
        np.testing.assert_array_equal(positions(found), positions(loop))
        assert target.workers.counts.failures > 0


@pytest.mark.parametrize("method", [methods.Picard(), methods.Surrogate()])
def test_a_run_that_failed_ahead_is_not_made_again_where_it_is_needed(method: Any) -> None:
    in_order: list[bytes] = []

    def noted(position: dict[str, np.ndarray]) -> float:
        in_order.append(position["x"].tobytes())
        return simulate(position)

    chains(external(run=noted), "rwm", methods.Sequential(), 1)
    later, calls = in_order[STEPS], []

    def fails(position: dict[str, np.ndarray]) -> float:
        calls.append(key := position["x"].tobytes())
        time.sleep(0.003)
        if key == later:
            raise RuntimeError("the solver did not converge")
        return simulate(position)

    with pytest.raises(RuntimeError, match="did not converge"):
        chains(external(run=fails), "rwm", method)
    assert calls.count(later) == 1


def test_a_failure_may_count_as_outside_of_the_support() -> None:
    def fails(position: dict[str, np.ndarray]) -> float:
        if position["x"][0] > 1:
            raise RuntimeError("no convergence")
        return simulate(position)

    target = external(run=fails, on_error="reject")
    found: Any = chains(target, "rwm", methods.Surrogate())
    assert target.workers.counts.rejected > 0
    accepted = np.asarray(found.details.info["is_accepted"])
    assert found.states.vector[accepted][:, 0].max() <= 1
