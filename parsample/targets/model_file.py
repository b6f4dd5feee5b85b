"""A target by its name: one of the table, or a NumPyro model from a Python file, with its data from a JSON file."""

import importlib.util
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np

from parsample import targets
from parsample.targets.numpyro_model import NumPyroModel


def make_target(name: str, data: Path | None) -> Any:
    """Return a target by its name.

    Args:
        name: in `TARGETS`, or FILE.py:NAME of a NumPyro model.
        data: the data file, for those that need one.

    Raises:
        ValueError: there is no such target, or it cannot be made with these data.
    """
    if name not in targets.TARGETS and ":" in name:
        return load_model(name, data)
    target_class = targets.find(name)
    takes_data = "data" in inspect.signature(target_class).parameters
    if data is not None and not takes_data:
        raise ValueError(f"--data is {data}, but the target {name} brings its own data; leave --data out.")
    return target_class(data=data) if takes_data and data is not None else target_class()


def load_model(place: str, data: Path | None) -> NumPyroModel:
    """Return the target of a model file.

    The file is run, as `python FILE` would run it, so only trusted files should be given.

    Args:
        place: FILE.py:NAME, the name of a function with NumPyro's primitives.
        data: a JSON file with an object: the model's arguments by name; lists become arrays. None for no arguments.

    Raises:
        ValueError: a file cannot be read or run, holds no such function or no object, or the model cannot be sampled.
    """
    file, _, name = place.rpartition(":")
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(
            f"target is {place!r}, but there is no file '{file}'; give FILE.py:NAME, such as model.py:model."
        )
    module = run_file(path)
    if not hasattr(module, name):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ValueError(
            f"target is {place!r}, but '{file}' has no {name!r}; it has {', '.join(functions) or 'nothing'}."
        )
    return NumPyroModel(getattr(module, name), **arguments(data))


def run_file(path: Path) -> Any:
    """Return the module of a Python file, which is run.

    Raises:
        ValueError: it cannot be.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"target's file '{path}' is no Python file; give FILE.py:NAME.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"target's file '{path}' cannot be run: {type(error).__name__}: {error}.") from error
    return module


def arguments(data: Path | None) -> dict[str, Any]:
    """Return the object of a JSON file, lists as arrays; an empty one for no file.

    Raises:
        ValueError: there is none.
    """
    if data is None:
        return {}
    try:
        found = json.loads(data.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"--data is '{data}', which cannot be read ({error.strerror}); give a JSON file.") from error
    except ValueError as error:
        raise ValueError(f"--data is '{data}', which is no JSON ({error}).") from error
    if not isinstance(found, dict):
        raise ValueError(
            f"--data is '{data}', which holds a {type(found).__name__}, expected an object: the model's arguments by "
            "name."
        )
    return {name: _array(name, value) for name, value in found.items()}


def _array(name: str, value: Any) -> Any:
    if not isinstance(value, list):
        return value
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"--data has rows of different lengths in {name!r}, expected a rectangular list.") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"--data has {name!r} with dtype {array.dtype}, expected numbers; write NaN for missing ones.")
    return array
