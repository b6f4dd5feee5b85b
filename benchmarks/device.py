"""What a result must say about where it was measured, and the table it is written as."""

import argparse
import datetime
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jaxlib

import parsample

RESULTS = Path(__file__).resolve().parent / "results"


def parse_only(what: str) -> str:
    """Return the text that the names of the cases to run must have in them, from the command line; "" for all."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="cases with this in their name; prints, saves nothing"
    )
    return str(parser.parse_args().only)


def write_rows(
    name: str,
    title: str,
    note: str | Callable[[Sequence[Sequence[Any]]], str],
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    save: bool = True,
) -> None:
    """Print rows as they are made, then write the table; if interrupted, with what there is and a word on it.

    A note that sums the rows up is a function of them.
    """
    found: list[Sequence[object]] = []
    status, missing = 0, ""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(*header, sep=" | ")
    try:
        for row in rows:
            found.append(row)
            print(*row, sep=" | ", flush=True)
    except KeyboardInterrupt:
        missing = f" The run was interrupted after {len(found)} rows: the others are missing."
        status = 130
    if save and found:
        text = note(found) if callable(note) else note
        write_table(name, title, text + missing, header, found)
    if status:
        raise SystemExit(status)


def write_table(name: str, title: str, note: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """Write a Markdown table with the device, the versions and the date above it, and print it."""
    device = jax.devices()[0]
    where = (
        f"{device.device_kind} with {os.cpu_count()} cores, jax {jax.__version__}, "
        f"jaxlib {jaxlib.__version__}, parsample {parsample.__version__}, {datetime.date.today().isoformat()}."
    )
    lines = [f"# {title}", "", note, "", where, "", *table_lines(header, rows)]
    text = "\n".join(lines) + "\n"
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.md"
    path.write_text(text, encoding="utf-8")
    print(text)
    return path


def table_lines(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [_row(header), _row(["---"] * len(header)), *map(_row, rows)]


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
