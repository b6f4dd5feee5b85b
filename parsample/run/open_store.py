"""Stores of runs, begun or gone on with: by one run at a time, and none overwritten."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from parsample.run.disk import Store
from parsample.run.settings import Settings
from parsample.store.layout import PRIVATE, is_store, read_run
from parsample.store.lock import take_lock


def refuse_existing(path: str | os.PathLike[str], settings: Settings) -> None:
    """Raise ValueError if there is something at the path of a new store; say in what it differs if it is a store."""
    folder = Path(path).expanduser()
    if not folder.exists():
        if not folder.absolute().parent.is_dir():
            raise ValueError(f"store is '{path}', but there is no folder '{folder.absolute().parent}'; make it first.")
        return
    if not is_store(folder):
        if folder.is_dir() and (not any(folder.iterdir()) or [x.name for x in folder.iterdir()] == [PRIVATE]):
            return
        raise ValueError(f"store is '{path}', which is there and is no store of a run; give another name.")
    differences = Settings.from_json(read_run(folder)["settings"]).differences(settings)
    rows = [f"{name} is {there}, not {here}" for name, (there, here) in differences.items()]
    found = f"of a run whose {', whose '.join(rows)}" if rows else "of a run with these settings"
    raise ValueError(
        f"store is '{path}', which is there, {found}; go on with it by parsample.resume (`parsample resume {path}`), "
        "or give another name."
    )


@contextlib.contextmanager
def open_store(path: str | os.PathLike[str], settings: Settings, is_new: bool) -> Iterator[Store]:
    """Lock a store for one run. On the way out whatever is pending is committed, unless writing is what failed.

    Raises:
        ValueError: another run holds it, or it cannot be written.
    """
    folder = Path(path).expanduser()
    was_there = folder.exists()
    try:
        (folder / PRIVATE).mkdir(parents=True, exist_ok=True)
        lock = take_lock(folder / PRIVATE / "lock", path)
    except OSError as error:
        if not was_there:
            shutil.rmtree(folder, ignore_errors=True)
        raise ValueError(
            f"store is '{path}', which cannot be written ({error.strerror or error}); give a place where you may make "
            "files."
        ) from error
    try:
        if is_new:
            # Once more: another run may have made it in the meantime.
            refuse_existing(path, settings)
        # Of files that a killed run was writing, Zarr's and ours.
        for leftover in [*folder.rglob("*.partial"), *folder.rglob("*.tmp")]:
            leftover.unlink(missing_ok=True)
        store = Store(path, settings, is_new)
        try:
            yield store
        except OSError:
            raise
        except BaseException:
            store.commit()
            raise
    finally:
        lock.release()
        if is_new and not was_there and not is_store(folder):
            shutil.rmtree(folder, ignore_errors=True)
