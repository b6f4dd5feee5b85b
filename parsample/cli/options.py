"""The options of `parsample sample`, made of those of `parsample.sample`: names, types, defaults and help."""

import ast
import collections.abc
import inspect
import json
import re
import reprlib
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import parsample
from parsample.cli.exits import fail
from parsample.run.keywords import option_docs
from parsample.run.settings import OPTIONS, Evaluation, Keep, Settings, Warmup

# Where a flag is another than the name of the option.
FLAGS = {
    "num_warmup": "--warmup",
    "num_samples": "--samples",
    "num_chains": "--chains",
    "target_acceptance": "--acceptance",
    "sampler_options": "--option",
    "groups": "--group",
}
# Of mappings, an entry; the flag may be given several times.
EXAMPLES = {
    "sampler_options": "num_integration_steps=4",
    "until": "ess=400",
    "dims": "theta=school",
    "coords": "place=['here','there']",
}
# What only Python can say: a function.
NO_FLAG = ("transform",)
# The folders of the tables that an option's value may be a name of, in place of which the help names a command.
FOLDERS = {"METHODS": "engine/methods", "SAMPLERS": "samplers"}
PANELS: dict[Any, str] = {Warmup: "Warm-up", Evaluation: "Evaluation", Keep: "What is kept"}


def complete(folder: str) -> Callable[[str], list[str]]:
    """Return what completes a name in the table of a folder.

    The names are read from the file: who presses the tabulator key does not want to wait for JAX to be imported.
    """

    def names(incomplete: str) -> list[str]:
        tree = ast.parse((Path(parsample.__file__).parent / folder / "__init__.py").read_text(encoding="utf-8"))
        tables = (node.value for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign))
        rows = next(table for table in tables if isinstance(table, ast.Dict))
        found = [str(key.value) for key in rows.keys if isinstance(key, ast.Constant)]
        return [name for name in found if name.startswith(incomplete)]

    return names


def flag(name: str) -> str:
    """Return the flag of an option of `parsample.sample`."""
    return FLAGS.get(name, "--" + name.replace("_", "-"))


def parameter(name: str) -> inspect.Parameter:
    """Return the parameter of a command for an option of `parsample.sample`."""
    kind = next((kind for kind in PANELS if name in kind.__dataclass_fields__), Settings)
    doc, default = option_docs(kind)[name], Settings.__dataclass_fields__[name].default
    value = _typed(Settings.__dataclass_fields__[name].type)
    table = re.search(r"a name in `(\w+)`", doc)
    extra: dict[str, Any] = {"help": _help(doc), "rich_help_panel": PANELS.get(kind)}
    if default is None and (found := re.search(r"None for (.+?)(?:[.;](?: |$)|$)", doc)):
        extra["show_default"] = found[1].replace('"', "")
    if table:
        extra["autocompletion"] = complete(FOLDERS[table[1]])
    if name in EXAMPLES:
        extra |= {"metavar": "NAME=VALUE", "help": f"{extra['help'][:-1]}: {EXAMPLES[name]}, say; repeatable."}
    decision = f"/--no-{flag(name)[2:]}" if value is bool else ""
    default = None if value == list[str] else default
    hint: Any = Annotated[value | None if default is None else value, typer.Option(flag(name) + decision, **extra)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _typed(annotation: Any) -> Any:
    """Return the type that the command line reads: a number, text, a truth value, or a list for what is repeatable."""
    kinds = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if {typing.get_origin(kind) or kind for kind in kinds} & {collections.abc.Mapping, collections.abc.Sequence}:
        return list[str]
    if {int, str} <= set(kinds):
        return str
    return next((kind for kind in (bool, int, float) if kind in kinds), str)


def _help(doc: str) -> str:
    """Return the first sentence of an option's docs, in the words of the command line."""
    words = {f"`{table}`": f"[bold]parsample {table.lower()}[/bold]" for table in FOLDERS}
    words |= {f"`{name}`": flag(name) for name in OPTIONS}
    sentence = re.split(r"(?<=\.) (?=[A-Z`\"])", doc)[0].replace('"', "")
    for name, word in words.items():
        sentence = sentence.replace(name, word)
    return sentence[0].upper() + sentence[1:]


def with_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command options of `parsample.sample`, all of them where none is named, before its own.

    It is called with those that stand on its command line, as `options`, read, the others being left to their defaults;
    and with the context, if it takes that.
    """
    chosen = names or tuple(name for name in OPTIONS if name not in NO_FLAG)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        rows = inspect.signature(command).parameters
        own = [row for name, row in rows.items() if name not in ("context", "options")]
        place = sum(row.default is row.empty for row in own)

        def run(**values: Any) -> None:
            given = {name: values.pop(name) for name in chosen}
            source = values["context"].get_parameter_source
            try:
                options = {name: _read(name, row) for name, row in given.items() if source(name).name == "COMMANDLINE"}
            except ValueError as error:
                fail(error)
            command(**{name: value for name, value in values.items() if name in rows}, options=options)

        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        own = [row.replace(kind=row.KEYWORD_ONLY) for row in own]
        whole = [*own[:place], *map(parameter, chosen), *own[place:], context]
        run.__doc__, run.__name__ = command.__doc__, command.__name__
        run.__signature__ = inspect.Signature(whole)  # type: ignore[attr-defined]
        return run

    return decorate


def _read(name: str, given: Any) -> Any:
    if name in EXAMPLES:
        return parse_options(flag(name), given, EXAMPLES[name])
    if name == "start" and given.endswith(".json"):
        return _values(Path(given))
    if isinstance(given, str) and {int, str} <= set(typing.get_args(Settings.__dataclass_fields__[name].type)):
        return int(given) if re.fullmatch(r"[+-]?\d+", given) else given
    return tuple(given) if isinstance(given, list) else given


def _values(path: Path) -> Any:
    """Read the values of a start from a file."""
    expected = 'expected a JSON object of values, such as {"scale": 1.5}, or a list of such, one a chain'
    try:
        found = json.loads(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"--start cannot be read from '{path}': {error}; {expected}.") from None
    rows = found if isinstance(found, list) else [found]
    if not (rows and all(isinstance(row, dict) for row in rows)):
        raise ValueError(f"--start, read from '{path}', is {reprlib.repr(found)}, {expected}.")
    return found


def parse_options(flag: str, given: list[str] | None, example: str) -> dict[str, Any] | None:
    """Read NAME=VALUE, the value as Python writes numbers, lists, True, False and None, or else as text.

    Args:
        flag: that they were given by.
        given: the texts; None or none for nothing.
        example: of one, for the sentence.

    Raises:
        ValueError: a text is not of that form.
    """
    if not given:
        return None
    found = {}
    for text in given:
        name, is_there, value = text.partition("=")
        if not (name and is_there):
            raise ValueError(f"{flag} is {text!r}, expected NAME=VALUE, such as {example}.")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found
