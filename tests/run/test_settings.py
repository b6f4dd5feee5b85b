"""Every option stands in one place, reaches every door from there, and a run repeats itself from its own file."""

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import parsample as ps
from parsample.cli.options import NO_FLAG, option_docs, parameter
from parsample.results.trace import as_datatree, build_trace
from parsample.run.freeze import known_classes
from parsample.run.settings import GROUPS, OPTIONS
from tests.command_line import invoke

# Short segments of one program, which the options that do not concern it share.
FEW: dict[str, Any] = {"num_warmup": 80, "num_samples": 128, "num_chains": 2, "method": "sequential"}
TARGET = "multivariate_normal"


def radius(draw: dict[str, Any]) -> dict[str, Any]:
    return {"radius": jnp.sqrt(jnp.sum(draw["x"] ** 2))}


class Own(ps.samplers.MALA):
    """A sampler that no table has."""


# Of every option values that are not the default, with what else they need.
VALUES: dict[str, list[Any]] = {
    "sampler": ["mala"],
    "sampler_options": [
        {"num_integration_steps": 3, "step_size_jitter": np.float32(0.25)},
        {"num_integration_steps": 2, "leapfrog": ps.methods.QuasiNewton(estimator="hutchinson", num_probes=2)},
    ],
    "num_samples": [100],
    "num_chains": [3],
    "until": [{"ess": 5}, {"seconds": 1e-9}],
    "seed": [3],
    "num_warmup": [160, 0],
    "step_size": [0.3],
    "target_acceptance": [0.9],
    "start": [
        "laplace",
        {"x": np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2)},
        {"x": [0.5, -0.5]},
        [{"x": np.array([place, 0.1], np.float32)} for place in (-1, 0, 1)],
    ],
    "mass": ["diagonal"],
    "warmup_method": ["picard", ps.methods.QuasiNewton(estimator="hutchinson", num_probes=2)],
    "tune": ["rounds"],
    "method": ["newton", "sequential", ps.methods.ScaledIdentity(jnp.asarray(0.5))],
    "window": [8, "all"],
    "atol": [1e-4],
    "rtol": [1e-4],
    "max_iterations": [3],
    "compare": [False],
    "keep_warmup": [True],
    "groups": [("evaluation",)],
    "thin": [3],
    "transform": [radius],
    "dims": [{"x": ["place"]}],
    "coords": [{"place": ["east", "north"]}],
}
# What an option only matters beside.
BESIDE: dict[str, dict[str, Any]] = {
    name: {"method": "quasi_newton"}
    for name in ("window", "atol", "rtol", "max_iterations", "compare", "groups", "tune")
} | {"start": {"num_chains": 3}, "coords": {"dims": {"x": ["place"]}}}
CASES = [(name, value) for name, values in VALUES.items() for value in values]
NAMES = [f"{name}-{number}" for number, (name, _) in enumerate(CASES)]


def test_every_option_is_enrolled_in_the_cases_below() -> None:
    assert set(VALUES) == set(OPTIONS)
    for name, value in CASES:
        default = ps.Settings.__dataclass_fields__[name].default
        assert not (isinstance(value, str | int | float) and value == default)


def test_the_front_door_has_every_option_with_its_default_and_docs() -> None:
    signature = inspect.signature(ps.sample)
    fields = {field.name: field.default for field in dataclasses.fields(ps.Settings)}
    assert {name: signature.parameters[name].default for name in OPTIONS} == {name: fields[name] for name in OPTIONS}
    kinds = [ps.Settings, *GROUPS.values()]
    docs = {name: doc for kind in kinds for name, doc in option_docs(kind).items()}
    assert set(docs) == {*OPTIONS, "target", "data", "unkept"}
    arguments = str(inspect.getdoc(ps.sample)).partition("Args:\n")[2].partition("Returns:\n")[0]
    written = " ".join(arguments.split())
    stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    for name, row in signature.parameters.items():
        assert f" {stars.get(row.kind, '')}{name}: " in f" {written}"
        assert name not in OPTIONS or docs[name] in written
    assert max(map(len, (ps.sample.__doc__ or "").splitlines())) <= 120


@pytest.mark.parametrize("door", [ps.forecast, ps.resume])
def test_the_other_doors_have_no_defaults_of_their_own(door: Any) -> None:
    fields = ps.Settings.__dataclass_fields__
    rows = {name: row.default for name, row in inspect.signature(door).parameters.items() if name in OPTIONS}
    assert rows
    assert rows == {name: None if door is ps.resume else fields[name].default for name in rows}
    assert ": see `" not in (door.__doc__ or "")


@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in NO_FLAG])
def test_the_command_line_shows_the_default(name: str) -> None:
    default, shown = ps.Settings.__dataclass_fields__[name].default, parameter(name).default
    assert shown == (None if name == "groups" else default)


@pytest.mark.parametrize(("name", "value"), CASES, ids=NAMES)
def test_json_gives_the_option_back(name: str, value: Any) -> None:
    settings: Any = ps.Settings("banana", **{name: value})
    found = ps.Settings.from_json(settings.to_json())
    assert found == settings
    assert found != ps.Settings("banana")
    assert list(settings.differences(ps.Settings("banana"))) == [name]
    if name == "transform":
        assert found.unkept == {"transform": "the function radius"}
        with pytest.raises(ValueError, match="transform is the function radius, which settings do not hold; pass it"):
            found.arguments()
        assert found.arguments(transform=radius) == settings.arguments()
    else:
        assert bool(eqx.tree_equal(found.arguments(), settings.arguments()))


def same_draws(one: Any, other: Any) -> None:
    one, other = as_datatree(one), as_datatree(other)
    assert set(one.children) == set(other.children)
    for group in one.children:
        for name, values in one[group].data_vars.items():
            np.testing.assert_array_equal(values.values, other[group][name].values, err_msg=f"{group} {name}")


def repeat(options: dict[str, Any], folder: Path) -> None:
    """Run, and run again from the file: through Python, and through the command line, which writes its own file."""
    first = ps.sample(TARGET, **options, origin={"target": TARGET}, progress=False)
    ps.save_trace(first, folder / "run.nc")
    settings = ps.read_settings(folder / "run.nc")
    assert settings == ps.read_settings(first)
    again = {name: value for name, value in options.items() if name in NO_FLAG}
    same_draws(first, ps.sample(settings.target, **settings.arguments(**again), progress=False))
    found = invoke("sample", "--settings", str(folder / "run.nc"), "--output", str(folder / "again"), "--json")
    if again:
        assert found.exit_code == 2
        assert found.stderr.startswith("parsample: transform is the function radius, which settings do not hold")
        return
    assert found.exit_code in (0, 1), found.output
    same_draws(first, ps.load_trace(folder / "again" / f"{TARGET}.nc"))


# Which of the options cannot be had together; tuning takes its time, and has a test of its own.
APART = [{"step_size", "sampler", "transform", "tune"}, {"target_acceptance", "sampler_options", "transform", "tune"}]


@pytest.mark.parametrize(
    ("left_out", "place"),
    [pytest.param(APART[0], 0, id="first", marks=pytest.mark.slow), pytest.param(APART[1], -1, id="last")],
)
def test_a_run_repeats_itself_with_all_options_at_once(left_out: set[str], place: int, tmp_path: Path) -> None:
    repeat({name: values[place] for name, values in VALUES.items() if name not in left_out}, tmp_path)


def test_all_options_at_once_are_all() -> None:
    assert set.intersection(*APART) == {*NO_FLAG, "tune"}


@pytest.mark.grid
@pytest.mark.parametrize(("name", "value"), CASES, ids=NAMES)
def test_a_run_repeats_itself_with_an_option(name: str, value: Any, tmp_path: Path) -> None:
    repeat({**FEW, **BESIDE.get(name, {}), name: value}, tmp_path)


@pytest.mark.parametrize(("name", "value"), CASES, ids=NAMES)
def test_the_command_line_asks_for_the_option_of_the_settings(
    name: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(ps, "sample", lambda target, **keywords: asked.update(keywords))
    settings: Any = ps.Settings(TARGET, **{name: value})
    trace = build_trace({"posterior": {"x": np.zeros((1, 2))}}, attrs={"settings": settings.to_json()})
    ps.save_trace(trace, tmp_path / "run.nc")
    invoke("sample", "--settings", str(tmp_path / "run.nc"), "--output", str(tmp_path))
    if name not in NO_FLAG:
        found = {option: asked[option] for option in OPTIONS}
        assert bool(eqx.tree_equal(found, settings.arguments()))


def test_every_method_and_what_warm_up_finds_can_be_written_down() -> None:
    assert set(known_classes().values()) >= set(ps.METHODS.values())
    for kind in ps.METHODS.values():
        settings = ps.Settings(TARGET, method=kind())
        assert bool(eqx.tree_equal(ps.Settings.from_json(settings.to_json()).method, kind()))


def test_groups_are_their_options() -> None:
    few = {**FEW, "num_warmup": 0, "progress": False}
    apart = ps.sample(TARGET, **few, step_size=0.4, thin=2, keep_warmup=True)
    del few["num_warmup"], few["method"]
    whole = ps.sample(
        TARGET,
        **few,
        warmup=ps.Warmup(num_warmup=0, step_size=0.4),
        evaluation=ps.Evaluation(method="sequential"),
        keep=ps.Keep(thin=2, keep_warmup=True),
    )
    assert ps.read_settings(whole) == ps.read_settings(apart)
    same_draws(whole, apart)


def test_an_option_by_its_own_name_takes_precedence_over_its_group() -> None:
    both = ps.sample(
        TARGET,
        **{**FEW, "num_warmup": 0, "step_size": 0.5, "progress": False},
        warmup=ps.Warmup(num_warmup=99, step_size=0.4, mass="diagonal"),
        evaluation=ps.Evaluation(method="newton"),
    )
    found = ps.read_settings(both)
    assert (found.num_warmup, found.step_size, found.mass, found.method) == (0, 0.5, "diagonal", "sequential")


def test_a_group_that_is_none_is_refused() -> None:
    for name, kind in GROUPS.items():
        wrong: Any = {name: {"thin": 3}}
        with pytest.raises(ValueError, match=rf"{name} is a dict, expected a parsample\.{kind.__name__}, such as pars"):
            ps.sample(TARGET, **wrong)


def test_settings_that_cannot_be_read() -> None:
    with pytest.raises(ValueError, match=r"trace has no attribute 'settings', expected a trace that parsample.sample"):
        ps.read_settings(build_trace({"posterior": {"x": np.zeros((1, 2))}}))
    method = ps.Settings("banana", method=ps.methods.Newton()).to_json()
    foreign = (
        ("nothing", "Expecting value"),
        ("[]", "no attribute"),
        ('{"target": "banana", "new": 1}', "unexpected keyword argument 'new'"),
        (method.replace("Newton", "system"), "it holds 'system', which this version does not know"),
        (method.replace('"fields": {', '"fields": {"linearise": 3, '), "its Newton has other fields than this version"),
        ('{"target": "banana", "start": {"@given": "target"}}', "it holds 'target', which this version does not know"),
        ('{"target": "banana", "sampler": {"@sampler": "no"}}', "it holds 'no', which this version does not know"),
    )
    for text, reason in foreign:
        with pytest.raises(ValueError, match=rf"the settings cannot be read \(.*{reason}.*\), expected those of this"):
            ps.Settings.from_json(text)


def test_what_no_file_holds_is_passed_again() -> None:
    own: Any = {"sampler": Own, "start": np.zeros((4, 500)), "sampler_options": {"update": radius}}
    found = ps.Settings.from_json(ps.Settings("banana", **own).to_json())
    assert found.unkept == {
        "sampler": "the class Own",
        "start": "a ndarray with more than plain values",
        "sampler_options": "a dict with more than plain values",
    }
    for name in own:
        given = {other: value for other, value in own.items() if other != name}
        with pytest.raises(ValueError, match=f"{name} is {found.unkept[name]}, which settings do not hold; pass"):
            found.arguments(**given)
    assert found.arguments(**own)["sampler"] is Own
