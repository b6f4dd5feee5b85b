"""The command line: `parsample sample`, `diffuse`, `report`, `diagnose`, `plan`, and lists of what there is."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

import parsample
from parsample.cli import diffuse as diffuse_command
from parsample.cli import outside
from parsample.cli.ending import Files, run_and_show
from parsample.cli.exits import EPILOG, NOT_GOOD, NOT_SHOWN, Commands, end, fail
from parsample.cli.options import complete, with_options
from parsample.cli.run import repeated, take_target

app = typer.Typer(
    name="parsample",
    help="Markov chains and diffusion samplers, evaluated in parallel over their steps.",
    epilog=EPILOG,
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


# An option that two commands have.
Trust = Annotated[
    bool, typer.Option("--trust", help="Run the Python file that the settings name as their model.", show_default=False)
]


def main() -> None:
    """Run the command line."""
    _keep_compiled_programs()
    app()


def _keep_compiled_programs() -> None:
    """Let JAX keep what it compiles, so that the second run of a command starts at once; its own variables go first."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parsample" / "jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")


def _version(show: bool) -> bool:
    if show:
        typer.echo(f"parsample {parsample.__version__}")
        raise typer.Exit
    return show


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command(
    epilog="Examples: [bold]parsample sample german_credit --data german.data-numeric --output runs[/bold]; "
    "[bold]parsample sample model.py:schools --data schools.json --sampler hmc[/bold]; "
    "[bold]parsample sample simulator.py:simulate --external --workers 8[/bold]; "
    "[bold]parsample sample eight_schools --samples 1000000 --store run.zarr[/bold]; "
    "[bold]parsample sample --settings runs/eight_schools.nc --seed 1[/bold]",
)
@with_options()
def sample(
    context: Any,
    target: Annotated[
        str,
        typer.Argument(
            help="What to sample: a name of [bold]parsample targets[/bold], or a NumPyro model as FILE.py:NAME, whose "
            "arguments --data holds. Not needed with --settings.",
            autocompletion=complete("targets"),
        ),
    ],
    options: dict[str, Any],
    data: Annotated[
        Path | None, typer.Option(help="Data file, for the targets that need one; of a model, a JSON object.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            help="Folder such as run.zarr that draws are written to as they are made, in place of a netCDF file: for "
            "long runs, which [bold]parsample resume[/bold] goes on with after a crash."
        ),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            callback=take_target,
            is_eager=True,
            help="A trace or store whose run is to be repeated; what is given here takes precedence.",
        ),
    ] = None,
    trust: Trust = False,
    external: outside.External = False,
    workers: outside.Workers = None,
    umbridge: outside.UMBridge = None,
    dask: outside.Dask = None,
    output: Annotated[Path, typer.Option(help="Folder for the trace and the plots; made if missing.")] = Path("runs"),
    progress: Annotated[bool, typer.Option(help="Show a progress bar on a terminal.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object in place of the tables.")] = False,
) -> None:
    """Sample a posterior, show a summary and the verdict, and save the trace and its plots.

    Exit codes: see [bold]parsample --help[/bold].
    """
    try:
        data, options = repeated(context, settings, _origin(target, None)["target"], data, options, trust)
        origin = _origin(target, data)
        chosen = outside.make_target(target, data, external, workers, umbridge, dask)
        files = Files(output, outside.short_name(origin["target"]), store)
        origin["target"] = outside.origin_of(origin["target"], external or bool(umbridge))
    except ValueError as error:
        fail(error)
    run_and_show(
        lambda: parsample.sample(chosen, **options, store=store, origin=origin, progress=progress and not as_json),
        files,
        as_json,
    )


@app.command(
    epilog="Examples: [bold]parsample resume run.zarr[/bold]; [bold]parsample resume run.zarr --samples 20000[/bold]"
)
def resume(
    store: Annotated[Path, typer.Argument(help="What was --store of [bold]parsample sample[/bold].")],
    samples: Annotated[
        int | None,
        typer.Option(
            help="Draws a chain in the end, those that are there included.", show_default="as it was begun with"
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="The model again, as FILE.py:NAME: the store is not trusted to name a file that is run."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="With --target: its data file.", show_default="as it was begun with")
    ] = None,
    trust: Trust = False,
    external: outside.External = False,
    workers: outside.Workers = None,
    umbridge: outside.UMBridge = None,
    dask: outside.Dask = None,
    output: Annotated[Path, typer.Option(help="Folder for the plots; made if missing.")] = Path("runs"),
    progress: Annotated[bool, typer.Option(help="Show a progress bar on a terminal.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object in place of the tables.")] = False,
) -> None:
    """Go on with a run that was interrupted or killed, or to more draws, from its store; the draws are those of one go.

    Exit codes: see [bold]parsample --help[/bold].
    """
    from parsample.run.settings import Settings
    from parsample.store.layout import read_run, reading

    try:
        run = read_run(store)
        with reading(store):
            known = Settings.from_json(run["settings"])
        files = Files(output, outside.short_name(known.target), store)
        if target is not None:
            data = data or (None if known.data is None else Path(known.data))
        flags = external, workers, umbridge, dask
        chosen = None if target is None else outside.make_target(target, data, *flags)
    except ValueError as error:
        fail(error)
    run_and_show(
        lambda: parsample.resume(store, chosen, num_samples=samples, trust=trust, progress=progress and not as_json),
        files,
        as_json,
    )


def _origin(target: str, data: Path | None) -> dict[str, str]:
    """Return the target's name and data file, with whole paths, so that they are found from anywhere."""
    file, is_model, name = target.rpartition(":")
    if is_model and Path(file).expanduser().is_file():
        target = f"{Path(file).expanduser().absolute()}:{name}"
    return {"target": target} | ({} if data is None else {"data": str(data.expanduser().absolute())})


def _make_target(name: str, data: Path | None) -> Any:
    from parsample.targets.model_file import make_target

    return make_target(name, data)


app.command(
    epilog="Examples: [bold]parsample diffuse digits --process ddpm --steps 1000 --movie digits.gif[/bold]; "
    "[bold]parsample diffuse digits --process edm --steps 25 --option churn=20 --option spacing=karras[/bold]"
)(diffuse_command.diffuse)


@app.command(epilog="Example: [bold]parsample report runs/eight_schools.nc --output report.html[/bold]")
def report(
    trace: Annotated[Path, typer.Argument(help="File that [bold]parsample sample[/bold] or ArviZ saved.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page.", show_default="beside the trace, .html")
    ] = None,
) -> None:
    """Write one HTML page about a run: the verdict in words, the summary and the pictures.

    Exit codes: see [bold]parsample --help[/bold].
    """
    from parsample.results.judgement import judge
    from parsample.results.words import COMMAND_LINE

    try:
        loaded = parsample.load_trace(trace)
        summary = parsample.summarize(loaded)
        path = parsample.write_report(loaded, output or trace.with_suffix(".html"), summary, COMMAND_LINE)
        good = judge(loaded, summary).is_good
    except ValueError as error:
        fail(error)
    except OSError as error:
        end(NOT_SHOWN, f"the page cannot be written ({error.strerror or error}).")
    typer.echo(path)
    if not good:
        raise typer.Exit(NOT_GOOD)


@app.command(epilog="Example: [bold]parsample diagnose eight_schools --sampler hmc[/bold]")
@with_options("sampler", "sampler_options", "num_warmup", "step_size", "target_acceptance", "seed")
def diagnose(
    target: Annotated[
        str, typer.Argument(help="As for [bold]parsample sample[/bold].", autocompletion=complete("targets"))
    ],
    options: dict[str, Any],
    steps: Annotated[int, typer.Option(help="Steps of the chain that is looked at.")] = 512,
    data: Annotated[Path | None, typer.Option(help="Data file, for the targets that need one.")] = None,
) -> None:
    """Foresee how many iterations each method would need, from a short run."""
    try:
        found = parsample.forecast(_make_target(target, data), num_steps=steps, **options)
    except (ValueError, parsample.ConvergenceError) as error:
        fail(error)
    typer.echo(found.text())


@app.command(
    epilog="Examples: [bold]parsample plan eight_schools[/bold]; [bold]parsample plan garch --data garch.json "
    "--device h100 --samples 16384[/bold]"
)
@with_options(
    "sampler",
    "sampler_options",
    "num_samples",
    "num_chains",
    "seed",
    "num_warmup",
    "step_size",
    "target_acceptance",
)
def plan(
    target: Annotated[
        str, typer.Argument(help="As for [bold]parsample sample[/bold].", autocompletion=complete("targets"))
    ],
    options: dict[str, Any],
    device: Annotated[
        str | None,
        typer.Option(
            help="What to predict for: cpu, a100, h100 or h200; it need not be there.", show_default="the one at hand"
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Data file, for the targets that need one.")] = None,
) -> None:
    """Predict the effective draws a second of the loop and of parallel evaluations, beside what is measured here."""
    try:
        found = parsample.plan(_make_target(target, data), device=device, **options)
    except ValueError as error:
        fail(error)
    typer.echo(found.text())


@app.command()
def version() -> None:
    """Show the version."""
    typer.echo(f"parsample {parsample.__version__}")


@app.command()
def targets() -> None:
    """List the targets."""
    from parsample.report.terminal import show_table

    show_table("target", parsample.TARGETS)


@app.command()
def samplers() -> None:
    """List the samplers."""
    from parsample.report.terminal import show_table

    show_table("sampler", parsample.SAMPLERS)


@app.command()
def methods() -> None:
    """List the methods of evaluation."""
    from parsample.report.terminal import show_table

    show_table("method", parsample.METHODS)
    others = [f"{other} for {name}" for other, name in parsample.methods.ALIASES.items()]
    print(f"The names of papers work, too: {', '.join(others)}.")
