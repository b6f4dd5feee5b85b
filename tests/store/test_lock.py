"""The lock of a store, between processes and within one."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from parsample.store.lock import take_lock

CHILD = """
import sys
from pathlib import Path
from parsample.store.lock import take_lock
lock = take_lock(Path(sys.argv[1]), "run.zarr")
print("held", flush=True)
sys.stdin.read()
"""


def test_another_process_holds_it_until_it_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", CHILD, str(file)], env=environment, **pipes) as child:
        told: Any = child.stdout
        assert told.readline() == "held\n"
        with pytest.raises(ValueError, match=rf"store is 'run', which process {child.pid} on .* since 20.* is writing"):
            take_lock(file, "run")
        child.kill()
    lock = take_lock(file, "run")
    assert f'"pid": {os.getpid()}' in file.with_suffix(".json").read_text()
    lock.release()


def test_two_runs_of_one_process_are_kept_apart_too(tmp_path: Path) -> None:
    first = take_lock(tmp_path / "lock", "run")
    for text, who in (
        (None, f"process {os.getpid()} on"),
        ("nothing", "another process is"),
        ("{}", "another process"),
    ):
        if text is not None:
            (tmp_path / "lock.json").write_text(text)
        with pytest.raises(ValueError, match=f"store is 'run', which {who}"):
            take_lock(tmp_path / "lock", "run")
    first.release()
    take_lock(tmp_path / "lock", "run").release()


def test_a_lock_whose_holder_cannot_be_written_down_is_free_again(tmp_path: Path) -> None:
    (tmp_path / "lock.json").mkdir()
    with pytest.raises(OSError, match="directory"):
        take_lock(tmp_path / "lock", "run")
    (tmp_path / "lock.json").rmdir()
    take_lock(tmp_path / "lock", "run").release()
