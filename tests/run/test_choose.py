"""What `method="auto"` takes: the loop unless something else was measured to be sooner; never at the run's expense."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import parsample as ps
from parsample.engine import methods
from parsample.results.trace import as_datatree
from parsample.run import choose as choosing
from parsample.run import stages
from parsample.samplers.chains import Plan
from tests.stores import interrupted, shorten_segments

PLAN = Plan(methods.QuasiNewton(), 16, 1024, 500, 1e-6, 1e-6)


class Chains:
    """Chains whose segments take what the test says: a step of the loop, and one in parallel."""

    first, sampler = None, ps.samplers.HMC

    def __init__(self, monkeypatch: pytest.MonkeyPatch, loop: float, parallel: float, batch: float) -> None:
        self.seconds = {True: loop, False: parallel}
        self.measured: list[str] = []

        def time_of_a_batch(run: Any, size: int) -> float:
            self.measured.append("batch")
            return batch

        monkeypatch.setattr(choosing, "_seconds_of_a_batch", time_of_a_batch)

    def within_reach(self, plan: Plan) -> Plan:
        return plan

    def segment(self, plan: Plan, states: Any, start: int) -> tuple[Any, float]:
        is_loop = isinstance(plan.method, methods.Sequential)
        self.measured.append("loop" if is_loop else "parallel")
        return None, self.seconds[is_loop] * plan.steps

    def choice(self, num_samples: int, seconds_per_step: float) -> tuple[bool, str]:
        found = choosing.choose(self, PLAN, num_samples, seconds_per_step)  # type: ignore[arg-type]
        assert found.plan._replace(method=PLAN.method) == PLAN
        return isinstance(found.plan.method, methods.Sequential), found.words


def test_a_short_run_is_left_to_the_loop_with_nothing_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    chains = Chains(monkeypatch, 0.001, 1e-9, 1e-9)
    is_loop, words = chains.choice(1000, 0.001)
    assert is_loop
    assert not chains.measured
    assert words == "the loop, expected to take 1 s: too short to look for better"


def test_what_cannot_pay_is_seen_from_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    chains = Chains(monkeypatch, 1.0, 1e-9, batch=8.0)
    is_loop, words = chains.choice(1000, 1.0)
    assert is_loop
    assert chains.measured == ["batch"]
    assert words.startswith("the loop: a step takes 1 s, and in batches of 16, where each is evaluated 2 times")


@pytest.mark.parametrize(("parallel", "expected"), [(0.5, False), (0.89, False), (0.95, True)])
def test_a_pilot_decides_the_rest(monkeypatch: pytest.MonkeyPatch, parallel: float, expected: bool) -> None:
    chains = Chains(monkeypatch, 1.0, parallel, batch=1.0)
    is_loop, words = chains.choice(1000, 1.0)
    assert is_loop == expected
    assert chains.measured == ["batch", "parallel"]
    assert words.startswith("the loop: on 64 steps" if expected else "the parallel evaluation: on 64 steps")


def test_a_pilot_that_is_over_at_once_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    chains = Chains(monkeypatch, 1e-3, 1e-4, batch=1e-4)
    assert not chains.choice(10**6, 1e-3)[0]
    assert chains.measured == ["batch", *["parallel"] * (1 + choosing.REPEATS)]


def test_the_loop_is_timed_where_warm_up_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    chains = Chains(monkeypatch, 1.0, 0.5, batch=1.0)
    assert chains.choice(10, math.inf) == (True, "the loop, expected to take 10 s: too short to look for better")
    assert chains.measured == ["loop"]
    chains.measured.clear()
    assert not chains.choice(1000, math.inf)[0]
    assert chains.measured == ["loop", "batch", "parallel"]


def test_on_an_accelerator_a_shorter_run_is_worth_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "jax", SimpleNamespace(default_backend=lambda: "gpu"))
    assert not Chains(monkeypatch, 0.02, 0.001, 0.001).choice(1000, 0.02)[0]
    assert Chains(monkeypatch, 0.009, 0.001, 0.001).choice(1000, 0.009)[0]


@pytest.mark.parametrize(
    "cheap", [pytest.param(60.0, id="at once"), pytest.param(0.0, id="measured", marks=pytest.mark.slow)]
)
def test_the_chain_is_the_loops_and_the_verdict_says_why(monkeypatch: pytest.MonkeyPatch, cheap: float) -> None:
    monkeypatch.setattr(choosing, "CHEAP", cheap)
    options: dict[str, Any] = {"num_warmup": 200, "num_samples": 128, "num_chains": 2, "progress": False}
    trace: Any = as_datatree(ps.sample("eight_schools", "mala", **options))
    loop: Any = as_datatree(ps.sample("eight_schools", "mala", method="sequential", **options))
    assert abs(trace["posterior"]["mu"].values - loop["posterior"]["mu"].values).max() < 1e-2
    verdict = ps.read_verdict(trace)
    assert verdict.choice.startswith("the ")
    assert ("too short" in verdict.choice) == bool(cheap)
    assert dict(verdict.rows())["chosen"] == verdict.choice
    assert verdict.compared_steps == 0
    assert not any("sequential" in sentence for sentence in verdict.advice())
    assert ps.read_verdict(loop).choice == ""


@pytest.mark.slow
def test_a_resumed_run_keeps_the_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_segments(monkeypatch)
    interrupted(tmp_path / "run.zarr", method="auto")
    monkeypatch.setattr(stages, "choose", None)  # what is there counts, and nothing is chosen anew
    found = ps.read_verdict(ps.resume(tmp_path / "run.zarr", progress=False))
    assert found.method == "sequential"
    assert found.choice.endswith("too short to look for better")


@pytest.mark.slow
def test_steps_that_are_tuned_for_rounds_are_evaluated_in_parallel() -> None:
    options: dict[str, Any] = {"num_warmup": 200, "num_samples": 128, "num_chains": 2, "progress": False}
    verdict = ps.read_verdict(ps.sample("multivariate_normal", "mala", tune="rounds", **options))
    assert (verdict.method, verdict.choice) == (
        "quasi_newton",
        "the parallel evaluation, which the steps were tuned for",
    )
    assert verdict.tuning != "none"
