"""Whatever a user may give as a target, as a target."""

from collections.abc import Mapping
from typing import Any

import jax
from jaxtyping import PyTree

from parsample.engine.names import unknown
from parsample.engine.reads import is_of_library, pinned, settling
from parsample.engine.traceable import traceable
from parsample.targets import TARGETS
from parsample.targets.base import Target, position_shapes
from parsample.targets.density import OUTSIDE, LogDensity, check_scalar
from parsample.targets.distribution import Distribution
from parsample.targets.numpyro_model import NumPyroModel


def as_target(
    given: Any,
    args: tuple,
    kwargs: dict[str, Any],
    initial_position: PyTree | None,
    bijectors: Mapping[str, Any] | None,
) -> tuple[Target, tuple, dict[str, Any]]:
    """Return a target, and those of the arguments that are not its own.

    Args:
        given: a name in `TARGETS`, a target, a NumPyro model, a distrax distribution or a log density.
        args: of a NumPyro model.
        kwargs: of a NumPyro model.
        initial_position: for a log density, which without one is taken for a model.
        bijectors: for a log density or a distribution.

    Raises:
        ValueError: it is none of these, or an argument does not belong to it.
    """
    if not isinstance(given, Target | str | type):
        if _is_distribution(given):
            return Distribution(given, initial_position, bijectors), args, kwargs
        if callable(given) and initial_position is not None:
            with settling(given):
                density = LogDensity(given, initial_position, bijectors)
            return pinned(density), args, kwargs
        if callable(given):
            _check_none(bijectors, "bijectors", "a NumPyro model has its own transforms")
            return NumPyroModel(given, *args, **kwargs), (), {}
    target = _ready_made(given)
    _check_none(initial_position, "initial_position", f"the target {target.name} draws its own starts")
    _check_none(bijectors, "bijectors", f"the target {target.name} has its own transforms")
    if isinstance(given, str) and is_of_library(type(target)):
        return target, args, kwargs  # nothing to try, and nothing that it could read has changed
    with settling(target), traceable(f"the log density of the target {target.name}", OUTSIDE):
        check_scalar(jax.eval_shape(target.logdensity, position_shapes(target)))
    return pinned(target), args, kwargs


def _ready_made(given: Any) -> Target:
    if isinstance(given, str):
        if given not in TARGETS:
            raise unknown("target", given, TARGETS, "a Target, a NumPyro model, or a log density")
        return TARGETS[given]()
    if isinstance(given, type):
        raise ValueError(
            f"target is the class {given.__name__}, expected a target of that class; write {given.__name__}()."
        )
    if not isinstance(given, Target):
        raise ValueError(
            f"target is a {type(given).__name__}, expected the name of a target, a Target, a NumPyro model, a distrax "
            "distribution or a log density."
        )
    return given


def is_model(given: Any) -> bool:
    """Say whether something that is given without an initial position is taken for a NumPyro model."""
    return callable(given) and not isinstance(given, Target | str | type) and not _is_distribution(given)


def _is_distribution(given: Any) -> bool:
    return all(hasattr(given, name) for name in ("log_prob", "sample", "event_shape"))


def _check_none(value: Any, name: str, reason: str) -> None:
    if value is not None:
        raise ValueError(f"{name}: something was given, but {reason}; leave it out.")
