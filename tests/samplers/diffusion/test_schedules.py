"""Schedules against their formulas, spacings against the libraries' conventions, predictions as identities."""

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from parsample.samplers import diffusion
from parsample.samplers.diffusion import PREDICTIONS, convert
from parsample.samplers.diffusion.predictions import FROM
from tests.tolerances import SAME_COMPUTATION

CONTINUOUS = [
    diffusion.VP(), diffusion.SubVP(), diffusion.VE(), diffusion.Karras(), diffusion.RectifiedFlow(1e-3, 0.99)
]  # fmt: skip
DISCRETE = [diffusion.LinearBetas(), diffusion.CosineBetas(), diffusion.SigmoidBetas()]


@pytest.mark.parametrize("schedule", CONTINUOUS, ids=lambda s: type(s).__name__)
def test_the_forward_process_has_the_schedules_signal_and_noise(schedule: Any) -> None:
    """log alpha grows by f; sigma^2 solves dv = 2 f v + g^2. Integrated from one time to another by quadrature."""
    start, end = schedule.smallest_time, 0.7 * schedule.largest_time
    alpha = lambda t: float(schedule.level(t).alpha)  # noqa: E731
    growth = quad(lambda t: float(schedule.drift(t)[0]), start, end)[0]
    assert alpha(end) / alpha(start) == pytest.approx(np.exp(growth), rel=1e-6)
    added = quad(lambda t: float(schedule.drift(t)[1]) * (alpha(end) / alpha(t)) ** 2, start, end, limit=200)[0]
    kept = (alpha(end) / alpha(start) * float(schedule.level(start).sigma)) ** 2
    assert float(schedule.level(end).sigma) ** 2 == pytest.approx(kept + added, rel=1e-6)


@pytest.mark.parametrize("schedule", CONTINUOUS, ids=lambda s: type(s).__name__)
def test_times_from_noise_levels_and_back(schedule: Any) -> None:
    times = np.linspace(schedule.smallest_time, schedule.largest_time, 20)
    _, alpha, sigma = schedule.level(times)
    np.testing.assert_allclose(schedule.time_of(sigma / alpha), times, rtol=1e-7)
    traced = schedule.level(jnp.asarray(times), jnp)
    np.testing.assert_allclose(traced.sigma, sigma, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("schedule", DISCRETE, ids=lambda s: type(s).__name__)
def test_training_steps(schedule: Any) -> None:
    bar = np.cumprod(1 - schedule.betas())
    _, alpha, sigma = schedule.level(np.arange(1000))
    np.testing.assert_allclose(alpha**2, bar, rtol=1e-9)
    np.testing.assert_allclose(sigma**2, 1 - bar, rtol=1e-7)
    assert (np.diff(schedule.betas()) >= 0).all()


def test_named_betas() -> None:
    np.testing.assert_allclose(diffusion.LinearBetas().betas()[[0, -1]], [1e-4, 0.02])
    cosine = np.cos((0.5 + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    assert diffusion.CosineBetas().level(499).alpha ** 2 == pytest.approx(cosine, rel=1e-9)
    assert diffusion.SigmoidBetas().betas()[[0, -1]] == pytest.approx([1e-4, 0.02], rel=0.6)


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        ("leading", [800, 600, 400, 200, 0]),
        ("linspace", [999, 749, 500, 250, 0]),
        ("trailing", [999, 799, 599, 399, 199]),
    ],
)
def test_spacings_of_training_steps(spacing: str, expected: list[int]) -> None:
    np.testing.assert_array_equal(diffusion.LinearBetas().times(5, spacing), expected)


def test_karras_spacing() -> None:
    sigmas = diffusion.Karras().times(18, "karras")
    i = np.arange(18)
    np.testing.assert_allclose(sigmas, (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, rtol=1e-12)
    times = diffusion.LinearBetas().times(20, "karras")
    assert (times[0], times[-1]) == (999, 0)
    assert (np.diff(times) < 0).all()
    assert (np.diff(diffusion.LinearBetas().times(1000, "karras")) == -1).all()


@pytest.mark.parametrize(("source", "target"), list(itertools.product(PREDICTIONS, PREDICTIONS)))
def test_predictions_are_the_same_thing(source: str, target: str, rng: np.random.Generator) -> None:
    x0, noise = jnp.asarray(rng.normal(size=(2, 5)), jnp.float32)
    alpha, sigma = jnp.float32(0.8), jnp.float32(0.6)
    x = alpha * x0 + sigma * noise
    output = FROM[source](x0, noise, alpha, sigma)
    found = convert(source, target, x, output, alpha, sigma)
    SAME_COMPUTATION.check(found, FROM[target](x0, noise, alpha, sigma))


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"betas run from 0.5 to 2.0, expected numbers between 0 and 1"):
        diffusion.LinearBetas(0.5, 2.0)
    with pytest.raises(ValueError, match=r"the schedule runs from 5.0 to 1.0, expected finite numbers"):
        diffusion.Karras(5.0, 1.0)
    with pytest.raises(ValueError, match=r"weights has shape \(3,\), expected 2 numbers above 0"):
        diffusion.MixtureModel(diffusion.VP(), jnp.zeros((2, 3)), weights=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"means has shape \(3,\), expected \(components, dim\)"):
        diffusion.MixtureModel(diffusion.VP(), jnp.zeros(3))
