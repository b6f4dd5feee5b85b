"""The pictures of warm-up, against the group they are of, and against what warm-up does."""

from typing import Any

import numpy as np
import pytest

import parsample as ps
from parsample.report import plots
from parsample.report.html import render
from parsample.report.plots.canvas import axes_or_new
from parsample.report.plots.warmup import WarmupSteps, draw_warmup_acceptance, draw_warmup_step_size, read_warmup
from parsample.results.trace import build_trace
from tests.report.plots.test_evaluation import levels


@pytest.fixture(scope="module")
def trace() -> Any:
    settings: dict[str, Any] = {"sampler": "hmc", "num_warmup": 240, "num_samples": 128, "num_chains": 3}
    return ps.sample("multivariate_normal", keep_warmup=True, method="sequential", progress=False, **settings)


def test_the_marks_are_where_the_coordinates_change(trace: Any) -> None:
    sizes = trace.warmup_sample_stats["step_size"].values[0]
    changes = read_warmup(trace).changes
    assert changes[:5] == (3, 6, 12, 24, 48)
    for units, step in zip((8, 12, 24), changes[5:], strict=True):
        # One step size as long as the segment lasts, and others before and after.
        first = step - 3 * units
        assert len(np.unique(sizes[first:step])) == 1
        assert sizes[first - 1] != sizes[first]
        assert sizes[step - 1] != sizes[step]


def test_the_lines_are_those_of_the_group(trace: Any) -> None:
    group = trace.warmup_sample_stats
    ax = plots.plot_warmup_step_size(trace)
    # Each chain has its own while it finds in.
    np.testing.assert_array_equal(levels(ax), group["step_size"].values)
    marks = [float(np.asarray(line.get_xdata())[0]) for line in ax.lines]
    assert marks == list(read_warmup(trace).changes)
    assert ax.get_yscale() == "log"
    acceptance = plots.plot_warmup_acceptance(trace)
    expected = group["acceptance_rate"].values.astype(float).reshape(3, 40, 6).mean(2)
    np.testing.assert_allclose(levels(acceptance), expected, rtol=1e-6)
    assert float(np.asarray(acceptance.lines[-1].get_ydata())[0]) == pytest.approx(0.8)
    legend: Any = acceptance.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["covariance anew", "aim 0.8"]


def test_the_aim_is_the_one_that_was_asked_for() -> None:
    settings: dict[str, Any] = {"num_warmup": 80, "num_samples": 64, "num_chains": 1, "target_acceptance": 0.9}
    trace = ps.sample("multivariate_normal", keep_warmup=True, method="sequential", progress=False, **settings)
    assert read_warmup(trace).aim == 0.9


def test_the_words_have_the_numbers() -> None:
    sizes = np.array([[0.5, 0.25, 0.125], [0.5, 0.25, 0.0625]])
    rates = np.array([[1.0, 0.5, 0.0], [0.5, 0.5, 0.5]])
    found = WarmupSteps(sizes, rates, 4, (2,), 0.6)
    words = draw_warmup_step_size(axes_or_new(None), found)
    assert words.startswith(
        "Step size over 3 warm-up steps, of each of 2 chains: from 0.062 to 0.5, in the end 0.094; "
    )
    assert words.endswith("the covariance is estimated anew after the steps 2.")
    words = draw_warmup_acceptance(axes_or_new(None), found)
    assert "0.50 on average (aim 0.6), in the second half between 0.25 and 0.50 from chain to chain; 4 steps" in words
    still = WarmupSteps(np.full((1, 3), 0.3), rates[:1], None, (), None)
    assert "from 0.3 to 0.3" in draw_warmup_step_size(axes_or_new(None), still)
    assert draw_warmup_acceptance(axes_or_new(None), still).endswith("chain; its segments are not known.")


def test_step_sizes_of_any_size_have_few_ticks() -> None:
    for low, high in ((0.3, 0.31), (0.1, 1.0), (1e-9, 1e9)):
        ax = axes_or_new(None)
        draw_warmup_step_size(ax, WarmupSteps(np.array([[low, high]]), np.ones((1, 2)), None, (), None))
        bottom, top = ax.get_ylim()
        ticks = ax.get_yticks()
        assert 1 <= len(ticks) <= 6
        assert np.all((ticks > bottom) & (ticks < top))


def test_the_report_has_them_where_warm_up_is_kept(trace: Any) -> None:
    page = render(trace)
    assert "<h3>Warm-up</h3>" in page
    assert 'aria-label="Step size over 240 warm-up steps' in page
    assert 'aria-label="Acceptance over 240 warm-up steps' in page
    without = build_trace({"posterior": {"x": np.random.default_rng(0).normal(size=(2, 50))}})
    assert "Warm-up</h3>" not in render(without)
    for plot in (plots.plot_warmup_step_size, plots.plot_warmup_acceptance):
        with pytest.raises(ValueError, match=r"got no group 'warmup_sample_stats' .*; sample with keep_warmup=True"):
            plot(without)
