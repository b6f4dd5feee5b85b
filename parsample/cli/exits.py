"""How a command ends: its exit codes, in one table, and the sentences for what goes wrong."""

import contextlib
import errno
import os
import sys
import traceback
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

GOOD, NOT_GOOD, BAD_INPUT, NOT_SHOWN, ELSEWHERE, FAILED, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
# What each code means. Where several hold, the largest is the command's.
MEANINGS = {
    GOOD: "good",
    NOT_GOOD: "done and saved, but the draws are not good (of images: not within tolerance)",
    BAD_INPUT: "bad input; nothing was begun",
    NOT_SHOWN: "saved, but a table, picture or page could not be written",
    ELSEWHERE: "not saved where it should be, because the disk is full, say; the message says where it is",
    FAILED: "an error after the run had begun; the message says where the draws so far are",
    INTERRUPTED: "interrupted; the message says where the draws so far are",
}
EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in MEANINGS.items()) + "."


def end(code: int, message: str) -> NoReturn:
    """Print a sentence, and end with a code."""
    typer.echo(f"parsample: {message}", err=True)
    raise typer.Exit(code)


def fail(error: Exception) -> NoReturn:
    """Print what is wrong, and end with `BAD_INPUT`."""
    end(BAD_INPUT, str(error))


def mute_output() -> None:
    """Let what is still to be printed go nowhere: Python would try again at its end, and fail."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Commands(TyperGroup):
    """The commands, each of which ends with a code of the table whatever happens."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            found = super().invoke(ctx)
            sys.stdout.flush()
            return found
        except OSError as error:
            mute_output()
            if error.errno == errno.EPIPE:  # whoever read it has seen enough
                raise typer.Exit(NOT_SHOWN) from None
            end(NOT_SHOWN, f"what there is to show cannot be written ({error.strerror or error}).")
        except Exception as error:
            if type(error).__module__.split(".")[0] in ("typer", "click"):
                raise
            # Python's own code for what nobody expected is that of draws that are not good.
            traceback.print_exc()
            raise typer.Exit(FAILED) from None
