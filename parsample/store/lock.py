"""One run a store: a lock that the system frees when the process ends, however it ends, and a note of who holds it."""

import datetime
import json
import os
import socket
from pathlib import Path

import filelock


def take_lock(file: Path, path: str | os.PathLike[str]) -> filelock.BaseFileLock:
    """Lock a file until the lock is released, and write down beside it who holds it.

    Args:
        file: made if it is not there, and left there.
        path: of the store, for the sentence.

    Raises:
        ValueError: another process holds it; the sentence says which.
        OSError: the file cannot be made.
    """
    lock, holder = filelock.FileLock(file, timeout=0, thread_local=False), file.with_suffix(".json")
    try:
        lock.acquire()
    except filelock.Timeout:
        try:
            known = json.loads(holder.read_text(encoding="utf-8"))
            who = f"process {known['pid']} on {known['host']} since {known['since']}"
        except (OSError, ValueError, KeyError):
            who = "another process"
        raise ValueError(
            f"store is '{path}', which {who} is writing to; wait for it, end it, or give another name."
        ) from None
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    try:
        note = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now})
        holder.write_text(note, encoding="utf-8")
    except OSError:
        lock.release()
        raise
    return lock
