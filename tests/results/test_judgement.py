"""Whether draws are good: each way in which they are not, in everything that says so."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import parsample as ps
from parsample.cli import main as cli
from parsample.report import html
from parsample.results import summary as summary_module
from parsample.results.advice import advise
from parsample.results.judgement import GOOD_ESS, GOOD_RHAT, judge, judge_arrays, smallest_e_bfmi, tells_energy
from parsample.results.trace import as_datatree, build_trace, import_arviz, load_trace, save_trace
from parsample.results.words import COMMAND_LINE, FLAGS, PYTHON
from parsample.run.until import check_until
from tests.command_line import invoke
from tests.verdicts import VERDICT

CHAINS, DRAWS = 4, 500
TOTAL = CHAINS * DRAWS


class Run(NamedTuple):
    """Draws and the statistics of their steps."""

    posterior: dict[str, np.ndarray]
    diverging: np.ndarray
    energy: np.ndarray
    attributes: dict[str, Any]

    @property
    def trace(self) -> Any:
        stats = {"diverging": self.diverging, "energy": self.energy}
        attributes = {**VERDICT.attributes(), **self.attributes}
        return build_trace({"posterior": self.posterior, "sample_stats": stats}, attrs=attributes)


def good(chains: int = CHAINS, draws: int = DRAWS, divergences: int = 0) -> Run:
    """Independent draws: every effective sample size is about their number; energies that are as free."""
    rng = np.random.default_rng(3)
    posterior = {"x": rng.normal(size=(chains, draws, 2)), "y": rng.normal(size=(chains, draws)), "one": np.ones(())}
    posterior["one"] = np.ones((chains, draws))
    diverging = np.arange(chains * draws).reshape(chains, draws) < divergences
    return Run(posterior, diverging, rng.normal(size=(chains, draws)), {})


def with_x(values: np.ndarray) -> Run:
    run = good()
    return run._replace(posterior={**run.posterior, "x": values})


def apart() -> Run:
    """One of four chains is half a standard deviation off: R-hat about sqrt(1 + 0.5**2 / 4), 1.03."""
    return with_x(good().posterior["x"] + 0.5 * (np.arange(CHAINS) == 2)[:, None, None])


def slow() -> Run:
    """Every draw six times: a sixth of the draws is effective, in all parts alike."""
    return with_x(np.repeat(good().posterior["x"], 6, 1)[:, :DRAWS])


def slow_tails() -> Run:
    """The sign is new in each draw, the scale every 15 draws."""
    scale = np.random.default_rng(1).choice([1, 6], p=[0.85, 0.15], size=(CHAINS, DRAWS // 15 + 1))
    return with_x(good().posterior["x"] * np.repeat(scale, 15, 1)[:, :DRAWS, None])


def spoilt(value: float, share: float) -> Run:
    x = good().posterior["x"].copy()
    x[:, : max(1, int(share * DRAWS)), 1] = value
    return with_x(x)


def stuck() -> Run:
    """Each chain stays where it began."""
    x = good().posterior["x"].copy()
    x[..., 1] = x[:, :1, 1]
    return with_x(x)


def one_chain_stuck() -> Run:
    x = good().posterior["x"].copy()
    x[1, :, 1] = 0
    return with_x(x)


def still() -> Run:
    run = good()
    return run._replace(posterior={name: np.zeros_like(values) for name, values in run.posterior.items()})


def tired() -> Run:
    """The energy is a random walk."""
    run = good()
    return run._replace(energy=np.cumsum(run.energy, 1))


# Way -> the run, and the kind of fault that must be among those found.
WAYS: dict[str, tuple[Run, str]] = {
    "chains apart": (apart(), "r_hat"),
    "few effective draws": (slow(), "ess_bulk"),
    "few effective draws in the tails": (slow_tails(), "ess_tail"),
    "one NaN": (spoilt(np.nan, 0), "not_finite"),
    "half of the draws NaN": (spoilt(np.nan, 0.5), "not_finite"),
    "an infinite value": (spoilt(np.inf, 0), "not_finite"),
    "a variable that never moves": (stuck(), "stuck"),
    "a chain that never moves": (one_chain_stuck(), "r_hat"),
    "nothing moves": (still(), "stuck"),
    "many divergences": (good(divergences=round(0.08 * TOTAL)), "divergences"),
    "three divergences of 2,000": (good(divergences=3), "divergences"),
    "energy that hardly changes": (tired(), "e_bfmi"),
    "one chain": (good(chains=1, draws=TOTAL), "one_chain"),
    "an approximation": (good()._replace(attributes={"evaluation_approximate_steps": 3}), "approximate"),
}
FINE = {"good": good(), "two divergences of 2,000": good(divergences=2)}
ALL = {**{name: run for name, (run, _) in WAYS.items()}, **FINE}


def by_judgement(run: Run, *_: Any) -> bool:
    return judge(run.trace).is_good


def by_verdict(run: Run, *_: Any) -> bool:
    rows = ps.read_verdict(run.trace).rows()
    assert rows[0][0] == "draws"
    return rows[0][1] == "good"


def by_until(run: Run, *_: Any) -> bool:
    chains = len(run.diverging)
    first, second = slice(0, DRAWS // 2), slice(DRAWS // 2, None)
    halves = [{name: values[:, rows] for name, values in run.posterior.items()} for rows in (first, second)]
    # One chain cannot be asked for R-hat; an approximation, which was asked for, ends when its draws suffice.
    if chains == 1 or "evaluation_approximate_steps" in run.attributes:
        return False
    found = check_until({"ess": GOOD_ESS, "rhat": GOOD_RHAT}, chains)
    return found.is_met(halves, 0.0, (int(run.diverging.sum()), run.diverging.size), run.energy)


def by_report(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bool:
    monkeypatch.setattr(html, "_draws", lambda *_: [])
    monkeypatch.setattr(html, "_evaluation", lambda *_: [])
    page = html.render(run.trace)
    answers = {word: f'<h2>Are the draws good?</h2><p class="answer">{word}</p>' in page for word in ("Yes", "No")}
    assert sum(answers.values()) == 1
    assert ('<div class="card bad"><h2>Are the draws good?' in page) == answers["No"]
    return answers["Yes"]


def of_command(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *flags: str) -> Any:
    monkeypatch.setattr(ps, "sample", lambda *_, **__: run.trace)
    monkeypatch.setattr(ps, "plot_trace_rank", lambda *_, **__: None)
    return invoke("sample", "banana", "--output", str(tmp_path), *flags, columns=200)


def by_exit_code(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bool:
    found = of_command(run, monkeypatch, tmp_path)
    assert ("draws not good: " in " ".join(found.stdout.split())) == (found.exit_code == 1)
    return {0: True, 1: False}[found.exit_code]


def by_json(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bool:
    told = json.loads(of_command(run, monkeypatch, tmp_path, "--json").stdout)
    assert told["good"] == told["draws"]["good"] == (not told["draws"]["faults"])
    return told["good"]


def by_report_command(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bool:
    by_report(run, monkeypatch, tmp_path)
    file = save_trace(run.trace, tmp_path / "run.nc")
    return {0: True, 1: False}[invoke("report", str(file)).exit_code]


JUDGES = [by_judgement, by_verdict, by_until, by_report, by_exit_code, by_json, by_report_command]
# All ask the first. It is asked of every way; the others of two or three, and of the good draws.
ROWS = [
    pytest.param(judge_by, way, marks=() if always else pytest.mark.grid)
    for number, judge_by in enumerate(JUDGES)
    for place, way in enumerate(ALL)
    for always in [judge_by is by_judgement or way == "good" or place % len(JUDGES) == number]
]


@pytest.mark.parametrize(("judge_by", "way"), ROWS)
def test_all_say_the_same(way: str, judge_by: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert judge_by(ALL[way], monkeypatch, tmp_path) == (way in FINE)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_wrong_is_named_and_has_a_remedy_for_each_caller(way: str) -> None:
    run, kind = WAYS[way]
    found = ps.read_verdict(run.trace)
    assert found.judgement is not None
    assert kind in [fault.kind for fault in found.judgement.faults]
    for caller, other in ((PYTHON, COMMAND_LINE), (COMMAND_LINE, PYTHON)):
        told = " ".join(found.advice(caller))
        assert told
        assert not told.startswith("Nothing needs")
        assert not any(f"{flag} " in told for flag in FLAGS.values() if other is COMMAND_LINE)
        assert not any(f"{name}=" in told for name in FLAGS if other is PYTHON)
    assert found.text().startswith("draws")


@pytest.mark.parametrize(
    ("way", "only"),
    [
        ("few effective draws in the tails", "ess_tail"),
        ("energy that hardly changes", "e_bfmi"),
        ("one chain", "one_chain"),
    ],
)
def test_a_fault_is_found_alone(way: str, only: str) -> None:
    assert [fault.kind for fault in judge(WAYS[way][0].trace).faults] == [only]


def test_the_faults_name_the_variables() -> None:
    assert judge(spoilt(np.inf, 0).trace).not_finite == ("x[1]",)
    assert judge(stuck().trace).stuck == ("x[1]",)
    assert judge(still().trace).stuck == ("x[0]", "x[1]", "y", "one")
    assert judge(good().trace).stuck == ()
    words = dict(ps.read_verdict(spoilt(np.nan, 0.5).trace).rows())["draws"]
    assert words == "not good: NaN or infinite values among the draws of x[1]"


def test_any_divergence_is_mentioned() -> None:
    run = good(divergences=1)
    told = ps.read_verdict(run.trace)
    assert dict(told.rows())["divergences"] == "1 of 2,000 draws is divergent (0.05%)"
    assert "1 of 2,000 draws is divergent (0.05%), few enough to use the draws; target_acceptance=0.95" in told.text()
    assert dict(ps.read_verdict(good().trace).rows())["divergences"] == "none in 2,000 draws"
    many = Run(good().posterior, np.arange(20_000).reshape(4, -1) < 1614, good().energy, {})
    stats = {"diverging": many.diverging}
    trace = build_trace({"posterior": {"x": np.random.default_rng(0).normal(size=(4, 5000))}, "sample_stats": stats})
    assert [fault.fact for fault in judge(trace).faults] == ["1,614 of 20,000 draws are divergent (8.1%)"]


@pytest.mark.parametrize(
    ("steered", "few", "many"),
    [
        (None, "; target_acceptance=0.95 makes them fewer.", "target_acceptance=0.95 makes smaller steps; where that"),
        (0.8, "; target_acceptance=0.95 makes them fewer.", "target_acceptance=0.95 makes smaller steps; where that"),
        (0.95, "; target_acceptance=0.99 makes them fewer.", "target_acceptance=0.99 makes smaller steps; where that"),
        (0.99, "few enough to use the draws.", "(pair plot of the report). Another parametrisation helps"),
    ],
)
def test_smaller_steps_are_advised_unless_the_steps_are_as_small(steered: float | None, few: str, many: str) -> None:
    for divergences, expected in ((1, few), (100, many)):
        run = good(divergences=divergences)
        judgement = dataclasses.replace(judge(run.trace), target_acceptance=steered)
        assert expected in " ".join(advise(judgement, PYTHON))
        attributes = {} if steered is None else {"target_acceptance": steered}
        trace = build_trace({"posterior": {"x": np.zeros((4, 50))}}, attrs=attributes)
        assert judge(trace).target_acceptance == steered


def test_divergences_are_those_of_trajectories_where_a_draw_is_made_of_several() -> None:
    run = good(divergences=6)
    assert not judge(run.trace).is_good
    found = judge(run._replace(attributes={"num_trajectories": 3}).trace)
    assert found.is_good, found.faults
    assert (found.divergences, found.transitions) == (6, 3 * TOTAL)
    assert found.divergence_words() == "6 of 6,000 trajectories are divergent (0.1%)"
    none = judge(good()._replace(attributes={"num_trajectories": 3}).trace)
    assert dict(none.rows())["divergences"] == "none in 6,000 trajectories"
    more = judge(good(divergences=7)._replace(attributes={"num_trajectories": 3}).trace)
    assert [fault.kind for fault in more.faults] == ["divergences"]


def test_divergences_are_counted_before_thinning() -> None:
    counts = {"thin": 10, "divergences": 30, "evaluation_steps": 5000}
    found = judge(good()._replace(attributes=counts).trace)
    assert (found.divergences, found.transitions) == (30, 20_000)
    assert [fault.kind for fault in found.faults] == ["divergences"]


def test_energy_of_thinned_draws_and_of_samplers_that_keep_momentum_tells_nothing() -> None:
    for attributes in ({"thin": 2}, {"sampler": "ghmc"}):
        assert judge(tired()._replace(attributes=attributes).trace).e_bfmi is None
    assert tells_energy("hmc", 1)


def test_energys_number_is_arvizs() -> None:
    energy = good().energy
    trace = build_trace({"posterior": {"x": energy}, "sample_stats": {"energy": energy}})
    theirs = import_arviz().bfmi(trace)
    theirs = theirs["energy"].values if hasattr(theirs, "data_vars") else theirs
    np.testing.assert_allclose(smallest_e_bfmi(energy), np.min(theirs), rtol=5e-3)


def test_a_trace_of_another_sampler_is_judged_by_its_draws() -> None:
    found = judge(build_trace({"posterior": good().posterior}))
    assert found.is_good
    assert (found.divergences, found.e_bfmi) == (None, None)
    assert [heading for heading, _ in found.rows()] == ["draws", "R-hat", "bulk ESS", "tail ESS"]


def test_the_judgement_is_of_what_is_in_the_trace() -> None:
    tree = as_datatree(good().trace)
    assert ps.read_verdict(tree).rows()[0] == ("draws", "good")
    few = type(tree).from_dict({name: node.to_dataset().isel(draw=slice(50)) for name, node in tree.children.items()})
    few.attrs = dict(tree.attrs)
    assert ps.read_verdict(few).rows()[0][1].startswith("not good: ")


def test_it_outlives_the_file(tmp_path: Path) -> None:
    for run in (good(), WAYS["many divergences"][0]):
        assert judge(load_trace(save_trace(run.trace, tmp_path / "run.nc"))) == judge(run.trace)


def test_arrays_are_judged_as_their_trace_is() -> None:
    run = WAYS["chains apart"][0]
    one, other = judge(run.trace), judge_arrays(run.posterior, (0, TOTAL), run.energy)
    assert other == one


def test_too_few_draws() -> None:
    found = judge(good(draws=3).trace)
    assert [fault.kind for fault in found.faults] == ["few_draws"]
    assert "3 draws a chain are too few to judge" in found.rows()[0][1]


def test_the_summary_is_computed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = good()
    trace = run._replace(posterior={"y": run.posterior["y"]}).trace
    calls, usual = [], summary_module._table

    def table(*given: Any) -> Any:
        calls.append(given)
        return usual(*given)

    monkeypatch.setattr(summary_module, "_table", table)
    monkeypatch.setattr(ps, "sample", lambda *_, **__: trace)
    assert invoke("sample", "banana", "--output", str(tmp_path)).exit_code == 0
    assert len(calls) == 1
    assert invoke("report", str(tmp_path / "banana.nc")).exit_code == 0
    assert len(calls) == 2


def test_every_word_of_the_table_is_an_argument_and_a_flag() -> None:
    import inspect

    from typer.main import get_command

    commands: Any = get_command(cli.app)
    flags = {flag for option in commands.commands["sample"].params for flag in option.opts}
    assert set(FLAGS.values()) <= flags
    assert set(FLAGS) <= set(inspect.signature(ps.sample).parameters)
