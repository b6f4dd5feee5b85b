"""Ways to a posterior's draws side by side: predicted for a device that need not be there, measured on this one."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from parsample.engine import latency, options
from parsample.engine.columns import aligned
from parsample.engine.latency import CPU, Device
from parsample.engine.names import unknown
from parsample.engine.solution import Solution
from parsample.results.summary import smallest_ess
from parsample.run.arguments import check_left, serves_models
from parsample.run.checks import chosen_sampler, refuse_external
from parsample.run.choose import LARGEST_NEWTON
from parsample.run.keywords import documents_options
from parsample.run.plan import WHOLE, check_job
from parsample.run.segments import Job, Run
from parsample.run.settings import Settings, Warmup
from parsample.run.stages import warm_up
from parsample.samplers import find as find_sampler
from parsample.samplers.base import Sampler
from parsample.samplers.chains import Plan, draw, evaluate_chains
from parsample.targets.given import as_target
from parsample.warmup.adapt import Adaptation
from parsample.warmup.tuning import Moves, gradients_in_sequence, tune_for_rounds

# Windows that are tried beside the whole chain, the longest that is shorter than it.
WINDOWS = (256, 1024)
# Steps that are run here, at most: of longer segments the iterations are foreseen.
PILOT = 4096
# What takes fewer seconds is timed twice.
SHORT = 1.0
# The methods that are tried, Newton's up to `LARGEST_NEWTON` dimensions. Lifted ones make no less work, of which there
# is enough for a CPU.
NAMES = "quasi_newton", "newton"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to the draws.

    Attributes:
        setting: of the sampler, in words.
        method: of evaluation, its name.
        window: steps solved at once; 1 for the loop.
        iterations: for all draws, of the slowest chain, steps left to the loop counted as one each; for the loop its
            steps.
        gradients: that wait for each other, for all draws.
        effective_draws: of all chains, the smaller of bulk and tail effective sample size of the worst coordinate.
        predicted: seconds on the device, without compiling, by the latency model.
        measured: seconds here, without compiling; NaN where the device is another.
    """

    setting: str
    method: str
    window: int
    iterations: float
    gradients: float
    effective_draws: float
    predicted: float
    measured: float = math.nan

    @property
    def seconds(self) -> float:
        """Those measured, or else those predicted."""
        return self.predicted if math.isnan(self.measured) else self.measured

    @property
    def per_second(self) -> float:
        """Effective draws a second; 0 where nothing moved."""
        return 0.0 if math.isnan(self.effective_draws) else self.effective_draws / self.seconds


@dataclasses.dataclass(frozen=True)
class Planned:
    """Ways to the draws of a posterior, and how long they take on a device.

    Attributes:
        target: its name.
        device: what the times are of.
        source: where the constants of the latency model come from.
        num_samples: draws a chain.
        num_chains: how many.
        steps: of every chain that were run here to count iterations.
        candidates: the loop with warm-up's setting first.
    """

    target: str
    device: str
    source: str
    num_samples: int
    num_chains: int
    steps: int
    candidates: tuple[Candidate, ...]

    @property
    def best(self) -> Candidate:
        """The one with most effective draws a second, by the times measured if there are any."""
        return max(self.candidates, key=lambda row: row.per_second)

    @property
    def is_measured(self) -> bool:
        """Whether the device is the one at hand."""
        return not math.isnan(self.candidates[0].measured)

    def text(self) -> str:
        """Return the table, and what in it is predicted and what measured."""
        settings = list(dict.fromkeys(row.setting for row in self.candidates))
        letters = {setting: chr(ord("A") + number) for number, setting in enumerate(settings)}
        loop = self.candidates[0]
        table = [
            ("", "", "", "", "effective", "gradients", "seconds", "seconds", "effective draws", "times the"),
            (
                "",
                "method",
                "window",
                "iterations",
                "draws",
                "in sequence",
                "predicted",
                "measured",
                "a second",
                "loop's",
            ),
        ]
        for row in self.candidates:
            measured = "-" if math.isnan(row.measured) else f"{row.measured:.2g}"
            work = f"{row.iterations:,.0f}", f"{row.effective_draws:,.0f}", f"{row.gradients:,.0f}"
            rate = f"{row.per_second:,.3g}" if row.per_second < 1000 else f"{row.per_second:,.0f}"
            times = f"{row.per_second / loop.per_second:.2g}" if loop.per_second else "-"
            window = "" if row.method == "loop" else f"{row.window:,}"
            first = f"{'*' if row is self.best else ' '} {letters[row.setting]}", row.method, window
            table.append((*first, *work, f"{row.predicted:.2g}", measured, rate, times))
        lines = [f"{self.target}, {self.num_chains} chains of {self.num_samples:,} draws, on {self.device}", ""]
        lines += [*aligned(table, 2), "", *(f"{letters[setting]}  {setting}" for setting in settings), ""]
        return "\n".join([*lines, *self.sentences()])

    __str__ = text

    def sentences(self) -> list[str]:
        """Return what the table says, and how far it can be relied on."""
        best, loop = self.best, self.candidates[0]
        if best.method == "loop":
            words = "the loop has most effective draws a second: no parallel evaluation that was tried pays."
        else:
            words = f"{best.method} over {best.window:,} steps has most effective draws a second"
            words += f", {best.per_second / loop.per_second:.2g} times the loop's." if loop.per_second else "."
        said = [f"* {words}"]
        said.append("Predicted: from what the compiled programs do, by the latency model; its constants are")
        if self.is_measured:
            here = "Measured: here, without compiling; effective draws a second are by these."
            return [*said, f"{self.source}.", here]
        return [
            *said,
            f"{self.source}; no second of this was measured on {self.device}.",
            f"Iterations and effective draws were counted here, on {self.steps:,} steps.",
        ]


@serves_models(0)
@documents_options
def plan(  # noqa: D417  # the decorator puts the docs of the options in their place
    target: Any,
    *args: Any,
    sampler: str | type[Sampler] = Settings.sampler,
    sampler_options: Mapping[str, Any] | None = Settings.sampler_options,
    num_warmup: int = Warmup.num_warmup,
    num_samples: int = Settings.num_samples,
    num_chains: int = Settings.num_chains,
    step_size: float | None = Warmup.step_size,
    target_acceptance: float | None = Warmup.target_acceptance,
    seed: int = Settings.seed,
    initial_position: PyTree | None = None,
    bijectors: Mapping[str, Any] | None = None,
    device: str | None = None,
    **kwargs: Any,
) -> Planned:
    """Compare ways to a posterior's draws: how many effective ones a second, on this device or on one that is not here.

    The loop and the parallel methods, with the setting that warm-up finds and with those that `tune="rounds"` would
    choose. Iterations do not depend on the device: they are counted here. Seconds are predicted from what the compiled
    programs do (`parsample.engine.latency`), and beside it measured where the device is the one at hand.

    Args:
        target: as for `parsample.sample`.
        *args: of a NumPyro model; with any other target the only one is the sampler.
        sampler, sampler_options: see `Settings`.
        num_warmup: see `Warmup`.
        num_samples, num_chains: see `Settings`.
        step_size, target_acceptance: see `Warmup`.
        seed: see `Settings`.
        initial_position: for a plain log density.
        bijectors: for a plain log density.
        device: "cpu", "a100", "h100" or "h200"; None for the one at hand.
        **kwargs: of a NumPyro model; and `model_kwargs`, as for `parsample.sample`.

    Raises:
        ValueError: an argument is not what it should be.

    Cost: warm-up; six pilot runs of 512 steps, for an accelerator, where lifted methods are tried too, thirteen; for
        each of about seven candidates, or eleven, a program or two to compile, and two runs of at most 4,096 steps.
    """
    given = locals()
    target, args, kwargs = as_target(target, args, kwargs, initial_position, bijectors)
    check_left(args, kwargs)
    refuse_external(target, "parsample.plan")
    name = _check_device(device)
    sampler_class = find_sampler(chosen_sampler(args[0] if args else sampler, target))
    options.whole("num_warmup", num_warmup, "the posterior's scale comes from it")
    defaults = {field.name: getattr(Settings, field.name, None) for field in dataclasses.fields(Settings)}
    settings = Settings.of({**defaults, **given, "sampler": sampler_class, "method": "newton"}, target=target.name)
    job = check_job(target, settings)
    with jax.default_matmul_precision("highest"):
        return _planned(job, name, target.name)


def _check_device(given: str | None) -> str:
    """Return the name of a device that something is known of."""
    here = latency.at_hand()
    name = here if given is None else given
    if name in latency.DEVICES or name == here == CPU:
        return name
    if given is None:
        raise ValueError(
            f"device is not given, and nothing is known of the one at hand, {jax.devices()[0].device_kind}; name that "
            f"which is nearest to it: {', '.join(latency.DEVICES)}."
        )
    raise unknown("device", given, [*([CPU] if here == CPU else []), *latency.DEVICES])


class _Setting(NamedTuple):
    """A sampler as it is to run, in words and as such."""

    words: str
    run: Run


def _planned(job: Job, name: str, target: str) -> Planned:
    """Warm up, tune, and try every candidate."""
    settings = job.settings
    found = warm_up(job, lambda steps: None)
    size = job.piece * -(-settings.num_samples // job.piece)
    short = max((window for window in WINDOWS if window < size), default=size)
    windows = sorted({short, size})
    names = NAMES if found.last.shape[-1] <= LARGEST_NEWTON else NAMES[:1]
    ways = [(method, window) for method in names for window in windows]
    warm = _as_warmed_up(job, found)
    tuned = _tuned(job, found, names[-1], size)
    # Where there are steps made for it, the parallel evaluation of others is there for comparison.
    tries = [(warm, ways[:1] if tuned else ways), *((setting, ways) for setting in tuned)]
    if name != CPU and getattr(warm.run.sampler, "points", None) is not None:
        lifted = [(f"lifted_{method}", window) for method, window in ways]
        others = _tuned(job, found, lifted[0][0], size)
        tries += [(setting, lifted) for setting in others]
        if not others:
            tries[0] = warm, tries[0][1] + lifted
    device = latency.find(name)
    rows = [row for setting, some in tries for row in _candidates(setting, some, job, size, name, device)]
    steps = min(size, PILOT)
    return Planned(target, name, device.source, settings.num_samples, settings.num_chains, steps, tuple(rows))


def _as_warmed_up(job: Job, found: Adaptation) -> _Setting:
    """Return the setting of warm-up."""
    run = Run(job.make.chosen(found.sampler_options), found, job.keys.chain)
    return _Setting(f"{_words(run)}, as warmed up", run)


def _tuned(job: Job, found: Adaptation, method: str, size: int) -> list[_Setting]:
    """Return the setting with most effective draws a round by a method, if it is another than warm-up's."""
    make = job.make.chosen(found.sampler_options)
    if make.target_acceptance is None:
        return []
    tuned = tune_for_rounds(make, found, job.keys.chain, _plan(job, method, size, size))
    if tuned.chosen == tuned.pilots[0]:
        return []
    run = Run(tuned.make, found._replace(step_size=tuned.step_size), job.keys.chain)
    return [_Setting(f"{_words(run)}, tuned for rounds of {method}", run)]


def _words(run: Run) -> str:
    """Return the setting of a run in words."""
    return Moves.of(run.sampler).words(run.step_size)


def _plan(job: Job, method: str, window: int, size: int) -> Plan:
    """Return how chains are evaluated by a method over a window."""
    given = dataclasses.replace(job.settings, method=method, window=WHOLE if window == size else window)
    return check_job(job.target, given).plan


def _candidates(
    setting: _Setting, ways: list[tuple[str, int]], job: Job, size: int, name: str, device: Device
) -> list[Candidate]:
    """Try the loop, and ways to evaluate the same chains in parallel, for one setting of the sampler."""
    run, draws, chains = setting.run, job.settings.num_samples, job.settings.num_chains
    leapfrog_steps = Moves.of(run.sampler).gradients
    is_here = name == latency.at_hand()
    plan = run.within_reach(_plan(job, "sequential", size, size))
    pilot = plan._replace(steps=min(plan.steps, PILOT), window=min(plan.window, PILOT))
    segment, measured = _run(run, pilot)
    share = draws / pilot.steps
    effective = share * smallest_ess({"position": np.asarray(segment.details.position)})
    once = _program(run, pilot, name).once
    predicted = share * (once if name == CPU else once.of_chains(chains)).seconds(device)
    loop = Candidate(
        setting.words, "loop", 1, float(draws), float(draws * leapfrog_steps), effective, predicted,
        share * measured if is_here else math.nan,
    )  # fmt: skip
    candidates = [loop]
    for method, window in ways:
        plan = run.within_reach(_plan(job, method, window, size))
        pilot = plan._replace(steps=min(plan.steps, PILOT), window=min(plan.window, PILOT))
        segment, measured = _run(run, pilot)
        segments = draws / plan.steps
        factor = segments * _growth(run, pilot, segment, plan.steps)
        turns, left = (factor * np.asarray(row, float) for row in (segment.iterations, segment.finished))
        predicted = _seconds(_program(run, plan, name), segments, turns, name, device)
        predicted += left.max() * loop.predicted / draws
        gradients = turns.max() * gradients_in_sequence(plan.method, run.sampler) + left.max() * leapfrog_steps
        measured *= factor * plan.steps / pilot.steps
        candidates.append(
            Candidate(
                setting.words, method, window, float((turns + left).max()), float(gradients), effective,
                float(predicted), float(measured) if is_here else math.nan,
            )
        )  # fmt: skip
    return candidates


def _seconds(program: latency.Program, segments: float, turns: np.ndarray, name: str, device: Device) -> float:
    """Return what the iterations `turns` of each chain are predicted to take, over some segments."""
    if name == CPU:  # a program of all chains, one after the other
        return segments * program.once.seconds(device) + float(turns.sum()) * program.trip.seconds(device)
    once, trip = (work.of_chains(len(turns)).seconds(device) for work in program)
    return segments * once + float(turns.max()) * trip


def _run(run: Run, plan: Plan) -> tuple[Solution, float]:
    """Run a segment, and if it is short once more, and return it with the least time."""
    segment, seconds = run.segment(plan, run.first, 0)
    return segment, seconds if seconds > SHORT else min(seconds, run.segment(plan, run.first, 0)[1])


def _growth(run: Run, pilot: Plan, segment: Solution, steps: int) -> float:
    """Return by how much more iterations longer segments are foreseen to take than the pilot did.

    As a power of their length, as from a quarter of the pilot to the whole of it.
    """
    if steps == pilot.steps:
        return 1.0
    quarter = pilot._replace(steps=pilot.steps // 4, window=pilot.window // 4)
    shorter, _ = run.segment(quarter, run.first, 0)
    turns = [float((row.iterations + row.finished).max()) for row in (shorter, segment)]
    power = math.log(turns[1] / turns[0]) / math.log(4)
    return (steps / pilot.steps) ** max(0.0, power)


def _program(run: Run, plan: Plan, name: str) -> latency.Program:
    """Return the work of a segment: on a CPU of all chains, as it was run, elsewhere of one chain."""
    count = len(run.positions) if name == CPU else 1
    states = jax.tree.map(lambda leaf: leaf[:count], run.first)
    inputs = draw(run.sampler, run.rng_keys[:count], run.positions[:count], 0, plan.steps)
    if name == CPU:
        return latency.read(run.program(plan, states, inputs).as_text() or "")
    return latency.of_accelerator(evaluate_chains, run.sampler, states, inputs, plan.traced(run.positions.dtype))
