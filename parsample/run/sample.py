"""The front door: from a model to a trace."""

import copy
import dataclasses
import inspect
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from parsample.engine import methods, options
from parsample.engine.names import unknown
from parsample.results.form import find_form
from parsample.results.groups import EVALUATION, check_requests
from parsample.results.trace import load_trace
from parsample.run.background import Running
from parsample.run.checks import check_memory, check_settings, check_transform, fingerprint
from parsample.run.counts import Tally
from parsample.run.disk import open_store, refuse_existing
from parsample.run.interrupts import Interrupted, ignoring_interrupts, one_interrupt
from parsample.run.keywords import takes_groups
from parsample.run.progress import Event, reporting
from parsample.run.result import Memory, Outcome, hand_over
from parsample.run.segments import Job, Run
from parsample.run.settings import Evaluation, Keep, Settings, Warmup
from parsample.run.sink import Sink
from parsample.run.until import check_until
from parsample.samplers import find as find_sampler
from parsample.samplers.base import BLOCK, Sampler
from parsample.samplers.chains import Plan
from parsample.samplers.configured import Configured, check_steered
from parsample.targets.base import Target
from parsample.targets.given import as_target
from parsample.warmup.adapt import Adaptation, adapt
from parsample.warmup.coordinates import plain, starts
from parsample.warmup.starts import begin_at
from parsample.warmup.tuning import check_tune, tune_for_rounds

# Steps of a segment: what is on the device at a time, and how often the progress bar moves.
SEGMENT = 1024
# Window by device: on a CPU evaluations are what costs, and short windows waste fewest of them; on an accelerator
# iterations are.
WINDOW_CPU, WINDOW_ACCELERATOR = 16, 256
# A chain whose window advances by fewer steps an iteration than this, on average, is left to the sequential loop.
SLOWEST_ADVANCE = 1.5


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
    warmup_method: str | methods.Method = Warmup.warmup_method,
    tune: str | None = Warmup.tune,
    evaluation: Evaluation | None = None,
    method: str | methods.Method = Evaluation.method,
    window: int | None = Evaluation.window,
    atol: float = Evaluation.atol,
    rtol: float = Evaluation.rtol,
    max_iterations: int | None = Evaluation.max_iterations,
    compare: bool = Evaluation.compare,
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
            `parsample.run.result.Memory` shows what else is known of the run, as `parsample.MCMC` needs it.)
        origin: where the target came from, "target" and "data", so that it can be made again; the command line says
            so.
        progress: show a progress bar on a terminal and in a notebook, and elsewhere a line a minute; or a function that
            is called with every `parsample.run.progress.Event`, for other programs.
        blocking: False to return at once, with a `parsample.Running`: the run goes on in the background, where it can
            be paused, looked at and stopped.
        **kwargs: of a NumPyro model. (Where one has the name of an argument above, `parsample.targets.NumPyroModel`
            takes it.)

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
        memory O(num_chains * 1024 * dim); host memory that of the trace, or with a store that of some of its chunks
        (4 MiB a variable) and of what `groups` asks for on 1,024 draws of each chain.
    """
    given = locals()
    target, args, kwargs = as_target(target, args, kwargs, initial_position, bijectors)
    if kwargs:
        raise unknown("an argument", next(iter(kwargs)), ARGUMENTS)
    if len(args) > 1:
        raise ValueError(f"{len(args)} arguments follow the target {target.name}, expected at most the sampler.")
    sampler_class = find_sampler(args[0] if args else sampler)
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


def check_job(target: Target, settings: Settings) -> Job:
    """Check the settings, and work out how chains are evaluated.

    Raises:
        ValueError: an option is not what it should be.
    """
    settings = check_settings(settings)
    check_requests(settings.groups, target)
    make = Configured(find_sampler(settings.sampler), settings.sampler_options, settings.target_acceptance)
    check_steered(settings.target_acceptance, settings.step_size, settings.num_warmup)
    good = check_until(settings.until, settings.num_chains)
    check_tune(settings.tune, make, settings.method)
    if settings.transform is not None:
        check_transform(settings.transform, target, settings.groups)
    form = find_form(target, settings.groups, transform=settings.transform, dims=settings.dims, coords=settings.coords)
    make(plain(target), settings.step_size or 0.1)  # refuses what no run could use, before warm-up
    plan, warmup_plan = (
        _plan(target, row, settings.window, settings.num_samples, settings.max_iterations, settings.atol, settings.rtol)
        for row in (settings.method, settings.warmup_method)
    )
    plan = plan._replace(history=EVALUATION in settings.groups)
    settings = dataclasses.replace(
        settings, groups=tuple(settings.groups), atol=float(settings.atol), rtol=float(settings.rtol)
    )
    return Job(target, make, plan, settings, good, form, warmup_plan)


@one_interrupt()
def carry_out(job: Job, kept: Sink, progress: bool | Callable[[Event], Any]) -> Any:
    """Warm up and sample, from where what is kept ends.

    Args:
        job: what to do.
        kept: where the draws go.
        progress: as for `sample`.

    Returns:
        The trace; None if what is kept wants no draws.
    """
    target, plan, settings = job.target, job.plan, job.settings
    num_warmup, num_chains = settings.num_warmup, settings.num_chains
    key_start, key_warmup, key_chain = jax.random.split(jax.random.key(settings.seed), 3)
    tally = kept.tally or Tally.begin(plan, num_chains)
    found = kept.adaptation(target)
    draws_left = max(0, settings.num_samples - tally.done) if kept.wants_draws else 0
    totals = (0 if found else num_warmup, draws_left)
    try:
        # The loop and the parallel evaluation must round alike for their accept decisions to agree, on a GPU too.
        with jax.default_matmul_precision("highest"), reporting(progress, *totals) as report:
            began = time.perf_counter()
            kept.identify(lambda: fingerprint(target, starts(target, _keys(key_start, num_chains))))
            if found:
                adaptation, warmup_seconds = found
            else:
                report_steps = lambda steps: report("warm-up", steps)  # noqa: E731
                adaptation = _warm_up(job, _keys(key_start, num_chains), key_warmup, report_steps)
                warmup_seconds = time.perf_counter() - began
            job = job._replace(make=job.make.chosen(adaptation.sampler_options))
            if not kept.wants_draws:
                kept.warmed_up(Outcome(job, plan, adaptation, warmup_seconds))
                return None
            run = Run(job.make, adaptation, _keys(key_chain, num_chains))
            run.compile_seconds = tally.compile_seconds
            if kept.tally is not None:
                plan = tally.plan(plan)
            elif isinstance(settings.method, str) and settings.method == "auto":
                plan = run.choose(plan)
                tally = Tally.begin(plan, num_chains)
            kept.warmed_up(Outcome(job, plan, adaptation, warmup_seconds))
            tally = run.all_segments(plan, tally, job, report, kept)
        return kept.finish(tally)
    except KeyboardInterrupt:
        with ignoring_interrupts():
            stop = _interrupted(kept)
        raise stop from None
    except Exception as error:
        hand_over(error, kept)
        raise


def _interrupted(kept: Sink) -> Interrupted:
    """Return the interrupt with the draws; an error on that way takes them along as well."""
    try:
        return kept.interrupted()
    except Exception as error:
        hand_over(error, kept)
        raise


def _warm_up(job: Job, start_keys: jax.Array, rng_key: jax.Array, report: Callable[[int], None]) -> Adaptation:
    """Warm up, and tune for the parallel evaluation if that is asked for."""
    settings = job.settings
    vectors, density = begin_at(job.target, start_keys, settings.start, settings.mass)
    adaptation = adapt(
        job.target,
        job.make,
        vectors,
        _keys(rng_key, settings.num_chains),
        settings.num_warmup,
        step_size=settings.step_size,
        mass=settings.mass,
        plan=job.warmup_plan,
        density=density,
        keep_draws=settings.keep_warmup,
        report=report,
    )
    if settings.tune is None:
        return adaptation
    make = job.make.chosen(adaptation.sampler_options)
    tuned = tune_for_rounds(make, adaptation, _keys(jax.random.fold_in(rng_key, 1), settings.num_chains), job.plan)
    return adaptation._replace(step_size=tuned.step_size, sampler_options=tuned.make.sampler_options, tuning=tuned.text)


_fold_in = jax.jit(jax.vmap(jax.random.fold_in, in_axes=(None, 0)))


def _keys(rng_key: jax.Array, num_chains: int) -> jax.Array:
    return _fold_in(rng_key, jnp.arange(num_chains))


def _plan(
    target: Target,
    method: str | methods.Method,
    window: int | None,
    num_samples: int,
    max_iterations: int | None,
    atol: float,
    rtol: float,
) -> Plan:
    """Check the options of the evaluation, and fill in what depends on the device."""
    # Segments of equal length in whole blocks of inputs: the last one may run too far, which is cheaper than compiling
    # another program for it.
    num_segments = -(-num_samples // SEGMENT)
    steps = -(-num_samples // (num_segments * BLOCK)) * BLOCK
    if window is None:
        window = WINDOW_CPU if jax.default_backend() == "cpu" else WINDOW_ACCELERATOR
    if max_iterations is None:
        max_iterations = max(64, int(steps / SLOWEST_ADVANCE))
    dtype = jnp.result_type(*jax.tree.leaves(target.position_template()))
    chosen = methods.QuasiNewton() if isinstance(method, str) and method == "auto" else methods.find(method)
    options.check_tolerances(atol, rtol, dtype, method=chosen)
    checked = options.check(chosen, steps, window, max_iterations, False, 0.0, None, None, False)
    return Plan(chosen, checked.window, steps, checked.max_iterations, atol, rtol)


# The arguments by name, for the hint where one is misspelt.
ARGUMENTS = [name for name, row in inspect.signature(sample).parameters.items() if row.kind is row.KEYWORD_ONLY]
