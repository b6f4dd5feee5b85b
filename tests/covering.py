"""Parts of large tables in which everything meets something: what is run always, where the whole would take hours."""

import itertools
from collections.abc import Iterable


def covering(rows: Iterable[tuple], known: Iterable[tuple] = ()) -> list[tuple]:
    """Choose rows in which any two values stand side by side that do so in the table: a pairwise covering.

    Most faults of combinations show with two values already. Greedily: the row with the most pairs that are new, and
    the first of those.

    Args:
        rows: the table; its rows have the same length.
        known: rows that are chosen already.

    Returns:
        The rows to add, in the order of the table.
    """

    def pairs(row: tuple) -> set[tuple]:
        return set(itertools.combinations(enumerate(row), 2))

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
