"""A sampler with its options chosen, before there are coordinates and a step size to run it with."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx

from parsample.engine import options
from parsample.engine.names import unknown
from parsample.engine.reads import pinned_class
from parsample.samplers.base import Sampler, check_power_of_length
from parsample.samplers.mala import MALA

# What a run decides itself.
OF_THE_RUN = {
    "logdensity_fn": "it comes from the target; leave it out",
    "step_size": "it is an argument of its own; leave it out here",
}


class Configured(eqx.Module):
    """A sampler's class and the options that it is to be made with.

    Args:
        sampler_class: the class.
        sampler_options: arguments of its constructor by name, all but the log density and the step size.
        target_acceptance: to which warm-up steers the step size; None for that of the class.

    Raises:
        ValueError: the sampler has no such option, or the run sets it; the acceptance is not in (0, 1), or the sampler
            does not accept and reject; or then it does not say how its step size scales. What an option's value may be
            the sampler itself says, when it is made.
    """

    sampler_class: type[Sampler] = eqx.field(static=True)
    sampler_options: dict[str, Any]
    target_acceptance: float | None = eqx.field(static=True)

    def __init__(
        self,
        sampler_class: type[Sampler],
        sampler_options: Mapping[str, Any] | None = None,
        target_acceptance: Any = None,
    ):
        """Check the names of the options."""
        self.sampler_class, self.sampler_options = pinned_class(sampler_class), dict(sampler_options or {})
        self.target_acceptance = _acceptance(sampler_class, self.steered_as, target_acceptance)
        known = [name for name in inspect.signature(sampler_class).parameters if name not in OF_THE_RUN]
        for name in self.sampler_options:
            if name in OF_THE_RUN:
                raise ValueError(f"sampler_options has {name!r}, which the run sets: {OF_THE_RUN[name]}.")
            if name not in known:
                raise unknown(f"a name in sampler_options of {sampler_class.__name__}", name, known)

    def __call__(self, logdensity_fn: Callable, step_size: Any = 0.1) -> Sampler:
        """Return the sampler on a log density."""
        return self.sampler_class(logdensity_fn, step_size, **self.sampler_options)

    def options_at(self, step_size: float, longer: int = 1, more: int = 1) -> dict[str, Any] | None:
        """Return the options to go on with at a step size that warm-up found; None for those it has."""
        return self.sampler_class.options_at(self.sampler_options, step_size, longer, more)

    def chosen(self, sampler_options: Mapping[str, Any] | None) -> "Configured":
        """Return the same sampler with options that were chosen since; with its own where that is None."""
        if sampler_options is None:
            return self
        return Configured(self.sampler_class, sampler_options, self.target_acceptance)

    def steered_to(self, target_acceptance: float) -> "Configured":
        """Return the same sampler with another acceptance to steer to."""
        return Configured(self.sampler_class, self.sampler_options, target_acceptance)

    @property
    def steered_as(self) -> type[Sampler]:
        """The class whose acceptance, scaling and way of warm-up are those of this sampler."""
        return self.sampler_class.steered_as(self.sampler_options)

    @property
    def warm_up_by_mala(self) -> bool:
        """Whether MALA finds the scale of the posterior."""
        return self.steered_as.warm_up_by_mala

    def beside_mala(self, step_size: float, dim: int) -> float:
        """Return the step size, for a sampler without accept/reject, where MALA accepts as it should at `step_size`."""
        share, power_of_dim = self.steered_as.beside_mala
        return share * step_size ** (self.steered_as.power_of_length / MALA.power_of_length) * dim**power_of_dim


def check_steered(target_acceptance: float | None, step_size: float | None, num_warmup: int) -> None:
    """Raise ValueError if an acceptance is wanted that no warm-up will steer the step size to."""
    if target_acceptance is None or (step_size is None and num_warmup):
        return
    reason = "there is no warm-up" if step_size is None else f"step_size is {step_size}"
    raise ValueError(
        f"target_acceptance is {target_acceptance!r}, but {reason}, so that nothing is steered to it; leave one out."
    )


def _acceptance(sampler_class: type[Sampler], steered_as: type[Sampler], wanted: Any) -> float | None:
    of_class = steered_as.target_acceptance
    if of_class is None:
        check_power_of_length(steered_as)
    if wanted is None:
        return of_class
    if of_class is None:
        name = sampler_class.__name__
        raise ValueError(f"target_acceptance is {wanted!r}, but {name} has no accept/reject; leave it out.")
    if not (options.is_number(wanted) and 0 < wanted < 1):
        raise ValueError(
            f"target_acceptance is {wanted!r}, expected a number between 0 and 1, such as 0.9; None is "
            f"{sampler_class.__name__}'s own, {of_class}."
        )
    return float(wanted)
