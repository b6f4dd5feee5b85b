"""The pictures of an evaluation: what the iterations saw, counted again by plain loops."""

import dataclasses
import re
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

import parsample as ps
from parsample.report import plots
from parsample.report.plots.canvas import axes_or_new
from parsample.report.plots.evaluation import MOST_CELLS, Walk, draw_evaluations, draw_window, draw_work, read_walk
from parsample.results.trace import as_datatree, build_trace
from tests import verdicts

VERDICT = dataclasses.replace(
    verdicts.VERDICT, window=8, iterations=100, evaluations_per_step=4.0, atol=1e-6, rtol=1e-6
)


def levels(ax: Any) -> list[np.ndarray]:
    """The steps that are drawn."""
    return [patch.get_data().values for patch in ax.patches]


def walk(window: int = 8, steps: int = 60) -> dict[str, np.ndarray]:
    """A window that moves by one to five steps; residuals fall towards its beginning."""
    rng = np.random.default_rng(1)
    first, residual = [0], []
    while first[-1] < steps:
        inside = first[-1] + np.arange(window) < steps
        residual.append(np.where(inside, 10.0 ** (np.arange(window) - 7), np.nan))
        first.append(first[-1] + int(rng.integers(1, 6)))
    return {"window_first_step": np.array(first[:-1]), "window_residual": np.array(residual)}


def made(window: int, steps: int) -> Walk:
    found = walk(window, steps)
    return Walk(found["window_first_step"], found["window_residual"], VERDICT.atol)


def evaluated_trace(variables: dict[str, tuple[int, ...]]) -> Any:
    """Independent draws with all that the front door adds to them."""
    rng = np.random.default_rng(0)
    posterior = {name: rng.normal(size=(4, 500, *shape)) for name, shape in variables.items()}
    stats = {"acceptance_rate": rng.uniform(size=(4, 500))}
    dims = {"window_first_step": ("iteration",), "window_residual": ("iteration", "row")}
    groups = {"posterior": posterior, "sample_stats": stats, "evaluation": walk()}
    return build_trace(groups, dims=dims, attrs={"target": "made <up>", **VERDICT.attributes()})


@pytest.fixture(scope="module")
def trace() -> Any:
    return evaluated_trace({"x": ()})


@pytest.fixture(scope="module")
def sampled() -> Any:
    settings: dict[str, Any] = {"num_warmup": 0, "step_size": 0.3, "num_samples": 128, "num_chains": 2, "window": 32}
    settings |= {"method": "quasi_newton", "groups": ("evaluation",), "progress": False, "compare": False}
    return ps.sample("multivariate_normal", "mala", **settings)


def test_the_front_door_keeps_what_the_iterations_of_the_first_chain_saw(sampled: Any) -> None:
    tree: Any = as_datatree(sampled)
    group = tree["evaluation"]
    assert group["window_first_step"].dims == ("iteration",)
    assert group["window_residual"].dims == ("iteration", "row")
    assert group.sizes["iteration"] == int(tree["sample_stats"]["iterations"].values[0])
    assert group.sizes["row"] == 32
    found, verdict = read_walk(sampled), ps.read_verdict(sampled)
    assert found.steps == 128
    assert found.first_step[0] == 0
    assert np.all(np.diff(found.first_step) >= 1)
    # The last iteration verifies what is left.
    tolerance = verdict.atol + verdict.rtol * np.abs(np.asarray(tree["posterior"]["x"])).max()
    assert np.nanmax(found.residual[-1]) < 10 * tolerance
    assert np.all(found.counts() >= 1)


def test_a_trace_without_the_group_says_how_to_get_it() -> None:
    without = build_trace({"posterior": {"x": np.zeros((2, 5))}})
    with pytest.raises(ValueError, match=r"trace: got no group 'evaluation', .* groups=\(\"evaluation\",\)"):
        plots.plot_residuals(without)


def test_a_group_that_nobody_knows() -> None:
    with pytest.raises(ValueError, match=r"a name in groups is 'evaluations', expected one of .*'evaluation'"):
        ps.sample("banana", groups=("evaluations",))


def by_hand(found: Walk) -> np.ndarray:
    """Iteration by step."""
    image = np.full((len(found.first_step), found.steps), np.nan)
    for i, first in enumerate(found.first_step):
        for row, value in enumerate(found.residual[i]):
            if not np.isnan(value):
                image[i, first + row] = value
    return image


def test_the_heat_map_is_the_residual_by_iteration_and_step(trace: Any) -> None:
    found = read_walk(trace)
    image, iterations = found.image(0, found.steps)
    assert iterations == (0, len(found.first_step))
    np.testing.assert_array_equal(image, by_hand(found))
    some, (begin, end) = found.image(20, 40)
    np.testing.assert_array_equal(some, by_hand(found)[begin:end, 20:40])
    assert np.isfinite(some[0]).any()
    assert np.isfinite(some[-1]).any()
    ax = plots.plot_residuals(trace)
    assert ax.images[0].get_extent() == [0, 60, len(found.first_step), 0]


def test_a_large_heat_map_keeps_the_largest_of_each_cell() -> None:
    found = made(window=4, steps=4 * MOST_CELLS)
    image, _ = found.image(0, found.steps)
    whole = by_hand(found)
    assert image.shape == (min(len(whole), MOST_CELLS), MOST_CELLS)
    assert np.nanmax(image) == np.nanmax(whole)
    cells = np.arange(len(whole)) * len(image) // len(whole)
    np.testing.assert_array_equal(image[0, 0], np.nanmax(whole[cells == 0, :4]))


def test_evaluations_of_each_step(trace: Any) -> None:
    found = read_walk(trace)
    np.testing.assert_array_equal(found.counts(), np.sum(~np.isnan(by_hand(found)), 0))
    ax = plots.plot_evaluations(trace)
    np.testing.assert_array_equal(levels(ax)[0], found.counts())
    text = draw_evaluations(axes_or_new(None), found)
    assert f"{found.counts().mean():.1f} on average" in text


def test_the_slowest_stretch_has_the_most_evaluations(trace: Any) -> None:
    found = read_walk(trace)
    first, last = found.slowest_stretch(windows=2)
    sums = [found.counts()[k : k + 16].sum() for k in range(found.steps - 15)]
    assert (last - first, first) == (16, int(np.argmax(sums)))
    assert found.slowest_stretch(windows=100) == (0, 60)


def test_the_walk_of_the_window(trace: Any) -> None:
    found = read_walk(trace)
    ax = plots.plot_window(trace)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), found.first_step)
    moves = np.diff(found.first_step)
    text = draw_window(axes_or_new(None), found)
    assert f"{moves.mean():.1f} steps an iteration on average, {moves.min()} at least and {moves.max()} at most" in text
    one = Walk(np.zeros(1, int), np.full((1, 5), 1e-9), 1e-6)
    assert "walks over 5 steps in 1 iterations" in draw_window(axes_or_new(None), one)


def test_the_work_is_relative_to_the_loop(trace: Any) -> None:
    ax = plots.plot_work(trace)
    bars: Any = ax.patches
    ends = [bar.get_x() + bar.get_width() for bar in bars]
    np.testing.assert_allclose(ends, [4.0, 100 / 500, 3.0])
    assert [text.get_text() for text in ax.texts] == ["4", "0.2", "3"]
    text = draw_work(axes_or_new(None), VERDICT)
    assert re.search("evaluations 4, rounds in a row 0.2, wall time here 3", text)


def test_axes_can_be_given_and_pyplot_knows_of_none(trace: Any) -> None:
    ax = axes_or_new(None)
    assert plots.plot_window(trace, ax=ax) is ax
    assert plt.get_fignums() == []
    with pytest.raises(ValueError, match="first_step is 50 and last_step 10, expected steps from 0 to 60 in order"):
        plots.plot_residuals(trace, 50, 10)
