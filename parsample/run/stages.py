"""The stages of a run, whatever begins it: warm-up, then the chains; to its end or to an interrupt."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax

from parsample.run.ahead import import_ahead
from parsample.run.checks import fingerprint
from parsample.run.choose import choose
from parsample.run.counts import Tally
from parsample.run.interrupts import Interrupted, ignoring_interrupts, one_interrupt
from parsample.run.outside import Counter
from parsample.run.progress import Event, reporting
from parsample.run.result import Outcome
from parsample.run.segments import Job, Run
from parsample.run.sink import Sink, hand_over
from parsample.targets.external import External
from parsample.warmup.adapt import Adaptation, adapt
from parsample.warmup.starts import begin_at, starts
from parsample.warmup.tuning import tune_for_rounds
from parsample.workers.memory import Memory


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
    tally = kept.tally or Tally.begin(plan, num_chains)
    counter = Counter(target, tally.outside)
    if not isinstance(target, External):  # whose workers may be forks, for which this is no time to import
        import_ahead()
    elif kept.runs is not None:
        target.workers.remember(Memory(kept.runs))
    found = kept.adaptation(target)
    draws_left = max(0, settings.num_samples - tally.done) if kept.wants_draws else 0
    totals = (0 if found else num_warmup, draws_left)
    try:
        # The loop and the parallel evaluation must round alike for their accept decisions to agree, on a GPU too.
        with (
            jax.default_matmul_precision("highest"),
            reporting(progress, *totals) as report,
            counter.telling(report),
        ):
            began = time.perf_counter()
            begun = lambda: starts(target, job.keys.start) if job.starts is None else job.starts  # noqa: E731
            kept.identify(lambda: fingerprint(target, begun()))
            if found:
                adaptation, warmup_seconds = found
            else:
                report_steps = lambda steps: report("warm-up", steps)  # noqa: E731
                adaptation = warm_up(job, report_steps)
                warmup_seconds = time.perf_counter() - began
            job = job._replace(make=job.make.chosen(adaptation.sampler_options))
            if not kept.wants_draws:
                kept.warmed_up(Outcome(job, plan, adaptation, warmup_seconds))
                return None
            run = Run(job.make, adaptation, job.keys.chain, settings.num_samples, counter)
            run.compile_seconds = tally.compile_seconds
            if kept.tally is not None:
                plan = tally.plan(plan)
            elif settings.is_auto and not run.is_hosted:
                is_tuned = settings.tune is not None
                plan, words = choose(run, plan, settings.num_samples, adaptation.seconds_per_step, is_tuned)
                tally = dataclasses.replace(Tally.begin(plan, num_chains), choice=words)
            else:
                plan = run.within_reach(plan)
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
    finally:
        if isinstance(target, External):
            target.workers.close()


def _interrupted(kept: Sink) -> Interrupted:
    """Return the interrupt with the draws; an error on that way takes them along as well."""
    try:
        return kept.interrupted()
    except Exception as error:
        hand_over(error, kept)
        raise


def warm_up(job: Job, report: Callable[[int], None]) -> Adaptation:
    """Warm up, and tune for the parallel evaluation if that is asked for."""
    settings = job.settings
    if job.starts is None:
        vectors, density = begin_at(job.target, job.keys.start, settings.start, settings.mass)
    else:
        vectors, density = job.starts, None
    adaptation = adapt(
        job.target,
        job.make,
        vectors,
        job.keys.warmup,
        settings.num_warmup,
        step_size=settings.step_size,
        mass=settings.mass,
        plan=job.warmup_plan,
        density=density,
        keep_draws=settings.keep_warmup,
        may_be_careful=settings.target_acceptance is None,
        report=report,
    )
    if settings.tune is None:
        return adaptation
    make = job.make.chosen(adaptation.sampler_options)
    tuned = tune_for_rounds(make, adaptation, job.keys.tuning, job.plan)
    return adaptation._replace(step_size=tuned.step_size, sampler_options=tuned.make.sampler_options, tuning=tuned.text)
