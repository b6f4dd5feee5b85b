"""The pictures of the draws, against NumPy."""

from typing import Any

import numpy as np
import pytest

from parsample.report import plots
from parsample.report.plots.canvas import axes_or_new
from parsample.report.plots.draws import (
    MOST_POINTS,
    autocorrelation,
    draw_autocorrelation,
    draw_energy,
    draw_pair,
    draw_rank,
)
from parsample.results.trace import build_trace
from tests.report.plots.test_evaluation import levels


@pytest.fixture
def draws(rng: np.random.Generator) -> np.ndarray:
    """Four chains of an autoregression of coefficient 0.8."""
    noise = rng.normal(size=(4, 900))
    for step in range(1, 900):
        noise[:, step] += 0.8 * noise[:, step - 1]
    return noise


@pytest.fixture
def trace(draws: np.ndarray) -> Any:
    stats = {"energy": draws**2, "diverging": draws > 5.0, "acceptance_rate": 1 / (1 + draws**2)}
    posterior = {"slow": draws, "fast": draws[:, ::-1] + 3 * np.random.default_rng(1).normal(size=draws.shape)}
    return build_trace({"posterior": posterior | {"fixed": np.ones_like(draws)}, "sample_stats": stats})


def test_the_trace_of_the_worst_variable(trace: Any, draws: np.ndarray) -> None:
    ax = plots.plot_trace(trace)
    assert ax.get_title() == "slow"
    for line, values in zip(ax.lines, draws, strict=True):
        x = np.asarray(line.get_xdata(), int)
        assert len(x) <= MOST_POINTS
        np.testing.assert_array_equal(line.get_ydata(), values[x])
    assert plots.plot_trace(trace, "fast").get_title() == "fast"
    with pytest.raises(ValueError, match="label is 'slower', expected one of the trace: slow, fast"):
        plots.plot_trace(trace, "slower")


def test_ranks_are_level_where_the_chains_agree_and_not_where_one_is_lost(draws: np.ndarray) -> None:
    ax = axes_or_new(None)
    text = draw_rank(ax, draws)
    shares = np.stack(levels(ax))
    np.testing.assert_allclose(shares.mean(0), 1)
    np.testing.assert_allclose(shares.mean(1), 1)
    assert f"between {shares.min():.2f} and {shares.max():.2f}" in text
    lost = axes_or_new(None)
    draw_rank(lost, draws + 100 * np.array([0, 0, 0, 1])[:, None])
    # The draws of the lost chain are the last quarter of the ranks.
    np.testing.assert_allclose(levels(lost)[3][:15], 0)
    np.testing.assert_allclose(levels(lost)[3][15:], 4, atol=1)
    assert "one chain" in draw_rank(axes_or_new(None), draws[:1])


def test_autocorrelation_is_that_of_the_definition(draws: np.ndarray, trace: Any) -> None:
    centred = draws[0] - draws[0].mean()
    by_hand = [np.sum(centred[: 900 - lag] * centred[lag:]) / np.sum(centred**2) for lag in range(30)]
    np.testing.assert_allclose(autocorrelation(draws)[0, :30], by_hand, atol=1e-12)
    drawn = np.asarray(plots.plot_autocorrelation(trace, "slow").lines[1].get_ydata())
    np.testing.assert_allclose(drawn[:30], by_hand, atol=1e-12)
    text = draw_autocorrelation(axes_or_new(None), draws)
    mean = autocorrelation(draws).mean(0)
    assert f"{mean[1]:.2f} at lag 1; it falls below 0.1 at lag {np.argmax(mean < 0.1)}" in text


def test_a_pair_has_its_correlation_and_its_divergences(trace: Any, draws: np.ndarray) -> None:
    ax = plots.plot_pair(trace)
    assert {ax.get_xlabel(), ax.get_ylabel()} == {"slow", "fast"}
    marked = ax.lines[-1]
    assert np.size(marked.get_xdata()) == np.sum(draws > 5)
    text = draw_pair(axes_or_new(None), "a", "b", draws, -draws, draws > 5)
    assert "b against a: correlation -1.00 over 3,600 draws" in text
    assert f"{np.sum(draws > 5)} draws are divergent" in text
    single = build_trace({"posterior": {"x": draws}})
    with pytest.raises(ValueError, match="got 1 scalar whose draws move, expected two for a pair"):
        plots.plot_pair(single)


def test_energy_and_acceptance(trace: Any, draws: np.ndarray) -> None:
    assert plots.plot_energy(trace).get_xlabel().startswith("energy less its mean")
    means = (1 / (1 + draws**2)).mean(1)
    ax = plots.plot_acceptance(trace)
    shares = np.stack(levels(ax))
    np.testing.assert_allclose(shares.sum(1), 1)
    np.testing.assert_allclose(shares @ np.linspace(0.025, 0.975, 20), means, atol=0.03)
    # Of independent energies the change has twice the variance: a fraction of 2.
    independent = np.random.default_rng(0).normal(size=(2, 5000))
    assert "missing information is 1.9" in draw_energy(axes_or_new(None), independent)
    without = build_trace({"posterior": {"x": draws}})
    with pytest.raises(ValueError, match="got no 'energy' in sample_stats"):
        plots.plot_energy(without)
    with pytest.raises(ValueError, match="got no 'acceptance_rate' in sample_stats"):
        plots.plot_acceptance(without)
