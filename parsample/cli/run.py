"""What the command line does around a run: the settings of an earlier one, and the files."""

import ast
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import typer

import parsample
from parsample.cli.exits import INTERRUPTED, NOT_GOOD, fail


def take_defaults(context: Any, path: Path | None) -> Path | None:
    """Let the settings of a run be the defaults of the options."""
    if path is not None:
        from parsample.run.settings import read_settings

        try:
            found = read_settings(path)
        except ValueError as error:
            fail(error)
        plain = (
            *("target", "data", "sampler", "method", "window", "seed", "step_size", "atol", "rtol", "thin"),
            *("start", "mass", "warmup_method", "tune"),
        )
        numbers = {"warmup": found.num_warmup, "samples": found.num_samples, "chains": found.num_chains}
        pairs = {"option": found.sampler_options, "until": found.until or {}}
        lists = {name: [f"{key}={value!r}" for key, value in values.items()] for name, values in pairs.items()}
        context.default_map = {name: getattr(found, name) for name in plain} | numbers | lists
    return path


def own_data(path: Path, target: str, data: Path | None) -> Path | None:
    """Return the data file, or None where it is that of another target's settings."""
    from parsample.run.settings import read_settings

    found = read_settings(path)
    return None if target != found.target and data is not None and str(data) == found.data else data


def others(path: Path, chosen: dict[str, str]) -> dict[str, Any]:
    """Return the settings of a run that have no option, and its methods, which may be instances.

    Args:
        path: of its trace or store.
        chosen: "method" and "warmup_method" as the options have them; where one is another, that one is left out.
    """
    from parsample.run.settings import read_method, read_settings

    found = read_settings(path)
    kept = {name: getattr(found, name) for name in ("max_iterations", "compare", "keep_warmup", "groups")}
    same = {name: text for name, text in chosen.items() if text == getattr(found, name)}
    return kept | {name: read_method(text, name) for name, text in same.items()}


def parse_options(flag: str, given: list[str] | None, example: str) -> dict[str, Any] | None:
    """Read NAME=VALUE, the value as Python writes numbers, lists, True, False and None, or else as text.

    Args:
        flag: that they were given by.
        given: the texts; None or none for nothing.
        example: of one, for the sentence.

    Raises:
        ValueError: a text is not of that form.
    """
    if not given:
        return None
    found = {}
    for text in given:
        name, is_there, value = text.partition("=")
        if not (name and is_there):
            raise ValueError(f"{flag} is {text!r}, expected NAME=VALUE, such as {example}.")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


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
