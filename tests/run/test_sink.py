"""Where draws go: what keeps them in memory and what keeps them on the disk are one thing to a run."""

from pathlib import Path

import pytest

import parsample as ps
from parsample.run.open_store import open_store
from parsample.run.sink import Memory, Sink


def test_memory_and_disk_are_sinks(tmp_path: Path) -> None:
    with open_store(tmp_path / "run.zarr", ps.Settings("banana"), is_new=True) as store:
        for sink in (Memory(), store):
            assert isinstance(sink, Sink)
            assert (sink.tally, sink.wants_draws) == (None, True)
            assert list(sink.draws()) == []


@pytest.mark.parametrize("name", ["add", "states", "adaptation", "interrupted", "tally"])
def test_what_lacks_something_is_none(name: str) -> None:
    members = {key: getattr(Memory, key) for key in dir(Memory) if not key.startswith("__") and key != name}
    assert not isinstance(type("Lacking", (), {**members, "wants_draws": True})(), Sink)
