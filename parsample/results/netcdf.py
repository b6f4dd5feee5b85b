"""A tree on the disk as netCDF, so that a full disk is an error and no more.

HDF5 cannot bear a write that fails: what it has not written it tries to write again when its objects are cleared away,
and the interpreter dies of it. So HDF5 is given a file that takes everything and says afterwards what went wrong.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray

PAGE = 4096
# HDF5 reads again what it wrote of its own; such blocks are small, and draws are never read again.
LARGEST_KEPT = 2**16


class PatientFile(io.RawIOBase):
    """A file to write, whose writes never fail. After the first that does, only small blocks are kept, in memory.

    Attributes:
        error: of the first write that failed; None while all is well.
    """

    def __init__(self, path: Path):
        """Open a file that is there, and empty it."""
        super().__init__()
        self.handle = os.open(path, os.O_RDWR | os.O_TRUNC | getattr(os, "O_BINARY", 0))
        self.position = self.length = 0
        self.error: OSError | None = None
        self.pages: dict[int, bytearray] = {}

    def close(self) -> None:
        """Close the file; what a network disk says only now is an error, too."""
        if not self.closed:
            super().close()
            with self._noting_errors():
                os.close(self.handle)

    def readable(self) -> bool:
        """It is."""
        return True

    def writable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position."""
        self.position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.length}[whence]
        return self.position

    def tell(self) -> int:
        """Return the position."""
        return self.position

    def write(self, data: Any) -> int:
        """Write bytes, or, after an error, keep them if they are few."""
        view = memoryview(data).cast("B")
        done = 0
        with self._noting_errors():
            while self.error is None and done < len(view):
                os.lseek(self.handle, self.position + done, os.SEEK_SET)
                done += os.write(self.handle, view[done:])
        if self.error is not None and len(view) <= LARGEST_KEPT:
            self._keep(view)
        self.position += len(view)
        self.length = max(self.length, self.position)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        """Read as many bytes as fit; zeros where nothing was written."""
        view = memoryview(buffer).cast("B")
        view[:] = self._read(self.position, len(view))
        self.position += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Make the file as long as that."""
        self.length = self.position if size is None else size
        with self._noting_errors():
            if self.error is None:
                os.ftruncate(self.handle, self.length)
        return self.length

    @contextlib.contextmanager
    def _noting_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error

    def _keep(self, view: memoryview) -> None:
        """Keep bytes at the present position in memory."""
        first, last = self.position // PAGE, (self.position + len(view) - 1) // PAGE
        for number in range(first, last + 1):
            if number not in self.pages:
                self.pages[number] = bytearray(self._read(number * PAGE, PAGE))
            start = max(self.position, number * PAGE)
            end = min(self.position + len(view), (number + 1) * PAGE)
            part = view[start - self.position : end - self.position]
            self.pages[number][start - number * PAGE : end - number * PAGE] = part

    def _read(self, start: int, length: int) -> bytes:
        """Return bytes of the file, and of the memory where it has them."""
        found = b""
        with contextlib.suppress(OSError):
            os.lseek(self.handle, start, os.SEEK_SET)
            while len(found) < length and (more := os.read(self.handle, length - len(found))):
                found += more
        whole = bytearray(found.ljust(length, b"\0"))
        for number in range(start // PAGE, (start + length - 1) // PAGE + 1):
            if number in self.pages:
                low, high = max(start, number * PAGE), min(start + length, (number + 1) * PAGE)
                whole[low - start : high - start] = self.pages[number][low - number * PAGE : high - number * PAGE]
        return bytes(whole)


def write_netcdf(tree: xarray.DataTree, path: Path) -> None:
    """Write a tree as netCDF-4 into a file that is there.

    Raises:
        OSError: the write failed, for example because the disk is full.
    """
    import h5netcdf
    from xarray.backends import H5NetCDFStore

    with PatientFile(path) as file:
        with h5netcdf.File(file, "w") as root:
            for node in tree.subtree:
                group = None if node.path == "/" else node.path
                node.to_dataset(inherit=False).dump_to_store(H5NetCDFStore(root, group=group, mode="a"))
                if file.error is not None:
                    break
    if file.error is not None:
        raise file.error
