"""The trace: arrays in, an ArviZ object out, and netCDF files that open under every ArviZ.

ArviZ changed its container between 0.x (`arviz.InferenceData`) and 1.x (`xarray.DataTree`). Inside, everything here is
a plain `xarray.DataTree`; only what users receive depends on the ArviZ they have, and `arviz_generation` alone decides.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Shaped

from parsample.results.attributes import standard_attributes, storable_attributes
from parsample.results.netcdf import write_netcdf

if TYPE_CHECKING:
    import xarray

Trace = Any
"""What ArviZ works on: `arviz.InferenceData` under ArviZ 0.x, `xarray.DataTree` from ArviZ 1 on."""

SAMPLE_DIMS = ("chain", "draw")
UNSAMPLED_GROUPS = frozenset({"observed_data", "constant_data", "predictions_constant_data", "evaluation"})


@functools.cache
def arviz_generation() -> int:
    """Tell which container the installed ArviZ works on: 0 for `InferenceData` (ArviZ 0.x), 1 for `DataTree`."""
    return min(int(importlib.metadata.version("arviz").split(".")[0]), 1)


def import_arviz() -> ModuleType:
    """Import ArviZ without the notice that 0.x prints once a day about its own successor."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*ArviZ is undergoing", category=FutureWarning)
        import arviz
    return arviz


def build_trace(groups: Mapping[str, Mapping[str, Shaped[np.ndarray | jax.Array, "..."]]], **options: Any) -> Trace:
    """Put arrays into the ArviZ object of the installed ArviZ.

    Args:
        groups: group -> variable -> values, shape (chain, draw, ...).
        **options: as for `build_tree`, which says what both are.

    Returns:
        `arviz.InferenceData` under ArviZ 0.x, `xarray.DataTree` from ArviZ 1 on.

    Raises:
        ValueError: as `build_tree` does.
    """
    return _for_installed_arviz(build_tree(groups, **options))


def build_tree(
    groups: Mapping[str, Mapping[str, Shaped[np.ndarray | jax.Array, "..."]]],
    *,
    dims: Mapping[str, Sequence[str]] | None = None,
    group_dims: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    coords: Mapping[str, Sequence[Any]] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xarray.DataTree:
    """Put arrays into a tree of datasets, which ArviZ need not be imported for.

    Args:
        groups: group -> variable -> values, shape (chain, draw, ...), each variable in its own units. In a group whose
            name ends in `sample_stats`, shape (chain,) is one value a chain and keeps the dim `chain` alone. The groups
            `observed_data`, `constant_data`, `predictions_constant_data` and `evaluation` have no chain and draw. Half
            precision (float16, bfloat16), which netCDF does not know, is widened to float32, which loses nothing.
        dims: variable -> names of its dims after chain and draw, one an axis. Variables that are not named here get
            `<variable>_dim_0`, `<variable>_dim_1`, ... as in ArviZ.
        group_dims: what `dims` says, of one group, by group; in that group it comes first.
        coords: dim -> labels, as many as the dim is long. Dims that are not named here are numbered from 0.
        attrs: what the root and every group carry as attributes, beside `created_at`, `creation_library`,
            `inference_library` and their versions, which they can override. netCDF stores text, numbers and lists of
            either, so True and False become 1 and 0, None becomes "none", a mapping or a mixed list becomes JSON,
            integers beyond 64 bits and everything else become text.

    Raises:
        ValueError: names, shapes, dtypes, dims or coords do not fit together.
    """
    import xarray

    dims, coords = dict(dims or {}), dict(coords or {})
    arrays = _checked_arrays(groups)
    _check_dims_known(dims, arrays)
    attributes = standard_attributes() | storable_attributes(attrs or {})
    datasets = {
        group: xarray.Dataset(
            *_variables_and_coords(group, variables, {**dims, **(group_dims or {}).get(group, {})}, coords),
            attrs=attributes,
        )
        for group, variables in arrays.items()
    }
    tree = xarray.DataTree.from_dict(datasets)
    tree.attrs = dict(attributes)
    return tree


def as_datatree(trace: Trace) -> xarray.DataTree:
    """Turn the trace of either ArviZ into a plain `xarray.DataTree`.

    Args:
        trace: `arviz.InferenceData` or `xarray.DataTree`.

    Returns:
        The tree, one child a group. A DataTree is returned as it is.

    Raises:
        ValueError: it is neither.
    """
    import xarray

    if isinstance(trace, xarray.DataTree):
        return trace
    if not hasattr(trace, "to_datatree"):
        expected = "expected an arviz.InferenceData or an xarray.DataTree; pass what sample or load_trace returned."
        raise ValueError(f"trace: got {type(trace).__name__}, {expected}")
    tree = xarray.DataTree.from_dict(dict(trace.items()))
    tree.attrs = dict(trace.attrs or {})
    return tree


def merged(trace: Trace, more: Trace) -> Trace:
    """Return a trace with the groups of two, and the attributes of the first.

    Args:
        trace: `arviz.InferenceData` or `xarray.DataTree`.
        more: the same, with other groups; those of the posterior's chains and draws get its coordinates.
    """
    import xarray

    tree, others = as_datatree(trace), as_datatree(more)
    coords = {name: tree["posterior"].coords[name] for name in SAMPLE_DIMS if name in tree["posterior"].coords}
    groups = {str(name): node.to_dataset() for name, node in tree.children.items()}
    for name, node in others.children.items():
        own = {} if str(name).startswith("prior") or str(name) in UNSAMPLED_GROUPS else coords
        groups[str(name)] = node.to_dataset().assign_coords(own)
    found = xarray.DataTree.from_dict(groups)
    found.attrs = dict(tree.attrs)
    return _for_installed_arviz(found)


def posterior_dataset(trace: Trace) -> xarray.Dataset:
    """Give the draws of a trace.

    Args:
        trace: `arviz.InferenceData` or `xarray.DataTree`.

    Returns:
        The group `posterior`.

    Raises:
        ValueError: there is no such group, or it is empty.
    """
    tree = as_datatree(trace)
    if "posterior" not in tree.children or not tree["posterior"].data_vars:
        found = ", ".join(tree.children) or "none"
        raise ValueError(f"trace: expected a group 'posterior' with variables in it, got groups: {found}.")
    return tree["posterior"].to_dataset()


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Make sure that a file can be written, before hours are spent on what goes into it.

    A file is really made in the folder, and removed: permissions alone say little on network disks or for root.

    Args:
        path: the file to be written later; an existing file will be replaced.

    Returns:
        The path, with `~` expanded and links followed, so that the file behind a link is the one replaced.

    Raises:
        ValueError: it is a folder or a device, its folder does not exist, or nothing can be written there.
    """
    text = os.fspath(path)
    if not text:
        raise ValueError("path: got an empty path, expected the name of a file; give one, such as trace.nc.")
    try:
        # Links are followed, so that the file behind a link is replaced and the link stays.
        target = Path(os.path.realpath(Path(text).expanduser()))
        if target.is_dir():
            raise ValueError(f"path: '{text}' is a folder, expected a file; give a name inside it.")
        if not target.parent.is_dir():
            raise ValueError(
                f"path: there is no folder '{target.parent}' to put '{target.name}' in; create it "
                f"(mkdir -p '{target.parent}') or give a path in a folder that exists."
            )
        if _exists(target) and not target.is_file():
            raise ValueError(f"path: '{text}' is a device, pipe or socket, expected a file; give the path of a file.")
        _make_temporary(target).unlink()
    except OSError as error:
        raise ValueError(
            f"path: '{text}' cannot be written ({error.strerror or error}); choose a place where you may make files."
        ) from error
    return target


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file beside its final place and move it there only when it is whole.

    Whatever stops the block, an interrupt included, removes the temporary file and leaves an older file as it was.

    Args:
        path: the file to write.

    Yields:
        The temporary file, empty, in the same folder.

    Raises:
        ValueError: the path cannot be written.
        OSError: the write failed, for example because the disk is full.
    """
    target = check_writable(path)
    temporary = _make_temporary(target)
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def save_trace(trace: Trace, path: str | os.PathLike[str]) -> Path:
    """Save a trace as netCDF, which both generations of ArviZ open (`arviz.from_netcdf`).

    Args:
        trace: `arviz.InferenceData` or `xarray.DataTree`.
        path: the file; an existing one is replaced once the new one is whole.

    Returns:
        The file that was written.

    Raises:
        ValueError: the trace is of another type, or the path cannot be written.
        OSError: the write failed, for example because the disk is full.
    """
    tree, target = as_datatree(trace), check_writable(path)
    with replacing(target) as temporary:
        write_netcdf(tree, temporary)
    return target


def load_trace(path: str | os.PathLike[str]) -> Trace:
    """Load a trace that `save_trace`, ArviZ itself, or `parsample.sample(store=...)` wrote.

    A netCDF file is read into memory and closed. Of a store only the coordinates are read, and the draws as they are
    asked for; of one whose run is not over there are the draws that are committed, and the attribute `store_complete`
    is 0.

    Args:
        path: a netCDF-4 file, or a Zarr store (a folder).

    Returns:
        `arviz.InferenceData` under ArviZ 0.x, `xarray.DataTree` from ArviZ 1 on.

    Raises:
        ValueError: there is no such file, or it is not netCDF-4; or a store that no draw was committed to.
    """
    import xarray

    source = Path(path).expanduser()
    if source.is_dir():
        from parsample.store.layout import open_tree

        return _for_installed_arviz(open_tree(source))
    if not source.is_file():
        raise ValueError(f"path: there is no file '{path}'; give the path of a netCDF file written by save_trace.")
    try:
        with xarray.open_datatree(source, engine="h5netcdf") as opened:
            tree = xarray.DataTree.from_dict({node.path: node.to_dataset().load() for node in opened.subtree})
    except OSError as error:
        raise ValueError(f"path: '{path}' is not a netCDF-4 file ({error}); give one written by save_trace.") from error
    return _for_installed_arviz(tree)


def _for_installed_arviz(tree: xarray.DataTree) -> Trace:
    return import_arviz().InferenceData.from_datatree(tree) if arviz_generation() == 0 else tree


def _exists(target: Path) -> bool:
    # Path.exists calls a name that is too long absent; that must be heard before sampling, not after.
    try:
        os.lstat(target)
    except FileNotFoundError:
        return False
    return True


def _make_temporary(target: Path) -> Path:
    temporary = target.parent / f".{uuid.uuid4().hex[:12]}.tmp"
    # O_EXCL with the usual mode: the file gets the permissions that the user's umask gives to every other file.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return temporary


def _checked_arrays(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
    if not groups:
        raise ValueError("groups: got no group, expected at least {'posterior': {variable: values}}.")
    arrays = {}
    for group, variables in groups.items():
        if not isinstance(group, str) or not group.isidentifier():
            raise ValueError(f"groups: got the name {group!r}, expected a Python identifier such as 'posterior'.")
        if not variables:
            raise ValueError(f"groups['{group}']: got no variables, expected at least one; leave an empty group out.")
        arrays[group] = {name: _checked_array(group, name, values) for name, values in variables.items()}
    chains = {
        values.shape[0]: f"groups['{group}']['{name}']"
        for group, variables in arrays.items()
        if group not in UNSAMPLED_GROUPS and not group.startswith("prior")  # which has chains and draws of its own
        for name, values in variables.items()
    }
    if len(chains) > 1:
        found = ", ".join(f"{number} in {where}" for number, where in chains.items())
        raise ValueError(f"groups: got different numbers of chains ({found}), expected one number everywhere.")
    return arrays


def _checked_array(group: str, name: str, values: Any) -> np.ndarray:
    where = f"groups['{group}']['{name}']"
    if not isinstance(name, str) or not name or "/" in name:
        raise ValueError(f"{where}: expected a variable name that is not empty and has no '/'; rename the variable.")
    values = np.asarray(values)
    if values.dtype.kind not in "biuf" and values.dtype.name != "bfloat16":
        raise ValueError(f"{where}: got dtype {values.dtype}, expected real numbers or booleans; convert the values.")
    fewest = 0 if group in UNSAMPLED_GROUPS else 1 if group.endswith("sample_stats") else 2
    if values.ndim < fewest:
        raise ValueError(
            f"{where}: got shape {values.shape}, expected {SAMPLE_DIMS[:fewest]} first; stack the chains along axis 0."
        )
    if 0 in values.shape:
        raise ValueError(f"{where}: got shape {values.shape}, expected no axis of length 0; leave the variable out.")
    return values.astype(np.float32) if values.dtype.name in ("float16", "bfloat16") else values


def _check_dims_known(dims: Mapping[str, Sequence[str]], arrays: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    known = {name for variables in arrays.values() for name in variables}
    unknown = sorted(set(dims) - known)
    if unknown:
        raise ValueError(
            f"dims: got names for {', '.join(unknown)}, expected variables of the trace ({', '.join(sorted(known))}); "
            "correct the name or leave it out."
        )


def _variables_and_coords(
    group: str, variables: Mapping[str, np.ndarray], dims: Mapping[str, Sequence[str]], coords: Mapping[str, Any]
) -> tuple[dict[str, tuple[tuple[str, ...], np.ndarray]], dict[str, np.ndarray]]:
    named: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    sizes: dict[str, int] = {}
    for name, values in variables.items():
        where = f"groups['{group}']['{name}']"
        leading = () if group in UNSAMPLED_GROUPS else SAMPLE_DIMS[: values.ndim]
        trailing = values.shape[len(leading) :]
        own = tuple(dims.get(name, [f"{name}_dim_{axis}" for axis in range(len(trailing))]))
        if len(own) != len(trailing):
            raise ValueError(
                f"dims['{name}']: got {len(own)} names {own} for shape {values.shape}, expected {len(trailing)}; "
                f"name every axis after {' and '.join(leading) or 'none'}."
            )
        if len(set(leading + own)) != len(leading + own):
            raise ValueError(f"dims['{name}']: got {own}, expected names that differ and are not 'chain' or 'draw'.")
        for dim, size in zip(leading + own, values.shape, strict=True):
            if sizes.setdefault(dim, size) != size:
                raise ValueError(
                    f"{where}: got length {size} along '{dim}', expected {sizes[dim]} as in the rest of the group; "
                    "use another dim name or fix the shape."
                )
        named[name] = (leading + own, values)
    clash = sorted(set(named) & set(sizes))
    if clash:
        raise ValueError(f"dims: got '{clash[0]}' as a dim and as a variable of '{group}', expected names that differ.")
    return named, {dim: _labels(dim, size, coords) for dim, size in sizes.items()}


def _labels(dim: str, size: int, coords: Mapping[str, Any]) -> np.ndarray:
    if dim not in coords:
        return np.arange(size)
    labels = list(coords[dim])
    if len(labels) != size:
        raise ValueError(f"coords['{dim}']: got {len(labels)} labels, expected {size}; give one label an index.")
    if all(isinstance(label, int | float | np.number) and not isinstance(label, bool) for label in labels):
        return np.asarray(labels)
    return np.asarray([str(label) for label in labels])
