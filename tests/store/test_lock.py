"""The lock of a store: between processes where there is `fcntl`, and through `msvcrt` where there is not."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from parsample.store.lock import take_lock

CHILD = """
import os, sys
from parsample.store.lock import take_lock
take_lock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), "run.zarr")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def handles(tmp_path: Path) -> Iterator[Any]:
    """Opens the file again and again, as processes would."""
    opened: list[int] = []

    def another() -> int:
        opened.append(os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT))
        return opened[-1]

    yield another
    for handle in opened:
        os.close(handle)


def test_another_process_holds_it_until_it_ends(handles: Any, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", CHILD, str(tmp_path / "lock")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as child:
        told: Any = child.stdout
        assert told.readline() == "held\n"
        with pytest.raises(ValueError, match=rf"store is 'run', which process {child.pid} on .* since 20.* is writing"):
            take_lock(handles(), "run")
        child.kill()
    take_lock(handles(), "run")
    assert f'"pid": {os.getpid()}'.encode() in (tmp_path / "lock").read_bytes()


def test_windows_keeps_two_runs_apart_too(handles: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answers are played: a locked byte belongs to a handle, and nobody else can read or write it."""
    locked: dict[int, int] = {}
    msvcrt: Any = ModuleType("msvcrt")
    msvcrt.LK_NBLCK = 2

    def locking(handle: int, mode: int, number: int) -> None:
        place = os.lseek(handle, 0, os.SEEK_CUR)
        assert (mode, number) == (2, 1)
        if locked.setdefault(place, handle) != handle:
            raise PermissionError(13, "Permission denied")

    msvcrt.locking = locking
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", msvcrt)
    take_lock(handles(), "run")
    with pytest.raises(ValueError, match=rf"store is 'run', which process {os.getpid()} on .* since 20.* is writing"):
        take_lock(handles(), "run")
    # The text about the holder is none of the locked bytes.
    assert min(locked) > 4096
