"""Warm-up finds the step size and the scale of the posterior, whatever its length."""

import dataclasses
import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsample as ps
from parsample.engine import methods
from parsample.results.trace import as_datatree
from parsample.samplers import GHMC, HMC, MALA, PCN, RWM, ULA, Sampler
from parsample.samplers.chains import Plan, draw, evaluate_chains
from parsample.targets import EightSchools, MultivariateNormal, Target
from parsample.targets.density import LogDensity
from parsample.warmup import adapt as warmup
from parsample.warmup import course, scale
from parsample.warmup.adapt import Adaptation, adapt
from parsample.warmup.coordinates import LARGEST_DENSE, plain
from parsample.warmup.lost import LOST, outweighed
from parsample.warmup.low_rank import LowRank
from parsample.warmup.starts import starts
from tests.tolerances import CONVERGED
from tests.warmup.test_coordinates import matrix_of

DIM = 10
CHAINS = 4


def ill_conditioned() -> np.ndarray:
    """A covariance with standard deviations from 0.03 to 30 along directions that are no coordinates."""
    directions, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(DIM, DIM)))
    return directions @ np.diag(np.logspace(-3, 3, DIM)) @ directions.T


COVARIANCES = {"unit": np.eye(DIM), "ill-conditioned": ill_conditioned()}


def keys(seed: int, chains: int = CHAINS) -> jax.Array:
    return jax.random.split(jax.random.key(seed), chains)


def run(
    target: Target, num_warmup: int, sampler: type[Sampler] = MALA, chains: int = CHAINS, **keywords: Any
) -> Adaptation:
    return adapt(target, sampler, starts(target, keys(1, chains)), keys(2, chains), num_warmup, **keywords)


@functools.cache
def adapted(name: str) -> tuple[MultivariateNormal, Adaptation]:
    target = MultivariateNormal(covariance=COVARIANCES[name])
    return target, run(target, 4000, keep_draws=True)


@pytest.mark.parametrize("name", COVARIANCES)
def test_the_step_size_gives_the_acceptance_that_mala_wants(name: str) -> None:
    _, found = adapted(name)
    sampler = MALA(found.density, jnp.asarray(found.step_size))
    first = jax.vmap(found.density.inverse)(found.last)
    plan = Plan(methods.Sequential(), 1, 1024, 1024, 1e-5, 1e-5)
    segment = jax.jit(lambda z, inputs: evaluate_chains(sampler, z, inputs, plan))(
        first, draw(sampler, keys(3), first, 0, 1024)
    )
    assert float(segment.details.info["acceptance_rate"].mean()) == pytest.approx(0.574, abs=0.08)
    assert np.mean(segment.details.info["is_accepted"]) == pytest.approx(0.574, abs=0.1)


@pytest.mark.parametrize("name", COVARIANCES)
def test_the_coordinates_have_unit_scale(name: str) -> None:
    """In the coordinates that were found the true covariance is the identity, within what the draws can tell."""
    _, found = adapted(name)
    root = np.asarray(matrix_of(found.density.root), np.float64)
    assert np.array_equal(root, np.tril(root))
    inside = np.linalg.solve(root, np.linalg.solve(root, COVARIANCES[name]).T)
    values = np.linalg.eigvalsh((inside + inside.T) / 2)
    assert 0.7 < values[0] <= values[-1] < 1.4


@pytest.mark.parametrize("num_warmup", [1, 7, 100, 1003])
def test_any_length_gives_exactly_that_many_steps(num_warmup: int) -> None:
    reported: list[int] = []
    found = run(MultivariateNormal(), num_warmup, keep_draws=True, report=reported.append)
    assert sum(reported) == num_warmup
    assert min(reported) > 0
    assert found.draws.shape == (CHAINS, num_warmup, 2)
    np.testing.assert_array_equal(found.draws[:, -1], found.last)
    assert np.all(np.isfinite(found.draws))
    assert np.all(np.isfinite(matrix_of(found.density.root)))
    assert found.step_size > 0


PARALLEL = Plan(methods.QuasiNewton(), 16, 1, 1, 1e-12, 1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sampler", [MALA, GHMC])
def test_in_parallel_warm_up_is_the_same_as_in_the_loop(sampler: type[Sampler]) -> None:
    """GHMC keeps its momentum from step to step, so where a segment is cut into parts must not matter."""
    target = EightSchools() if sampler is MALA else MultivariateNormal()
    loop, parallel = (run(target, 160, sampler, keep_draws=True, plan=plan) for plan in (None, PARALLEL))
    moves = [np.abs(np.diff(found.draws, axis=1)).max(-1) > 1e-9 for found in (loop, parallel)]
    np.testing.assert_array_equal(moves[1], moves[0])
    assert 0.3 < moves[0].mean() < 1
    CONVERGED.check(parallel.draws, loop.draws)
    CONVERGED.check(parallel.stats["step_size"], loop.stats["step_size"])
    CONVERGED.check(*(matrix_of(found.density.root) for found in (parallel, loop)))
    assert np.ptp(loop.stats["step_size"]) > 0


@pytest.mark.parametrize("sampler", [MALA, HMC])
def test_a_chain_that_is_stuck_gets_the_small_steps_by_which_it_leaves(sampler: type[Sampler]) -> None:
    """At 30 the density falls so steeply that a step that suits the other chains, near 0, is never accepted."""
    target = LogDensity(lambda x: -0.25 * jnp.sum(x**4), jnp.zeros(1))
    vectors = jnp.array([[30.0], [0.1], [-0.2], [0.3]])
    found = adapt(target, sampler, vectors, keys(2, 4), 800)
    assert np.all(np.abs(found.last) < 3)
    # And it does not hold the others back for good: the scale is that of x, about 0.8, and a step is about its size.
    assert 0.4 < float(matrix_of(found.density.root)[0, 0]) < 1.6
    assert found.step_size > 0.3


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_part_that_does_not_converge_is_finished_by_the_loop() -> None:
    """Jacobi needs as many iterations as steps, and 64 are allowed: of parts of 80 steps 16 are left."""
    plan = PARALLEL._replace(method=methods.Jacobi(), window=1)
    loop, parallel = (run(MultivariateNormal(), 1600, keep_draws=True, plan=choice) for choice in (None, plan))
    CONVERGED.check(parallel.draws, loop.draws)


def test_statistics_are_kept_beside_the_draws_and_speak_of_them() -> None:
    target = MultivariateNormal()
    found = run(target, 160, HMC, keep_draws=True)
    assert set(found.stats) == {"lp", "acceptance_rate", "is_divergent", "step_size"}
    assert all(values.shape == (CHAINS, 160) for values in found.stats.values())
    lp = jax.vmap(jax.vmap(lambda x: target.logdensity(found.density.unravel(x))))(jnp.asarray(found.draws))
    np.testing.assert_allclose(found.stats["lp"], lp, rtol=1e-4, atol=1e-4)
    assert len(np.unique(found.stats["step_size"][0])) > 10
    assert run(target, 16, HMC).stats == {}


def test_one_chain_is_enough() -> None:
    found = run(MultivariateNormal(), 160, chains=1, keep_draws=True)
    assert found.draws.shape == (1, 160, 2)
    assert np.all(np.isfinite(matrix_of(found.density.root)))


def test_the_draws_are_kept_only_on_request() -> None:
    kept, left = (run(MultivariateNormal(), 100, keep_draws=keep) for keep in (True, False))
    assert left.draws.shape == (CHAINS, 0, 2)
    np.testing.assert_array_equal(kept.last, left.last)
    assert kept.step_size == left.step_size


def test_without_warm_up_the_coordinates_are_the_target_s_own() -> None:
    target = MultivariateNormal()
    vectors = starts(target, keys(1))
    for given, expected in ((None, 0.1), (0.7, 0.7)):
        found = adapt(target, MALA, vectors, keys(2), 0, step_size=given)
        assert found.step_size == expected
        np.testing.assert_array_equal(found.last, vectors)
        np.testing.assert_array_equal(matrix_of(found.density.root), np.eye(2))
        np.testing.assert_array_equal(found.density.center, np.zeros(2))
        assert found.draws.shape == (CHAINS, 0, 2)


def test_a_step_size_that_is_given_is_kept_and_the_coordinates_are_adapted() -> None:
    found, free = run(MultivariateNormal(), 400, step_size=0.123), run(MultivariateNormal(), 400)
    assert found.step_size == 0.123
    assert free.step_size != 0.123
    np.testing.assert_array_equal(matrix_of(found.density.root), matrix_of(free.density.root))
    assert abs(float(matrix_of(found.density.root)[1, 0])) > 0.5


def test_a_sampler_without_accept_is_warmed_up_by_mala_and_steps_a_tenth() -> None:
    unadjusted, adjusted = run(MultivariateNormal(), 400, ULA), run(MultivariateNormal(), 400)
    assert unadjusted.step_size == pytest.approx(0.1 * adjusted.step_size)
    np.testing.assert_array_equal(unadjusted.last, adjusted.last)


@pytest.mark.parametrize("dim", [LARGEST_DENSE, LARGEST_DENSE + 1])
def test_above_a_hundred_dimensions_a_target_without_correlation_has_a_diagonal_scale(dim: int) -> None:
    spread = jnp.where(jnp.arange(dim) % 2 == 0, 0.1, 3.0)
    target = LogDensity(lambda x: -0.5 * jnp.sum((x / spread) ** 2), jnp.zeros(dim))
    found = run(target, 800).density
    assert not isinstance(found.root, LowRank)
    assert found.root.shape == ((dim, dim) if dim <= LARGEST_DENSE else (dim,))
    sd = np.linalg.norm(matrix_of(found.root), axis=1)
    # Draws from a short warm-up hang together: they tell the small scales well, and that the others are much larger.
    assert np.median(sd[::2]) == pytest.approx(0.1, rel=0.35)
    assert np.median(sd[1::2]) > 0.5


def test_without_a_gradient_mala_finds_the_scale_and_the_sampler_its_own_step_size() -> None:
    target = MultivariateNormal(covariance=COVARIANCES["ill-conditioned"])
    found = run(target, 4000, RWM, keep_draws=True)
    assert found.draws.shape == (CHAINS, 4000, DIM)
    root = np.asarray(matrix_of(found.density.root), np.float64)
    inside = np.linalg.solve(root, np.linalg.solve(root, COVARIANCES["ill-conditioned"]).T)
    assert np.abs(inside - np.eye(DIM)).max() < 0.4
    # 2.4 / sqrt(dim) accepts about a quarter of the proposals.
    assert found.step_size == pytest.approx(2.4 / math.sqrt(DIM), rel=0.2)
    moved = np.any(np.diff(found.draws[:, -400:], axis=1) != 0, axis=-1)
    assert np.mean(moved) == pytest.approx(0.234, abs=0.1)


@pytest.mark.parametrize("num_warmup", [2, 70, 300])
def test_where_every_proposal_is_accepted_the_step_size_stays_a_number(num_warmup: int) -> None:
    found = run(MultivariateNormal(covariance=np.eye(2)), num_warmup, PCN)
    assert np.float32(1e-3) < np.float32(found.step_size) < np.float32(np.inf)


def test_the_segments_of_warm_up_fit_into_it() -> None:
    used = sum(course.FINDING) + sum(warmup.SEGMENTS) + len(warmup.SEGMENTS) * warmup.TUNING + 2 * course.CHOOSING
    assert course.UNITS - used > 0, "the step size is tuned to the last covariance"


# A covariance of few draws, or of chains on their way in, that no later one undoes ruins each of these.
LONG_WAY = [(100, 500, 4), (40, 80, 1), (50, 500, 1)]
LONG_WAY += [pytest.param(*row, marks=pytest.mark.grid) for row in [(100, 1000, 1), (30, 300, 1)]]  # type: ignore[misc]


@pytest.mark.parametrize(("dim", "num_warmup", "chains"), LONG_WAY)
def test_many_dimensions_and_few_draws_leave_the_scale_of_a_normal_distribution(
    dim: int, num_warmup: int, chains: int
) -> None:
    found = run(LogDensity(lambda x: -0.5 * jnp.sum(x**2), jnp.zeros(dim)), num_warmup, HMC, chains)
    values = np.linalg.svd(matrix_of(found.density.root))[1]
    assert 0.8 < values[-1] <= values[0] < 1.25
    assert 0.3 < found.step_size < 1.5


def test_a_chain_in_a_place_of_another_scale_does_not_hold_the_others_back() -> None:
    """One begins in a narrow well, ten thousand times narrower than the wide one, and cannot leave."""

    def logdensity(x: Any) -> Any:
        wide, narrow = -0.5 * x[0] ** 2, 12.0 - 0.5 * ((x[0] - 50) / 1e-3) ** 2
        return jnp.logaddexp(wide, narrow)

    vectors = jnp.array([[50.0], [0.1], [-0.2], [0.3]])
    found = adapt(LogDensity(logdensity, jnp.zeros(1)), HMC, vectors, keys(2, 4), 800)
    assert float(matrix_of(found.density.root)[0, 0]) == pytest.approx(1, rel=0.2)
    assert found.step_size > 0.3


def test_an_estimate_rests_on_one_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the first ones said, the last says what it would have said."""
    calls = []

    def wrong(density: Any, draws: Any, gradients: Any, mass: str) -> Any:
        calls.append(draws.shape[1])
        found = scale.standardise(density, draws, gradients, mass)
        spoilt = 100 * matrix_of(found.root) if len(calls) == 6 else found.root
        return eqx.tree_at(lambda row: row.root, found, jnp.asarray(spoilt, jnp.float32))

    monkeypatch.setattr(course, "standardise", wrong)
    target = MultivariateNormal(covariance=COVARIANCES["ill-conditioned"])
    root = np.asarray(matrix_of(run(target, 1600, HMC).density.root), np.float64)
    inside = np.linalg.solve(root, np.linalg.solve(root, COVARIANCES["ill-conditioned"]).T)
    values = np.linalg.eigvalsh((inside + inside.T) / 2)
    assert len(calls) > 7
    assert 0.7 < values[0] <= values[-1] < 1.4


# Two places in two dimensions: a wide one around 0, and one around 20. How wide that is, and the share that is in it.
PLACES = {
    "narrow and next to nothing": (0.03, 1e-30, 1),
    "narrow, with half of all": (0.03, 0.5, 0),
    "as wide, and next to nothing": (1.0, 1e-30, 1),
    "as wide, with one in ten thousand": (1.0, 1e-4, 0),
    "wider, and next to nothing": (3.0, 1e-30, 1),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_chain_in_a_place_with_next_to_nothing_is_moved_to_the_others(place: str) -> None:
    """And no other: a mode that has a share of the posterior is not to be hidden."""
    width, share, moved = PLACES[place]

    def logdensity(x: jax.Array) -> jax.Array:
        far = -0.5 * jnp.sum((x - 20) ** 2) / width**2 - 2 * math.log(width) + math.log(share)
        return jnp.logaddexp(-0.5 * jnp.sum(x**2), far)

    vectors, target = jnp.zeros((4, 2)).at[0].set(20.0), LogDensity(logdensity, jnp.zeros(2))
    # In coordinates that are known chains do not come down first, so that one is still there.
    found = adapt(target, HMC, vectors, keys(0, 4), 400, density=scale.unscaled(plain(target), "auto"))
    assert found.moved == moved
    assert bool(jnp.all(jnp.abs(found.last[1:]) < 5))
    is_there = bool(jnp.all(jnp.abs(found.last[0] - 20) < 5 * width))
    assert is_there == (moved == 0)


def test_most_are_moved_to_the_one_in_a_far_narrower_place_that_holds_all() -> None:
    """Whose step size they then share."""

    def logdensity(x: jax.Array) -> jax.Array:
        return jnp.logaddexp(-0.5 * jnp.sum(x**2) - 60, -0.5 * jnp.sum((x - 20) ** 2) / 0.03**2)

    vectors, target = jnp.zeros((4, 2)).at[0].set(20.0), LogDensity(logdensity, jnp.zeros(2))
    found = adapt(target, HMC, vectors, keys(0, 4), 400, density=scale.unscaled(plain(target), "auto"))
    assert found.moved == 3
    assert bool(jnp.all(jnp.abs(found.last - 20) < 0.2))
    np.testing.assert_allclose(np.diag(matrix_of(found.density.root)), 0.03, rtol=0.3)


def test_the_verdict_tells_of_chains_that_were_moved() -> None:
    def logdensity(x: jax.Array) -> jax.Array:
        return jnp.logaddexp(-0.5 * jnp.sum((x - 20) ** 2), -0.5 * jnp.sum(x**2) - 60)

    options: dict[str, Any] = {"num_warmup": 400, "num_samples": 64, "progress": False}
    told = []
    for first in (0.0, 20.0):
        start = np.array([[first, first], [20.0, 20.5], [20.5, 20.0], [20.5, 20.5]], np.float32)
        trace = ps.sample(logdensity, initial_position=jnp.zeros(2), start=start, **options)
        assert float(np.asarray(as_datatree(trace)["posterior"]["x"]).min()) > 12
        verdict = ps.read_verdict(trace)
        told += [dict(row.rows()).get("warm-up") for row in (verdict, dataclasses.replace(verdict, moved_chains=3))]
    there = "from where the posterior has next to nothing to where others were"
    once, often = f"moved one chain {there}", f"moved chains 3 times {there}"
    assert told == [once, often, None, often]


def places(rng: np.random.Generator, widths: list[float], shares: list[float]) -> tuple[Any, Any]:
    """Draws of a chain in each of some places in six dimensions, and the means of the log density there."""
    draws = np.array(widths)[:, None, None] * rng.normal(size=(len(widths), 60, 6))
    return draws, np.log(shares) - 6 * np.log(widths) - 3.0


# How wide places are and what they hold, and which of them are outweighed: beyond e^10 and the number of dimensions.
WEIGHTS = {
    "as much in each": ([1.0, 20.0], [0.5, 0.5], [False, False]),
    "next to nothing in the wide one": ([1.0, 20.0], [1.0, 1e-9], [False, True]),
    "next to nothing in the narrow one": ([1.0, 20.0], [1e-9, 1.0], [False, False]),
    "next to nothing in one of three": ([1.0, 1.0, 2.0], [0.5, 0.5, 1e-9], [False, False, True]),
    "little in one": ([1.0, 1.0], [1.0, 1e-5], [False, False]),
    "a chain that stands still and low": ([1.0, 1e-30], [1.0, 1e-200], [False, True]),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_a_place_is_outweighed_by_what_another_holds(case: str, rng: np.random.Generator) -> None:
    widths, shares, expected = WEIGHTS[case]
    draws, means = places(rng, widths, shares)
    assert outweighed(draws, means, LOST + 6).tolist() == expected
    assert not outweighed(draws[:, :17], means, LOST + 6).any(), "too few steps for a covariance"
    assert not outweighed(draws, np.full_like(means, np.nan), LOST + 6).any()


def steered(name: str, target_acceptance: float | None) -> tuple[float | None, Any]:
    """What the step size was steered to, by the trace, and the verdict."""
    # In 400 steps of the funnel's warm-up two seeds of three meet its neck, and this is one.
    options: dict[str, Any] = {"num_warmup": 400, "num_samples": 100, "progress": False, "seed": 1}
    trace = ps.sample(name, target_acceptance=target_acceptance, **options)
    return as_datatree(trace).attrs["target_acceptance"], ps.read_verdict(trace)


def test_divergent_steps_make_warm_up_careful() -> None:
    acceptance, verdict = steered("funnel", None)
    assert acceptance == 0.95
    assert "for an acceptance of 0.95 as warm-up had divergent steps" in verdict.sampler
    assert not any("target_acceptance=0.95" in sentence for sentence in verdict.advice())


def test_careful_steps_are_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    size = lambda verdict: float(verdict.sampler.split("step size ")[1].split(",")[0])  # noqa: E731
    usual = size(steered("multivariate_normal", None)[1])
    monkeypatch.setattr(course, "DIVERGENT", -1.0)  # every warm-up is careful
    acceptance, verdict = steered("multivariate_normal", None)
    assert acceptance == 0.95
    assert size(verdict) < 0.8 * usual


@pytest.mark.parametrize(("name", "given", "expected"), [("multivariate_normal", None, 0.8), ("funnel", 0.8, 0.8)])
def test_warm_up_is_not_careful_without_need_or_where_an_acceptance_is_given(
    name: str, given: float | None, expected: float
) -> None:
    acceptance, verdict = steered(name, given)
    assert acceptance == expected
    assert "divergent" not in verdict.sampler
