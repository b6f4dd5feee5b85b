"""Models outside of JAX for the command line: a function of a Python file, or a model behind UM-Bridge."""

import functools
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cloudpickle

from parsample.targets.external import External
from parsample.targets.model_file import arguments, run_file
from parsample.targets.umbridge import PATIENCE, UMBridge


def make_external(
    place: str, data: Path | None, *, workers: int | None, urls: Sequence[str] = (), dask: str | None = None
) -> External:
    """Return the target of a function in a file, or of a model behind an address.

    The file is run, as `python FILE` would run it. What else it holds by the names of the target's arguments, such as
    `prior`, `initial_position`, `gradient` or `timeout`, are those.

    Args:
        place: FILE.py:NAME, the name of a function of a position, or of a target made there; with addresses that of the
            likelihood, or without a file the name of a model that is a log density.
        data: a JSON file with an object: further arguments of the function, by name; lists become arrays.
        workers: runs at a time; None for what there is.
        urls: of UM-Bridge servers, with the model that the file calls `model_name`, or else with that of the function's
            name.
        dask: address of the scheduler of a Dask cluster; None for processes of our own.

    Raises:
        ValueError: the file cannot be read or run, or holds no such function; or the target cannot be made.
        ImportError: what it needs is not installed.
    """
    if urls and dask:
        raise ValueError("--dask is given beside --umbridge, whose servers run the model; leave one of them out.")
    if urls and ":" not in place:
        return UMBridge(list(urls), place, workers=workers)
    file, is_there, name = place.rpartition(":")
    path = Path(file).expanduser()
    if not is_there or not path.is_file():
        raise ValueError(
            f"target is {place!r}, but there is no file '{file}'; give FILE.py:NAME, such as model.py:simulate."
        )
    # As for a script, what lies beside it can be imported, by the workers too.
    if (folder := str(path.parent.absolute())) not in sys.path:
        sys.path.insert(0, folder)
    module = run_file(path)
    found = getattr(module, name, None)
    if isinstance(found, External):
        return found
    if not callable(found):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ValueError(
            f"target is {place!r}, but '{file}' has no function {name!r}; it has {', '.join(functions) or 'none'}."
        )
    function = functools.partial(found, **arguments(data)) if data is not None else found
    kind = UMBridge if urls else External
    known = inspect.signature(kind).parameters
    options = {key: value for key, value in vars(module).items() if key in known and key != name}
    options |= {} if workers is None else {"workers": workers}
    if urls:
        options.setdefault("model_name", name)
        return UMBridge(**{**options, "url": list(urls), "likelihood": function})
    if dask is not None:
        options["executor"] = _executor(dask)
        _send_along(folder)
    return External(**{**options, "simulate": function})


def _send_along(folder: str) -> None:
    """Have the modules that lie beside the file sent to workers elsewhere, which do not find them."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and Path(file).parent == Path(folder):
            cloudpickle.register_pickle_by_value(module)


def _executor(address: str) -> Any:
    """Return the executor of a Dask cluster.

    Raises:
        ValueError: nobody answers there.
        ImportError: Dask is not installed.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError("--dask needs Dask, which is not installed; install parsample[dask].") from error
    try:
        return Client(address, timeout=PATIENCE, set_as_default=False).get_executor()
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"--dask is '{address}', where no scheduler answers ({error}); give its address, such as "
            "tcp://127.0.0.1:8786."
        ) from error
