"""Data from a mapping or a JSON file, for the targets of posteriordb."""

import json

import numpy as np
import pytest

from parsample.targets import TARGETS, json_data
from tests.targets.builders import SMALL_DATA, log_density, small_data, write_json

ALL = pytest.mark.parametrize("name", SMALL_DATA)


@ALL
def test_a_mapping_and_a_file_and_a_file_with_more_give_the_same_target(name, tmp_path, rng_key):
    data = small_data(name)
    arrays = {key: np.asarray(value) for key, value in data.items()}
    whole = {"name": name, "data": data, "reference": {}}
    given = [data, arrays, whole, write_json(tmp_path / "data.json", data)]
    given += [str(write_json(tmp_path / "whole.json", whole))]
    targets = [TARGETS[name](one) for one in given]
    start = targets[0].initial_position(rng_key)
    assert len({float(log_density(target, **start)) for target in targets}) == 1


@ALL
def test_sizes_may_be_left_out(name):
    data = small_data(name)
    needed = {key: value for key, value in data.items() if key not in ("N", "T", "D")}
    assert len(needed) < len(data)
    TARGETS[name](needed)


@ALL
def test_every_other_entry_has_to_be_there(name):
    data = small_data(name)
    for key in data:
        if key in ("N", "T", "D"):
            continue
        rest = {other: value for other, value in data.items() if other != key}
        with pytest.raises(
            ValueError, match=rf"data has no entry '{key}' but .*; expected a mapping or .*: .*\b{key}\b"
        ):
            TARGETS[name](rest)


@ALL
def test_without_data_the_error_says_where_to_give_them(name):
    with pytest.raises(
        ValueError, match=r"data is None, expected .* posteriordb's .*: .*; pass .*data=PATH, .*--data PATH"
    ):
        TARGETS[name]()


def test_entries_that_are_not_finite_are_named(tmp_path):
    data = small_data("blr")
    data["X"][4][1] = float("nan")
    path = write_json(tmp_path / "data.json", data)
    assert "NaN" in path.read_text()
    with pytest.raises(ValueError, match=r"data\['X'\]\[4, 1\] is nan, expected a finite number"):
        TARGETS["blr"](path)
    data["X"][4][1] = None
    with pytest.raises(ValueError, match=r"data\['X'\]\[4, 1\] is nan, expected a finite number"):
        TARGETS["blr"](data)
    data["X"][4].pop()
    with pytest.raises(ValueError, match=r"data\['X'\] has rows of different lengths, expected the shape \(rows, feat"):
        TARGETS["blr"](data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"y": [1,\n2', r"'.*file', which cannot be read \(it is not JSON: Expecting .* in line 2\)"),
        (b"", r"cannot be read \(it is not JSON: Expecting value in line 1\); expected a mapping or a JSON file"),
        (b"PK\x03\x04\xff", r"cannot be read \(it is not a text file; if it is an archive, unpack it\)"),
        (b"[1, 2]", r"data, read from '.*file', is a list, expected a mapping or a JSON file with the data of post"),
        (b"{}", r"data, read from '.*file', has no entry 'y' but none; expected"),
    ],
)
def test_files_that_are_something_else(content, message, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        TARGETS["garch"](path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"data is '.*missing', which cannot be read \(No such file or directory\)"):
        TARGETS["garch"](tmp_path / "missing")
    with pytest.raises(ValueError, match=r"cannot be read \(Is a directory\)"):
        TARGETS["garch"](tmp_path)


def test_something_else_than_a_mapping_or_a_path():
    with pytest.raises(
        ValueError, match="data is a list, expected a mapping or a JSON file with the data of posteriordb"
    ):
        TARGETS["garch"]([1.0, 2.0])


def test_a_size_is_a_whole_number():
    assert json_data.whole({"N": 3.0}, "N") == 3
    assert json_data.whole(json.loads('{"N": 3}'), "N") == 3
    for wrong in (0, -1, 2.5, [3]):
        with pytest.raises(ValueError, match=r"data\['N'\] (is .*, expected a whole number of at least 1|has shape)"):
            json_data.whole({"N": wrong}, "N")
