"""The rounding noise of a step, where it is known, and the tolerance that follows from it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsample as ps
from parsample.engine import methods
from parsample.samplers import MALA, RWM
from parsample.samplers.chains import Plan, begin
from parsample.warmup.noise import LEAST, MOST, MULTIPLE, rounding_noise, with_tolerance
from tests.stores import interrupted, shorten_segments
from tests.targets.builders import build

CHAINS, STEPS, DIM = 2, 64, 3
GRID = 2.0**-13
# Of which one step in twenty or so has an edge between its points.
WIDE = 20 * 7 * np.sqrt(np.finfo(np.float32).eps)
OPEN = Plan(methods.QuasiNewton(), 16, 128, 128, None, None)
KEYS = jax.random.split(jax.random.key(1), CHAINS)
PLACES = jax.random.normal(jax.random.key(2), (CHAINS, DIM))


def noise_of(step: Callable) -> float:
    inputs = jax.random.normal(jax.random.key(3), (CHAINS, STEPS, DIM), PLACES.dtype)
    return float(rounding_noise(step, PLACES, inputs))


def test_values_on_a_grid_have_the_noise_of_its_rounding() -> None:
    """Uniform on an interval as long as the grid's spacing: its standard deviation is that over the root of 12."""
    rounded = lambda x, u: jnp.round((0.9 * jnp.sin(x) + 0.5 * u) / GRID) * GRID  # noqa: E731
    # A high quantile over steps, of the noisiest of three numbers, each from four differences.
    assert GRID / np.sqrt(12) < noise_of(rounded) < 2.5 * GRID / np.sqrt(12)


def test_what_is_smooth_is_no_noise() -> None:
    """Steep and curved as it may be: its differences cancel, and what is left is single precision's."""
    assert noise_of(lambda x, u: jnp.sin(20 * x) + u) < 2e-6


def test_steps_that_turn_between_the_points_do_not_count() -> None:
    """As accept decisions do, here at one step in twenty."""
    jump = lambda x, u: 0.5 * x + u + jnp.mod(jnp.floor(x[0] / WIDE), 2)  # noqa: E731
    assert noise_of(jump) < 1e-6
    # Where most of them turn, that is noise.
    assert noise_of(lambda x, u: 0.5 * x + u + jnp.mod(jnp.floor(50 * x[0] / WIDE), 2)) > 0.1


def test_what_is_not_finite_does_not_hide_the_rest() -> None:
    broken = lambda x, u: jnp.where(u[0] > 2, jnp.nan, 0.5 * jnp.where(jnp.isfinite(x), x, 1) + u)  # noqa: E731
    assert 0 < noise_of(broken) < 1e-6


def chosen(logdensity: Callable, plan: Plan = OPEN, sampler: Any = MALA) -> Plan:
    made = sampler(logdensity, 0.1)
    return with_tolerance(plan, made, begin(made, PLACES, KEYS), PLACES, KEYS)


def normal(x: jax.Array) -> jax.Array:
    return -0.5 * x @ x


def test_the_tolerance_is_a_multiple_of_the_noise_and_at_least_the_least() -> None:
    found = chosen(normal)
    assert 0 < found.noise < 1e-6
    assert found.atol == found.rtol == pytest.approx(max(LEAST, MULTIPLE * found.noise), rel=0.05)
    worse = chosen(lambda x: normal(jax.lax.reduce_precision(x, 8, 10)))
    assert worse.noise > 1e-5
    assert worse.atol == worse.rtol == pytest.approx(MULTIPLE * worse.noise, rel=0.05)
    assert chosen(lambda x: normal(jax.lax.reduce_precision(x, 8, 4))).atol == MOST


@pytest.mark.usefixtures("x64")
def test_double_precision_has_less_noise_than_the_least_tolerance() -> None:
    made = MALA(normal, 0.1)
    places = jnp.asarray(np.asarray(PLACES, np.float64))
    found = with_tolerance(OPEN, made, begin(made, places, KEYS), places, KEYS)
    assert 0 < found.noise < 1e-14
    assert (found.atol, found.rtol) == (LEAST, LEAST)


def test_what_was_given_stays_and_the_loop_measures_nothing() -> None:
    given = OPEN._replace(atol=3e-9, rtol=2e-5)
    assert chosen(normal, given) == given
    half = chosen(normal, OPEN._replace(atol=3e-9))
    assert half.atol == 3e-9
    assert half.rtol == pytest.approx(max(LEAST, MULTIPLE * half.noise), rel=0.05)
    loop = chosen(normal, OPEN._replace(method=methods.Sequential()))
    assert (loop.atol, loop.noise) == (LEAST, 0)
    # A sampler without a gradient has its position's rounding alone.
    assert chosen(normal, sampler=RWM).noise < 1e-6


def run(target: Any, **options: Any) -> Any:
    given: dict[str, Any] = {"num_warmup": 400, "num_samples": 256, "num_chains": 1, "method": "newton", "window": 256}
    return ps.sample(target, **{**given, "progress": False, **options})


@pytest.mark.slow
def test_a_run_above_its_noise_needs_a_few_iterations(tmp_path: Path) -> None:
    """A regression on columns that are nearly collinear, as a plain log density."""
    target = build("kidscore_interaction", tmp_path)
    steep = lambda position: target.logdensity(position)  # noqa: E731
    start: dict[str, Any] = {"initial_position": target.initial_position(KEYS[0])}
    verdict = ps.read_verdict(run(steep, **start))
    assert verdict.noise > 1e-6
    assert verdict.atol == verdict.rtol == pytest.approx(4 * verdict.noise, rel=0.05)
    assert verdict.converged
    stuck = ps.read_verdict(run(steep, atol=1e-6, rtol=1e-6, **start))
    assert (stuck.atol, stuck.rtol, stuck.noise) == (1e-6, 1e-6, 0)
    assert verdict.iterations < stuck.iterations / 3
    # Nothing is lost by it.
    assert verdict.largest_difference < 10 * stuck.largest_difference + verdict.atol
    # The target itself knows how to be rounded less.
    assert ps.read_verdict(run(target)).noise < verdict.noise / 3


@pytest.mark.slow
def test_a_store_remembers_the_tolerance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_segments(monkeypatch)
    interrupted(tmp_path / "run.zarr")
    # What is there counts, and not what would be measured here.
    monkeypatch.setattr("parsample.warmup.noise.MULTIPLE", 1e3)
    found = ps.read_verdict(ps.resume(tmp_path / "run.zarr", progress=False))
    assert found.atol == pytest.approx(max(LEAST, 4 * found.noise), rel=0.05)
    assert found.noise > 0
