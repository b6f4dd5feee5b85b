"""What the command line prints: the summary of a run, and the tables of names."""

import inspect
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from parsample.results.verdict import Verdict
from parsample.results.words import COMMAND_LINE

if TYPE_CHECKING:
    import pandas


def show_run(
    verdict: Verdict, summary: "pandas.DataFrame", paths: Sequence[Path], console: Console | None = None
) -> None:
    """Print the summary table, the verdict about the draws and about the evaluation, and what was saved.

    Args:
        verdict: of a trace that `parsample.sample` returned.
        summary: of the trace, by `parsample.summarize`.
        paths: of the files that were written.
        console: to print on.
    """
    console = console or Console()
    console.print(_summary_table(summary))
    console.print()
    rows = [*verdict.rows(COMMAND_LINE), ("saved", "\n".join(map(_short, paths)))]
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for heading, text in rows:
        # Labels such as theta[Choate] would be read as markup in a plain string.
        table.add_row(heading, Text(text))
    console.print(table)


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _summary_table(summary: "pandas.DataFrame") -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("variable", overflow="fold")
    formats = {"mean": ".3g", "sd": ".3g", "q5": ".3g", "q95": ".3g"}
    formats |= {"ess_bulk": ".0f", "ess_tail": ".0f", "r_hat": ".4f"}
    titles = {"q5": "5%", "q95": "95%", "ess_bulk": "bulk\nESS", "ess_tail": "tail\nESS", "r_hat": "R-hat"}
    for column in formats:
        title = titles.get(column, column)
        # Rich shrinks columns that may wrap first, so a narrow terminal folds the names and keeps the numbers whole.
        width = max([*map(len, title.split("\n")), *(len(f"{value:{formats[column]}}") for value in summary[column])])
        table.add_column(title, justify="right", no_wrap=True, min_width=width)
    shown = None
    for name, row in summary.iterrows():
        variable, bracket, label = str(name).partition("[")
        if bracket and variable != shown:
            table.add_row(Text(variable))
        shown = variable
        text = f"  {label.removesuffix(']')}" if bracket else variable
        table.add_row(Text(text), *(f"{row[column]:{form}}" for column, form in formats.items()))
    return table


def show_json(verdict: Verdict, summary: "pandas.DataFrame", paths: Sequence[Path]) -> None:
    """Print the same as one JSON object: `good`, `draws`, `advice`, `evaluation`, `summary` and `saved`."""
    judgement = verdict.judgement
    assert judgement is not None
    facts = {
        "good": judgement.is_good,
        "draws": judgement.to_dict(),
        "advice": verdict.advice(COMMAND_LINE),
        "evaluation": {"converged": verdict.converged, **verdict.to_dict()},
        "summary": summary.to_dict("index"),
        "saved": [str(path) for path in paths],
    }
    # JSON has no NaN: what is not known becomes null.
    print(json.dumps(_without_nan(facts), indent=2))


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show_table(kind: str, rows: Mapping[str, type], console: Console | None = None) -> None:
    """Print a table of names with the first sentence of each class's docstring."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column(kind, style="bold", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for name, row in rows.items():
        # A[t] would be read as markup in a plain string.
        table.add_row(name, Text(first_sentence(row)))
    (console or Console()).print(table)


def first_sentence(documented: Any) -> str:
    """Return the first line of a docstring, without its full stop."""
    return (inspect.getdoc(documented) or "").split("\n", 1)[0].rstrip(".")
