"""A trace as a Zarr hierarchy that grows: how it lies on the disk, and how it is read.

The folder is a plain Zarr v3 group. Its own metadata file, `zarr.json`, repeats the metadata of everything below
(Zarr's consolidated metadata), the lengths of the arrays among them. So replacing this one file is what makes rows part
of the trace: readers that start at the top see all arrays at the same length, and what lies beyond was never there.
"""

import contextlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray

# Beside the arrays: the lock, and what is needed to go on.
PRIVATE = ".parsample"
# The attribute with the state of the run.
RUN = "parsample_run"
# Bytes that the largest variable fills in a chunk, which is a file: large enough for few files, and still small.
CHUNK_BYTES = 4 * 2**20


def is_store(path: str | os.PathLike[str]) -> bool:
    """Say whether a path leads to a store of a run."""
    return (Path(path).expanduser() / "zarr.json").is_file() and (Path(path).expanduser() / PRIVATE).is_dir()


def read_run(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the state of the run from a store.

    Raises:
        ValueError: there is no such store.
    """
    folder = Path(path).expanduser()
    if not is_store(folder):
        raise ValueError(f"store is '{path}', which is no store of a run; give what was store= of parsample.sample.")
    with reading(path):
        return json.loads(json.loads((folder / "zarr.json").read_text(encoding="utf-8"))["attributes"][RUN])


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Refuse in one sentence what cannot be read from a store, for another version wrote it or it is damaged.

    Raises:
        ValueError: something is not as this version writes it.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"store is '{path}', which cannot be read by this version of parsample ({type(error).__name__}: {error}); "
            "go on with the version that it was begun with, or begin a new store."
        ) from error


def open_tree(path: Path) -> "xarray.DataTree":
    """Open a store lazily.

    Raises:
        ValueError: it is no Zarr group, or no draw was committed to it.
    """
    import xarray

    try:
        tree = xarray.open_datatree(path, engine="zarr")
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"path: '{path}' is no Zarr store ({error}); give one that parsample.sample wrote.") from error
    if RUN in tree.attrs and not tree.children:
        raise ValueError(
            f"path: '{path}' holds no draws yet; go on with `parsample resume {path}` or parsample.resume."
        )
    datasets = {}
    for node in tree.subtree:
        dataset = node.to_dataset(inherit=False)
        text = {
            name: np.asarray([str(label) for label in x.values])
            for name, x in dataset.coords.items()
            if x.dtype.kind in "TO"
        }
        datasets[node.path] = dataset.assign_coords({name: (name, labels) for name, labels in text.items()})
    found = xarray.DataTree.from_dict(datasets)
    found.attrs.pop(RUN, None)
    return found


class Layout:
    """The arrays of a store, and its metadata; nothing of a run is known here.

    Attributes:
        folder: of the store.
        draws: rows along `draw` that the next ones follow, whether committed or not.
        attributes: of the root, without the state of the run.
    """

    def __init__(self, folder: Path):
        """Take the store as it was committed last, an empty one included."""
        self.folder, self.draws = folder, 0
        self.metadata: dict[str, dict[str, Any]] = {}
        self.attributes: dict[str, Any] = {}
        self.arrays: dict[str, Any] = {}
        if (folder / "zarr.json").is_file():
            root = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
            self.metadata = root["consolidated_metadata"]["metadata"]
            self.attributes = {name: value for name, value in root["attributes"].items() if name != RUN}
        for name in self.metadata:
            # They are written to below, and somebody may have changed the file.
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"it names an array outside of its folder, '{name}'")
        for name, described in self.metadata.items():
            # The files of their own may be those of a commit that was never made.
            if described["node_type"] == "array" and self._read(name) != described:
                _replace(folder / name / "zarr.json", described)
            if described["node_type"] == "array":
                self._open(name)
        self.draws = self.length

    @property
    def length(self) -> int:
        """Rows along `draw` of the arrays, which may be more than `draws` after `rewind`."""
        return self.metadata["posterior/draw"]["shape"][0] if "posterior/draw" in self.metadata else 0

    def rewind(self, draws: int, groups: Iterable[str]) -> None:
        """Let the next rows follow the first `draws`, and leave out groups with what belongs to them.

        The rows after them are as they were until new ones are written in their place.
        """
        self.draws = draws
        for group in groups:
            for paths in (self.metadata, self.arrays):
                for path in [path for path in paths if path.split("/")[0] == group]:
                    del paths[path]

    def create(self, tree: "xarray.DataTree", chunk_rows: int | None = None) -> None:
        """Make the groups and arrays of a tree.

        Args:
            tree: with the names, dims, dtypes and coordinates; its values are written too, unless they have draws that
                are to follow.
            chunk_rows: draws in a chunk, where this is a tree of which more draws will follow; they are written by
                `append`, all of them.
        """
        for group, node in tree.children.items():
            dataset = node.to_dataset()
            self.metadata[group] = {"attributes": {}, "zarr_format": 3, "node_type": "group"}
            _replace(self.folder / group / "zarr.json", self.metadata[group])
            for name, variable in dataset.variables.items():
                self._create(f"{group}/{name}", variable, chunk_rows)

    def _create(self, path: str, variable: Any, chunk_rows: int | None) -> None:
        import zarr

        values, dims = np.asarray(variable.values), variable.dims
        grows = chunk_rows is not None and "draw" in dims
        axis = dims.index("draw") if grows else -1
        shape = tuple(0 if place == axis else size for place, size in enumerate(values.shape))
        chunks = tuple(
            int(chunk_rows or 1) if place == axis else max(1, size) for place, size in enumerate(values.shape)
        )
        is_text = values.dtype.kind in "UO"
        array = zarr.create_array(
            store=str(self.folder),
            name=path,
            shape=shape,
            chunks=chunks,
            dtype=str if is_text else values.dtype,
            fill_value=np.nan if values.dtype.kind == "f" else None,
            dimension_names=list(map(str, dims)),
            overwrite=True,
        )
        if not grows:
            array[...] = values.astype(object) if is_text else values
        self.metadata[path] = self._read(path)
        self._open(path)

    def _open(self, path: str) -> None:
        import zarr

        self.arrays[path] = zarr.open_array(store=str(self.folder), path=path, mode="r+")

    def _read(self, path: str) -> dict[str, Any]:
        return json.loads((self.folder / path / "zarr.json").read_text(encoding="utf-8"))

    def append(self, groups: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Write further draws, shape (chain, draw, ...); they count from the next `commit` on."""
        self.draws = self.write(groups, self.draws)

    def write(self, groups: Mapping[str, Mapping[str, np.ndarray]], first: int) -> int:
        """Write rows, shape (chain, draw, ...), from the draw `first` on, and return the number of that after them."""
        end = first
        for group, given in groups.items():
            variables = dict(given)
            end = first + next(iter(variables.values())).shape[1]
            variables["draw"] = np.arange(first, end)
            for name, values in variables.items():
                array = self.arrays[f"{group}/{name}"]
                place = (slice(first, end),) if name == "draw" else (slice(None), slice(first, end))
                array.resize((end,) if name == "draw" else (array.shape[0], end, *array.shape[2:]))
                array[place] = values.astype(array.dtype)
                self.metadata[f"{group}/{name}"]["shape"] = list(array.shape)
                self._sync(f"{group}/{name}", array, len(place) - 1, first, end)
        return end

    def _sync(self, path: str, array: Any, axis: int, first: int, end: int) -> None:
        """Wait until the chunks that rows were written to are on the disk."""
        rows = array.chunks[axis]
        for number in range(first // rows, -(-end // rows)):
            indices = [str(number if place == axis else 0) for place in range(array.ndim)]
            file = self.folder.joinpath(path, "c", *indices)
            # A chunk of nothing but the fill value has no file.
            if file.is_file():
                _sync_file(file)
                _sync_folder(file.parent)

    def commit(self, attributes: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        """Make what was written part of the trace, with these attributes, at once.

        Args:
            attributes: of the root and every group.
            run: the state of the run that goes with it.
        """
        for described in self.metadata.values():
            if described["node_type"] == "group":
                described["attributes"] = dict(attributes)
        # Zarr loses arrays of a group that do not follow each other.
        groups = [path for path, described in self.metadata.items() if described["node_type"] == "group"]
        paths = sorted(self.metadata, key=lambda path: groups.index(path.split("/")[0]))
        metadata = {path: self.metadata[path] for path in paths}
        root = {
            "attributes": {**attributes, RUN: json.dumps(run)},
            "zarr_format": 3,
            "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": metadata},
            "node_type": "group",
        }
        _replace(self.folder / "zarr.json", root)

    def write_own_metadata(self) -> None:
        """Let the files of the groups say what the root says of them, for readers that do not start at the root."""
        for name, described in self.metadata.items():
            if described["node_type"] == "group":
                _replace(self.folder / name / "zarr.json", described)


def rows_of_chunk(groups: Mapping[str, Mapping[str, np.ndarray]], most: int) -> int:
    """Return how many draws a chunk is to hold, a multiple of those in these groups, and hardly more than `most`."""
    arrays = [values for variables in groups.values() for values in variables.values()]
    rows = max(1, arrays[0].shape[1])
    largest = max(values.nbytes for values in arrays)
    return rows * max(1, min(CHUNK_BYTES // max(1, largest), -(-most // rows)))


def write_durably(path: Path, write: Any) -> None:
    """Let `write(file)` fill a file that takes its place, and any other's, when it is whole and on the disk."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync_folder(path.parent)


def _replace(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content).encode()
    write_durably(path, lambda file: file.write(text))


def _sync_file(path: Path) -> None:
    # Windows asks for the right to write.
    _sync(path, os.O_RDWR)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(path: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        _sync(path, os.O_RDONLY)
