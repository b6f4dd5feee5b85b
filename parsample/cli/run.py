"""What the command line does around a run: the settings of an earlier one, and the files."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import typer

import parsample
from parsample.cli.exits import INTERRUPTED, NOT_GOOD, fail


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


class Files:
    """Where a run's files go, checked before it begins."""

    def __init__(self, output: Path, label: str, store: Path | None):
        """Make the folder, and see that the files can be written; with a store the trace is no file."""
        from parsample.results.trace import check_writable

        self.output, self.is_new, self.store, self.is_saved = output, not output.exists(), store, False
        _make_folder(output)
        self.trace = None if store else check_writable(output / f"{label}.nc")
        self.plot = check_writable(output / f"{label}.png")

    def leave_nothing(self) -> None:
        """Remove the folder if it was made for this run."""
        if self.is_new:
            # Something is in it if a file could be saved and the next one not.
            with contextlib.suppress(OSError):
                self.output.rmdir()


def run_and_show(run: Callable[[], Any], files: Files, as_json: bool) -> None:
    """Run, save, show, and end with the exit code that it deserves.

    Args:
        run: returns the trace.
        files: where it goes.
        as_json: print one JSON object in place of the tables.
    """
    from parsample.report.terminal import show_json, show_run
    from parsample.results.trace import save_trace
    from parsample.results.verdict import read_verdict
    from parsample.run.interrupts import holding_interrupts

    try:
        trace = run()
        with holding_interrupts():
            if files.trace:
                save_trace(trace, files.trace)
                files.is_saved = True
    except KeyboardInterrupt as stop:
        _interrupted(stop, files)
    except (ValueError, FloatingPointError, OSError) as error:
        files.leave_nothing()
        fail(error)
    summary = parsample.summarize(trace)
    verdict = read_verdict(trace, summary)
    parsample.plot_trace_rank(trace, files.plot, summary=summary)
    show = show_json if as_json else show_run
    show(verdict, summary, [files.trace or Path(files.store or ""), files.plot])
    if not (verdict.judgement and verdict.judgement.is_good):
        raise typer.Exit(NOT_GOOD)


def _interrupted(stop: KeyboardInterrupt, files: Files) -> NoReturn:
    """Save the draws so far, say so, and end."""
    from parsample.results.trace import save_trace

    trace, note = getattr(stop, "trace", None), getattr(stop, "note", "interrupted.")
    if trace is not None and files.trace:
        save_trace(trace, files.trace)
        note = f"{note}, which are saved in '{files.trace}'."
    elif files.is_saved:
        note = f"interrupted; the trace is saved in '{files.trace}'."
    else:
        files.leave_nothing()
    typer.echo(f"parsample: {note}", err=True)
    raise typer.Exit(INTERRUPTED)


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"--output is '{output}', which is no folder and cannot become one ({error.strerror}); give another one."
        ) from error
