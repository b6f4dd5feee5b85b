"""What `method="auto"` takes: the loop unless something else was measured to be sooner; never at the run's expense."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

import parsample as ps
from parsample.engine import methods
from parsample.results.trace import as_datatree
from parsample.run import choose as choosing
from parsample.run import stages
from parsample.samplers.chains import Plan
from tests.stores import SETTINGS, TARGET, interrupted, shorten_segments

PLAN = Plan(methods.QuasiNewton(), 16, 1024, 500, 1e-6, 1e-6)


class Chains:
    """Chains whose segments take what the test says: a step of the loop, and one in parallel."""

    first, rng_keys = None, None

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        loop: float,
        parallel: float,
        batch: float,
        lifted: Any = None,
        dim: int = 3,
        has_points: bool = True,
    ) -> None:
        self.seconds = {"Sequential": loop, "QuasiNewton": parallel, "LiftedNewton": lifted}
        self.positions, self.sampler = np.zeros((4, dim)), SimpleNamespace(loop_only=False, points=has_points or None)
        self.measured: list[str] = []

        def time_of_a_batch(run: Any, size: int) -> float:
            self.measured.append("batch")
            return batch

        monkeypatch.setattr(choosing, "_seconds_of_a_batch", time_of_a_batch)

    def within_reach(self, plan: Plan) -> Plan:
        return plan

    def segment(self, plan: Plan, states: Any, start: int) -> tuple[Any, float]:
        name = type(plan.method).__name__
        self.measured.append({"Sequential": "loop", "QuasiNewton": "parallel"}.get(name, name))
        seconds = self.seconds[name]
        if isinstance(seconds, Exception):
            raise seconds
        return None, seconds * plan.steps

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
    assert words.startswith("the loop: on 64 steps" if expected else "quasi_newton over 16 steps: on 64 steps")


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


@pytest.fixture
def on_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_is_cpu", lambda: False)


@pytest.mark.usefixtures("on_accelerator")
def test_on_an_accelerator_a_shorter_run_is_worth_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Chains(monkeypatch, 0.02, 0.001, 0.001, has_points=False).choice(1000, 0.02)[0]
    assert Chains(monkeypatch, 0.009, 0.001, 0.001, has_points=False).choice(1000, 0.009)[0]


NO_ROOM = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4 bytes.")


@pytest.mark.usefixtures("on_accelerator")
@pytest.mark.parametrize(
    ("lifted", "parallel", "taken", "tried"),
    [
        pytest.param(0.001, 0.009, "quasi_newton over 16 steps: on 64 steps", 1, id="done soon"),
        pytest.param(0.5, 0.6, "lifted_newton over 16 steps: on 64 steps", 2, id="the second"),
        pytest.param(0.5, 0.4, "quasi_newton over 16 steps: on 64 steps", 2, id="the first"),
        pytest.param(2.0, 3.0, "the loop: on 64 steps a step took 2 s in parallel, in the loop 1 s", 2, id="neither"),
        pytest.param(NO_ROOM, 0.5, "quasi_newton over 16 steps: on 64 steps", 2, id="no room"),
        pytest.param(
            NO_ROOM, 2.0, "the loop: the device has no room for LiftedNewton over 16", 2, id="no room, and the loop"
        ),
    ],
)
def test_on_an_accelerator_gradients_in_sequence_are_saved_first(
    monkeypatch: pytest.MonkeyPatch, lifted: Any, parallel: float, taken: str, tried: int
) -> None:
    chains = Chains(monkeypatch, 1.0, parallel, batch=0.1, lifted=lifted)
    found = choosing.choose(chains, PLAN, 1000, 1.0)  # type: ignore[arg-type]
    assert found.words.startswith(taken)
    measured = [row for row in chains.measured if row != "batch"]
    assert list(dict.fromkeys(measured)) == ["parallel", "LiftedNewton"][:tried]


@pytest.mark.usefixtures("on_accelerator")
@pytest.mark.parametrize(("dim", "has_points"), [(65, True), (3, False)])
def test_matrices_that_are_large_and_steps_whose_points_are_unknown_are_left_to_quasi_newton(
    monkeypatch: pytest.MonkeyPatch, dim: int, has_points: bool
) -> None:
    chains = Chains(monkeypatch, 1.0, 0.5, 0.1, None, dim, has_points)
    assert choosing.choose(chains, PLAN, 1000, 1.0).plan == PLAN  # type: ignore[arg-type]


@pytest.mark.usefixtures("on_accelerator")
def test_another_failure_than_of_memory_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    chains = Chains(monkeypatch, 1.0, 0.5, 0.1, jax.errors.JaxRuntimeError("INTERNAL: the density failed."))
    with pytest.raises(jax.errors.JaxRuntimeError, match="the density failed"):
        choosing.choose(chains, PLAN, 1000, 1.0)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.usefixtures("on_accelerator")
def test_where_it_pays_the_chain_is_lifted_newtons_and_a_resumed_run_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an accelerator, where a gradient takes a minute."""

    def seconds(run: Any, plan: Plan, loop: float) -> tuple[float, str]:
        return 60.0 if isinstance(plan.method, methods.LiftedNewton) else 120.0, ""

    monkeypatch.setattr(choosing, "_seconds_of_a_step", seconds)
    found = stages.choose
    monkeypatch.setattr(stages, "choose", lambda run, plan, number, _, *flag: found(run, plan, number, 600.0, *flag))
    shorten_segments(monkeypatch)
    interrupted(tmp_path / "run.zarr", method="auto")
    monkeypatch.setattr(stages, "choose", None)
    trace: Any = as_datatree(ps.resume(tmp_path / "run.zarr", progress=False))
    verdict = ps.read_verdict(trace)
    assert verdict.method == "lifted_newton"
    assert verdict.choice == "lifted_newton over 16 steps: on 64 steps a step took 60 s, in the loop 600 s"
    assert not verdict.finished_sequentially
    loop: Any = as_datatree(ps.sample(TARGET, **{**SETTINGS, "method": "sequential"}))
    assert abs(trace["posterior"]["x"].values - loop["posterior"]["x"].values).max() < 1e-2


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
    assert verdict.choice.startswith(("the loop", "quasi_newton over 16 steps: on 64 steps"))
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
