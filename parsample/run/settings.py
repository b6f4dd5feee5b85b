"""The settings of a run: every argument of `parsample.sample` that is a plain value, kept beside the draws."""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from parsample.engine import methods
from parsample.run.freeze import freeze, thaw
from parsample.samplers import SAMPLERS

# What the settings hold in the place of positions.
GIVEN = "given"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run was asked for; see `parsample.sample` for the meaning of the fields that are its arguments.

    Attributes:
        target: its name; of one that the command line made the name in `TARGETS`, or FILE.py:NAME.
        data: the data file that the command line made the target with.
        sampler: its name in `SAMPLERS`, or that of its class.
        method: its name in `METHODS`, or JSON of the instance with its options, or its repr if it holds arrays.
        start: where chains start, "given" for positions that were given.
        warmup_method: as `method`.
        transform: the name of the function.
    """

    target: str
    data: str | None = None
    sampler: str = "hmc"
    sampler_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    num_warmup: int = 2000
    num_samples: int = 5000
    num_chains: int = 4
    until: dict[str, Any] | None = None
    seed: Any = 0
    method: str = "quasi_newton"
    window: Any = None
    step_size: Any = None
    target_acceptance: Any = None
    start: str = "random"
    mass: Any = "auto"
    warmup_method: str = "sequential"
    tune: Any = None
    atol: Any = 1e-6
    rtol: Any = 1e-6
    max_iterations: Any = None
    compare: bool = True
    keep_warmup: bool = False
    groups: tuple[str, ...] = ()
    thin: int = 1
    transform: str | None = None

    def to_json(self) -> str:
        """Return the fields as JSON."""
        return json.dumps(dataclasses.asdict(self), default=_number)

    @staticmethod
    def from_json(text: str) -> "Settings":
        """Return the settings of `to_json`.

        Raises:
            ValueError: the text holds no settings, or those of another version.
        """
        try:
            fields = json.loads(text)
            return Settings(**{**fields, "groups": tuple(fields.get("groups", ()))})
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"the settings cannot be read ({error}), expected those of this version.") from None

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of `parsample.sample`; the target, the transform and a class are not there.

        Raises:
            ValueError: sampler, method or start cannot be made again from its name.
        """
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("target", "data", "transform"):
            del fields[name]
        if self.sampler not in SAMPLERS:
            raise ValueError(
                f"sampler is the class {self.sampler}, which has no name in SAMPLERS; pass it as sampler=."
            )
        if self.start == GIVEN:
            raise ValueError("start is a set of positions, which the settings do not hold; pass them as start=.")
        return {**fields, **{name: read_method(fields[name], name) for name in ("method", "warmup_method")}}

    def differences(self, other: "Settings") -> list[str]:
        """Say in which fields two settings differ, in words."""
        names = [field.name for field in dataclasses.fields(self)]
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in names]
        return [f"{name} is {mine!r}, not {theirs!r}" for name, mine, theirs in pairs if mine != theirs]


def sampler_name(sampler_class: type) -> str:
    """Return the name of a sampler in `SAMPLERS`, or that of its class."""
    return next((name for name, row in SAMPLERS.items() if row is sampler_class), sampler_class.__name__)


def method_text(method: str | methods.Method) -> str:
    """Return the name of a method, or JSON of an instance, or its repr."""
    if isinstance(method, str):
        return method
    arrays: dict[str, Any] = {}
    try:
        frozen = freeze(method, arrays)
    except TypeError:
        return repr(method)
    return repr(method) if arrays else json.dumps(frozen)


def read_method(text: str, name: str = "method") -> str | methods.Method:
    """Return the method of `method_text`; `name` is that of the argument, for the sentence.

    Raises:
        ValueError: it was written as its repr, from which it cannot be made again.
    """
    if text in methods.METHODS or text == "auto":
        return text
    try:
        return thaw(json.loads(text), {})
    except ValueError:
        raise ValueError(f"{name} is {text}, which holds more than plain values; pass it as {name}=.") from None


def read_settings(trace: Any) -> Settings:
    """Read the settings of a run from its trace, or from the file or store that holds it.

    Args:
        trace: what `parsample.sample` returned or `parsample.load_trace` read, or the path of it.

    Raises:
        ValueError: it holds none.
    """
    if isinstance(trace, str | os.PathLike):
        from parsample.store.layout import is_store, read_run

        if is_store(trace):
            return Settings.from_json(read_run(trace)["settings"])
        from parsample.results.trace import load_trace

        trace = load_trace(trace)
    text = trace.attrs.get("settings") if isinstance(trace.attrs, Mapping) else None
    if text is None:
        raise ValueError("trace has no attribute 'settings', expected a trace that parsample.sample returned.")
    return Settings.from_json(text)


def _number(value: Any) -> Any:
    """Return the Python numbers of arrays, and what else JSON does not know as text."""
    return value.tolist() if hasattr(value, "tolist") else repr(value)
