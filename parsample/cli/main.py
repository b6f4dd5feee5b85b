"""The command line: `parsample sample`, `diffuse`, `report`, `diagnose`, and lists of what there is."""

import ast
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import parsample
from parsample.cli import diffuse as diffuse_command
from parsample.cli.exits import NOT_GOOD, fail
from parsample.cli.run import Files, others, own_data, parse_options, run_and_show, take_defaults

app = typer.Typer(
    name="parsample",
    help="Markov chains and diffusion samplers, evaluated in parallel over their steps.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


# Options that two commands have.
StepSize = Annotated[
    float | None, typer.Option(help="In units of the posterior's scale.", show_default="adapted by warm-up")
]
Acceptance = Annotated[
    float | None,
    typer.Option(
        "--acceptance",
        help="To which warm-up steers the step size; 0.95 for fewer divergences.",
        show_default="the sampler's own",
    ),
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


def _complete(folder: str) -> Callable[[str], list[str]]:
    """Return what completes a name in the table of a folder.

    The names are read from the file: who presses the tabulator key does not want to wait for JAX to be imported.
    """

    def complete(incomplete: str) -> list[str]:
        tree = ast.parse((Path(parsample.__file__).parent / folder / "__init__.py").read_text(encoding="utf-8"))
        tables = (node.value for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign))
        rows = next(table for table in tables if isinstance(table, ast.Dict))
        names = [str(key.value) for key in rows.keys if isinstance(key, ast.Constant)]
        return [name for name in names if name.startswith(incomplete)]

    return complete


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
    "[bold]parsample sample eight_schools --samples 1000000 --store run.zarr[/bold]; "
    "[bold]parsample sample --settings runs/eight_schools.nc --seed 1[/bold]",
)
def sample(
    target: Annotated[
        str,
        typer.Argument(
            help="What to sample: a name of [bold]parsample targets[/bold], or a NumPyro model as FILE.py:NAME, whose "
            "arguments --data holds. Not needed with --settings.",
            autocompletion=_complete("targets"),
        ),
    ],
    sampler: Annotated[
        str, typer.Option(help="See [bold]parsample samplers[/bold].", autocompletion=_complete("samplers"))
    ] = "hmc",
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Of the sampler: num_integration_steps=4, say; repeatable."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="See [bold]parsample methods[/bold]; 'auto' times the candidates on this device.",
            autocompletion=_complete("engine/methods"),
        ),
    ] = "quasi_newton",
    window: Annotated[
        int | None, typer.Option(help="Steps solved at a time.", show_default="16 on a CPU, 256 elsewhere")
    ] = None,
    warmup: Annotated[int, typer.Option(help="Warm-up steps a chain.")] = 2000,
    samples: Annotated[int, typer.Option(help="Draws a chain.")] = 5000,
    chains: Annotated[int, typer.Option(help="Chains.")] = 4,
    until: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="End when good: ess=400, rhat=1.01, seconds=60; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same trace.")] = 0,
    step_size: StepSize = None,
    target_acceptance: Acceptance = None,
    start: Annotated[str, typer.Option(help="Where chains start: random, or laplace for the mode.")] = "random",
    mass: Annotated[
        str, typer.Option(help="What warm-up learns of the covariance: auto, diagonal, dense or low_rank.")
    ] = "auto",
    warmup_method: Annotated[
        str, typer.Option(help="How warm-up is evaluated.", autocompletion=_complete("engine/methods"))
    ] = "sequential",
    tune: Annotated[
        str | None,
        typer.Option(
            help="rounds: tune for effective draws a round, all of whose gradients can run at once.",
            show_default="what mixes best in the loop",
        ),
    ] = None,
    atol: Annotated[float, typer.Option(help="Tolerance of the evaluation, in posterior sd.")] = 1e-6,
    rtol: Annotated[float, typer.Option(help="Tolerance relative to the state.")] = 1e-6,
    data: Annotated[
        Path | None, typer.Option(help="Data file, for the targets that need one; of a model, a JSON object.")
    ] = None,
    thin: Annotated[int, typer.Option(help="Keep one draw of so many.")] = 1,
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
            callback=take_defaults,
            is_eager=True,
            help="A trace or store whose run is to be repeated; what is given here takes precedence.",
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the trace and the plots; made if missing.")] = Path("runs"),
    progress: Annotated[bool, typer.Option(help="Show a progress bar on a terminal.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object in place of the tables.")] = False,
) -> None:
    """Sample a posterior, show a summary and the verdict, and save the trace and its plots.

    Exit codes: 0 good; 1 sampled and saved, but R-hat or ESS is not good; 2 bad input; 130 interrupted.
    """
    from parsample.results.groups import EVALUATION

    try:
        if settings is not None:
            data = own_data(settings, target, data)
        origin = _origin(target, data)
        chosen = _make_target(target, data)
        sampler_options = parse_options("--option", option, "num_integration_steps=4")
        good = parse_options("--until", until, "ess=400")
        # What has no option here.
        evaluation = {"method": method, "warmup_method": warmup_method}
        rest = {} if settings is None else others(settings, evaluation)
        files = Files(output, origin["target"].rpartition(":")[-1], store)
    except ValueError as error:
        fail(error)
    run_and_show(
        lambda: parsample.sample(
            chosen,
            sampler,
            **{**evaluation, "groups": (EVALUATION,), **rest},
            sampler_options=sampler_options,
            window=window,
            num_warmup=warmup,
            num_samples=samples,
            num_chains=chains,
            until=good,
            seed=seed,
            step_size=step_size,
            target_acceptance=target_acceptance,
            start=start,
            mass=mass,
            tune=tune,
            atol=atol,
            rtol=rtol,
            thin=thin,
            store=store,
            origin=origin,
            progress=progress and not as_json,
        ),
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
    output: Annotated[Path, typer.Option(help="Folder for the plots; made if missing.")] = Path("runs"),
    progress: Annotated[bool, typer.Option(help="Show a progress bar on a terminal.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object in place of the tables.")] = False,
) -> None:
    """Go on with a run that was interrupted or killed, or to more draws, from its store; the draws are those of one go.

    Exit codes: as for [bold]parsample sample[/bold].
    """
    from parsample.run.settings import Settings
    from parsample.store.layout import read_run

    try:
        files = Files(output, Settings.from_json(read_run(store)["settings"]).target.rpartition(":")[-1], store)
    except ValueError as error:
        fail(error)
    run_and_show(
        lambda: parsample.resume(store, num_samples=samples, progress=progress and not as_json), files, as_json
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

    Exit codes: 0 good; 1 written, but R-hat or ESS is not good; 2 bad input.
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
    typer.echo(path)
    if not good:
        raise typer.Exit(NOT_GOOD)


@app.command(epilog="Example: [bold]parsample diagnose eight_schools --sampler hmc[/bold]")
def diagnose(
    target: Annotated[
        str, typer.Argument(help="As for [bold]parsample sample[/bold].", autocompletion=_complete("targets"))
    ],
    sampler: Annotated[
        str, typer.Option(help="See [bold]parsample samplers[/bold].", autocompletion=_complete("samplers"))
    ] = "hmc",
    option: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of the sampler; repeatable.")] = None,
    warmup: Annotated[int, typer.Option(help="Warm-up steps.")] = 1000,
    steps: Annotated[int, typer.Option(help="Steps of the chain that is looked at.")] = 512,
    seed: Annotated[int, typer.Option(help="The same seed gives the same chain.")] = 0,
    step_size: StepSize = None,
    target_acceptance: Acceptance = None,
    data: Annotated[Path | None, typer.Option(help="Data file, for the targets that need one.")] = None,
) -> None:
    """Foresee how many iterations each method would need, from a short run."""
    try:
        found = parsample.forecast(
            _make_target(target, data),
            sampler,
            sampler_options=parse_options("--option", option, "num_integration_steps=4"),
            num_warmup=warmup,
            num_steps=steps,
            step_size=step_size,
            target_acceptance=target_acceptance,
            seed=seed,
        )
    except (ValueError, parsample.ConvergenceError) as error:
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
