"""The figure: the right draws in every panel, text that can be read, and nothing left behind."""

import os

import matplotlib
import matplotlib.figure
import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox

from parsample.report.plots.trace_rank import DPI, MOST_TRACE_DRAWS, check_figure_path, plot_trace_rank
from parsample.results.summary import summarize
from parsample.results.trace import build_trace

CHAINS = 4
FEATURES = [
    f"{kind} {name}" for kind in ("mean", "worst") for name in ("radius", "concave points", "fractal dimension")
]


def correlated(rng, shape, correlation):
    draws = rng.normal(size=shape)
    for step in range(1, shape[1]):
        draws[:, step] = correlation * draws[:, step - 1] + np.sqrt(1 - correlation**2) * draws[:, step]
    return draws


@pytest.fixture
def trace(rng):
    """Long names, and less mixing the further down the list."""
    draws = [correlated(rng, (CHAINS, 1100), 0.3 + 0.13 * index) for index in range(len(FEATURES))]
    return build_trace(
        {"posterior": {"intercept": correlated(rng, (CHAINS, 1100), 0.1), "coefficient": np.stack(draws, axis=-1)}},
        dims={"coefficient": ("feature",)},
        coords={"feature": FEATURES},
    )


def panels(figure):
    """Axes by row and column."""
    return np.reshape(figure.axes, (-1, 3))


def labels(figure):
    return [row[0].texts[-1].get_text() for row in panels(figure)]


def header(figure):
    return figure.texts[0].get_text()


def visible_texts(figure):
    renderer = figure.canvas.get_renderer()
    # Ticks beyond the limits of an axis keep their text and are not drawn.
    hidden = {id(label) for axis in figure.axes for label in hidden_tick_labels(axis)}
    texts = [text for text in figure.findobj(matplotlib.text.Text) if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts if id(text) not in hidden]


def hidden_tick_labels(axis):
    for along, (low, high) in ((axis.xaxis, axis.get_xlim()), (axis.yaxis, axis.get_ylim())):
        for tick in along.get_major_ticks():
            if not low <= tick.get_loc() <= high:
                yield from (tick.label1, tick.label2)


def assert_readable(figure):
    FigureCanvasAgg(figure)
    figure.set_dpi(DPI)
    figure.draw_without_rendering()
    texts = visible_texts(figure)
    frame = figure.bbox.padded(2)
    for text, box in texts:
        assert frame.contains(*box.min), f"{text!r} leaves the figure"
        assert frame.contains(*box.max), f"{text!r} leaves the figure"
    for index, (text, box) in enumerate(texts):
        for other, other_box in texts[:index]:
            overlap = Bbox.intersection(box, other_box)
            assert overlap is None or overlap.width * overlap.height < 1, f"{text!r} lies on {other!r}"


def test_one_row_a_scalar_and_the_worst_first(trace):
    figure = plot_trace_rank(trace, max_variables=3)
    summary = summarize(trace).sort_values("ess_bulk")
    assert labels(figure) == list(summary.index[:3])
    assert labels(figure)[0] == "coefficient[worst fractal dimension]"
    assert header(figure) == "3 of 7 variables, lowest bulk ESS first (4 left out)"
    first = panels(figure)[0, 2].get_title(loc="left")
    assert first == f"bulk ESS {summary['ess_bulk'].iloc[0]:,.0f},  R-hat {summary['r_hat'].iloc[0]:.3f}"


def test_every_panel_shows_the_draws_of_its_row(trace):
    figure = plot_trace_rank(trace, max_variables=2)
    for (density, lines, rank), label in zip(panels(figure), labels(figure), strict=True):
        feature = FEATURES.index(label.removeprefix("coefficient[").removesuffix("]"))
        draws = trace.posterior["coefficient"].values[..., feature]
        assert len(lines.lines) == len(density.lines) == CHAINS
        for line, chain in zip(lines.lines, draws, strict=True):
            assert len(line.get_xdata()) <= MOST_TRACE_DRAWS
            np.testing.assert_array_equal(line.get_ydata(), chain[np.asarray(line.get_xdata(), int)])
        for curve, chain in zip(density.lines, draws, strict=True):
            assert np.min(curve.get_xdata()) == pytest.approx(chain.min(), abs=0.5 * chain.std())
            assert np.max(curve.get_xdata()) == pytest.approx(chain.max(), abs=0.5 * chain.std())
        assert rank.has_data()
    handles = figure.legends[0].get_lines()
    colors = [line.get_color() for line in panels(figure)[0, 1].lines]
    assert [handle.get_color() for handle in handles] == colors
    assert len(set(colors)) == CHAINS


def test_long_names_can_be_read(trace):
    figure = plot_trace_rank(trace, max_variables=3)
    assert_readable(figure)


def test_names_are_not_taken_for_mathematics_and_very_long_ones_are_cut(rng):
    names = {r"cost $\frac$": 0.2, "x" * 200: 0.4}
    trace = build_trace({"posterior": {name: correlated(rng, (2, 50), rho) for name, rho in names.items()}})
    figure = plot_trace_rank(trace)
    cost, long = sorted(labels(figure))
    assert cost == r"cost $\frac$"
    assert long.endswith("x…")
    assert_readable(figure)


def test_saved_png_has_the_size_of_the_figure_and_old_files_are_replaced(trace, tmp_path):
    path = tmp_path / "trace.png"
    path.write_text("old")
    figure = plot_trace_rank(trace, path, max_variables=2)
    assert isinstance(figure, matplotlib.figure.Figure)
    image = matplotlib.image.imread(path)
    height, width = image.shape[:2]
    np.testing.assert_allclose([width, height], figure.get_size_inches() * DPI, atol=1)
    assert image[..., :3].std() > 0.05
    assert os.listdir(tmp_path) == ["trace.png"]


@pytest.mark.parametrize(("name", "start"), [("figure.svg", b"<?xml"), ("figure.PDF", b"%PDF"), ("figure", b"\x89PNG")])
def test_the_ending_chooses_the_format(rng, tmp_path, name, start):
    plot_trace_rank(build_trace({"posterior": {"x": rng.normal(size=(2, 20))}}), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)


def test_matplotlib_is_left_as_it_was(trace):
    settings, backend, figures = dict(matplotlib.rcParams), matplotlib.get_backend(), plt.get_fignums()
    plot_trace_rank(trace, max_variables=1)
    assert dict(matplotlib.rcParams) == settings
    assert matplotlib.get_backend() == backend
    assert plt.get_fignums() == figures


def test_odd_variables_get_a_row_or_a_note(rng):
    draws = rng.normal(size=(CHAINS, 60))
    broken = draws.copy()
    broken[0, 0] = np.inf
    stuck = np.arange(CHAINS)[:, None] * np.ones((CHAINS, 60))
    variables = {"x": draws, "broken": broken, "stuck": stuck, "fixed": np.ones_like(draws)}
    counts = {"count": rng.poisson(3, size=draws.shape), "flag": draws > 0}
    figure = plot_trace_rank(build_trace({"posterior": variables | counts}))
    assert header(figure) == "5 of 6 variables, lowest bulk ESS first (1 not finite)"
    rows = dict(zip(labels(figure), panels(figure), strict=True))
    assert next(iter(rows)) == "stuck"
    assert rows["stuck"][2].get_title(loc="left").endswith(",  R-hat above 100")
    for name in ("stuck", "fixed"):
        assert [rows[name][column].texts[0].get_text() for column in (0, 2)] == ["no chain moves"] * 2
    share = rows["flag"][0].lines[1]
    assert share.get_xdata().tolist() == [0, 1]
    assert share.get_ydata()[1] == pytest.approx((draws[1] > 0).mean())
    assert_readable(figure)


@pytest.mark.parametrize("chains", [1, 2, 12])
def test_any_number_of_chains(rng, chains):
    figure = plot_trace_rank(build_trace({"posterior": {"x": rng.normal(size=(chains, 40))}}))
    (density, lines, rank) = panels(figure)[0]
    assert len(lines.lines) == len(density.lines) == chains
    assert len({line.get_color() for line in lines.lines}) == chains
    assert len(figure.legends) == (chains < 7)
    if chains == 1:
        assert rank.texts[0].get_text() == "one chain: no other to rank it with"
    else:
        assert rank.has_data()
    assert_readable(figure)


def test_an_interrupted_write_leaves_the_old_figure_and_no_other_file(trace, tmp_path, monkeypatch):
    path = tmp_path / "trace.png"
    path.write_text("old")

    def half(self, target, **options):
        target.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", half)
    with pytest.raises(KeyboardInterrupt):
        plot_trace_rank(trace, path, max_variables=1)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["trace.png"]


def test_bad_input_is_named(trace, tmp_path):
    with pytest.raises(ValueError, match="max_variables: got 0, expected 1 or more"):
        plot_trace_rank(trace, max_variables=0)
    with pytest.raises(ValueError, match=r"there is no folder '.*none'"):
        plot_trace_rank(trace, tmp_path / "none" / "trace.png")
    with pytest.raises(ValueError, match=r"ends in '.doc', expected a format for figures \(.*png.*\); use .png"):
        check_figure_path(tmp_path / "trace.doc")
    with pytest.raises(ValueError, match="got 3 draws a chain, expected at least 4"):
        plot_trace_rank(build_trace({"posterior": {"x": np.zeros((2, 3))}}))
    with pytest.raises(ValueError, match="every variable has draws that are not finite"):
        plot_trace_rank(build_trace({"posterior": {"x": np.full((2, 9), np.nan)}}))
    assert os.listdir(tmp_path) == []
