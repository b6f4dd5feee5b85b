"""What `diffuse` takes where no method is named: the loop, unless batches were timed to be sooner."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsample as ps
from parsample.run import diffuse_method
from parsample.samplers.diffusion.denoisers import HeldDenoiser
from tests.run.test_diffuse import STEPS, TOLERANCE, make


def test_what_takes_seconds_is_left_to_the_loop() -> None:
    process = make("ddpm")
    out, loop = ps.diffuse(process, (3,), 2), ps.diffuse(process, (3,), 2, method="sequential")
    np.testing.assert_array_equal(out.samples, loop.samples)
    assert "the loop, expected to take" in out.choice
    assert not loop.choice


def slower(factor: float) -> Callable:
    """A clock by which a batch of all steps takes so many times as long as a step."""
    times = iter((1.0, factor))
    return lambda run: next(times)


@pytest.mark.parametrize(("factor", "method"), [(1.0, "scaled_identity"), (5.0, "scaled_identity"), (6.0, "the loop")])
def test_of_what_takes_longer_the_batch_decides(factor: float, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffuse_method, "least_seconds", slower(factor))
    process = make("ddpm")
    out = ps.diffuse(process, (3,), 2)
    assert out.choice.startswith(method)
    loop = ps.diffuse(process, (3,), 2, method="sequential")
    np.testing.assert_allclose(out.samples, loop.samples, atol=TOLERANCE * process.sigma_data)
    if method == "the loop":
        np.testing.assert_array_equal(out.rounds, STEPS)
    else:
        # What takes longer than the loop is left to it.
        most = int(STEPS / (factor * 1.1))
        assert f"up to {most} iterations" in out.choice
        assert out.solution.iterations.max() <= most
        assert (out.finished_sequentially > 0).any() == (factor > 1), "ten rounds or so are enough"


def test_a_window_is_timed_as_it_is_and_limits_that_are_given_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffuse_method, "CHEAP", 0.0)
    monkeypatch.setattr(diffuse_method, "FEWEST_ROUNDS", 0)
    out = ps.diffuse(make("ddpm"), (3,), 2, window=5, max_iterations=2)
    assert "a batch of 5 steps" in out.choice
    assert (out.window, int(out.solution.iterations.max())) == (5, 2)
    with pytest.raises(ValueError, match="window is 0, expected a whole number"):
        ps.diffuse(make("ddpm"), (3,), window=0)


def test_where_nothing_can_be_timed() -> None:
    process = make("ddim")
    held = lambda value: process.with_denoiser(HeldDenoiser(jnp.full(3, value)))  # noqa: E731
    traced = jax.jit(lambda value: ps.diffuse(held(value), (3,), throw=False).samples)(0.5)
    expected = ps.diffuse(held(0.5), (3,), method="sequential").samples
    np.testing.assert_allclose(traced, expected, atol=TOLERANCE * process.sigma_data)
