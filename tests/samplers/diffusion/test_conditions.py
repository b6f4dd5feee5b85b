"""Guidance and inpainting against the papers' formulas in NumPy, and by a parallel method."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsample as ps
from parsample.engine.evaluate import evaluate_sequential
from parsample.samplers import diffusion
from parsample.samplers.diffusion import PROCESSES
from tests.samplers.diffusion.models import DEVIATION, MEANS, noise_in_numpy, x0_in_numpy
from tests.tolerances import SAME_COMPUTATION

LINEAR = diffusion.LinearBetas()
BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


def about_one_component(x: np.ndarray, alpha: float, sigma: float, which: int) -> np.ndarray:
    """The noise in x where the data is one component of the mixture."""
    return sigma / (alpha**2 * DEVIATION**2 + sigma**2) * (x - alpha * MEANS[which])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_guidance(scale: float) -> None:
    """The condition is the number of a component; 3 stands for none."""
    whole = diffusion.MixtureModel(LINEAR, jnp.asarray(MEANS), DEVIATION)

    def predict(x: jax.Array, t: jax.Array, which: jax.Array) -> jax.Array:
        alpha = jnp.sqrt(jnp.asarray(BAR)[t])
        variance = alpha**2 * DEVIATION**2 + 1 - alpha**2
        one = jnp.sqrt(1 - alpha**2) / variance * (x - alpha * jnp.asarray(MEANS)[which % 3])
        return jnp.where(which == 3, whole(x, t), one)

    process = diffusion.DDIM(diffusion.guided(predict, scale, null=3), LINEAR, 10, condition=jnp.asarray(1))
    out = ps.diffuse(process, (3,), dtype=jnp.float64, tolerance=1e-9, method="scaled_identity")
    key = jax.random.split(jax.random.split(jax.random.key(0), 1)[0])[0]
    x = np.asarray(process.init(key, (3,), jnp.float64))
    for t, after in zip(process.visited, [*process.visited[1:], None], strict=True):
        alpha, sigma = np.sqrt(BAR[t]), np.sqrt(1 - BAR[t])
        without = noise_in_numpy(x, alpha, sigma)
        noise = (1 - scale) * without + scale * about_one_component(x, alpha, sigma, 1)
        clean = (x - sigma * noise) / alpha
        x = clean if after is None else np.sqrt(BAR[after]) * clean + np.sqrt(1 - BAR[after]) * noise
    np.testing.assert_allclose(out.samples[0], x, rtol=1e-7, atol=1e-7)


@pytest.mark.usefixtures("x64")
def test_inpainting() -> None:
    """DDPM with the known pixels put into every denoised sample."""
    model = diffusion.MixtureModel(LINEAR, jnp.asarray(MEANS), DEVIATION)
    known, mask = np.array([1.4, np.nan, np.nan]), np.array([True, False, False])
    process = diffusion.DDPM(model, LINEAR, 20, known=known, mask=mask)
    state, inputs = process.init(jax.random.key(1), (3,)), process.draw_inputs(jax.random.key(2), (3,))
    found = ps.evaluate_sequential(process.transition, state, inputs).states
    x, noise = np.asarray(state), np.asarray(inputs.noise[0])
    for i, t in enumerate(process.visited):
        bar, after = BAR[t], BAR[process.visited[i + 1]] if i < 19 else 1.0
        x0 = np.where(mask, known, x0_in_numpy(x, np.sqrt(bar), np.sqrt(1 - bar)))
        beta = 1 - bar / after
        mean = np.sqrt(after) * beta / (1 - bar) * x0 + np.sqrt(1 - beta) * (1 - after) / (1 - bar) * x
        x = mean + np.sqrt((1 - after) / (1 - bar) * beta) * noise[i]
        SAME_COMPUTATION.check(found[i], x)
    assert found[-1][0] == 1.4
    parallel = ps.evaluate(process.transition, state, inputs, method="picard", atol=1e-8, rtol=0.0)
    np.testing.assert_allclose(parallel.states, found, atol=1e-6)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("steps", [1, 7])
def test_known_pixels_come_out_as_they_are(name: str, steps: int) -> None:
    """To the last digit, by every process, on each of the schedules that it takes."""
    mask = np.array([True, False, True])
    known = np.array([1.4, np.nan, -0.1], np.float32)
    for schedule in (None, diffusion.VP(), diffusion.VE(), diffusion.Karras(), diffusion.SubVP(), LINEAR):
        options: dict[str, Any] = {"repeats": 3} if name == "annealed_langevin" else {}
        try:
            process = PROCESSES[name](lambda x, t: 0.3 * x, schedule, steps, known=known, mask=mask, **options)
            inputs = process.draw_inputs(jax.random.key(1), (3,))
        except ValueError:
            assert schedule is not None, "the process does not take its own schedule"
            continue
        start = process.init(jax.random.key(0), (3,))
        states = evaluate_sequential(process.transition, start, inputs).states
        found = np.asarray(jax.vmap(process.sample)(states))[-1]
        np.testing.assert_array_equal(found[mask], known[mask], err_msg=type(process.schedule).__name__)
        assert np.isfinite(found).all()


def test_known_pixels_leave_the_scale_of_the_jacobian_as_it_is() -> None:
    plain = diffusion.DDIM(lambda x, t: x, LINEAR, 5)
    given = diffusion.DDIM(lambda x, t: x, LINEAR, 5, known=jnp.ones(3), mask=jnp.array([True, False, False]))
    np.testing.assert_array_equal(plain.jacobians(), given.jacobians())
    assert (ps.diffuse(given, (3,)).samples[0][0]) == 1.0


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"known and mask have the shapes \[\(3,\), None\], expected the same"):
        diffusion.DDIM(lambda x, t: x, LINEAR, 5, known=jnp.ones(3))
    with pytest.raises(ValueError, match=r"known has shape \(3,\), expected \(2,\), the shape of a sample"):
        ps.diffuse(diffusion.DDIM(lambda x, t: x, LINEAR, 5, known=jnp.ones(3), mask=jnp.ones(3, bool)), (2,))
    with pytest.raises(ValueError, match=r"predict is a int, expected a function `predict\(x, t, condition\)`"):
        diffusion.guided(3, 1.0, None)
    with pytest.raises(ValueError, match=r"scale is '3', expected a number"):
        diffusion.guided(lambda x, t, c: x, "3", None)
