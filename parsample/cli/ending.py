"""How a run ends on the command line: its draws are saved first, and shown afterwards."""

import contextlib
import errno
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import typer

import parsample
from parsample.cli.exits import BAD_INPUT, ELSEWHERE, FAILED, GOOD, INTERRUPTED, NOT_GOOD, NOT_SHOWN, end, mute_output


class Files:
    """Where a run's files go, checked before it begins."""

    def __init__(self, output: Path, label: str, store: Path | None):
        """Make the folder, and see that the files can be written; with a store the trace is no file."""
        from parsample.results.trace import check_writable

        self.output, self.is_new, self.store = output, not output.exists(), store
        _make_folder(output)
        self.trace = None if store else check_writable(output / f"{label}.nc")
        self.plot = check_writable(output / f"{label}.png")
        self.saved: Path | None = None
        self.problems: list[str] = []

    def save(self, trace: Any) -> None:
        """Save a trace, where it is in no store: at its place, or where there is room."""
        from parsample.results.rescue import save_somewhere

        if self.trace is None:
            self.saved = self.store
            return
        try:
            self.saved, problem = save_somewhere(trace, self.trace)
        except (OSError, ValueError) as error:
            self.problems.append(f"the trace could not be saved in '{self.trace}' ({error}), nor anywhere else.")
            return
        if problem is not None:
            self.problems.append(
                f"the trace could not be saved in '{self.trace}' ({problem}); it is in '{self.saved}', which "
                "parsample.load_trace reads: move it to where there is room."
            )

    def leave_nothing(self) -> None:
        """Remove the folder if it was made for this run and nothing is in it."""
        if self.is_new:
            with contextlib.suppress(OSError):
                self.output.rmdir()


def run_and_show(run: Callable[[], Any], files: Files, as_json: bool) -> None:
    """Run, save, show, and end with the exit code that it deserves.

    Args:
        run: returns the trace.
        files: where it goes.
        as_json: print one JSON object in place of the tables.
    """
    from parsample.run.interrupts import holding_interrupts, one_interrupt

    with one_interrupt():
        try:
            trace = run()
            with holding_interrupts():
                files.save(trace)
            code = max(ELSEWHERE if files.problems else GOOD, _show(trace, files, as_json))
        except KeyboardInterrupt as stop:
            _interrupted(stop, files)
        except Exception as error:
            if files.saved is None:
                _failed(error, files)
            typer.echo(f"parsample: the trace is saved in '{files.saved}'.", err=True)
            raise
    for problem in files.problems:
        typer.echo(f"parsample: {problem}", err=True)
    if code:
        raise typer.Exit(code)


def _show(trace: Any, files: Files, as_json: bool) -> int:
    """Show a trace that is saved, and return the exit code."""
    from parsample.report.terminal import show_json, show_run
    from parsample.results.verdict import read_verdict

    summary = parsample.summarize(trace)
    verdict = read_verdict(trace, summary)
    paths, code = [files.saved] if files.saved else [], GOOD
    try:
        parsample.plot_trace_rank(trace, files.plot, summary=summary)
        paths.append(files.plot)
    except (OSError, ValueError) as error:
        files.problems.append(f"the picture '{files.plot}' could not be drawn: {error}")
        code = NOT_SHOWN
    try:
        (show_json if as_json else show_run)(verdict, summary, paths)
        sys.stdout.flush()
    except OSError as error:
        if error.errno != errno.EPIPE:
            files.problems.append(f"what there is to show cannot be written ({error.strerror or error}).")
        mute_output()
        code = NOT_SHOWN
    assert verdict.judgement is not None
    return max(code, GOOD if verdict.judgement.is_good else NOT_GOOD)


def _failed(error: Exception, files: Files) -> NoReturn:
    """Save the draws so far of a run that failed, say what happened, and end."""
    from parsample.workers.errors import NoWorker, SimulationError

    trace = getattr(error, "trace", None)
    if files.store and isinstance(error, OSError):
        end(ELSEWHERE, str(error))  # which says what is safe
    if trace is None:
        files.leave_nothing()
        if isinstance(error, ValueError):
            end(BAD_INPUT, str(error))
        if isinstance(error, OSError | FloatingPointError | SimulationError | NoWorker):
            end(ELSEWHERE if isinstance(error, OSError) else FAILED, str(error))
        raise error
    if not isinstance(error, OSError | FloatingPointError | ValueError | SimulationError | NoWorker):
        traceback.print_exception(error)
    end(FAILED, f"{str(error).removesuffix('.')}; {_save_what_there_is(trace, files)}")


def _interrupted(stop: KeyboardInterrupt, files: Files) -> NoReturn:
    """Save the draws so far, say so, and end."""
    trace, note = getattr(stop, "trace", None), getattr(stop, "note", "interrupted.")
    if trace is not None:
        note = f"{note}; {_save_what_there_is(trace, files)}"
    elif files.saved and not files.store:
        note = f"interrupted; the trace is saved in '{files.saved}'."
    else:
        files.leave_nothing()
    end(INTERRUPTED, note)


def _save_what_there_is(trace: Any, files: Files) -> str:
    """Save the draws so far, and say where."""
    from parsample.run.interrupts import ignoring_interrupts

    with ignoring_interrupts():
        files.save(trace)
    if files.problems:
        return files.problems[0]
    return f"the draws so far are saved in '{files.saved}'."


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"--output is '{output}', which is no folder and cannot become one ({error.strerror}); give another one."
        ) from error
