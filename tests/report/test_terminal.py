"""What the command line prints fits into 80 columns, whole and literal."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import parsample as ps
from parsample.report.terminal import first_sentence, show_run, show_table
from parsample.results.trace import build_trace
from tests.verdicts import VERDICT

FEATURES = ("intercept", "mean fractal dimension", "worst [bold]symmetry[/bold]")


def console(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, color_system=None)


def printed(on: Console) -> str:
    file = on.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def trace(offset: float = 0.0, draws: int = 500) -> Any:
    """Independent draws; with an offset the first chain is somewhere else."""
    values = np.random.default_rng(0).normal(size=(4, draws, 3)) * [1e-4, 1, 1e5]
    values[0] += offset
    posterior = {"coefficients": values, "scale[raw]": np.abs(values[..., 1])}
    return build_trace(
        {"posterior": posterior},
        dims={"coefficients": ("feature",)},
        coords={"feature": list(FEATURES)},
        attrs=VERDICT.attributes(),
    )


def report(found: Any, width: int = 80, paths: tuple[Path, ...] = (Path("runs/x.nc"), Path("runs/x.png"))) -> str:
    on = console(width)
    summary = ps.summarize(found)
    show_run(ps.read_verdict(found, summary), summary, paths, on)
    return printed(on)


def test_the_report_fits_into_80_columns_and_cuts_nothing() -> None:
    text = report(trace())
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    for title in ("variable", "mean", "sd", "5%", "95%", "ESS", "R-hat"):
        assert title in text


def test_labels_with_brackets_are_shown_as_they_are() -> None:
    text = report(trace(), 120)
    for label in ("coefficients", *FEATURES):
        assert label in text
    assert "scale" in text
    assert "raw" in text


def test_the_numbers_of_the_summary_are_in_the_table() -> None:
    summary = ps.summarize(trace())
    lines = report(trace()).splitlines()
    [line] = [line for line in lines if line.strip().startswith("intercept")]
    row = summary.loc["coefficients[intercept]"]
    expected = [f"{row[name]:.3g}" for name in ("mean", "sd", "q5", "q95")]
    expected += [f"{row[name]:.0f}" for name in ("ess_bulk", "ess_tail")] + [f"{row['r_hat']:.4f}"]
    assert line.split()[1:] == expected


def test_a_narrow_terminal_folds_names_and_keeps_numbers_whole() -> None:
    text = report(trace(), 64)
    assert "…" not in text
    assert f"{ps.summarize(trace()).loc['coefficients[intercept]', 'r_hat']:.4f}" in text


def test_the_verdicts_and_the_paths() -> None:
    text = " ".join(report(trace()).split())
    assert "draws good R-hat at most 1.0" in text
    assert "converged yes: all 2,000 steps of 4 chains" in text
    assert "the loop is 3.0 times faster here" in text
    assert "runs/x.nc runs/x.png" in text


@pytest.mark.parametrize(("found", "words"), [(trace(offset=3.0), "coefficients["), (trace(draws=40), "not above 400")])
def test_draws_that_are_not_good_enough_say_so(found: Any, words: str) -> None:
    text = " ".join(report(found).split())
    assert "draws not good: " in text
    assert words in text
    assert "draw more (--samples; --until ess=400 --until rhat=1.01 ends a run when its draws are good)" in text
    assert "draws good" not in text


def test_too_few_draws_to_judge_are_not_good() -> None:
    found = trace(draws=3)
    assert "draws not good: 3 draws a chain are too few to judge" in " ".join(report(found).split())


def test_a_table_of_names_has_every_row() -> None:
    for kind, rows in (("target", ps.TARGETS), ("sampler", ps.SAMPLERS), ("method", ps.METHODS)):
        on = console()
        show_table(kind, rows, on)
        text = printed(on)
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= 80
        for name, row in rows.items():
            assert name in text
            assert first_sentence(row) in " ".join(text.split()) or len(name) + len(first_sentence(row)) > 60


def test_the_first_sentence_of_a_docstring() -> None:
    def documented() -> None:
        """Say A[t] in a line.

        And more.
        """

    assert first_sentence(documented) == "Say A[t] in a line"
    documented.__doc__ = None
    assert first_sentence(documented) == ""
