"""What a run gave: the verdict, the attributes and the trace; and the draws where they are kept in memory."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from parsample.engine import methods
from parsample.results.groups import EVALUATION, Groups, data_groups, joined, requested_groups
from parsample.results.trace import Trace
from parsample.results.verdict import Verdict
from parsample.run.counts import Tally
from parsample.run.draws import map_draws
from parsample.run.interrupts import Interrupted
from parsample.run.segments import STATISTICS, Job
from parsample.samplers.chains import Plan
from parsample.targets.base import Target
from parsample.warmup.adapt import Adaptation, covariance_steps
from parsample.warmup.tuning import setting_words


class Outcome(NamedTuple):
    """What is known once warm-up is over.

    Attributes:
        job: what was asked for.
        plan: how chains are evaluated.
        adaptation: what warm-up found.
        warmup_seconds: that it took.
    """

    job: Job
    plan: Plan
    adaptation: Adaptation
    warmup_seconds: float

    def verdict(self, tally: Tally) -> Verdict:
        """Return the verdict about the evaluation."""
        plan, chains = self.plan, len(tally.iterations)
        defaults = (name for name in methods.METHODS if bool(eqx.tree_equal(methods.METHODS[name](), plan.method)))
        name = next(defaults, repr(plan.method))
        return Verdict(
            method=name,
            window=1 if name == "sequential" else plan.window,
            chains=chains,
            steps=min(self.job.settings.num_samples, tally.done),
            iterations=max(tally.iterations),
            evaluations_per_step=sum(tally.evaluations) / tally.done / chains,
            largest_residual=tally.largest_residual,
            atol=float(plan.atol),
            rtol=float(plan.rtol),
            finished_sequentially=sum(tally.finished),
            approximate_steps=tally.approximate_steps,
            run_seconds=tally.run_seconds,
            compile_seconds=tally.compile_seconds,
            **tally.comparison._asdict(),
            tuning=self.adaptation.tuning,
            sampler=self.sampler_words(),
        )

    def sampler_words(self) -> str:
        """Return the sampler with what warm-up chose for it."""
        make, step_size = self.job.make, self.adaptation.step_size
        sampler = make(self.adaptation.density, step_size)
        name = self.job.settings.sampler_name
        if not sampler.has_step_size:
            return name
        return f"{name}, {setting_words(step_size, getattr(sampler, 'num_integration_steps', None))}"

    def attributes(self, tally: Tally) -> dict[str, Any]:
        """Return the attributes of the trace: settings and verdict."""
        device, settings = jax.devices()[0], self.job.settings
        ended = {"until": settings.until, "until_met": tally.is_met} if settings.until else {}
        # Of all steps: the statistics have those of the draws that are kept.
        thinned = {"thin": settings.thin, "divergences": tally.divergences} if settings.thin > 1 else {}
        return {
            "target": self.job.target.name,
            "sampler": settings.sampler_name,
            "sampler_options": self.job.make.sampler_options,
            "seed": settings.seed,
            "num_warmup": settings.num_warmup,
            "warmup_seconds": self.warmup_seconds,
            **self.warmup_attributes(),
            **ended,
            **thinned,
            "settings": settings.to_json(),
            **self.job.form.notes,
            "dtype": str(self.adaptation.last.dtype),
            "device": " ".join(dict.fromkeys((device.platform, device.device_kind))),
            "jax_version": jax.__version__,
            **self.verdict(tally).attributes(),
        }

    def warmup_attributes(self) -> dict[str, Any]:
        """Return what the draws of warm-up do not say of it, where they are kept, for the pictures."""
        settings, make = self.job.settings, self.job.make
        if not settings.keep_warmup:
            return {}
        found: dict[str, Any] = {"warmup_changes": json.dumps(covariance_steps(settings.num_warmup))}
        if make.target_acceptance is not None and not make.warm_up_by_mala:
            found["warmup_aim"] = make.target_acceptance
        return found

    def build(self, groups: Groups, attributes: dict[str, Any]) -> Trace:
        """Return a trace of these groups."""
        return self.job.form.build(groups, attributes)

    def further(self, tally: Tally) -> Groups:
        """Return what the trace has beside the draws and is at hand: what was counted, warm-up and data.

        Args:
            tally: of the whole run.
        """
        groups: Groups = {"sample_stats": {"iterations": np.asarray(tally.iterations)}}
        return groups | self.warmup() | data_groups(self.job.form.variables)

    def warmup(self) -> Groups:
        """Return the draws of warm-up and their statistics, where they are kept; else nothing."""
        variables, adaptation = self.job.form.variables, self.adaptation
        if not adaptation.draws.shape[1]:
            return {}
        unravel = adaptation.density.unravel
        constrain = jax.jit(lambda rows: map_draws(lambda row: variables.of_draw(unravel(row)), rows))
        stats = {STATISTICS.get(name, name): row for name, row in adaptation.stats.items()}
        return {
            "warmup_posterior": jax.device_get(constrain(jnp.asarray(adaptation.draws))),
            "warmup_sample_stats": stats,
        }

    def requested(self, num_draws: int, posterior: Callable[[int, int], Mapping[str, Any]]) -> Iterator[Groups]:
        """Yield the groups that were asked for and are made of draws, as `requested_groups` does."""
        settings = self.job.settings
        key = jax.random.fold_in(jax.random.key(settings.seed), 1)
        return requested_groups(self.job.form.variables, settings.groups, num_draws, posterior, key)


class Memory:
    """Where a run keeps its draws that has no store.

    Args:
        known: what an earlier warm-up found, in the place of another; None to warm up.
        wants_draws: whether the run goes on after warm-up.

    Attributes:
        tally: counts of the segments that are there; None before the first.
        outcome: what is known once warm-up is over; None before.
    """

    def __init__(self, known: Adaptation | None = None, wants_draws: bool = True) -> None:
        """Begin with nothing."""
        self.known, self.wants_draws = known, wants_draws
        self.kept: tuple[tuple[Groups, ...], Tally | None] = ((), None)
        self.outcome: Outcome | None = None
        self.evaluation: dict[str, np.ndarray] = {}

    @property
    def tally(self) -> Tally | None:
        """Counts of the segments that are there."""
        return self.kept[1]

    def identify(self, fingerprint: Callable[[], dict[str, Any]]) -> None:
        """Nothing is to be compared."""

    def adaptation(self, target: Target) -> tuple[Adaptation, float] | None:
        """Return what warm-up found and the seconds it took, or None if it has still to be done."""
        return None if self.known is None else (self.known, 0.0)

    def warmed_up(self, outcome: Outcome) -> None:
        """Take what warm-up found."""
        self.outcome = outcome

    def states(self, like: Any) -> Any:
        """Return where the chains stand: where they begin."""
        return like

    def see(self, evaluation: dict[str, np.ndarray]) -> None:
        """Take what the iterations of the first segment saw."""
        self.evaluation = evaluation

    def add(self, rows: Groups, tally: Tally, states: Any) -> None:
        """Take the rows of a segment."""
        # One assignment: an interrupt finds the segment either here or not.
        self.kept = ((*self.kept[0], rows), tally)

    def draws(self, group: str = "posterior") -> list[Mapping[str, Any]]:
        """Return the draws so far, or their statistics, in parts."""
        return [block[group] for block in self.kept[0]]

    def finish(self, tally: Tally, with_requests: bool = True) -> Trace:
        """Return the trace."""
        assert self.outcome is not None
        groups = joined(self.kept[0]) | ({EVALUATION: self.evaluation} if self.evaluation else {})
        for name, variables in self.outcome.further(tally).items():
            groups[name] = groups.get(name, {}) | variables
        if with_requests:
            draws = groups["posterior"]
            part = lambda first, last: {name: values[:, first:last] for name, values in draws.items()}  # noqa: E731
            blocks = list(self.outcome.requested(groups["sample_stats"]["lp"].shape[1], part))
            groups |= joined(blocks) if blocks else {}
        return self.outcome.build(groups, self.outcome.attributes(tally))

    def so_far(self, can_write: bool) -> Trace:
        """Return a trace of the draws that are there and nothing else.

        Raises:
            ValueError: there are none.
        """
        groups = joined(self.kept[0]) if self.kept[0] else {}
        if self.outcome is None or self.tally is None or not groups["sample_stats"]["lp"].shape[1]:
            raise ValueError("there are no draws yet.")
        return self.outcome.build(groups, self.outcome.attributes(self.tally))

    def interrupted(self) -> Interrupted:
        """Return the interrupt that takes the draws so far along."""
        if self.tally is None or not joined(self.kept[0])["sample_stats"]["lp"].shape[1]:
            return Interrupted("interrupted before the first draws were there; nothing is saved.")
        note = f"interrupted after {self.tally.done:,} steps of each chain"
        return Interrupted(note, self.finish(self.tally, with_requests=False))


def hand_over(error: Exception, kept: Any) -> None:
    """Let an exception take the draws so far along, as its attribute `trace`, and say so in a note.

    Args:
        error: what ended the run.
        kept: a `Memory` or a `Store`.
    """
    # What ended the run may end this as well; then it is the first error that matters.
    with contextlib.suppress(Exception):
        error.trace = kept.so_far(can_write=not isinstance(error, OSError))  # type: ignore[attr-defined]
        error.add_note("The draws so far are in the attribute `trace` of this exception.")
