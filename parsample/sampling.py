"""The front door: from a model to a trace."""

import dataclasses
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from parsample import stopping
from parsample.chains import Plan, Segment, begin, draw, run_segment, start_keys
from parsample.coordinates import plain, to_standardised
from parsample.engine import methods, options, planner
from parsample.engine.names import unknown
from parsample.engine.solution import Status
from parsample.groups import EVALUATION, EVALUATION_DIMS, check_requests, evaluation_group, extra_groups
from parsample.laplace_start import begin_at
from parsample.progress import Event, reporting
from parsample.samplers import SAMPLERS
from parsample.samplers import find as find_sampler
from parsample.samplers.base import BLOCK, Sampler, check_step_size
from parsample.samplers.configured import Configured
from parsample.scale import check_mass
from parsample.stopping import Until
from parsample.targets.base import Target
from parsample.targets.given import as_target
from parsample.trace import build_trace
from parsample.tuning import check_tune, tune_for_rounds
from parsample.verdict import Verdict
from parsample.warmup import Adaptation, adapt

# Diagnostics of a step whose name in ArviZ's schema is another than BlackJAX's, which the samplers use.
STATISTICS = {"is_divergent": "diverging", "num_integration_steps": "n_steps"}
# Steps of a segment: what is on the device at a time, and how often the progress bar moves.
SEGMENT = 1024
# Window by device: on a CPU evaluations are what costs, and short windows waste fewest of them; on an accelerator
# iterations are.
WINDOW_CPU, WINDOW_ACCELERATOR = 16, 256
# A chain whose window advances by fewer steps an iteration than this, on average, is left to the sequential loop.
SLOWEST_ADVANCE = 2


def sample(
    target: Any,
    *args: Any,
    sampler: str | type[Sampler] = "mala",
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
    progress: bool | Callable[[Event], Any] = True,
    **kwargs: Any,
) -> Any:
    """Sample a posterior, each chain evaluated in parallel over its steps.

    Chains are warmed up, then run in coordinates where the posterior has about unit scale, segment by
    segment. The same seed gives the same chain whatever the method and the window. A chain that does not converge
    within `max_iterations` is finished by the sequential loop, so the draws are always there and always right, unless
    an approximation is asked for (`methods.Picard(mismatch=...)`); the verdict (`parsample.read_verdict`) says what it
    took, and how many steps are not within tolerance.

    Args:
        target: a name in `TARGETS`, a target, a NumPyro model, a distrax distribution, or a plain log density, which
            needs an `initial_position`.
        *args: of a NumPyro model; with any other target the only one is the sampler.
        sampler: a name in `SAMPLERS`, or a sampler's class.
        sampler_options: arguments of the sampler by name, such as {"num_integration_steps": 4} for "hmc".
        num_warmup: warm-up steps a chain, not part of the posterior; 0 for none.
        num_samples: draws a chain, at most those where there is `until`.
        num_chains: chains.
        until: end after the segment of at most 1,024 draws in which every variable has a bulk effective sample size of
            at least "ess" and an R-hat of at most "rhat", or "seconds" of sampling are over; the attribute `until_met`
            of the trace says whether. A rule that looks at the draws favours lucky chains a little: ask for more than
            you need.
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
        start: "random"; "laplace" for draws from the normal distribution at the mode, in whose coordinates warm-up
            begins; or positions in unconstrained numbers, with a leading axis for the chains.
        mass: what warm-up learns of the posterior's covariance: "diagonal", "dense", "low_rank" (a diagonal and the
            directions that are far from it, from draws and gradients), or "auto": dense up to 100 dimensions, low rank
            above.
        warmup_method: how warm-up is evaluated, as `method`, but for "auto". Its segments are short, so the loop is
            seldom slower. Not the `method` of the run: so that this one makes no difference to the chain.
        tune: "rounds" to try shorter steps, and for HMC shorter trajectories, on pilot runs after warm-up, and take the
            setting with most effective draws an iteration; the verdict says what was traded. For devices on which an
            iteration costs what a step costs; None for what mixes best in the loop.
        atol: tolerance of the evaluation, in posterior standard deviations. An accept decision that hangs on less may
            fall otherwise than in the loop: the tighter, the rarer. In single precision 1e-6 is near what can be had.
        rtol: tolerance relative to the state, dimensionless.
        max_iterations: of a segment of 1,024 steps; None for one in two steps.
        compare: run the first segment by the sequential loop as well, for the verdict: its wall time, the largest
            difference and the accept decisions that differ.
        keep_warmup: keep the warm-up draws as `warmup_posterior`, and as `warmup_sample_stats` their `lp`,
            `acceptance_rate`, `step_size`, and `diverging` where the sampler has it.
        groups: further groups of the trace, where the target can make them, as a NumPyro model can:
            "log_likelihood", "posterior_predictive", "prior"; and "evaluation": what every iteration of the first
            segment of the first chain saw, for `parsample.write_report` and `parsample.plots`.
        progress: show a progress bar on a terminal, and elsewhere a line a minute; or a function that is called with
            every `parsample.progress.Event`, for notebooks and other programs.
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

    Cost: one gradient a warm-up step; then evaluations_per_step (see the verdict) times two gradients a step, in
        parallel over the window. Device memory O(num_chains * 1024 * dim).
    """
    target, args, kwargs = as_target(target, args, kwargs, initial_position, bijectors)
    if kwargs:
        raise unknown("an argument", next(iter(kwargs)), OPTIONS)
    if len(args) > 1:
        raise ValueError(f"{len(args)} arguments follow the target {target.name}, expected at most the sampler.")
    sampler = args[0] if args else sampler
    check_requests(groups, target)
    make = Configured(find_sampler(sampler), sampler_options)
    num_samples = options.whole("num_samples", num_samples, "each chain needs a draw")
    num_chains = options.whole("num_chains", num_chains, "one chain is enough to sample, four to judge")
    num_warmup = 0 if _is_zero(num_warmup) else options.whole("num_warmup", num_warmup, "0 leaves warm-up out")
    if step_size is not None:
        check_step_size(step_size)
    if not (hasattr(seed, "__index__") and not isinstance(seed, bool) and 0 <= seed < 2**32):
        # In 32-bit mode JAX drops the upper half of longer seeds, and different ones would give the same chains.
        raise ValueError(f"seed is {seed!r}, expected a whole number from 0 to 2**32 - 1.")
    check_mass(mass)
    if isinstance(warmup_method, str) and warmup_method == "auto":
        raise ValueError("warmup_method is 'auto', expected the name of a method; 'sequential' is seldom slower.")
    check_tune(tune, make, method)
    good = stopping.check(until, num_chains)
    make(plain(target), 0.1 if step_size is None else step_size)  # refuses what no run could use, before warm-up
    plan = _plan(target, method, window, num_samples, max_iterations, atol, rtol)
    plan = plan._replace(history=EVALUATION in groups)

    key_start, key_warmup, key_chain = jax.random.split(jax.random.key(seed), 3)
    # The loop and the parallel evaluation must round alike for their accept decisions to agree, on a GPU too.
    with jax.default_matmul_precision("highest"), reporting(progress, num_warmup, num_samples) as report:
        began = time.perf_counter()
        vectors, density = begin_at(target, _keys(key_start, num_chains), start, mass)
        adaptation = adapt(
            target,
            make,
            vectors,
            _keys(key_warmup, num_chains),
            num_warmup,
            step_size=step_size,
            mass=mass,
            plan=_plan(target, warmup_method, window, num_samples, max_iterations, atol, rtol),
            density=density,
            keep_draws=keep_warmup,
            report=lambda steps: report("warm-up", steps),
        )
        tuned = None
        if tune is not None:
            tuned = tune_for_rounds(make, adaptation, _keys(jax.random.fold_in(key_warmup, 1), num_chains), plan)
            make, adaptation = tuned.make, adaptation._replace(step_size=tuned.step_size)
        warmup_seconds = time.perf_counter() - began
        run = _Run(make, adaptation, _keys(key_chain, num_chains))
        if method == "auto":
            plan = run.choose(plan)
        segments, met = run.all_segments(plan, num_samples, report, good)
        num_samples = min(num_samples, plan.steps * len(segments))
        comparison = run.compare(plan, segments[0]) if compare else _NOT_COMPARED
    verdict = _verdict(plan, num_samples, segments, run, comparison)
    if tuned is not None:
        verdict = dataclasses.replace(verdict, tuning=tuned.text)
    settings: dict[str, Any] = {"seed": int(seed), "num_warmup": num_warmup, "warmup_seconds": warmup_seconds}
    settings |= {"until": dict(until), "until_met": met} if until else {}
    return _trace(target, make, adaptation, num_samples, segments, verdict, groups, settings)


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
        max_iterations = max(64, steps // SLOWEST_ADVANCE)
    dtype = jnp.result_type(*jax.tree.leaves(target.position_template()))
    options.check_tolerances(atol, rtol, dtype)
    chosen = methods.QuasiNewton() if isinstance(method, str) and method == "auto" else methods.find(method)
    checked = options.check(chosen, steps, window, max_iterations, False, 0.0, None, None, False)
    return Plan(chosen, checked.window, steps, checked.max_iterations, atol, rtol)


class _Comparison(NamedTuple):
    """The first segment by the sequential loop."""

    compared_steps: int
    parallel_seconds: float
    sequential_seconds: float
    largest_difference: float
    decisions_that_differ: int


_NOT_COMPARED = _Comparison(0, 0.0, 0.0, 0.0, 0)


class _Run:
    """Chains after warm-up, and the time that compiling and running them took."""

    def __init__(self, make: Configured, adaptation: Adaptation, rng_keys: jax.Array):
        """Put the chains where warm-up left them."""
        self.density = adaptation.density
        self.sampler = make(self.density, jnp.asarray(adaptation.step_size, adaptation.last.dtype))
        self.positions = to_standardised(self.density, adaptation.last)
        self.rng_keys = rng_keys
        self.first = begin(self.sampler, self.positions, start_keys(rng_keys))
        self.programs: list[tuple[Plan, Callable]] = []
        self.compile_seconds = self.run_seconds = self.first_seconds = 0.0

    def segment(self, plan: Plan, states: PyTree, start: int) -> tuple[Segment, float]:
        """Run one segment, and say how long it took without compiling."""
        inputs = draw(self.sampler, self.rng_keys, self.positions, start, plan.steps)
        program = self.program(plan, states, inputs)
        began = time.perf_counter()
        segment = jax.block_until_ready(program(self.sampler, states, inputs, plan))
        return segment, time.perf_counter() - began

    def program(self, plan: Plan, states: PyTree, inputs: PyTree) -> Callable:
        """Return the compiled program of a plan, compiling it if it is new."""
        for known, program in self.programs:
            # A method may hold arrays, which have neither a hash nor a plain equality.
            if known[1:] == plan[1:] and bool(eqx.tree_equal(known.method, plan.method)):
                return program
        began = time.perf_counter()
        run: Any = eqx.filter_jit(run_segment)
        compiled = run.lower(self.sampler, states, inputs, plan).compile()
        self.compile_seconds += time.perf_counter() - began
        self.programs.append((plan, compiled))
        return compiled

    def all_segments(self, plan: Plan, num_samples: int, report: Callable, good: Until) -> tuple[list[Segment], bool]:
        """Run the chains to their end, or until they are good; what each segment gave moves to the host.

        Returns:
            The segments, and whether they are good.
        """
        segments: list[Segment] = []
        states, done, divergences, began = self.first, 0, 0, time.perf_counter()
        while done < num_samples:
            segment, seconds = self.segment(plan, states, done)
            states = jax.tree.map(lambda leaf: leaf[:, -1], segment.states)
            segment = jax.device_get(segment)
            _check_finite(segment.states, num_samples - done, done)
            self.run_seconds += seconds
            self.first_seconds = self.first_seconds or seconds
            # The history of the first segment alone is of use, and the others' would fill the host.
            segments.append(segment if not segments else segment._replace(history=None))
            kept = min(plan.steps, num_samples - done)
            divergences += int(np.sum(segment.info.get("is_divergent", np.zeros((1, 1)))[:, :kept]))
            report(
                "sampling",
                kept,
                acceptance_rate=float(np.mean(segment.info["acceptance_rate"])),
                divergences=divergences,
                evaluations_per_step=float(np.mean(segment.evaluations)) / plan.steps,
                iterations=int(np.max(segment.iterations)),
            )
            done += plan.steps
            if good.is_given and good.is_met([part.draws for part in segments], time.perf_counter() - began):
                return segments, True
        return segments, False

    def choose(self, plan: Plan) -> Plan:
        """Time the candidates on the first segment, and return the plan of the fastest."""
        plans = {"sequential": plan._replace(method=methods.Sequential()), "quasi_newton": plan}
        runs = {name: lambda plan=plan: self.segment(plan, self.first, 0)[0] for name, plan in plans.items()}
        return plans[planner.fastest(runs, "sequential")[0]]

    def compare(self, plan: Plan, parallel: Segment) -> _Comparison:
        """Run the first segment by the sequential loop, and compare."""
        if isinstance(plan.method, methods.Sequential):
            return _NOT_COMPARED
        compile_seconds = self.compile_seconds
        sequential, seconds = self.segment(plan._replace(method=methods.Sequential()), self.first, 0)
        self.compile_seconds = compile_seconds
        return _Comparison(
            plan.steps,
            self.first_seconds,
            seconds,
            _largest_difference(parallel.states, sequential.states),
            int(np.sum(parallel.info["is_accepted"] != np.asarray(sequential.info["is_accepted"]))),
        )


def _largest_difference(one: PyTree, other: PyTree) -> float:
    differences = jax.tree.map(lambda a, b: float(np.max(np.abs(np.asarray(a) - np.asarray(b)))), one, other)
    return max(jax.tree.leaves(differences))


def _check_finite(states: PyTree, num_steps: int, start: int) -> None:
    """Raise FloatingPointError unless the first `num_steps` states of every chain are finite; `start` is the first."""
    leaves = [leaf[:, :num_steps].reshape(*leaf[:, :num_steps].shape[:2], -1) for leaf in jax.tree.leaves(states)]
    finite = np.isfinite(np.concatenate(leaves, -1)).all(-1)
    if finite.all():
        return
    chain, step = np.argwhere(~finite)[0]
    raise FloatingPointError(
        f"chain {chain} left the finite numbers at step {start + step}. {Status.NOT_FINITE.remedy}"
    )


def _total(segments: list[Segment], name: str) -> np.ndarray:
    """Add a count of each chain up over the segments, in 64 bits, which the device's own counts do not have."""
    return np.stack([getattr(segment, name) for segment in segments]).astype(np.int64).sum(0)


def _verdict(plan: Plan, num_samples: int, segments: list[Segment], run: _Run, comparison: _Comparison) -> Verdict:
    chains = len(run.positions)
    run_steps = plan.steps * len(segments)
    # The loop finishes a segment from some step to its end, and the last segment may end beyond the last draw.
    finished_beyond = np.minimum(segments[-1].finished, run_steps - num_samples)
    defaults = (name for name in methods.METHODS if bool(eqx.tree_equal(methods.METHODS[name](), plan.method)))
    name = next(defaults, repr(plan.method))
    return Verdict(
        method=name,
        window=1 if name == "sequential" else plan.window,
        chains=chains,
        steps=num_samples,
        iterations=int(_total(segments, "iterations").max()),
        evaluations_per_step=float(_total(segments, "evaluations").sum() / run_steps / chains),
        largest_residual=float(max(segment.residual.max() for segment in segments)),
        atol=float(plan.atol),
        rtol=float(plan.rtol),
        finished_sequentially=int((_total(segments, "finished") - finished_beyond).sum()),
        approximate_steps=int(np.sum(~np.concatenate([segment.is_within for segment in segments], 1)[:, :num_samples])),
        run_seconds=run.run_seconds,
        compile_seconds=run.compile_seconds,
        **comparison._asdict(),
    )


def _trace(
    target: Target,
    make: Configured,
    adaptation: Adaptation,
    num_samples: int,
    segments: list[Segment],
    verdict: Verdict,
    requests: Sequence[str],
    settings: dict[str, Any],
) -> Any:
    def join(rows: list[Any]) -> np.ndarray:
        return np.concatenate(rows, 1)[:, :num_samples]

    posterior = {name: join([segment.draws[name] for segment in segments]) for name in segments[0].draws}
    stats = {"lp": join([segment.lp for segment in segments])}
    for name in segments[0].info:
        stats[STATISTICS.get(name, name)] = join([segment.info[name] for segment in segments])
    stats["residual"] = join([segment.residual for segment in segments])
    stats["step_size"] = np.full_like(stats["lp"], adaptation.step_size)
    stats["iterations"] = _total(segments, "iterations")
    groups = {"posterior": posterior, "sample_stats": stats}
    if adaptation.draws.shape[1]:
        constrain = jax.jit(jax.vmap(jax.vmap(lambda x: target.constrain(adaptation.density.unravel(x)))))
        groups["warmup_posterior"] = jax.device_get(constrain(jnp.asarray(adaptation.draws)))
        groups["warmup_sample_stats"] = {STATISTICS.get(name, name): row for name, row in adaptation.stats.items()}
    device, used = jax.devices()[0], make.sampler_class
    attributes = {
        "target": target.name,
        "sampler": next((name for name, row in SAMPLERS.items() if row is used), used.__name__),
        "sampler_options": make.sampler_options,
        **settings,
        "dtype": str(adaptation.last.dtype),
        "device": f"{device.platform} {device.device_kind}",
        "jax_version": jax.__version__,
        **verdict.attributes(),
    }
    if evaluation := evaluation_group(segments[0].history):
        groups[EVALUATION] = evaluation
    groups |= extra_groups(target, requests, posterior, jax.random.fold_in(jax.random.key(settings["seed"]), 1))
    named = {name for variables in groups.values() for name in variables}
    dims = {name: dims for name, dims in target.dims.items() if name in named}
    dims |= EVALUATION_DIMS if evaluation else {}
    return build_trace(groups, dims=dims, coords=target.coords, attrs=attributes)


# The arguments by name, for the hint where one is misspelt.
OPTIONS = [name for name, row in inspect.signature(sample).parameters.items() if row.kind is row.KEYWORD_ONLY]
