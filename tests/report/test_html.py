"""The page: its words, its pictures and their text alternatives, and how a browser shows it."""

import dataclasses
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parsample as ps
from parsample.report.html import _prose, render
from parsample.results.trace import build_trace
from parsample.results.verdict import read_verdict
from tests.report.plots.test_evaluation import evaluated_trace

NAME = "slope[<b> & 'worst']"


@pytest.fixture(scope="module")
def trace() -> Any:
    return evaluated_trace({"x": (), NAME: ()})


@pytest.fixture(scope="module")
def page(trace: Any) -> str:
    return render(trace)


def words(page: str) -> str:
    """What a reader sees."""
    text = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL).replace("<wbr>", "")
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def test_the_verdict_comes_first_in_words(page: str) -> None:
    text = words(page)
    start = text.index("Are the draws good?")
    assert text[start:].startswith("Are the draws good? Yes R-hat at most 1.0")
    assert "Did the evaluation converge? Yes All 2,000 steps of 4 chains." in text
    assert "What to do? On this device method='sequential' gives the same draws sooner." in text
    assert start < text.index("Summary") < text.index("Evaluation")


def test_draws_that_are_not_good_say_what_to_do(rng: np.random.Generator) -> None:
    draws = rng.normal(size=(4, 40))
    few = words(render(build_trace({"posterior": {"x": draws, "y": draws}})))
    assert "Are the draws good? No Bulk ESS " in few
    assert "draw more (num_samples; until={'ess': 400, 'rhat': 1.01} ends a run when its draws are good)" in few
    assert "Did the evaluation converge? Unknown" in few
    lost = words(render(build_trace({"posterior": {"x": draws + 5 * np.arange(4)[:, None]}})))
    assert "Do not use these draws yet" in lost
    # Chains that are far apart do not come together by drawing on alone.
    assert "no one step size may fit the whole posterior: try another parametrisation" in lost
    assert "another parametrisation" not in few


def test_the_numbers_are_those_of_the_summary(trace: Any, page: str) -> None:
    row = ps.summarize(trace).loc["x"]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page.partition('<th scope="row">x</th>')[2].partition("</tr>")[0])
    expected = [f"{row['mean']:.3g}", f"{row['sd']:.3g}", f"{row['ess_bulk']:,.0f}", f"{row['r_hat']:.4f}"]
    assert cells[:4] == expected


def test_names_are_text_and_nothing_else(page: str) -> None:
    assert "<b>" not in page
    assert NAME in words(page)


def test_a_line_breaks_within_no_flag_and_words_stay_text() -> None:
    found = _prose("on this device --method sequential, not --max-iterations 7, gives <b> & -- sooner")
    flags = ['<span class="flag">--method</span>', '<span class="flag">--max-iterations</span>']
    assert re.findall(r"<span.*?</span>", found) == flags
    assert html.unescape(re.sub(r"<[^>]*>", "", found)).count("--") == 3
    assert "&lt;b&gt; &amp; -- sooner" in found


def test_the_page_needs_nothing_else(page: str) -> None:
    assert "<script" not in page
    addresses = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []


class Reader(HTMLParser):
    """Notes figures, their alternatives and identifiers."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.alternatives: list[str] = []
        self.figures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.figures += tag == "figure"
        self.ids += [found["id"] or ""] if "id" in found else []
        if tag == "svg":
            assert found["role"] == "img"
            self.alternatives.append(found["aria-label"] or "")


def test_every_picture_has_an_alternative_with_numbers_and_names_of_its_own(page: str) -> None:
    reader = Reader()
    reader.feed(page)
    # Trace, ranks and autocorrelation of two variables, their pair, acceptance, and five of the evaluation.
    assert reader.figures == len(reader.alternatives) == 2 * 3 + 2 + 5
    for text in reader.alternatives:
        assert re.search(r"\d", text), text
        assert len(text) > 60
    assert len(set(reader.ids)) == len(reader.ids)


def test_the_colours_are_those_of_the_page(page: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert "var(--chain-0)" in drawn
    assert "var(--ink)" in drawn
    # Black and white would vanish on a page of that colour; the white mark on the scale of a heat map is meant.
    assert re.findall(r"#000000|#404040|fill: #ffffff", drawn) == []


def test_a_trace_without_the_iterations_says_how_to_get_them(trace: Any, rng: np.random.Generator) -> None:
    draws = {"posterior": {"x": rng.normal(size=(4, 50))}}
    verdict = read_verdict(trace)
    text = words(render(build_trace(draws, attrs=verdict.attributes())))
    assert 'For pictures of the iterations sample with groups=("evaluation",)' in text
    loop = dataclasses.replace(verdict, method="sequential", compared_steps=0)
    text = words(render(build_trace(draws, attrs=loop.attributes())))
    assert "Did the evaluation converge? Exact" in text
    assert "The sequential loop has no iterations to show" in text


def test_variables_that_cannot_be_drawn(rng: np.random.Generator) -> None:
    draws = rng.normal(size=(2, 30))
    broken = draws.copy()
    broken[0, 0] = np.nan
    text = words(render(build_trace({"posterior": {"broken": broken, "fixed": np.ones_like(draws)}})))
    assert "No variable has draws that are finite and move" in text


@pytest.mark.slow
def test_an_old_page_is_replaced_whole(trace: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")
    assert ps.write_report(trace, path) == path
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(ValueError, match="there is no folder"):
        ps.write_report(trace, tmp_path / "nowhere" / "page.html")


BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
PROBE = """<!doctype html><body><pre id=found></pre><script>
const probe = frame => {
  const page = frame.contentDocument, style = element => frame.contentWindow.getComputedStyle(element);
  const scale = svg => svg.clientWidth / svg.viewBox.baseVal.width;
  const seen = [...page.querySelectorAll("svg text")].map(text => text.getBBox().height * scale(text.ownerSVGElement));
  return {width: frame.clientWidth, content: page.documentElement.scrollWidth,
    paper: style(page.body).backgroundColor, ink: style(page.body).color,
    text: [...new Set([...page.querySelectorAll("svg text")].map(text => style(text).fill))],
    figures: page.querySelectorAll("figure").length, smallest: Math.min(...seen)};
};
onload = () => {
  document.getElementById("found").textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(probe));
};
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here: the page was not opened in a browser")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_wide_and_narrow_light_and_dark(page: str, tmp_path: Path, scheme: str) -> None:
    inside = "".join(
        f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{html.escape(page)}"></iframe>'
        for width in (1280, 400)
    )
    (tmp_path / "probe.html").write_text(PROBE + inside, encoding="utf-8")
    command = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1400,1000",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--blink-settings=preferredColorScheme={int(scheme == 'light')}",
        "--enable-logging=stderr",
        "--dump-dom",
        (tmp_path / "probe.html").as_uri(),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line for line in shown.stderr.splitlines() if "CONSOLE" in line] == []
    told = re.search(r"<pre[^>]*>(.*?)</pre>", shown.stdout, flags=re.DOTALL)
    assert told is not None
    frames = json.loads(html.unescape(told[1]))
    assert [frame["width"] for frame in frames] == [1280, 400]
    for frame in frames:
        assert frame["content"] <= frame["width"], "the page is wider than the window"
        assert frame["figures"] == 13
        assert frame["smallest"] >= 10, "letters that are too small"
        paper = brightness(frame["paper"])
        assert (paper > 200) == (scheme == "light")
        for color in (frame["ink"], *frame["text"]):
            assert abs(brightness(color) - paper) > 100, f"{color} on {frame['paper']}"


def brightness(color: str) -> float:
    red, green, blue = (float(part) for part in re.findall(r"[\d.]+", color)[:3])
    return 0.299 * red + 0.587 * green + 0.114 * blue
