"""What a run gave: the verdict, the attributes and the trace; and the draws where they are kept in memory."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parsample.engine import methods
from parsample.results.groups import Groups, data_groups, requested_groups
from parsample.results.trace import Trace
from parsample.results.verdict import Verdict
from parsample.run.counts import Tally
from parsample.run.draws import map_draws
from parsample.run.segments import STATISTICS, Job
from parsample.samplers.chains import Plan
from parsample.warmup.adapt import Adaptation
from parsample.warmup.centring import centring_words
from parsample.warmup.tuning import Moves


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
        name = methods.name_of(plan.method) or repr(plan.method)
        return Verdict(
            method=name,
            window=1 if name == "sequential" else plan.window,
            chains=chains,
            steps=tally.done,
            iterations=max(tally.iterations),
            evaluations_per_step=sum(tally.evaluations) / tally.evaluated / chains,
            largest_residual=tally.largest_residual,
            atol=float(plan.atol),
            rtol=float(plan.rtol),
            noise=plan.noise,
            finished_sequentially=sum(tally.finished),
            approximate_steps=tally.approximate_steps,
            run_seconds=tally.run_seconds,
            compile_seconds=tally.compile_seconds,
            **tally.comparison._asdict(),
            tuning=self.adaptation.tuning,
            sampler=self.sampler_words(),
            choice=tally.choice,
            moved_chains=self.adaptation.moved,
            **({} if tally.outside is None else {f"model_{k}": value for k, value in tally.outside._asdict().items()}),
        )

    def sampler_words(self) -> str:
        """Return the sampler with what warm-up chose for it."""
        make, step_size = self.job.make, self.adaptation.step_size
        sampler = make(self.adaptation.density, step_size)
        name = self.job.settings.sampler_name
        if not sampler.has_step_size:
            return name
        parts = [name, Moves.of(sampler).words(step_size), centring_words(self.adaptation.density.target)]
        words = ", ".join(part for part in parts if part)
        careful = self.adaptation.target_acceptance
        return words if careful is None else f"{words}, for an acceptance of {careful:g} as warm-up had divergent steps"

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
            **({"num_trajectories": self.job.trajectories} if self.job.trajectories > 1 else {}),
            "seed": settings.seed,
            "num_warmup": settings.num_warmup,
            "warmup_seconds": self.warmup_seconds,
            **self.steered_to(),
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

    def steered_to(self) -> dict[str, float]:
        """Return the acceptance that warm-up steered the step size to, where it did."""
        settings, found = self.job.settings, self.adaptation.target_acceptance or self.job.make.target_acceptance
        if found is None or settings.step_size is not None or not settings.num_warmup:
            return {}
        return {"target_acceptance": found}

    def warmup_attributes(self) -> dict[str, Any]:
        """Return what the draws of warm-up do not say of it, where they are kept, for the pictures."""
        settings, make = self.job.settings, self.job.make
        if not settings.keep_warmup:
            return {}
        found: dict[str, Any] = {"warmup_changes": json.dumps(self.adaptation.changes)}
        if make.target_acceptance is not None and not make.warm_up_by_mala:
            found["warmup_aim"] = self.adaptation.target_acceptance or make.target_acceptance
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
        target, unravel = adaptation.density.target, adaptation.density.unravel
        constrain = jax.jit(lambda rows: map_draws(lambda row: variables.naming(target, unravel(row)), rows))
        stats = {STATISTICS.get(name, name): row for name, row in adaptation.stats.items()}
        return {
            "warmup_posterior": jax.device_get(constrain(jnp.asarray(adaptation.draws))),
            "warmup_sample_stats": stats,
        }

    def requested(self, num_draws: int, posterior: Callable[[int, int], Mapping[str, Any]]) -> Iterator[Groups]:
        """Yield the groups that were asked for and are made of draws, as `requested_groups` does."""
        settings = self.job.settings
        if not settings.groups:
            return iter(())
        key = jax.random.fold_in(jax.random.key(settings.seed), 1)
        return requested_groups(self.job.form.variables, settings.groups, num_draws, posterior, key)
