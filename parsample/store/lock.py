"""One run a store: a lock that the system frees when the process ends, however it ends."""

import datetime
import importlib
import json
import os
import socket
from typing import Any

# Where Windows locks a byte, which nobody else can read then: far beyond what the file holds, its holder.
BEYOND = 2**20


def take_lock(handle: int, path: str | os.PathLike[str]) -> None:
    """Lock an open file until it is closed, and write down in it who holds it.

    Args:
        handle: of the file, open to read and write.
        path: of the store, for the sentence.

    Raises:
        ValueError: another process holds it; the sentence says which.
    """
    try:
        _lock(handle)
    except (BlockingIOError, PermissionError):
        os.lseek(handle, 0, os.SEEK_SET)
        try:
            holder = json.loads(os.read(handle, 4096))
            who = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        except (ValueError, KeyError):
            who = "another process"
        raise ValueError(
            f"store is '{path}', which {who} is writing to; wait for it, end it, or give another name."
        ) from None
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now}).encode())


def _lock(handle: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        msvcrt: Any = importlib.import_module("msvcrt")
        os.lseek(handle, BEYOND, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        return
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
