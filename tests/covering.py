"""Parts of large tables in which everything meets something: what is run always, where the whole would take hours."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import pytest


def each_once(*columns: Sequence) -> list[Any]:
    """Return the parameters of a test over all combinations of the columns, of which a few are always run.

    In those few every value of every column stands at least once. The others have the marker `grid`: they are for
    tables of which a combination would hardly show what none of its values does.
    """
    always = {tuple(i % len(column) for column in columns) for i in range(max(map(len, columns)))}
    return [
        pytest.param(
            *(column[i] for column, i in zip(columns, row, strict=True)),
            marks=() if row in always else pytest.mark.grid,
        )
        for row in itertools.product(*(range(len(column)) for column in columns))
    ]


def covering(
    rows: Iterable[tuple], known: Iterable[tuple] = (), columns: Iterable[tuple[int, int]] | None = None
) -> list[tuple]:
    """Choose rows in which any two values stand side by side that do so in the table: a pairwise covering.

    Most faults of combinations show with two values already. Greedily: the row with the most pairs that are new, and
    the first of those.

    Args:
        rows: the table; its rows have the same length.
        known: rows that are chosen already.
        columns: the pairs of columns, by number, whose values have to meet; all of them by default.

    Returns:
        The rows to add, in the order of the table.
    """

    def pairs(row: tuple) -> set[tuple]:
        numbers = itertools.combinations(range(len(row)), 2) if columns is None else columns
        return {(one, row[one], other, row[other]) for one, other in numbers}

    left = {row: pairs(row) for row in rows}
    chosen: set[tuple] = set()

    def take(row: tuple) -> None:
        met = pairs(row)
        for other in left.values():
            other -= met

    for row in known:
        take(row)
    while left and left[best := max(left, key=lambda row: len(left[row]))]:
        chosen.add(best)
        take(best)
    return [row for row in left if row in chosen]
