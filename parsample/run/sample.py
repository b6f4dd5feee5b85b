"""The front door: from a model to a trace."""

import copy
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtyping import PyTree

from parsample.engine import methods
from parsample.engine.names import unknown
from parsample.results.trace import load_trace
from parsample.run.arguments import serves_models
from parsample.run.background import Running
from parsample.run.checks import check_memory, chosen_sampler
from parsample.run.keywords import takes_groups
from parsample.run.open_store import open_store, refuse_existing
from parsample.run.plan import check_job
from parsample.run.progress import Event
from parsample.run.segments import Job
from parsample.run.settings import Evaluation, Keep, Settings, Warmup
from parsample.run.sink import Memory
from parsample.run.stages import carry_out
from parsample.samplers import find as find_sampler
from parsample.samplers.base import Sampler
from parsample.targets.given import as_target


@serves_models(0)
@takes_groups
def sample(  # noqa: D417  # the decorator puts the docs of the options in their place
    target: Any,
    *args: Any,
    sampler: str | type[Sampler] = Settings.sampler,
    sampler_options: Mapping[str, Any] | None = Settings.sampler_options,
    num_samples: int = Settings.num_samples,
    num_chains: int = Settings.num_chains,
    until: Mapping[str, Any] | None = Settings.until,
    seed: int = Settings.seed,
    warmup: Warmup | None = None,
    num_warmup: int = Warmup.num_warmup,
    step_size: float | None = Warmup.step_size,
    target_acceptance: float | None = Warmup.target_acceptance,
    start: Any = Warmup.start,
    mass: str = Warmup.mass,
    warmup_method: str | methods.Method | None = Warmup.warmup_method,
    tune: str | None = Warmup.tune,
    evaluation: Evaluation | None = None,
    method: str | methods.Method = Evaluation.method,
    window: int | str | None = Evaluation.window,
    atol: float | None = Evaluation.atol,
    rtol: float | None = Evaluation.rtol,
    max_iterations: int | None = Evaluation.max_iterations,
    compare: bool | None = Evaluation.compare,
    keep: Keep | None = None,
    keep_warmup: bool = Keep.keep_warmup,
    groups: Sequence[str] = Keep.groups,
    thin: int = Keep.thin,
    transform: Callable[[dict[str, Any]], dict[str, Any]] | None = Keep.transform,
    dims: Mapping[str, Any] | None = Keep.dims,
    coords: Mapping[str, Any] | None = Keep.coords,
    initial_position: PyTree | None = None,
    bijectors: Mapping[str, Any] | None = None,
    store: str | os.PathLike[str] | Memory | None = None,
    origin: Mapping[str, str] | None = None,
    progress: bool | Callable[[Event], Any] = True,
    blocking: bool = True,
    **kwargs: Any,
) -> Any:
    """Sample a posterior, each chain evaluated in parallel over its steps.

    Chains are warmed up, then run in coordinates where the posterior has about unit scale, segment by segment. The same
    seed gives the same chain whatever the method and the window. A chain that does not converge within `max_iterations`
    is finished by the sequential loop, so the draws are always there and always right, unless an approximation is asked
    for (`methods.Picard(mismatch=...)`); the verdict (`parsample.read_verdict`) says what it took, and how many steps
    are not within tolerance.

    The options of warm-up, of the evaluation and of what is kept may be given one by one or as a group, such as
    `warmup=parsample.Warmup(num_warmup=500, mass="diagonal")`; one that is given by its own name as well has the value
    that stands there.

    Args:
        target: a name in `TARGETS`, a target, a NumPyro model, a distrax distribution, or a plain log density, which
            needs an `initial_position`.
        *args: of a NumPyro model; with any other target the only one is the sampler.
        sampler, sampler_options, num_samples, num_chains, until, seed: see `Settings`.
        warmup: the options of warm-up, which follow, as one `parsample.Warmup`.
        num_warmup, step_size, target_acceptance, start, mass, warmup_method, tune: see `Warmup`.
        evaluation: the options of the evaluation, which follow, as one `parsample.Evaluation`.
        method, window, atol, rtol, max_iterations, compare: see `Evaluation`.
        keep: the options of what is kept, which follow, as one `parsample.Keep`.
        keep_warmup, groups, thin, transform, dims, coords: see `Keep`.
        initial_position: for a plain log density: any pytree of floating-point arrays, in unconstrained numbers.
            Chains start at it plus uniform noise on (-1, 1).
        bijectors: for a plain log density over constrained variables: by the variable's name in the trace "positive",
            "unit_interval", "simplex", "ordered", or a distrax bijector (see `parsample.targets.LogDensity`); for a
            distrax distribution of one array the same for "x".
        store: a folder, such as "run.zarr", that draws are written to as they are made, so that memory does not grow
            with their number and a run that is killed can go on (`parsample.resume`). It must not exist; two runs
            cannot write to one. What is returned is opened from it, and read as it is asked for. (A
            `parsample.run.sink.Memory` shows what else is known of the run, as `parsample.MCMC` needs it.)
        origin: where the target came from, "target" and "data", so that it can be made again; the command line says
            so.
        progress: show a progress bar on a terminal and in a notebook, and elsewhere a line a minute; or a function that
            is called with every `parsample.run.progress.Event`, for other programs.
        blocking: False to return at once, with a `parsample.Running`: the run goes on in the background, where it can
            be paused, looked at and stopped.
        **kwargs: of a NumPyro model; and `model_kwargs`, more of them in a dict, for those that have the name of an
            option above. Such a name by itself is refused, where it may be meant for either.

    Returns:
        The ArviZ object of the installed ArviZ (0.x: InferenceData, 1.x: xarray.DataTree) with the groups `posterior`
        and `sample_stats`: `lp`, `acceptance_rate`, `is_accepted`, `step_size`, `residual` (of each draw, in posterior
        standard deviations) and `iterations` (of each chain); `observed_data` and `constant_data` where the target has
        data of its own, and the groups that were asked for. Its attributes hold the settings and the verdict.

    Raises:
        ValueError: an argument is not what it should be; the sentence says which and how to mend it.
        FloatingPointError: a chain left the finite numbers, which only an unadjusted sampler can.
        OSError: the store cannot be written any more; what it holds is safe.
        KeyboardInterrupt: it was interrupted; its attribute `trace` holds the draws so far, or they are in the store.
            Whatever else is raised once there are draws has the attribute `trace` too.

    Cost: the gradients of a step (one, or the leapfrog steps of a trajectory) a warm-up step; then
        evaluations_per_step (see the verdict) times these and one more a step, in parallel over the window. Device
        memory O(num_chains * max(1024, window) * dim); host memory that of the trace, or with a store that of some of
        its chunks (4 MiB a variable), and of what `groups` asks for on 1,024 draws of each chain.
    """
    given = locals()
    target, args, kwargs = as_target(target, args, kwargs, initial_position, bijectors)
    if kwargs:
        raise unknown("an argument", next(iter(kwargs)), ARGUMENTS)
    if len(args) > 1:
        raise ValueError(f"{len(args)} arguments follow the target {target.name}, expected at most the sampler.")
    sampler_class = find_sampler(chosen_sampler(args[0] if args else sampler, target))
    settings = Settings.of({**given, "sampler": sampler_class}, **{"target": target.name, **(origin or {})})
    job = check_job(target, settings)
    store = Memory() if store is None else store
    check_memory(job, not isinstance(store, Memory))
    run, look = _in_memory(job, store) if isinstance(store, Memory) else _in_store(job, store)
    if blocking:
        return run(progress)
    return Running(run, look, progress, {"warm-up": settings.num_warmup, "sampling": settings.num_samples})


def _in_memory(job: Job, memory: Memory) -> tuple[Callable, Callable]:
    """Return how to run, and how to look at the draws so far."""
    # A copy: the run may add a segment while a trace is made.
    return lambda progress: carry_out(job, memory, progress), lambda: copy.copy(memory).interrupted().trace


def _in_store(job: Job, store: str | os.PathLike[str]) -> tuple[Callable, Callable]:
    """Return the same for a run with a store."""
    refuse_existing(store, job.settings)

    def run(progress: Any) -> Any:
        with open_store(store, job.settings, is_new=True) as kept:
            return carry_out(job, kept, progress)

    def look() -> Any:
        try:
            return load_trace(store)
        except ValueError:  # nothing is committed yet
            return None

    return run, look


# The arguments by name, for the hint where one is misspelt.
ARGUMENTS = [name for name, row in inspect.signature(sample).parameters.items() if row.kind is row.KEYWORD_ONLY]
