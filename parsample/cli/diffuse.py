"""The command `parsample diffuse`: draw images by a model that ships with the package, and say what it cost."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import typer

from parsample.cli.exits import NOT_GOOD, fail
from parsample.cli.options import parse_options

if TYPE_CHECKING:
    from parsample.report.plots.images import Settling
    from parsample.run.diffuse import Diffused
    from parsample.samplers.diffusion import Process

# Model -> shape of a sample.
MODELS: dict[str, tuple[int, int]] = {"digits": (8, 8)}
# Samples and iterations of a movie, at most.
MOVIE_SAMPLES, MOVIE_ITERATIONS = 4, 60
# One of two times must be this much longer before it is called so.
CLEAR = 1.1


class Timed(NamedTuple):
    """A run: what it returned, its seconds, and those that compiling took."""

    out: "Diffused"
    seconds: float
    compile_seconds: float


def diffuse(
    model: Annotated[str, typer.Argument(help="The model: [bold]digits[/bold].")] = "digits",
    process: Annotated[
        str, typer.Option(help="ddpm, ddim, euler_maruyama, heun, edm, dpm_solver_pp, unipc, ...")
    ] = "ddim",
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Of the process: eta=0.5, churn=20, spacing=trailing, say; repeatable."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 100,
    method: Annotated[
        str,
        typer.Option(
            help="See [bold]parsample methods[/bold]; 'auto' takes the faster of scaled_identity and the loop."
        ),
    ] = "auto",
    samples: Annotated[int, typer.Option(help="How many images.")] = 16,
    label: Annotated[int | None, typer.Option(help="The digit, 0 to 9.", show_default="any")] = None,
    guidance: Annotated[float, typer.Option(help="How much more than the model itself to follow the label.")] = 0.0,
    window: Annotated[int | None, typer.Option(help="Steps solved at a time.", show_default="all")] = None,
    tolerance: Annotated[float, typer.Option(help="Of a step, relative to its noise level.")] = 1e-3,
    guess: Annotated[str, typer.Option(help="Where to start: surrogate, coarse or start.")] = "surrogate",
    seed: Annotated[int, typer.Option(help="The same seed gives the same images.")] = 0,
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture.")] = Path("digits.png"),
    movie: Annotated[Path | None, typer.Option(help="A GIF of the trajectories settling, beside the loop.")] = None,
) -> None:
    """Draw images, all denoising steps at once; compare with the sequential sampler, and save a picture.

    Exit codes: see [bold]parsample --help[/bold].
    """
    from parsample.engine.solution import ConvergenceError
    from parsample.report.plots.images import check_movie_path, film_settling, plot_images
    from parsample.report.plots.trace_rank import check_figure_path

    try:
        check_figure_path(output)
        if movie is not None:
            check_movie_path(movie)
        given = parse_options("--option", option, "eta=0.5")
        chosen, shape = make_process(model, process, steps, label, guidance, given)
        options: dict[str, Any] = {"num_samples": samples, "seed": seed, "tolerance": tolerance}
        name = "scaled_identity" if method == "auto" else method
        settling = None
        if movie is not None:
            settling = settle(chosen, shape, {**options, "num_samples": min(samples, MOVIE_SAMPLES)}, name)
        parallel = run(chosen, shape, {**options, "method": name, "window": window, "guess": guess})
        loop = parallel if name == "sequential" else run(chosen, shape, {**options, "method": "sequential"})
    except (ValueError, ConvergenceError) as error:
        fail(error)
    take_loop = method == "auto" and loop.seconds < parallel.seconds
    title = f"{type(chosen).__name__}, {chosen.num_steps} steps"
    saved = [plot_images(np.asarray((loop if take_loop else parallel).out.samples), output, title)]
    if settling is not None and movie is not None:
        rounds = int(parallel.out.rounds.max())
        saved += [film_settling(settling, movie, f"{title}: {rounds} rounds in place of {int(loop.out.rounds[0])}")]
    show(chosen, method, name, parallel, loop, saved)
    if not bool(parallel.out.solution.converged.all()):
        raise typer.Exit(NOT_GOOD)


def make_process(
    model: str, process: str, steps: int, label: int | None, guidance: float, options: dict[str, Any] | None = None
) -> tuple["Process", tuple[int, int]]:
    """Return the process with its options, and the shape of a sample.

    Raises:
        ValueError: an argument is not what it should be.
    """
    import jax.numpy as jnp

    from parsample.engine.names import unknown
    from parsample.samplers import diffusion

    if model not in MODELS:
        raise unknown("model", model, MODELS)
    if label is not None and not 0 <= label <= 9:
        raise ValueError(f"--label is {label}, expected a digit from 0 to 9; leave it out for any.")
    if guidance and label is None:
        raise ValueError(
            f"--guidance is {guidance:g}, but there is no label to follow; add --label, such as --label 3."
        )
    found = diffusion.find(process)
    options = options or {}
    known = [*(row[0] for row in found.option_rows), "spacing"]
    for name in options:
        if name not in known:
            raise unknown(f"an option of {found.__name__}", name, known)
    schedule = found(lambda x, t: x).schedule
    predict = diffusion.DigitsModel(schedule, "x0", guidance)
    condition = None if label is None else jnp.asarray(label)
    options = {**options, "sigma_data": predict.sigma_data, "surrogate": predict.normal}
    return found(predict, schedule, steps, "x0", condition=condition, **options), MODELS[model]


def run(process: "Process", shape: tuple[int, int], options: dict[str, Any]) -> Timed:
    """Draw twice: the first run compiles, the second is timed."""
    import jax

    from parsample.run.diffuse import diffuse

    def timed(function: Callable[[], "Diffused"]) -> tuple["Diffused", float]:
        start = time.perf_counter()
        out = jax.block_until_ready(function())
        return out, time.perf_counter() - start

    first = timed(lambda: diffuse(process, shape, **options))[1]
    out, seconds = timed(lambda: diffuse(process, shape, **options))
    return Timed(out, seconds, max(first - seconds, 0.0))


def settle(process: "Process", shape: tuple[int, int], options: dict[str, Any], method: str) -> "Settling":
    """Return the trajectories before every iteration, until they are those of the loop.

    Raises:
        ValueError: the method is the loop, which has no iterations.
    """
    import jax
    import jax.numpy as jnp

    from parsample.engine import methods
    from parsample.engine.evaluate import evaluate
    from parsample.engine.rules import Stopping
    from parsample.report.plots.images import Settling
    from parsample.run.diffuse import diffuse
    from parsample.run.diffuse_method import begin, find_method

    found, more = find_method(process, method)
    if isinstance(found, methods.Sequential):
        raise ValueError(
            "--movie shows the iterations of a method, and method is 'sequential', which has none; expected "
            "scaled_identity, picard or quasi_newton, say."
        )
    scales, most = process.noise_levels, min(MOVIE_ITERATIONS, process.num_steps)
    # Finer than what is looked at, so that nothing that is seen is the tolerance.
    atol = jnp.asarray(0.1 * options["tolerance"] * scales, jnp.result_type(float))
    chosen = {"method": found, "max_iterations": most, "history": "states", **more}
    chosen |= {"atol": atol, "rtol": 0.0, "stopping": Stopping(norm="rms", accept_early=0.0), "throw": False}

    def watch(key: Any) -> Any:
        """Return the trajectories that the iterations saw, leading axes (iterations, steps)."""
        start = begin(process, key, shape, jnp.result_type(float))
        guess = evaluate(process.with_surrogate().transition, *start, method="sequential", throw=False).states
        solution = evaluate(process.transition, *start, guess=guess, **chosen)
        assert solution.history is not None
        found = jax.vmap(process.sample)(solution.states)[None]
        seen = jnp.concatenate([jax.vmap(jax.vmap(process.sample))(solution.history.states), found])
        is_over = (jnp.arange(most + 1) >= solution.iterations)[(...,) + (None,) * (1 + len(shape))]
        return jnp.where(is_over, found, seen)

    keys = jax.random.split(jax.random.key(options["seed"]), options["num_samples"])
    frames = np.swapaxes(np.asarray(jax.jit(lambda keys: jax.lax.map(watch, keys))(keys)), 0, 1)
    loop = diffuse(process, shape, **options, method="sequential").solution.states
    target = np.asarray(jax.vmap(jax.vmap(process.sample))(loop))
    settled = (np.sqrt(np.mean((frames - target) ** 2, (3, 4))) <= options["tolerance"] * scales).all((1, 2))
    if settled.any():
        frames = frames[: int(np.argmax(settled)) + 1]
    after = process.levels
    return Settling(frames, target, np.sqrt(after.sigma**2 + after.alpha**2)[1:], scales)


def show(process: "Process", method: str, name: str, parallel: Timed, loop: Timed, saved: list[Path]) -> None:
    """Print what was done, what it cost, and what the loop would have cost."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out, steps = parallel.out, process.num_steps
    count, left, waits = len(out.rounds), int(out.finished_sequentially.sum()), int(loop.out.rounds.max())
    words = [type(process).__name__, f"{steps:,} steps", type(process.schedule).__name__]
    words += [f"{name} {value:g}" for (name, *_), value in zip(process.option_rows, process.options, strict=True)]
    rows = [("process", ", ".join(words))]
    if name == "sequential":
        rows += [("method", "sequential: the loop itself"), ("rounds", f"{waits:,}")]
    else:
        difference = np.sqrt(np.mean((np.asarray(out.samples) - np.asarray(loop.out.samples)) ** 2, (1, 2))).max()
        rows += [
            ("method", f"{name}, window {out.window:,}"),
            ("converged", _outcome(bool(out.solution.converged.all()), left, steps * count, count)),
            ("rounds", f"{int(out.rounds.max()):,} in the slowest sample, {float(out.rounds.mean()):.1f} on average"),
            ("sequential evaluations", f"{waits:,} a sample, one after the other"),
            ("total evaluations", f"{float(out.model_evaluations.mean()):,.0f} a sample, in those rounds"),
            ("same images", f"largest difference from the loop {difference:.1g} (rms of an image from -1 to 1)"),
        ]
    rows += [("wall time", _compare(method, parallel, loop)), ("saved", "\n".join(map(str, saved)))]
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for heading, text in rows:
        table.add_row(heading, Text(text))
    Console().print(table)


def _outcome(converged: bool, left: int, total: int, samples: int) -> str:
    if not converged:
        return "no"
    if left:
        return f"{total - left:,} of {total:,} steps; the other {left:,} were finished by the sequential loop"
    return f"yes: all {total:,} steps of {samples} samples"


def _compare(method: str, parallel: Timed, loop: Timed) -> str:
    compiled = f"{parallel.seconds:.2f} s, and {parallel.compile_seconds:.1f} s to compile"
    if parallel is loop:
        return compiled
    ratio = parallel.seconds / loop.seconds
    words = "about as fast"
    if ratio > CLEAR:
        words = f"the loop is {ratio:.1f} times faster here"
        words += (
            ", so 'auto' took its images" if method == "auto" else ": --method sequential gives the same images sooner"
        )
    elif ratio < 1 / CLEAR:
        words = f"{1 / ratio:.1f} times faster than the loop"
    return f"{compiled}; the loop {loop.seconds:.2f} s; {words}"
