"""A file that takes every write, and says afterwards what went wrong."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from parsample.results.netcdf import LARGEST_KEPT, PatientFile
from parsample.results.rescue import save_in_pieces, save_somewhere
from parsample.results.trace import as_datatree, build_trace, load_trace, save_trace


def full_after(monkeypatch: pytest.MonkeyPatch, number: int, where: Path | None = None) -> None:
    """Let the disk be full once so many bytes are written, in all files or below a folder."""
    usual, left = os.write, [number]

    def write(handle: int, data: bytes) -> int:
        if where is not None and not os.readlink(f"/proc/self/fd/{handle}").startswith(str(where)):
            return usual(handle, data)
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = usual(handle, data[: left[0]])
        left[0] -= done
        return done

    monkeypatch.setattr(os, "write", write)


@pytest.mark.parametrize("room", [0, 1, 5_000, 40_000, 10**9])
def test_small_blocks_are_read_as_they_were_written_whatever_the_disk_does(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(room)
    full_after(monkeypatch, room)
    expected = bytearray(200_000)
    (tmp_path / "file").touch()
    with PatientFile(tmp_path / "file") as file:
        for _ in range(60):
            start, length = int(rng.integers(100_000)), int(rng.integers(1, 9_000))
            data = rng.bytes(length)
            file.seek(start)
            assert file.write(data) == length
            expected[start : start + length] = data
            at, size = int(rng.integers(100_000)), int(rng.integers(1, 20_000))
            found = bytearray(size)
            file.seek(at)
            assert file.readinto(found) == size
            assert found == expected[at : at + size]
    assert (file.error is None) == (room == 10**9)
    if file.error is None:
        assert (tmp_path / "file").read_bytes() == bytes(expected[: file.length])
    else:
        assert file.error.errno == errno.ENOSPC


def test_large_blocks_are_dropped_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_after(monkeypatch, 0)
    (tmp_path / "file").touch()
    with PatientFile(tmp_path / "file") as file:
        file.write(bytes(LARGEST_KEPT + 1))
        assert (len(file.pages), file.tell(), file.seek(0, os.SEEK_END)) == (0, LARGEST_KEPT + 1, LARGEST_KEPT + 1)
        assert file.truncate(10) == 10


@pytest.fixture
def trace() -> object:
    rng = np.random.default_rng(0)
    posterior = {"x": rng.normal(size=(4, 5_000, 2)), "flag": rng.normal(size=(4, 5_000)) > 0}
    return build_trace({"posterior": posterior}, dims={"x": ["place"]}, coords={"place": ["here", "there"]})


def test_a_full_disk_leaves_the_older_file(trace: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_trace(trace, tmp_path / "run.nc")
    before = (tmp_path / "run.nc").read_bytes()
    full_after(monkeypatch, 100_000)
    with pytest.raises(OSError, match="No space left on device"):
        save_trace(trace, tmp_path / "run.nc")
    assert [path.name for path in tmp_path.iterdir()] == ["run.nc"]
    assert (tmp_path / "run.nc").read_bytes() == before


def test_where_there_is_no_room_it_is_saved_elsewhere(
    trace: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, other = tmp_path / "full", tmp_path / "other"
    full.mkdir()
    other.mkdir()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(other))
    assert save_somewhere(trace, full / "run.nc") == (full / "run.nc", None)
    full_after(monkeypatch, 100_000, full)
    place, problem = save_somewhere(trace, full / "more.nc")
    assert place.parent == other
    assert "No space left" in str(problem)
    assert as_datatree(load_trace(place)).identical(as_datatree(trace))
    assert [path.name for path in full.iterdir()] == ["run.nc"]


def test_pieces_are_a_trace_too(trace: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parsample.results.rescue._largest_file", lambda: 40_000)
    folder = save_in_pieces(trace, tmp_path / "run.zarr")
    assert max(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 40_000
    found, expected = as_datatree(load_trace(folder)), as_datatree(trace)
    assert list(found.children) == list(expected.children)
    assert found["posterior"].to_dataset().equals(expected["posterior"].to_dataset())
    assert found.attrs == expected.attrs
