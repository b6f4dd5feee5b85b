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
from parsample.run.arguments import serves_models
from parsample.run.open_store import open_store
from parsample.run.plan import check_job
from parsample.run.progress import Event
from parsample.run.settings import Settings
from parsample.run.stages import carry_out
from parsample.samplers.base import Sampler
from parsample.store.layout import read_run, reading
from parsample.targets import TARGETS
from parsample.targets.given import as_target
from parsample.targets.model_file import make_target


@serves_models(1)
def resume(
    store: str | os.PathLike[str],
    target: Any = None,
    *args: Any,
    num_samples: int | None = None,
    sampler: str | type[Sampler] | None = None,
    sampler_options: Mapping[str, Any] | None = None,
    method: str | methods.Method | None = None,
    warmup_method: str | methods.Method | None = None,
    transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    seed: int | None = None,
    initial_position: PyTree | None = None,
    start: Any = None,
    bijectors: Mapping[str, Any] | None = None,
    trust: bool = False,
    progress: bool | Callable[[Event], Any] = True,
    **kwargs: Any,
) -> Any:
    """Go on with a run from its store, to the trace that it would have given without an interruption, bit for bit.

    The settings come from the store. What is no plain value has to be passed again: a model, a log density, a
    transform, a sampler or method of your own. A run that was killed in warm-up begins anew with the same seed; one
    that is over is returned as it is, or goes on to `num_samples` draws.

    Args:
        store: the folder that was `store` of `parsample.sample`.
        target: as it was passed to `parsample.sample`; None for a name in `TARGETS`, or with `trust` if the command
            line began the run.
        *args: of a NumPyro model.
        num_samples: draws a chain in the end, before thinning, in the place of the number that the store was begun
            with; the trace is then that of an uninterrupted run with this number, and `until` still holds. At least as
            many as are there. The last segment may have to be run again; up to 7,168 draws, or with a
            longer window, all of them, where the larger number is divided into segments of another length.
        sampler: the class, if it is none in `SAMPLERS`.
        sampler_options: those of then, if they hold what no file does, such as a function.
        method: the instance, if it is of a class of your own or holds large arrays.
        warmup_method: the same.
        transform: the same function as before.
        seed: to be sure that it is the one of the store.
        initial_position: as it was passed.
        start: as it was passed, if it has more numbers than settings hold, which is 1,000, or led to more.
        bijectors: as they were passed.
        trust: run the Python file that the store names as its target. Only for stores that nobody else can have
            changed; else pass the target.
        progress: as for `parsample.sample`.
        **kwargs: of a NumPyro model; and `model_kwargs`, as for `parsample.sample`.

    Returns:
        The trace, opened from the store.

    Raises:
        ValueError: there is no such store, another run is writing to it, or it is of another version, model or
            seed; the sentence names the difference. Or it holds more draws than `num_samples`.
        OSError: the store cannot be written.
    """
    run = read_run(store)
    with reading(store):
        settings = Settings.from_json(run["settings"])
    again = {"sampler": sampler, "sampler_options": sampler_options, "method": method, "start": start}
    again |= {"warmup_method": warmup_method, "transform": transform}
    if seed is not None and seed != settings.seed:
        raise ValueError(f"seed is {seed}, but the store '{store}' was begun with seed {settings.seed}; leave it out.")
    settings = _completed(store, settings, {name: value for name, value in again.items() if value is not None})
    if num_samples is not None:
        wanted = options.whole("num_samples", num_samples, "it counts those that are there too")
        settings = dataclasses.replace(settings, num_samples=wanted)
    found, rest, left = as_target(_target(store, settings, target, trust), args, kwargs, initial_position, bijectors)
    if rest or left:
        raise unknown("an argument", str([*left, *rest][0]), ["store", "target", *again])
    job = check_job(found, settings)
    with open_store(store, job.settings, is_new=False) as kept:
        kept.change_number(job)
        return load_trace(store) if kept.is_complete else carry_out(job, kept, progress)


def _completed(store: str | os.PathLike[str], settings: Settings, again: Mapping[str, Any]) -> Settings:
    """Return the settings of a store with what it does not hold of them.

    Args:
        store: for the sentences.
        settings: that it holds.
        again: options that were passed again.

    Raises:
        ValueError: one is missing, or is another than the run was begun with.
    """
    for name, text in settings.unkept.items():
        if name not in again:
            raise ValueError(
                f"{name} is not given, but the store '{store}' was begun with {text}, which no file holds; pass the "
                f"same one as {name}=."
            )
    begun = Settings.of(settings.arguments(**again), settings.target, settings.data)
    for name, (here, there) in begun.differences(settings).items():
        leave = "" if name in settings.unkept else ", or leave it out"
        raise ValueError(f"{name} is {here}, but the store '{store}' was begun with {there}; pass the same one{leave}.")
    return begun


def _target(store: str | os.PathLike[str], settings: Settings, given: Any, trust: bool) -> Any:
    if given is not None:
        return given
    name = settings.target
    if name not in TARGETS and ":" not in name:
        raise ValueError(
            f"target is not given, but the store '{store}' is of '{name}', which cannot be made from its name; pass it "
            "as parsample.resume(store, target, ...), as to parsample.sample."
        )
    check_trusted(name, f"the store '{store}'", trust)
    return make_target(name, None if settings.data is None else Path(settings.data))


def check_trusted(target: str, where: str, trust: bool) -> None:
    """Raise ValueError if a target that a file names is a Python file, unless that is trusted: it would be run.

    Args:
        target: its name in the settings.
        where: of the settings, in words.
        trust: whether the user said so.
    """
    if target not in TARGETS and not trust:
        raise ValueError(
            f"target is not given, and {where} names '{target}', a Python file, which would be run; if you trust it, "
            "say trust=True (`--trust`), or give the target again."
        )
