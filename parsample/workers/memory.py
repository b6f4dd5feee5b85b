"""Finished runs by the exact bits of their position: nothing that was run is run again."""

import json
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# A file begins so, and then says on one line of what model it is.
MAGIC = b"parsample runs 1\n"
# Of a record: its kind, the bits of the position, the log density, the gradient where there is one, a checksum.
VALUE, REJECTED, WITH_GRADIENT = 0, 1, 2


class Found(NamedTuple):
    """A finished run.

    Attributes:
        value: its log density.
        gradient: flat, None where there is none.
        is_rejected: whether it failed, and counts as outside of the support.
    """

    value: float
    gradient: np.ndarray | None = None
    is_rejected: bool = False


class Memory:
    """Finished runs, in memory and, with a path, in a file that grows by a record as each returns.

    A record is one write of its full length, with a checksum: a process that is killed loses the runs that it was at,
    and no other. A record that was torn, or that does not fit its checksum, is left out when the file is read.

    Args:
        path: of the file, which is made where it is not there; None for none. One process at a time.

    Attributes:
        damaged: records that were left out.
    """

    def __init__(self, path: Path | str | None = None):
        """Read nothing yet: that needs to know what a position is."""
        self.path = None if path is None else Path(path)
        self.damaged = 0
        self._runs: dict[bytes, Found] = {}
        self._file: int | None = None
        self._identity: str | None = None
        self._dim = 0

    def __len__(self) -> int:
        """Return the number of finished runs."""
        return len(self._runs)

    def bind(self, identity: Mapping[str, Any], width: int, dim: int) -> None:
        """Say of what model this is, and read what is there.

        Args:
            identity: what tells the model from others, as JSON holds it.
            width: bytes of a position.
            dim: numbers of a gradient.

        Raises:
            ValueError: the runs that are there are those of another model, or the file is none of these.
        """
        text = json.dumps(identity, sort_keys=True)
        if self._identity not in (None, text):
            raise ValueError(_other(self.path, json.loads(str(self._identity)), identity))
        if self._identity is None and self.path is not None:
            self._open(self.path, identity, text, width, dim)
        self._identity, self._dim = text, dim

    def get(self, key: bytes) -> Found | None:
        """Return the run at a position, None where there was none."""
        return self._runs.get(key)

    def items(self) -> list[tuple[bytes, Found]]:
        """Return all of them."""
        return list(self._runs.items())

    def put(self, key: bytes, found: Found) -> None:
        """Keep a finished run."""
        self._runs[key] = found
        if self._file is not None:
            kind = REJECTED * found.is_rejected | WITH_GRADIENT * (found.gradient is not None)
            gradient = np.zeros(self._dim) if found.gradient is None else found.gradient
            body = bytes([kind]) + key + struct.pack("<d", found.value) + np.asarray(gradient, "<f8").tobytes()
            os.write(self._file, body + struct.pack("<I", zlib.crc32(body)))

    def close(self) -> None:
        """Close the file; `bind` opens it again."""
        if self._file is not None:
            os.close(self._file)
        self._file = self._identity = None

    def _open(self, path: Path, identity: Mapping[str, Any], text: str, width: int, dim: int) -> None:
        head = MAGIC + text.encode() + b"\n"
        content = path.read_bytes() if path.exists() else b""
        if head.startswith(content):  # There is nothing, or not even the whole head.
            path.write_bytes(head)
            content = head
        if not content.startswith(head):
            raise ValueError(_other(path, _identity_of(path, content), identity))
        size = 1 + width + 8 * (1 + dim) + 4
        whole, torn = divmod(len(content) - len(head), size)
        for first in range(len(head), len(head) + whole * size, size):
            self._read(content[first : first + size], width)
        self.damaged += torn > 0
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.ftruncate(self._file, len(head) + whole * size)

    def _read(self, record: bytes, width: int) -> None:
        body, (checksum,) = record[:-4], struct.unpack("<I", record[-4:])
        if zlib.crc32(body) != checksum:
            self.damaged += 1
            return
        (value,) = struct.unpack_from("<d", body, 1 + width)
        gradient = np.frombuffer(body, "<f8", offset=1 + width + 8) if body[0] & WITH_GRADIENT else None
        self._runs[body[1 : 1 + width]] = Found(value, gradient, bool(body[0] & REJECTED))


def _identity_of(path: Path, content: bytes) -> Mapping[str, Any]:
    """Return of what model a file is."""
    lines = content.split(b"\n", 2)
    try:
        if lines[0] + b"\n" == MAGIC:
            return json.loads(lines[1])
    except ValueError:
        pass
    raise ValueError(f"'{path}' is no file of finished runs, or its head is damaged; name another, or move it away.")


def _other(path: Path | None, there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    name = next(name for name in here if there.get(name) != here[name])
    where = "this memory" if path is None else f"'{path}'"
    return (
        f"{where} holds the runs of another model: its {name} is {there.get(name)!r}, and now {here[name]!r}; give the "
        "model that it was begun with, or a new place."
    )
