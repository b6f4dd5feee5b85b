"""Picard on random-walk Metropolis against Online Picard in NumPy, and the approximation that a mismatch allows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import parsample as ps
from parsample.engine.methods import Picard
from parsample.engine.window import count_nearly_leading
from parsample.samplers import RWM
from parsample.samplers.metropolis import MetropolisInput
from tests.engine.recursions import fragile_step, tanh_problem
from tests.samplers.moments import check_moments
from tests.tolerances import CONVERGED, SAME_COMPUTATION

DIM, STEPS, WINDOW = 12, 600, 24
STEP_SIZE = 2.4 / np.sqrt(DIM)
SCALES = np.linspace(0.7, 1.4, DIM)


def density(x: jax.Array) -> jax.Array:
    """Independent normal variables of these scales."""
    return -0.5 * jnp.sum((x / jnp.asarray(SCALES, x.dtype)) ** 2)


class Chain(NamedTuple):
    """A chain of random-walk Metropolis that starts in stationarity."""

    start: np.ndarray
    inputs: MetropolisInput


def chain(one_at_a_time: bool = False, steps: int = STEPS, seed: int = 0) -> Chain:
    """Metropolis-within-Gibbs is the same sampler, with noise in one coordinate after the other."""
    rng = np.random.default_rng(seed)
    start, noise = SCALES * rng.normal(size=DIM), rng.normal(size=(steps, DIM))
    if one_at_a_time:
        noise *= np.sqrt(DIM) * (np.arange(DIM) == np.arange(steps)[:, None] % DIM)
    return Chain(start, MetropolisInput(jnp.asarray(noise), jnp.asarray(np.log(rng.uniform(size=steps)))))


def decisions_at(states: np.ndarray, increments: np.ndarray, log_uniforms: np.ndarray) -> np.ndarray:
    log_p = lambda x: -0.5 * np.sum((x / SCALES) ** 2, -1)  # noqa: E731
    return log_uniforms < log_p(states + increments) - log_p(states)


def online_picard(problem: Chain, processors: int, mismatch: float) -> tuple[np.ndarray, list[int]]:
    """Online Picard (Grazzi & Zanella 2025) as it is told there: guesses are decisions, and states follow from them.

    A round evaluates the decision of every step of a window at the state that the last guesses of all before it give.
    It keeps the steps whose guess was right up to the first that was wrong, and that one, since all before it is
    right; with a mismatch it keeps the longest stretch in which at most this share was wrong, if that is longer.
    """
    increments = STEP_SIZE * np.asarray(problem.inputs.noise)
    log_uniforms = np.asarray(problem.inputs.log_uniform)
    steps = len(increments)
    guesses, here, done, gains, states = np.zeros(steps, bool), problem.start, 0, [], []
    while done < steps:
        stretch = slice(done, min(done + processors, steps))
        moves = guesses[stretch, None] * increments[stretch]
        before = here + np.concatenate([np.zeros((1, DIM)), np.cumsum(moves, 0)[:-1]])
        found = decisions_at(before, increments[stretch], log_uniforms[stretch])
        wrong = found != guesses[stretch]
        gain = int(np.argmax(wrong)) + 1 if wrong.any() else len(wrong)
        shares = np.cumsum(wrong) / np.arange(1, len(wrong) + 1)
        if mismatch:
            gain = max(gain, 1 + int(max(np.flatnonzero(shares <= mismatch), default=-1)))
        guesses[stretch] = found
        for increment, accepted in zip(increments[stretch][:gain], found[:gain], strict=True):
            here = here + accepted * increment
            states.append(here)
        done += gain
        gains.append(gain)
    return np.array(states), gains


@pytest.mark.parametrize("one_at_a_time", [False, True], ids=["all", "one at a time"])
@pytest.mark.parametrize("mismatch", [0.0, 0.1, 0.3])
@pytest.mark.usefixtures("x64")
def test_picard_in_a_window_is_online_picard(mismatch: float, one_at_a_time: bool) -> None:
    """Round by round: the same steps gained, and the same states in the end."""
    problem, rwm = chain(one_at_a_time), RWM(density, STEP_SIZE)
    solution = ps.evaluate(
        rwm.transition, jnp.asarray(problem.start), problem.inputs,
        method=Picard(mismatch=mismatch), window=WINDOW, atol=1e-9, rtol=1e-9, history=True,
    )  # fmt: skip
    states, gains = online_picard(problem, WINDOW, mismatch)
    assert solution.history is not None
    first_steps = np.asarray(solution.history.first_step)
    rounds = int(solution.iterations)
    np.testing.assert_array_equal(np.diff([*first_steps[:rounds], STEPS]), gains)
    SAME_COMPUTATION.check(solution.states, states)
    assert STEPS / rounds > (4 if mismatch < 0.3 else 8)

    # Which steps are off, counted by hand: those whose decision is another than the one at the state before.
    increments = STEP_SIZE * np.asarray(problem.inputs.noise)
    before = np.concatenate([problem.start[None], states[:-1]])
    made = np.any(np.abs(states - before) > 1e-9, 1)
    off = made != decisions_at(before, increments, np.asarray(problem.inputs.log_uniform))
    np.testing.assert_array_equal(~np.asarray(solution.converged_steps), off)
    np.testing.assert_allclose(solution.residual, off * np.abs(increments).max(1), atol=1e-9)
    assert int(solution.evaluations) == rounds * WINDOW + (STEPS if mismatch else 0)
    if off.any():
        assert (bool(solution.converged), int(solution.status)) == (False, ps.Status.APPROXIMATE)
        assert off.sum() < mismatch * STEPS
        assert int(solution.first_bad_step) == np.argmax(off)
        assert solution.explain().startswith(f"{off.sum()} of {STEPS} steps are not within tolerance after {rounds} it")
    else:
        assert (bool(solution.converged), int(solution.status)) == (True, ps.Status.CONVERGED)
    assert off.any() == (mismatch == 0.3 or (mismatch > 0 and not one_at_a_time))


@pytest.mark.usefixtures("x64")
def test_no_mismatch_is_the_chain_of_the_loop() -> None:
    problem, rwm = chain(), RWM(density, STEP_SIZE)
    start = jnp.asarray(problem.start)
    loop = ps.evaluate_sequential(rwm.transition, start, problem.inputs)
    for method in (Picard(), Picard(mismatch=0.0)):
        found = ps.evaluate(rwm.transition, start, problem.inputs, method=method, window=WINDOW, atol=1e-9, rtol=1e-9)
        CONVERGED.check(found.states, loop.states)
    other = ps.evaluate(rwm.transition, start, problem.inputs, method=Picard(0.1), window=WINDOW, atol=1e-9, rtol=1e-9)
    assert float(jnp.abs(other.states - loop.states).max()) > 0.1


@pytest.mark.slow
def test_the_law_of_the_approximation_is_close() -> None:
    """Means, and variances to a few per cent: with 10% published biases are within the noise of runs of this length.

    Over 64 chains the variance is 1.051 of what it should be, with a standard error of 0.005.
    """
    rwm = RWM(density, STEP_SIZE)

    @jax.jit
    @jax.vmap
    def run(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        key_start, key_inputs = jax.random.split(key)
        start = jnp.asarray(SCALES, jnp.float32) * jax.random.normal(key_start, (DIM,))
        inputs = rwm.draw_inputs(key_inputs, 6000, start)
        solution = ps.evaluate(rwm.transition, start, inputs, method=Picard(0.1), window=WINDOW)
        return solution.states, jnp.mean(~solution.converged_steps)

    draws, off = (np.asarray(x, np.float64) for x in run(jax.random.split(jax.random.key(0), 64)))
    assert np.all((off > 0.005) & (off < 0.08))
    check_moments({f"x{i}": (draws[..., i], 0.0) for i in range(0, DIM, 4)})
    # Summed over coordinates, so that the error of the estimate is below the bias that is allowed.
    size = np.mean((draws / SCALES) ** 2)
    assert size == pytest.approx(1.051, abs=4 * 0.005)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=7, max_size=7), st.sampled_from([0.1, 0.25, 0.5]))
def test_the_longest_stretch_with_few_changes(rows: list[tuple[bool, bool]], share: float) -> None:
    accept, passable = (jnp.asarray(column) for column in zip(*rows, strict=True))
    expected = 0
    for length in range(1, 8):
        head = rows[:length]
        if all(may_pass for _, may_pass in head) and sum(not good for good, _ in head) <= share * length:
            expected = length
    assert int(count_nearly_leading(accept, passable, jnp.ones(7, bool), share)) == expected


def test_an_approximation_is_neither_raised_for_nor_finished() -> None:
    problem, rwm = chain(), RWM(density, STEP_SIZE)
    start, inputs = (
        jnp.asarray(problem.start, jnp.float32),
        jax.tree.map(lambda x: x.astype(jnp.float32), problem.inputs),
    )
    run = lambda finish: ps.evaluate(  # noqa: E731
        rwm.transition, start, inputs, method=Picard(0.1), window=WINDOW, stopping=ps.Stopping(finish=finish)
    )
    solution, whole = run(False), run(True)
    assert int(solution.status) == ps.Status.APPROXIMATE
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(solution), strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_that_ran_out_of_iterations_is_finished_from_where_it_stood() -> None:
    problem, rwm = chain(), RWM(density, STEP_SIZE)
    start, inputs = (
        jnp.asarray(problem.start, jnp.float32),
        jax.tree.map(lambda x: x.astype(jnp.float32), problem.inputs),
    )
    solution = ps.evaluate(
        rwm.transition, start, inputs, method=Picard(0.1), window=WINDOW, max_iterations=20, throw=False
    )
    assert int(solution.status) == ps.Status.MAX_ITERATIONS
    first = int(solution.first_bad_step)
    assert 0 < first == int(np.argmin(solution.converged_steps)) < STEPS - 1
    with pytest.raises(ps.ConvergenceError, match=f"{first} of {STEPS} steps converged in 20 iterations"):
        ps.evaluate(rwm.transition, start, inputs, method=Picard(0.1), window=WINDOW, max_iterations=20)
    whole = ps.evaluate(
        rwm.transition,
        start,
        inputs,
        method=Picard(0.1),
        window=WINDOW,
        max_iterations=20,
        stopping=ps.Stopping(finish=True),
    )
    left = int(whole.finished)
    assert 0 < left < STEPS - first
    rest = jax.tree.map(lambda leaf: leaf[STEPS - left :], inputs)
    loop = ps.evaluate_sequential(rwm.transition, whole.states[-left - 1], rest)
    SAME_COMPUTATION.check(whole.states[-left:], loop.states)
    np.testing.assert_array_equal(whole.converged_steps[:first], True)
    assert int(whole.status) == ps.Status.APPROXIMATE


def test_a_batch_tells_its_chains_apart() -> None:
    """With tiny steps no decision changes: such a chain converges even where a mismatch is allowed."""
    problem = chain()
    start, inputs = (
        jnp.asarray(problem.start, jnp.float32),
        jax.tree.map(lambda x: x.astype(jnp.float32), problem.inputs),
    )

    def run(step_size: jax.Array) -> ps.Solution:
        transition = RWM(density, step_size).transition
        return ps.evaluate(transition, start, inputs, method=Picard(0.1), window=WINDOW, atol=1e-6, rtol=1e-6)

    solution = jax.jit(jax.vmap(run))(jnp.asarray([0.004, STEP_SIZE]))
    np.testing.assert_array_equal(solution.status, [ps.Status.CONVERGED, ps.Status.APPROXIMATE])
    np.testing.assert_array_equal(solution.converged, [True, False])
    assert solution.explain().startswith("Chain 1: ")


def test_a_value_that_is_not_finite_is_not_passed_over() -> None:
    problem = tanh_problem()._replace(transition=fragile_step)
    inputs = problem.inputs.at[15].set(jnp.nan)
    solution = ps.evaluate(fragile_step, problem.initial_state, inputs, method=Picard(0.9), throw=False)
    assert (int(solution.status), bool(solution.converged)) == (ps.Status.NOT_FINITE, False)
    assert int(solution.first_bad_step) <= 15
    assert not np.asarray(solution.converged_steps)[15:].any()


def test_a_guess_that_overflowed_is_not_passed_over() -> None:
    """A correction beyond the largest number: the state in its place is no guess of Picard's."""
    step = lambda state, input: 0.5 * jnp.sin(state) + input  # noqa: E731
    start = jnp.asarray([0.3], jnp.float32)
    inputs = np.random.default_rng(0).normal(size=(40, 1)).astype(np.float32)
    inputs[20:22] = 0
    guess = ps.evaluate_sequential(step, start, jnp.asarray(inputs)).states
    inputs[20:22] = 3e38
    loop = ps.evaluate_sequential(step, start, jnp.asarray(inputs)).states
    found = ps.evaluate(step, start, jnp.asarray(inputs), guess=guess, method=Picard(0.1), throw=False)
    assert bool(found.converged), found.explain()
    CONVERGED.check(found.states, loop)


@pytest.mark.parametrize("mismatch", [-0.1, 1.0, np.nan])
def test_a_mismatch_that_is_no_share(mismatch: float) -> None:
    with pytest.raises(ValueError, match=r"mismatch is .*, expected a share of the steps in \[0, 1\), such as 0\.1"):
        Picard(mismatch=mismatch)
