"""The flags of models outside of JAX: that it is one, and who runs it."""

from pathlib import Path
from typing import Annotated, Any

import typer

PANEL = "Models outside of JAX"
# Of the name of such a target in settings.
PREFIX = "external_"
External = Annotated[
    bool,
    typer.Option(
        "--external",
        help="The target is a plain Python function of a position, as FILE.py:NAME, on as many workers as there are; "
        "the file's [bold]prior[/bold] and [bold]initial_position[/bold] go with it.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Workers = Annotated[
    int | None, typer.Option(help="Runs at a time.", show_default="the cores, or what is there", rich_help_panel=PANEL)
]
UMBridge = Annotated[
    list[str] | None,
    typer.Option(
        "--umbridge",
        metavar="URL",
        help="The model is behind this UM-Bridge server, and the target its likelihood as FILE.py:NAME, or its name; "
        "repeatable.",
        rich_help_panel=PANEL,
    ),
]
Dask = Annotated[
    str | None,
    typer.Option("--dask", metavar="ADDRESS", help="Run it on this Dask cluster.", rich_help_panel=PANEL),
]


def make_target(
    name: str, data: Path | None, external: bool, workers: int | None, umbridge: list[str] | None, dask: str | None
) -> Any:
    """Return the target that a command names.

    Raises:
        ValueError: there is none.
    """
    if external or umbridge:
        from parsample.targets.external_file import make_external

        try:
            return make_external(name, data, workers=workers, urls=umbridge or (), dask=dask)
        except ImportError as error:  # which names the extra that is not installed
            raise ValueError(str(error)) from error
    for flag, value in (("--workers", workers), ("--dask", dask)):
        if value is not None:
            raise ValueError(f"{flag} is {value}, but only a model outside of JAX has workers; add --external.")
    from parsample.targets import model_file

    return model_file.make_target(name, data)


def origin_of(name: str, is_external: bool) -> str:
    """Return how settings name a target: one outside of JAX so that nobody takes it for another."""
    return f"{PREFIX}{name.rpartition(':')[-1]}" if is_external else name


def short_name(name: str) -> str:
    """Return what files are called after a target that settings name."""
    return name.rpartition(":")[-1].removeprefix(PREFIX)
