"""What to write, in the words of the caller: arguments from Python, flags on the command line. One table for both."""

from collections.abc import Mapping
from typing import Any, NamedTuple

# What a message may tell a reader to write: in Python -> on the command line.
FLAGS = {
    "atol": "--atol",
    "method": "--method",
    "num_chains": "--chains",
    "num_samples": "--samples",
    "num_warmup": "--warmup",
    "rtol": "--rtol",
    "sampler": "--sampler",
    "target_acceptance": "--acceptance",
    "until": "--until",
}
COMMANDS = {"parsample.forecast": "parsample diagnose"}


class Caller(NamedTuple):
    """Who reads a message.

    Attributes:
        is_python: whether they wrote Python, and not a command.
    """

    is_python: bool

    def name(self, argument: str) -> str:
        """Return an argument, or its flag."""
        return argument if self.is_python else FLAGS[argument]

    def option(self, argument: str, value: Any) -> str:
        """Return an argument with its value, as the caller writes it: `num_chains=4`, or `--chains 4`."""
        if self.is_python:
            return f"{argument}={value!r}"
        values = [f"{key}={entry}" for key, entry in value.items()] if isinstance(value, Mapping) else [value]
        return " ".join(f"{FLAGS[argument]} {entry}" for entry in values)

    def function(self, name: str) -> str:
        """Return a function of the package, or the command that does the same."""
        return name if self.is_python else COMMANDS[name]


PYTHON, COMMAND_LINE = Caller(True), Caller(False)
