"""The front door: from a model to a trace."""

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
from parsample.results.groups import EVALUATION, check_requests
from parsample.run.checks import check_memory, check_transform, fingerprint, transform_name
from parsample.run.counts import Tally
from parsample.run.disk import open_store, refuse_existing
from parsample.run.progress import Event, reporting
from parsample.run.result import Memory, Outcome
from parsample.run.segments import Job, Run
from parsample.run.settings import GIVEN, Settings, method_text, sampler_name
from parsample.run.until import check_until
from parsample.samplers import find as find_sampler
from parsample.samplers.base import BLOCK, Sampler, check_step_size
from parsample.samplers.chains import Plan
from parsample.samplers.configured import Configured, check_steered
from parsample.targets.base import Target
from parsample.targets.given import as_target
from parsample.warmup.adapt import Adaptation, adapt
from parsample.warmup.coordinates import plain, starts
from parsample.warmup.scale import check_mass
from parsample.warmup.starts import begin_at
from parsample.warmup.tuning import check_tune, tune_for_rounds

# Steps of a segment: what is on the device at a time, and how often the progress bar moves.
SEGMENT = 1024
# Window by device: on a CPU evaluations are what costs, and short windows waste fewest of them; on an accelerator
# iterations are.
WINDOW_CPU, WINDOW_ACCELERATOR = 16, 256
# A chain whose window advances by fewer steps an iteration than this, on average, is left to the sequential loop.
SLOWEST_ADVANCE = 1.5


def sample(
    target: Any,
    *args: Any,
    sampler: str | type[Sampler] = "hmc",
    sampler_options: Mapping[str, Any] | None = None,
    num_warmup: int = 2000,
    num_samples: int = 5000,
    num_chains: int = 4,
    until: Mapping[str, Any] | None = None,
    seed: int = 0,
    method: str | methods.Method = "quasi_newton",
    window: int | None = None,
    initial_position: PyTree | None = None,
    bijectors: Mapping[str, Any] | None = None,
    step_size: float | None = None,
    target_acceptance: float | None = None,
    start: Any = "random",
    mass: str = "auto",
    warmup_method: str | methods.Method = "sequential",
    tune: str | None = None,
    atol: float = 1e-6,
    rtol: float = 1e-6,
    max_iterations: int | None = None,
    compare: bool = True,
    keep_warmup: bool = False,
    groups: Sequence[str] = (),
    thin: int = 1,
    transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    store: str | os.PathLike[str] | Memory | None = None,
    origin: Mapping[str, str] | None = None,
    progress: bool | Callable[[Event], Any] = True,
    **kwargs: Any,
) -> Any:
    """Sample a posterior, each chain evaluated in parallel over its steps.

    Chains are warmed up, then run in coordinates where the posterior has about unit scale, segment by segment. The same
    seed gives the same chain whatever the method and the window. A chain that does not converge within `max_iterations`
    is finished by the sequential loop, so the draws are always there and always right, unless an approximation is asked
    for (`methods.Picard(mismatch=...)`); the verdict (`parsample.read_verdict`) says what it took, and how many steps
    are not within tolerance.

    Args:
        target: a name in `TARGETS`, a target, a NumPyro model, a distrax distribution, or a plain log density, which
            needs an `initial_position`.
        *args: of a NumPyro model; with any other target the only one is the sampler.
        sampler: a name in `SAMPLERS`, or a sampler's class. "hmc" mixes best over the package's targets; "mala" takes
            one gradient a step, and an iteration of it two in sequence.
        sampler_options: arguments of the sampler by name, such as {"num_integration_steps": 4} for "hmc", which warm-up
            else chooses with the step size.
        num_warmup: warm-up steps a chain, not part of the posterior; 0 for none.
        num_samples: draws a chain, at most those where there is `until`.
        num_chains: chains.
        until: end after the segment of at most 1,024 draws in which every variable has an effective sample size, bulk
            and tail, above "ess" and an R-hat below "rhat", and nothing else that `parsample.judge` looks at is wrong
            with the draws; or when "seconds" of sampling are over. The attribute `until_met` of the trace says whether.
            A rule that looks at the draws favours lucky chains a little: ask for more than you need.
        seed: a whole number. The same seed gives the same trace on the same machine and versions.
        method: a name in `METHODS`, an instance with its options, or "auto": time the candidates on the first
            segment and take the fastest.
        window: steps solved at a time; None for the device's default, 16 on a CPU and 256 elsewhere.
        initial_position: for a plain log density: any pytree of floating-point arrays, in unconstrained numbers.
            Chains start at it plus uniform noise on (-1, 1).
        bijectors: for a plain log density over constrained variables: by the variable's name in the trace "positive",
            "unit_interval", "simplex", "ordered", or a distrax bijector (see `parsample.targets.LogDensity`); for a
            distrax distribution of one array the same for "x".
        step_size: in standardised coordinates, dimensionless; None to let warm-up find it.
        target_acceptance: the mean acceptance rate, in (0, 1), that warm-up steers the step size to; None for the
            sampler's own, 0.8 for "hmc". Higher means smaller steps, and fewer divergences.
        start: "random"; "laplace" for draws from the normal distribution at the mode, in whose coordinates warm-up
            begins; or positions in unconstrained numbers, with a leading axis for the chains.
        mass: what warm-up learns of the posterior's covariance: "diagonal", "dense", "low_rank" (a diagonal and the
            directions that are far from it, from draws and gradients), or "auto": dense up to 100 dimensions, low rank
            above.
        warmup_method: how warm-up is evaluated, as `method`, but for "auto". Its segments are short, so the loop is
            seldom slower. Not the `method` of the run: so that this one makes no difference to the chain.
        tune: "rounds" to try shorter steps, and for HMC shorter trajectories, down to one leapfrog step, which is MALA,
            on pilot runs after warm-up, and take the setting with most effective draws for the gradients that have to
            wait for each other; the verdict says what was traded. For devices on which an iteration costs what a step
            costs; None for what mixes best in the loop.
        atol: tolerance of the evaluation, in posterior standard deviations. An accept decision that hangs on less may
            fall otherwise than in the loop: the tighter, the rarer. In single precision 1e-6 is near what can be had.
        rtol: tolerance relative to the state, dimensionless.
        max_iterations: of a segment of 1,024 steps; None for two in three steps.
        compare: run the first segment by the sequential loop as well, for the verdict: its wall time, the largest
            difference and the accept decisions that differ.
        keep_warmup: keep the warm-up draws as `warmup_posterior`, and as `warmup_sample_stats` their `lp`,
            `acceptance_rate`, `step_size`, and `diverging` where the sampler has it.
        groups: further groups of the trace, where the target can make them, as a NumPyro model can:
            "log_likelihood", "posterior_predictive", "prior"; and "evaluation": what every iteration of the first
            segment of the first chain saw, for `parsample.write_report` and `parsample.report.plots`.
        thin: keep the last of every so many draws; `num_samples` counts those before thinning. What is counted, such as
            divergences and the verdict, is of all of them.
        transform: what to keep of a draw: a function from the trace's variables of one draw, by name, to others, made
            of JAX's functions. It stands before thinning, and `until` looks at what it returns.
        store: a folder, such as "run.zarr", that draws are written to as they are made, so that memory does not grow
            with their number and a run that is killed can go on (`parsample.resume`). It must not exist; two runs
            cannot write to one. What is returned is opened from it, and read as it is asked for. (A
            `parsample.run.result.Memory` shows what else is known of the run, as `parsample.MCMC` needs it.)
        origin: where the target came from, "target" and "data", so that it can be made again; the command line says
            so.
        progress: show a progress bar on a terminal, and elsewhere a line a minute; or a function that is called with
            every `parsample.run.progress.Event`, for notebooks and other programs.
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

    Cost: the gradients of a step (one, or the leapfrog steps of a trajectory) a warm-up step; then
        evaluations_per_step (see the verdict) times these and one more a step, in parallel over the window. Device
        memory O(num_chains * 1024 * dim); host memory that of the trace, or with a store that of some of its chunks
        (4 MiB a variable) and of what `groups` asks for on 1,024 draws of each chain.
    """
    target, args, kwargs = as_target(target, args, kwargs, initial_position, bijectors)
    if kwargs:
        raise unknown("an argument", next(iter(kwargs)), OPTIONS)
    if len(args) > 1:
        raise ValueError(f"{len(args)} arguments follow the target {target.name}, expected at most the sampler.")
    sampler_class = find_sampler(args[0] if args else sampler)
    check_requests(groups, target)
    settings = Settings(
        **{"target": target.name, "data": None, **(origin or {})},
        sampler=sampler_name(sampler_class),
        sampler_options=dict(sampler_options or {}),
        num_warmup=0 if _is_zero(num_warmup) else options.whole("num_warmup", num_warmup, "0 leaves warm-up out"),
        num_samples=options.whole("num_samples", num_samples, "each chain needs a draw"),
        num_chains=options.whole("num_chains", num_chains, "one chain is enough to sample, four to judge"),
        until=None if until is None else dict(until),
        seed=seed,
        method=method_text(method),
        window=window,
        step_size=step_size,
        target_acceptance=target_acceptance,
        start=start if isinstance(start, str) else GIVEN,
        mass=mass,
        warmup_method=method_text(warmup_method),
        tune=tune,
        atol=atol,
        rtol=rtol,
        max_iterations=max_iterations,
        compare=bool(compare),
        keep_warmup=bool(keep_warmup),
        groups=tuple(groups),
        thin=options.whole("thin", thin, "1 keeps every draw"),
        transform=transform_name(transform),
    )
    job = check_job(target, sampler_class, method, transform, settings, start, warmup_method)
    store = Memory() if store is None else store
    check_memory(job, not isinstance(store, Memory))
    if isinstance(store, Memory):
        return carry_out(job, store, progress)
    refuse_existing(store, settings)
    with open_store(store, settings, is_new=True) as kept:
        return carry_out(job, kept, progress)


def check_job(
    target: Target,
    sampler_class: type[Sampler],
    method: str | methods.Method,
    transform: Callable | None,
    settings: Settings,
    start: Any,
    warmup_method: str | methods.Method,
) -> Job:
    """Check what remains to be checked, and work out how chains are evaluated.

    Raises:
        ValueError: an argument is not what it should be.
    """
    make = Configured(sampler_class, settings.sampler_options, settings.target_acceptance)
    step_size, seed = settings.step_size, options.check_seed(settings.seed)
    if step_size is not None:
        check_step_size(step_size)
    check_steered(settings.target_acceptance, step_size, settings.num_warmup)
    good = check_until(settings.until, settings.num_chains)
    if settings.thin > settings.num_samples:
        raise ValueError(f"thin is {settings.thin}, expected at most num_samples, which is {settings.num_samples}.")
    check_mass(settings.mass)
    if isinstance(warmup_method, str) and warmup_method == "auto":
        raise ValueError("warmup_method is 'auto', expected the name of a method; 'sequential' is seldom slower.")
    check_tune(settings.tune, make, method)
    if transform is not None:
        check_transform(transform, target, settings.groups)
    make(plain(target), 0.1 if step_size is None else step_size)  # refuses what no run could use, before warm-up
    plan, warmup_plan = (
        _plan(target, row, settings.window, settings.num_samples, settings.max_iterations, settings.atol, settings.rtol)
        for row in (method, warmup_method)
    )
    plan = plan._replace(history=EVALUATION in settings.groups)
    settings = dataclasses.replace(settings, seed=seed, atol=float(settings.atol), rtol=float(settings.rtol))
    return Job(target, make, plan, settings, good, transform, start, warmup_plan)


def carry_out(job: Job, kept: Any, progress: bool | Callable[[Event], Any]) -> Any:
    """Warm up and sample, from where what is kept ends.

    Args:
        job: what to do.
        kept: a `Memory` or a `Store`, where the draws go.
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
            elif settings.method == "auto":
                plan = run.choose(plan)
                tally = Tally.begin(plan, num_chains)
            kept.warmed_up(Outcome(job, plan, adaptation, warmup_seconds))
            tally = run.all_segments(plan, tally, job, report, kept)
        return kept.finish(tally)
    except KeyboardInterrupt:
        raise kept.interrupted() from None


def _warm_up(job: Job, start_keys: jax.Array, rng_key: jax.Array, report: Callable[[int], None]) -> Adaptation:
    """Warm up, and tune for the parallel evaluation if that is asked for."""
    settings = job.settings
    vectors, density = begin_at(job.target, start_keys, job.start, settings.mass)
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


def _is_zero(value: Any) -> bool:
    return not isinstance(value, bool) and hasattr(value, "__index__") and value.__index__() == 0


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
OPTIONS = [name for name, row in inspect.signature(sample).parameters.items() if row.kind is row.KEYWORD_ONLY]
