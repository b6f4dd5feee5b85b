"""Save a trace where there is room, if there is none where it should be: what was drawn ends somewhere."""

import math
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parsample.results.trace import Trace, as_datatree, save_trace

# Bytes of a piece where files may be of any size.
PIECE = 2**20


def save_somewhere(trace: Trace, path: Path) -> tuple[Path, Exception | None]:
    """Save a trace as netCDF at a path, or else elsewhere: in a folder with room, or in pieces that are small enough.

    Args:
        trace: `arviz.InferenceData` or `xarray.DataTree`.
        path: the file.

    Returns:
        Where it is, for `parsample.load_trace`; and what went wrong at the path, None if nothing did.

    Raises:
        OSError: it could not be saved anywhere.
        ValueError: the path cannot be written, nor anything else.
    """
    try:
        return save_trace(trace, path), None
    except (OSError, ValueError) as error:
        first = error
    name = f"{path.stem}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    # The last is memory: it is gone when the machine restarts, and the message says the folder.
    folders = [Path(tempfile.gettempdir()), Path.home(), Path("/dev/shm")]
    attempts: list[tuple[Callable[[Trace, Path], Path], Path]] = [
        (save_trace, folder / f"{name}.nc") for folder in folders
    ]
    attempts += [(save_in_pieces, folder / f"{name}.zarr") for folder in (path.parent, *folders)]
    for save, place in attempts:
        try:
            return save(trace, place), first
        except (OSError, ValueError):
            continue
    raise first


def save_in_pieces(trace: Trace, folder: Path) -> Path:
    """Save a trace as a Zarr folder, whose files are as small as the limit on the size of files wants them.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    tree, piece = as_datatree(trace), min(PIECE, _largest_file() // 2)
    encoding: dict[str, Any] = {
        node.path: {name: {"chunks": _chunks(row, piece)} for name, row in node.variables.items() if row.ndim}
        for node in tree.subtree
        if node.variables
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # text has no place in Zarr's specification yet; `load_trace` reads it
            tree.to_zarr(folder, mode="w-", encoding=encoding)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _largest_file() -> int:
    try:
        import resource
    except ImportError:  # not on Windows
        return 2 * PIECE
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return 2 * PIECE if limit == resource.RLIM_INFINITY else max(limit, 2)


def _chunks(variable: Any, piece: int) -> tuple[int, ...]:
    """Return a shape of chunks of so many bytes: the longest axis is halved until they are small enough."""
    shape = [max(size, 1) for size in variable.shape]
    while math.prod(shape) * variable.dtype.itemsize > piece and max(shape) > 1:
        longest = shape.index(max(shape))
        shape[longest] = -(-shape[longest] // 2)
    return tuple(shape)
