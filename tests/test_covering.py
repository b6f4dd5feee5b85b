"""What is always run of a large table has everything in it that the table has."""

import itertools
from collections.abc import Sequence
from typing import Any

from tests.covering import covering, each_once

COLUMNS: list[Sequence] = ["abcdefg", [None, 7], [1, 2, 3]]


def always(parameters: list[Any]) -> list[tuple]:
    return [parameter.values for parameter in parameters if not parameter.marks]


def pairs(rows: Any) -> set[tuple]:
    return {pair for row in rows for pair in itertools.combinations(enumerate(row), 2)}


def test_the_table_is_whole_and_the_rest_of_it_is_for_the_grid() -> None:
    parameters = each_once(*COLUMNS)
    assert [parameter.values for parameter in parameters] == list(itertools.product(*COLUMNS))
    assert {mark.name for parameter in parameters for mark in parameter.marks} == {"grid"}


def test_every_value_is_always_run() -> None:
    rows = always(each_once(*COLUMNS))
    assert len(rows) == 7
    assert [set(column) for column in zip(*rows, strict=True)] == [set(column) for column in COLUMNS]


def test_every_two_values_are_covered() -> None:
    rows = covering(itertools.product(*COLUMNS))
    assert len(rows) < 42 / 1.5
    assert pairs(rows) == pairs(itertools.product(*COLUMNS))


def test_pairs_of_some_columns() -> None:
    table = list(itertools.product(*COLUMNS))
    rows = covering(table, table[:1], columns=((0, 1),))
    assert table[0] not in rows
    assert {row[:2] for row in [table[0], *rows]} == {row[:2] for row in table}
    assert len(rows) == 13
