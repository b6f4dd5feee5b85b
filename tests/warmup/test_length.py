"""Trajectories are made longer where the draws of warm-up depend on each other."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import parsample as ps
from benchmarks.ordinary import MODELS
from parsample.samplers import HMC
from parsample.samplers.configured import Configured
from parsample.targets.density import LogDensity
from parsample.warmup.length import LONGEST, MANY, MOST, how_much_further
from tests.warmup.test_adapt import run


def autoregressive(correlation: float, chains: int = 4, steps: int = 2000, seed: int = 3, dim: int = 2) -> np.ndarray:
    """Some coordinates, all but the last independent from step to step, of the last this correlation."""
    noise = np.random.default_rng(seed).normal(size=(chains, steps, dim))
    for step in range(1, steps):
        noise[:, step, -1] = correlation * noise[:, step - 1, -1] + np.sqrt(1 - correlation**2) * noise[:, step, -1]
    return noise


# A draw of such a series is worth (1 - r) / (1 + r): 1, 0.33, 0.143, 0.053, 0.0101, 0.0005; a quarter is wanted, and it
# grows as the square of the length. Longer than 8 times no trajectory is made.
@pytest.mark.parametrize(
    ("correlation", "further"),
    [(0.0, (1, 1)), (0.5, (1, 1)), (0.75, (2, 1)), (0.9, (4, 1)), (0.98, (8, 1)), (0.999, (LONGEST, MOST))],
)
@pytest.mark.parametrize("apart", [0.0, 100.0])
def test_lengths_follow_the_effective_draws_of_the_worst_coordinate(
    correlation: float, further: tuple[int, int], apart: float
) -> None:
    steps = 40_000 if correlation > 0.99 else 2000
    draws, free = autoregressive(correlation, steps=steps), autoregressive(0.0, steps=steps)[..., 1]
    away = apart * np.arange(len(draws))[:, None]
    assert how_much_further(draws + away[..., None], free + away) == further
    assert how_much_further(draws[:1], free[:1]) == further


# Of hundreds of coordinates one is the worst of many that a longer trajectory turns about their means.
@pytest.mark.parametrize(("correlation", "further"), [(0.5, (1, 1)), (0.75, (1, 2)), (0.9, (4, 1))])
def test_in_hundreds_of_dimensions_there_are_two_trajectories_where_little_is_missing(
    correlation: float, further: tuple[int, int]
) -> None:
    draws = autoregressive(correlation, dim=MANY + 1)
    assert how_much_further(draws, draws[..., 0]) == further


# What the log density is worth: 1, 0.33, 0.143, 0.053. Trajectories four times as long would lead to a quarter. They
# are not to lead to more than the log density has, and more of them make up for it.
@pytest.mark.parametrize(("of_lp", "further"), [(0.0, (4, 1)), (0.5, (4, 1)), (0.75, (2, 2)), (0.9, (1, 4))])
def test_no_trajectory_is_longer_where_the_energy_hardly_changes(of_lp: float, further: tuple[int, int]) -> None:
    lp = autoregressive(of_lp, seed=4)[..., 1]
    assert how_much_further(autoregressive(0.9), lp) == further
    # Draws that are worth enough all the same are left as they are.
    assert how_much_further(autoregressive(0.5), lp) == (1, 1)


def test_draws_that_say_nothing_leave_the_length() -> None:
    free = autoregressive(0.0)[..., 1]
    for none in (np.zeros((4, 300, 2)), np.zeros((4, 0, 2)), np.random.default_rng(0).normal(size=(4, 2, 2))):
        assert how_much_further(none, free[:, : none.shape[1]]) == (1, 1)
    still = np.concatenate([autoregressive(0.9), np.ones((4, 2000, 1))], -1)
    assert how_much_further(still, free) == (4, 1)
    assert how_much_further(still, np.ones((4, 2000))) == (4, 1)


def funnel(x: Array) -> Array:
    """The narrow end sets the step size, and how fast the scale changes is a matter of energy."""
    return -0.5 * x[0] ** 2 - 0.5 * jnp.sum(x[1:] ** 2) * jnp.exp(-x[0]) - 5 * x[0]


def winding(x: Array) -> Array:
    """A narrow band that winds: across it all is alike, and it is far from end to end."""
    return -0.5 * ((x[1] - jnp.sin(3 * x[0])) / 0.05) ** 2 - 0.5 * (x[0] / 2) ** 2


@pytest.mark.parametrize(
    ("log_density", "dim", "is_longer", "is_more"),
    [(funnel, 11, False, True), (winding, 2, True, False), (lambda x: -0.5 * x @ x, 11, False, False)],
)
def test_what_sets_draws_further_apart_is_what_the_posterior_asks_for(
    log_density: Callable, dim: int, is_longer: bool, is_more: bool
) -> None:
    found = run(LogDensity(log_density, jnp.eye(dim)[0]), 1000, HMC)
    assert found.sampler_options is not None
    usual = HMC.options_at({}, found.step_size)
    assert usual is not None
    length, usual_length = (row["num_integration_steps"] for row in (found.sampler_options, usual))
    assert (length >= 2 * usual_length) is is_longer, (length, usual_length, found.step_size)
    assert (found.sampler_options.get("num_trajectories", 1) > 1) is is_more


@pytest.mark.parametrize("options", [{"num_integration_steps": 4}, {"trajectory_length": 1.0}])
def test_what_was_given_is_kept(options: dict) -> None:
    make = Configured(HMC, options)
    assert make.options_at(0.25, 4, 3) == make.options_at(0.25)


def test_a_longer_trajectory_is_that_many_times_the_usual_one() -> None:
    assert HMC.options_at({}, 0.5, 4) == {"num_integration_steps": 16}
    assert HMC.options_at({"step_size_jitter": 0.1}, 0.01, 2) == {"num_integration_steps": 128, "step_size_jitter": 0.1}
    assert HMC.options_at({}, 0.5, 2, 3) == {"num_integration_steps": 8, "num_trajectories": 3}
    assert HMC.options_at({"num_trajectories": 2}, 0.5, 1, 3) == {"num_integration_steps": 4, "num_trajectories": 2}


# Intercepts far from the data: until they are known to go with the slopes, steps are so small that trajectories of a
# given number would go at random, and the covariance would be that of a dozen effective draws.
@pytest.mark.parametrize("seed", [2, 5])
def test_what_slows_chains_down_at_first_is_learnt(seed: int) -> None:
    model, args, _ = MODELS["rats_raw"]()
    trace = ps.sample(model, *args, seed=seed, method="sequential", progress=False)
    assert ps.judge(trace).is_good
