"""Go on with a run from its store: one that was interrupted, or one that is to have more draws."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxtyping import PyTree

from parsample.engine import methods, options
from parsample.engine.names import unknown
from parsample.results.trace import load_trace
from parsample.run.checks import transform_name
from parsample.run.disk import open_store
from parsample.run.progress import Event
from parsample.run.sample import carry_out, check_job
from parsample.run.settings import GIVEN, Settings, read_method, sampler_name
from parsample.samplers import SAMPLERS
from parsample.samplers import find as find_sampler
from parsample.samplers.base import Sampler
from parsample.store.layout import read_run
from parsample.targets import TARGETS
from parsample.targets.given import as_target
from parsample.targets.model_file import make_target


def resume(
    store: str | os.PathLike[str],
    target: Any = None,
    *args: Any,
    num_samples: int | None = None,
    sampler: str | type[Sampler] | None = None,
    method: str | methods.Method | None = None,
    warmup_method: str | methods.Method | None = None,
    transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    seed: int | None = None,
    initial_position: PyTree | None = None,
    start: PyTree | None = None,
    bijectors: Mapping[str, Any] | None = None,
    progress: bool | Callable[[Event], Any] = True,
    **kwargs: Any,
) -> Any:
    """Go on with a run from its store, to the trace that it would have given without an interruption, bit for bit.

    The settings come from the store. What is no plain value has to be passed again: a model, a log density, a
    transform, a sampler or method of your own. A run that was killed in warm-up begins anew with the same seed; one
    that is over is returned as it is, or goes on to `num_samples` draws.

    Args:
        store: the folder that was `store` of `parsample.sample`.
        target: as it was passed to `parsample.sample`; None for a name in `TARGETS`, or if the command line began the
            run.
        *args: of a NumPyro model.
        num_samples: draws a chain in the end, before thinning, in the place of the number that the store was begun
            with; the trace is then that of an uninterrupted run with this number, and `until` still holds. At least as
            many as are there. The last segment may have to be run again; up to 7,168 draws all of them, where the
            larger number is divided into segments of another length.
        sampler: the class, if it is none in `SAMPLERS`.
        method: the instance, if it holds arrays.
        warmup_method: the same.
        transform: the same function as before.
        seed: to be sure that it is the one of the store.
        initial_position: as it was passed.
        start: the positions, if it was begun with some.
        bijectors: as they were passed.
        progress: as for `parsample.sample`.
        **kwargs: of a NumPyro model.

    Returns:
        The trace, opened from the store.

    Raises:
        ValueError: there is no such store, another run is writing to it, or it is of another version, model or
            seed; the sentence names the difference. Or it holds more draws than `num_samples`.
        OSError: the store cannot be written.
    """
    settings = Settings.from_json(read_run(store)["settings"])
    if num_samples is not None:
        wanted = options.whole("num_samples", num_samples, "it counts those that are there too")
        settings = dataclasses.replace(settings, num_samples=wanted)
    if seed is not None and seed != settings.seed:
        raise ValueError(f"seed is {seed}, but the store '{store}' was begun with seed {settings.seed}; leave it out.")
    if transform_name(transform) != settings.transform:
        raise ValueError(
            f"transform is {transform_name(transform)}, but the store '{store}' was begun with "
            f"{settings.transform or 'none'}; pass the same one."
        )
    chosen = settings.sampler if sampler is None else sampler
    if sampler is None and chosen not in SAMPLERS:
        raise ValueError(f"sampler is not given, but the store '{store}' was begun with the class {chosen}; pass it.")
    sampler_class = find_sampler(chosen)
    if sampler_name(sampler_class) != settings.sampler:
        raise ValueError(f"sampler is {chosen!r}, but the store '{store}' was begun with {settings.sampler!r}.")
    found, rest, left = as_target(_target(store, settings, target), args, kwargs, initial_position, bijectors)
    if rest or left:
        raise unknown("an argument", str([*left, *rest][0]), ["store", "target", "sampler", "method", "transform"])
    if settings.start == GIVEN and start is None:
        raise ValueError(f"start is not given, but the store '{store}' was begun with positions; pass the same ones.")
    job = check_job(
        found,
        sampler_class,
        read_method(settings.method) if method is None else method,
        transform,
        settings,
        settings.start if start is None else start,
        read_method(settings.warmup_method, "warmup_method") if warmup_method is None else warmup_method,
    )
    with open_store(store, settings, is_new=False) as kept:
        kept.change_number(job)
        return load_trace(store) if kept.is_complete else carry_out(job, kept, progress)


def _target(store: str | os.PathLike[str], settings: Settings, given: Any) -> Any:
    if given is not None:
        return given
    name = settings.target
    if name not in TARGETS and ":" not in name:
        raise ValueError(
            f"target is not given, but the store '{store}' is of '{name}', which cannot be made from its name; pass it "
            "as parsample.resume(store, target, ...), as to parsample.sample."
        )
    return make_target(name, None if settings.data is None else Path(settings.data))
