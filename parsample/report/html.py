"""The report of a run as one HTML page that needs nothing else: the verdict in words, the table and the pictures."""

from __future__ import annotations

import html
import importlib.resources
import io
import itertools
import os
import re
import string
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from parsample.report.plots import draws as pictures
from parsample.report.plots import evaluation, warmup
from parsample.report.plots.canvas import CHAIN_COLORS, GREY, SIZE
from parsample.results.advice import advise
from parsample.results.groups import EVALUATION
from parsample.results.judgement import GOOD_ESS, GOOD_RHAT, judge
from parsample.results.summary import summarize
from parsample.results.trace import Trace, as_datatree, check_writable, posterior_dataset, replacing
from parsample.results.verdict import NOTHING, Verdict, read_verdict
from parsample.results.words import PYTHON, Caller

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

MOST_VARIABLES, MOST_ROWS = 4, 100
FEWEST_DRAWS = 4
# What decides comes first: a narrow page shows so much, and the rest by scrolling the table.
COLUMNS = {"mean": ".3g", "sd": ".3g", "ess_bulk": ",.0f", "r_hat": ".4f"}
COLUMNS |= {"ess_tail": ",.0f", "q5": ".3g", "q95": ".3g", "mcse_mean": ".2g"}
TITLES = {"q5": "5%", "q95": "95%", "ess_bulk": "bulk ESS", "ess_tail": "tail ESS", "r_hat": "R-hat"}
TITLES |= {"mcse_mean": "MCSE of mean"}
# The colours of the pictures become those of the page, which has one set for light and one for dark.
VARIABLES = {color.lower(): f"var(--chain-{k})" for k, color in enumerate(CHAIN_COLORS)}
VARIABLES |= {"#000000": "var(--ink)", GREY: "var(--soft)"}
SETTINGS = ("target", "sampler", "sampler_options", "seed", "num_warmup", "dtype", "device", "jax_version")


class Picture(NamedTuple):
    """A picture to be drawn.

    Attributes:
        caption: what it is and how to read it.
        draw: draws it on given axes and returns what is seen there, in a sentence.
    """

    caption: str
    draw: Callable[[Axes], str]


def write_report(
    trace: Trace, path: str | os.PathLike[str], summary: pandas.DataFrame | None = None, caller: Caller = PYTHON
) -> Path:
    """Write the report of a run: one HTML page, with nothing to load beside it and no script.

    Args:
        trace: that `parsample.sample` returned or `parsample.load_trace` read. Of another's trace the report holds what
            can be said of its draws. With `groups=("evaluation",)` it has the pictures of the evaluation.
        path: the file; an existing one is replaced once the new one is whole.
        summary: of the trace, by `parsample.summarize`; None to work it out.
        caller: whose words advice is given in, `parsample.results.words.PYTHON` or `COMMAND_LINE`.

    Returns:
        The file that was written.

    Raises:
        ValueError: the trace has no group `posterior` or fewer than four draws a chain, or the path cannot be written.
        OSError: the write failed, for example because the disk is full.
    """
    target = check_writable(path)
    text = render(trace, summary, caller)
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def render(trace: Trace, summary: pandas.DataFrame | None = None, caller: Caller = PYTHON) -> str:
    """Return the page of `write_report` as text."""
    posterior = posterior_dataset(trace)
    if posterior.sizes["draw"] < FEWEST_DRAWS:
        raise ValueError(
            f"trace: got {posterior.sizes['draw']} draws a chain, expected at least {FEWEST_DRAWS} for a report; "
            "take more draws."
        )
    summary = summarize(trace) if summary is None else summary
    verdict = _verdict_or_none(trace, summary)
    template = importlib.resources.files("parsample.report").joinpath("page.html").read_text(encoding="utf-8")
    name = str(as_datatree(trace).attrs.get("target", "trace"))
    page = string.Template(template).substitute(
        title=html.escape(f"{name}: report"),
        name=html.escape(name),
        subtitle=html.escape(_subtitle(trace)),
        verdict=_verdict(trace, summary, verdict, caller),
        chains=_chains(posterior.sizes["chain"]),
        table=_table(summary),
        draws="\n".join(_draws(trace, summary)),
        evaluation="\n".join(_evaluation(trace, verdict, caller)),
        settings=_pairs(list(_settings(trace))),
    )
    return _with_own_names(page)


def _verdict_or_none(trace: Trace, summary: pandas.DataFrame) -> Verdict | None:
    try:
        return read_verdict(trace, summary)
    except ValueError:  # another's trace
        return None


def _subtitle(trace: Trace) -> str:
    sizes, attributes = posterior_dataset(trace).sizes, as_datatree(trace).attrs
    sampler = f"{attributes['sampler']}, " if "sampler" in attributes else ""
    return f"{sampler}{sizes['chain']} chains of {sizes['draw']:,} draws"


def _verdict(trace: Trace, summary: pandas.DataFrame, verdict: Verdict | None, caller: Caller) -> str:
    """Return the answers to the three questions of a reader: good draws? converged? what to do?"""
    judgement = (verdict.judgement if verdict else None) or judge(trace, summary)
    good, told = judgement.is_good, [f"{name} {text}" for name, text in judgement.rows(caller)[1:]]
    facts = "; ".join([*(fault.fact for fault in judgement.faults), *told])
    cards = [("Are the draws good?", "Yes" if good else "No", good, facts)]
    if verdict is None:
        words = "This trace does not say how it was evaluated: parsample.sample did not make it."
        cards.append(("Did the evaluation converge?", "Unknown", True, words))
    else:
        exact = verdict.method == "sequential"
        fine = verdict.approximate_steps == 0
        answer = (
            "Exact" if exact else "Yes" if verdict.converged else "Finished by the loop" if fine else "No, as asked"
        )
        words = dict(verdict.evaluation_rows(caller))["converged"]
        words = words.removeprefix("exact: ").removeprefix("yes: ").removeprefix("no, as asked: ")
        cards.append(("Did the evaluation converge?", answer, fine, words))
    advice = (verdict.advice(caller) if verdict else advise(judgement, caller)) or [NOTHING]
    shown = [
        f'<div class="card {"good" if fine else "bad"}"><h2>{question}</h2><p class="answer">{answer}</p>'
        f"<p>{_prose(_sentence(words))}</p></div>"
        for question, answer, fine, words in cards
    ]
    items = "".join(f"<li>{_prose(_sentence(line))}</li>" for line in advice)
    return "\n".join([*shown, f'<div class="card"><h2>What to do?</h2><ul>{items}</ul></div>'])


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:].removesuffix(".") + "."


def _prose(words: str) -> str:
    """Return words that a line may not break within a flag, as browsers would after its hyphens."""
    return re.sub(r"--[\w-]+", r'<span class="flag">\g<0></span>', html.escape(words))


def _chains(number: int) -> str:
    """Return the legend of the chains' colours, or nothing where there are too many to tell apart."""
    if number > len(CHAIN_COLORS):
        return ""
    keys = "".join(f'<li><span style="background: var(--chain-{k})"></span>chain {k}</li>' for k in range(number))
    return f'<ul class="legend">{keys}</ul>'


def _table(summary: pandas.DataFrame) -> str:
    rows, note = summary, ""
    if len(summary) > MOST_ROWS:
        rows = summary.sort_values("ess_bulk", kind="stable").iloc[:MOST_ROWS]
        note = f"<p>The {MOST_ROWS} of {len(summary):,} variables with the lowest bulk ESS.</p>"
    titles = "".join(f'<th scope="col">{TITLES.get(column, column)}</th>' for column in COLUMNS)
    lines = []
    for label, row in rows.iterrows():
        poor = {"r_hat": not row["r_hat"] < GOOD_RHAT} | {
            column: not row[column] > GOOD_ESS for column in ("ess_bulk", "ess_tail")
        }
        cells = "".join(
            f"<td{' class=bad' if poor.get(column) else ''}>{row[column]:{form}}</td>"
            for column, form in COLUMNS.items()
        )
        lines.append(f'<tr><th scope="row">{_breakable(str(label))}</th>{cells}</tr>')
    head, body = f'<tr><th scope="col">variable</th>{titles}</tr>', "\n".join(lines)
    return f'{note}<div class="scroll" tabindex="0"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _breakable(label: str) -> str:
    """Return a label that a narrow table may break before its brackets and underscores."""
    return re.sub(r"(?=[\[_])", "<wbr>", html.escape(label))


def _draws(trace: Trace, summary: pandas.DataFrame) -> Iterator[str]:
    """Yield the pictures of the draws, the worst variables first."""
    labels = pictures.worst_labels(trace, MOST_VARIABLES, summary)
    if not labels:
        yield "<p>No variable has draws that are finite and move: there is nothing to draw.</p>"
    for label in labels:
        draws, row = pictures.scalar_draws(trace, label), summary.loc[label]
        yield (
            f'<h3>{html.escape(label)} <span class="facts">bulk ESS {row["ess_bulk"]:,.0f}, '
            f"R-hat {row['r_hat']:.4f}</span></h3>"
        )
        yield _figures(
            Picture("Trace: good chains look alike and have no trend.", partial(pictures.draw_trace, draws=draws)),
            Picture("Ranks: level where the chains agree.", partial(pictures.draw_rank, draws=draws)),
            Picture(
                "Autocorrelation: the faster it falls, the more each draw is worth.",
                partial(pictures.draw_autocorrelation, draws=draws),
            ),
        )
    others = list(_of_all_draws(trace, labels))
    if others:
        yield "<h3>Together</h3>"
        yield _figures(*others)
    if warmup.GROUP in as_datatree(trace).children:
        yield "<h3>Warm-up</h3>"
        yield _figures(*_of_warmup(warmup.read_warmup(trace)))


def _of_warmup(found: warmup.WarmupSteps) -> Iterator[Picture]:
    yield Picture(
        "Step size over warm-up: it should settle after the last change of coordinates.",
        partial(warmup.draw_warmup_step_size, warmup=found),
    )
    yield Picture(
        "Acceptance over warm-up: it should come near the aim, in all chains.",
        partial(warmup.draw_warmup_acceptance, warmup=found),
    )


def _of_all_draws(trace: Trace, labels: list[str]) -> Iterator[Picture]:
    diverging, energy = pictures.statistic(trace, "diverging"), pictures.statistic(trace, "energy")
    rates = pictures.statistic(trace, "acceptance_rate")
    if len(labels) > 1:
        pair = [pictures.scalar_draws(trace, label) for label in labels[:2]]
        yield Picture(
            "The two variables with the fewest effective draws, one against the other.",
            lambda ax: pictures.draw_pair(ax, labels[0], labels[1], pair[0], pair[1], diverging),
        )
    if energy is not None and np.isfinite(energy).all() and (energy.std(1) > 0).all():
        yield Picture("Energy: the two should be about as wide.", partial(pictures.draw_energy, energy=energy))
    if rates is not None and np.isfinite(rates).all():
        yield Picture(
            "Acceptance: the chains should have about the same rates.",
            partial(pictures.draw_acceptance, rates=rates),
        )


def _evaluation(trace: Trace, verdict: Verdict | None, caller: Caller) -> Iterator[str]:
    """Yield the verdict of the evaluation and its pictures."""
    if verdict is None:
        yield "<p>This trace holds no verdict about an evaluation.</p>"
        return
    yield _pairs(verdict.evaluation_rows(caller))
    if verdict.method == "sequential":
        yield "<p>The sequential loop has no iterations to show: every step is evaluated once.</p>"
        return
    work = Picture(
        "Work against the sequential loop, on a logarithmic scale: left of the line less, right of it more. A round is "
        "a batch of evaluations that can run at once.",
        lambda ax: evaluation.draw_work(ax, verdict),
    )
    if EVALUATION not in as_datatree(trace).children:
        yield _figures(work)
        remedy = html.escape(evaluation.REMEDY)
        yield f"<p>For pictures of the iterations {remedy}; the command line does so by itself.</p>"
        return
    walk = evaluation.read_walk(trace)
    first, last = walk.slowest_stretch()
    of_steps = [
        Picture(
            "Residual of every step before every iteration. Blank: not evaluated.",
            lambda ax: evaluation.draw_residuals(ax, walk, 0, walk.steps),
        )
    ]
    if last - first < walk.steps:
        of_steps.append(
            Picture(
                f"The same for the steps {first:,} to {last:,}, which took the most iterations.",
                lambda ax: evaluation.draw_residuals(ax, walk, first, last),
            )
        )
    left = (
        " Steps that are missing at its end were left to the sequential loop." if verdict.finished_sequentially else ""
    )
    yield f"<p>The iterations are those of the first segment of the first chain.{left}</p>"
    yield _figures(
        *of_steps,
        Picture(
            "The window's walk: steeper is faster. The sequential loop takes a step at a time.",
            lambda ax: evaluation.draw_window(ax, walk),
        ),
        Picture("Evaluations of each step.", lambda ax: evaluation.draw_evaluations(ax, walk)),
        work,
    )


def _settings(trace: Trace) -> Iterator[tuple[str, str]]:
    attributes = as_datatree(trace).attrs
    for name in SETTINGS:
        if name in attributes:
            yield name.replace("_", " "), str(attributes[name])
    library, version = attributes.get("inference_library"), attributes.get("inference_library_version", "")
    if library:
        yield "made by", f"{library} {version}, {attributes.get('created_at', '')}".rstrip(", ")


def _pairs(rows: list[tuple[str, str]]) -> str:
    entries = "".join(f"<div><dt>{html.escape(name)}</dt><dd>{_prose(text)}</dd></div>" for name, text in rows)
    return f"<dl>{entries}</dl>"


def _figures(*shown: Picture) -> str:
    return f'<div class="figures">{"".join(_figure(picture) for picture in shown)}</div>'


def _figure(picture: Picture) -> str:
    svg, seen = draw_svg(picture.draw)
    opening = f'<svg role="img" aria-label="{html.escape(seen)}" '
    svg = svg.replace("<svg ", opening, 1)
    return f"<figure>{svg}<figcaption>{html.escape(picture.caption)}</figcaption></figure>"


def draw_svg(draw: Callable[[Axes], str]) -> tuple[str, str]:
    """Draw a picture as an SVG element whose colours are the page's.

    Returns:
        The element, and what is seen.
    """
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    file = io.StringIO()
    # Text stays text: it takes the page's font, and can be selected and enlarged.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "parsample"}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = draw(figure.subplots())
        for ax in figure.axes:
            ax.patch.set_alpha(0)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return _for_page(text[text.index("<svg") :]), seen


def _with_own_names(page: str) -> str:
    """Give the parts of each picture names that no other picture of the page has."""
    number = itertools.count()

    def rename(found: re.Match[str]) -> str:
        mark = f"p{next(number)}-"
        svg = re.sub(r'\bid="', f'id="{mark}', found.group())
        return svg.replace('href="#', f'href="#{mark}').replace("url(#", f"url(#{mark}")

    return re.sub("<svg.*?</svg>", rename, page, flags=re.DOTALL)


def _for_page(svg: str) -> str:
    """Give a picture the page's colours and the size of its place."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # The size is that of the place, not that of the drawing.
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return re.sub("|".join(VARIABLES), lambda found: VARIABLES[found.group()], svg)
