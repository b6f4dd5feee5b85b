"""What a result must say about where it was measured, and the table it is written as."""

import datetime
import os
from collections.abc import Sequence
from pathlib import Path

import jax
import jaxlib

import parsample

RESULTS = Path(__file__).resolve().parent / "results"


def write_table(name: str, title: str, note: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """Write a Markdown table with the device, the versions and the date above it, and print it."""
    device = jax.devices()[0]
    where = (
        f"{device.device_kind} with {os.cpu_count()} cores, jax {jax.__version__}, "
        f"jaxlib {jaxlib.__version__}, parsample {parsample.__version__}, {datetime.date.today().isoformat()}."
    )
    lines = [f"# {title}", "", note, "", where, "", _row(header), _row(["---"] * len(header)), *map(_row, rows)]
    text = "\n".join(lines) + "\n"
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.md"
    path.write_text(text, encoding="utf-8")
    print(text)
    return path


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
