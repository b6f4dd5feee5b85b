"""Tables as plain text."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Return a line a row, its cells in columns: the first `left` of them to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = lambda row: (f"{cell:{'<' if at < left else '>'}{widths[at]}}" for at, cell in enumerate(row))  # noqa: E731
    return ["  ".join(cells(row)).rstrip() for row in rows]
