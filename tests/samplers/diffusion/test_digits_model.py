"""The model of digits: it denoises, knows its labels and every schedule, and its parallel samples are the loop's."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import parsample as ps
from parsample.samplers import diffusion
from parsample.samplers.diffusion import DigitsModel, digits_model
from parsample.samplers.diffusion.predictions import PREDICTIONS, convert
from tests.tolerances import SAME_COMPUTATION


def images() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels from -1 to 1, labels, and which images were left out of the training."""
    data = load_digits()
    return (data.images / 8 - 1).astype(np.float32), data.target, np.arange(len(data.target)) % 5 == 0


def test_it_denoises_images_that_it_has_not_seen() -> None:
    pixels, labels, left_out = images()
    schedule = diffusion.LinearBetas()
    denoise = jax.jit(jax.vmap(DigitsModel(schedule, "x0"), (0, None, 0)))
    for time, best in ((50, 0.13), (250, 0.35)):
        level = schedule.level(time)
        noise = np.random.default_rng(time).standard_normal((left_out.sum(), 8, 8)).astype(np.float32)
        x0 = pixels[left_out]
        x = jnp.asarray(level.alpha * x0 + level.sigma * noise, jnp.float32)
        told = denoise(x, jnp.asarray(time), labels[left_out])
        # The linear estimate from mean and covariance of the training images: what a network must beat.
        flat = pixels[~left_out].reshape(-1, 64)
        covariance, mean = np.cov(flat.T), flat.mean(0)
        gain = level.alpha * covariance @ np.linalg.inv(level.alpha**2 * covariance + level.sigma**2 * np.eye(64))
        linear = mean + (np.asarray(x).reshape(-1, 64) - level.alpha * mean) @ gain.T
        errors = [np.sqrt(np.mean((np.asarray(found).reshape(-1, 8, 8) - x0) ** 2)) for found in (told, linear)]
        assert errors[0] < 0.95 * errors[1]
        assert errors[0] < best


@pytest.mark.slow
def test_parallel_digits_are_the_loops_and_are_what_was_asked_for() -> None:
    pixels, labels, _ = images()
    judge = LogisticRegression(max_iter=300).fit(pixels.reshape(-1, 64), labels)
    schedule, right = diffusion.LinearBetas(), []
    for label in (0, 3, 6, 8):
        model = DigitsModel(schedule, guidance=1.0)
        process = diffusion.DDIM(model, schedule, 16, condition=jnp.asarray(label), sigma_data=model.sigma_data)
        out, loop = (ps.diffuse(process, (8, 8), 2, method=method) for method in ("scaled_identity", "sequential"))
        assert out.solution.converged.all()
        assert (out.rounds < 13).all()
        error = np.sqrt(np.mean((np.asarray(out.samples) - np.asarray(loop.samples)) ** 2, (1, 2)))
        assert error.max() < 0.01
        right += list(judge.predict(np.asarray(out.samples).reshape(2, 64)) == label)
    # Every digit at random would be right one time in ten.
    assert np.mean(right) >= 0.8


@pytest.mark.slow
def test_what_early_steps_leave_does_not_hold_up_the_late_ones() -> None:
    """With the same tolerance at every step this takes 29 rounds, most of which accept two steps each."""
    process = diffusion.DDIM(DigitsModel(), num_steps=100, sigma_data=0.5)
    assert ps.diffuse(process, (8, 8), method="scaled_identity").rounds[0] <= 14


def test_one_checkpoint_serves_every_schedule() -> None:
    """The same image with the same noise, scaled as another schedule has it, has the same clean image."""
    karras, betas = diffusion.Karras(), diffusion.LinearBetas()
    level = betas.level(400)
    x = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    here = DigitsModel(betas, "x0")(jnp.asarray(x), jnp.asarray(400))
    there = DigitsModel(karras, "x0")(jnp.asarray(x / level.alpha, jnp.float32), jnp.float32(level.sigma / level.alpha))
    np.testing.assert_allclose(here, there, atol=1e-5)


def test_predictions_and_guidance() -> None:
    x, time = jnp.asarray(np.random.default_rng(1).standard_normal((8, 8)), jnp.float32), jnp.asarray(300)
    schedule = diffusion.LinearBetas()
    level = schedule.level(300)
    clean = DigitsModel(schedule, "x0")(x, time)
    for prediction in PREDICTIONS:
        output = DigitsModel(schedule, prediction)(x, time)
        found = convert(prediction, "x0", x, output, jnp.float32(level.alpha), jnp.float32(level.sigma))
        np.testing.assert_allclose(found, clean, atol=2e-5)
    told, guided = (DigitsModel(schedule, "x0", guidance)(x, time, 3) for guidance in (0.0, 2.0))
    assert np.abs(told - clean).max() > 0.01
    np.testing.assert_allclose(guided, 3 * told - 2 * clean, atol=2e-5)


def test_the_checkpoint(tmp_path: Path) -> None:
    network = digits_model.load(digits_model.CHECKPOINT)
    assert 100_000 < sum(leaf.size for leaf in jax.tree.leaves(network)) < 300_000
    assert digits_model.CHECKPOINT.stat().st_size < 1.2e6
    normal = DigitsModel().normal
    digits_model.save(tmp_path / "copy.npz", network, normal)
    copies = digits_model.load(tmp_path / "copy.npz"), digits_model.load_normal(tmp_path / "copy.npz")
    for found, expected in zip(jax.tree.leaves(copies), jax.tree.leaves((network, normal)), strict=True):
        SAME_COMPUTATION.check(found, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prediction": "nose"}, r"prediction is 'nose', expected one of 'noise'"),
        ({"guidance": -1.0}, r"guidance is -1.0, expected a finite number of at least 0"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DigitsModel(**options)


def test_an_image_of_another_size() -> None:
    process = diffusion.DDIM(DigitsModel(), num_steps=4)
    with pytest.raises(ValueError, match=r"x has shape \(28, 28\), expected \(8, 8\)"):
        ps.diffuse(process, (28, 28))
