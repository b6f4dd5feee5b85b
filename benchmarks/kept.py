"""Runs that take hours in all: each is kept as it ends, one line of JSON, and is not made again."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read(path: Path, key: Sequence[str]) -> dict[tuple[Any, ...], Row]:
    """Return the rows that are kept by their key, the last one where there are several."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return {tuple(row[name] for name in key): row for row in rows}


def keep(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row, so that it is on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
