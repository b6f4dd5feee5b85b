"""How a command ends: its exit codes, and the sentence for bad input."""

from typing import NoReturn

import typer

NOT_GOOD, BAD_INPUT, INTERRUPTED = 1, 2, 130


def fail(error: Exception) -> NoReturn:
    """Print what is wrong, and end with `BAD_INPUT`."""
    typer.echo(f"parsample: {error}", err=True)
    raise typer.Exit(BAD_INPUT)
