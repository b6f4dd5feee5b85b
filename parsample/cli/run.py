"""What the command line reads for a run: options of the form NAME=VALUE, and the settings of an earlier run."""

from pathlib import Path
from typing import Any

from parsample.cli.exits import fail


def take_target(context: Any, path: Path | None) -> Path | None:
    """Let the target of a run's settings be that of the command, where it has none of its own."""
    if path is not None:
        from parsample.run.settings import read_settings

        try:
            context.default_map = {"target": read_settings(path).target}
        except ValueError as error:
            fail(error)
    return path


def repeated(
    context: Any, path: Path | None, target: str, data: Path | None, options: dict[str, Any], trust: bool
) -> Any:
    """Return the data file and the options of a run that is repeated from its settings; those given take precedence.

    Args:
        context: of the command.
        path: of the trace or store with the settings; None where there are none.
        target: what is sampled, as settings name it.
        data: the data file that was given.
        options: those that were given.
        trust: whether to run a Python file that the settings name.

    Raises:
        ValueError: they cannot be read, hold too little, or name a Python file that was not given.
    """
    from parsample.results.groups import EVALUATION
    from parsample.run.resume import check_trusted
    from parsample.run.settings import read_settings

    if path is None:
        return data, {"groups": (EVALUATION,)} | options
    settings = read_settings(path)
    if context.get_parameter_source("target").name != "COMMANDLINE":
        check_trusted(settings.target, f"'{path}'", trust)
    if data is None and settings.data and target == settings.target:
        data = Path(settings.data)
    return data, settings.arguments(**options)
