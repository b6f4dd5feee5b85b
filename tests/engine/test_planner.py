"""The choice by measuring, with a clock that the tests turn themselves."""

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine import methods, planner
from parsample.engine.evaluate import evaluate
from parsample.engine.rules import Conditioning, Stopping
from tests.engine.recursions import Problem, scan, tanh_problem
from tests.tolerances import CONVERGED


class Clock:
    """Seconds that pass only when a candidate says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        monkeypatch.setattr(planner, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def candidate(self, name: str, *seconds: float) -> Callable[[], Any]:
        """Work that takes these times, one a call; the last one for all later calls."""
        times = itertools.chain(seconds, itertools.repeat(seconds[-1]))

        def run() -> Any:
            self.calls.append(name)
            self.now += next(times)
            return jnp.zeros(())

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize(
    ("loop", "parallel", "expected"),
    [
        (1.0, 0.5, "parallel"),
        (1.0, 0.95, "loop"),  # faster, but within the margin
        (1.0, 0.90, "parallel"),
        (1.0, 1.0, "loop"),
        (1.0, 2.0, "loop"),
    ],
)
def test_the_preferred_is_kept_unless_another_is_clearly_faster(
    clock: Clock, loop: float, parallel: float, expected: str
) -> None:
    # The order of the table must not decide.
    runs = {"parallel": clock.candidate("parallel", parallel), "loop": clock.candidate("loop", loop)}
    for candidates in (runs, dict(reversed(runs.items()))):
        best, seconds = planner.fastest(candidates, "loop")
        assert best == expected
        assert seconds == pytest.approx({"parallel": parallel, "loop": loop})


def test_the_first_call_is_not_counted_and_the_median_decides(clock: Clock) -> None:
    runs = {
        "loop": clock.candidate("loop", 0.1, 1.0),
        "slow to compile": clock.candidate("slow to compile", 99.0, 0.5, 77.0, 0.4),
    }
    assert planner.fastest(runs, "loop") == ("slow to compile", pytest.approx({"loop": 1.0, "slow to compile": 0.5}))


def test_candidates_take_turns(clock: Clock) -> None:
    planner.fastest({name: clock.candidate(name, 1.0) for name in "abc"}, "a")
    assert clock.calls == list("abc") * (1 + planner.REPEATS)


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the planner compares; it takes the candidate under "take", without timing any."""
    seen: dict[str, Any] = {"take": "sequential"}

    def fastest(candidates: Any, preferred: str) -> tuple[str, dict[str, float]]:
        seen["preferred"], seen["runs"] = preferred, candidates
        return seen["take"], dict.fromkeys(candidates, 1.0)

    monkeypatch.setattr(planner, "fastest", fastest)
    return seen


def test_the_loop_and_two_windows_are_compared(offered: dict[str, Any]) -> None:
    problem = tanh_problem(steps=600)
    choice = planner.choose(evaluate, *problem, window=None, options={"atol": 1e-5, "rtol": 1e-5})
    assert list(offered["runs"]) == ["sequential", "quasi_newton, window 64", "quasi_newton, window 512"]
    assert offered["preferred"] == "sequential"
    assert (choice.method, choice.window, set(choice.seconds)) == (methods.Sequential(), None, set(offered["runs"]))
    assert "quasi_newton, window 23" in _names(offered, tanh_problem(), None), "a window is at most the chain"
    assert _names(offered, problem, 7) == ["sequential", "quasi_newton, window 7"], "a window that is given is kept"


def _names(offered: dict[str, Any], problem: Problem, window: int | None) -> list[str]:
    planner.choose(evaluate, *problem, window=window, options={"atol": 1e-5, "rtol": 1e-5})
    return list(offered["runs"])


def test_the_pilot_is_the_beginning_of_the_chain(offered: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "PILOT", 20)
    problem = tanh_problem(steps=100)
    planner.choose(evaluate, *problem, window=10, options={"atol": 1e-5, "rtol": 1e-5})
    for run in offered["runs"].values():
        CONVERGED.check(run().states, scan(*problem)[:20])


@pytest.mark.parametrize("take", ["sequential", "quasi_newton, window 8"])
def test_auto_gives_the_states_of_the_loop(offered: dict[str, Any], take: str) -> None:
    offered["take"] = take
    problem = tanh_problem()
    solution = evaluate(*problem, method="auto", window=8, atol=1e-5, rtol=1e-5)
    CONVERGED.check(solution.states, scan(*problem))
    assert (int(solution.iterations) == 23) == (take == "sequential")


def test_auto_times_on_this_device() -> None:
    problem = tanh_problem()
    choice = planner.choose(evaluate, *problem, window=8, options={"atol": 1e-5, "rtol": 1e-5})
    assert min(choice.seconds.values()) > 0
    CONVERGED.check(evaluate(*problem, method="auto", window=8, atol=1e-5, rtol=1e-5).states, scan(*problem))


@pytest.mark.parametrize("wrap", [jax.jit, jax.vmap])
def test_nothing_can_be_timed_in_a_transformed_function(wrap: Callable) -> None:
    problem = tanh_problem()
    solve = wrap(lambda inputs: evaluate(problem.transition, problem.initial_state, inputs, method="auto").states)
    with pytest.raises(ValueError, match=r"method is 'auto' inside a compiled or transformed function.* name a method"):
        solve(np.stack([problem.inputs] * 2) if wrap is jax.vmap else problem.inputs)


def test_the_candidates_are_timed_on_the_callers_own_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its norm, guess, conditioning and tolerances; and a part of the window that is chosen is active."""
    problem = tanh_problem()
    seen: list[dict[str, Any]] = []

    def fastest(candidates: Any, preferred: str) -> Any:
        for run in candidates.values():
            run()
        return "quasi_newton, window 16", {}

    def watched(*arguments: Any, **keywords: Any) -> Any:
        seen.append(keywords)
        return evaluate(*arguments, **keywords)

    monkeypatch.setattr(planner, "fastest", fastest)
    monkeypatch.setattr(planner, "WINDOWS", (16,))
    monkeypatch.setattr(planner, "PILOT", 20)
    original = planner.choose
    monkeypatch.setattr(planner, "choose", lambda _, *rest, **keywords: original(watched, *rest, **keywords))
    steps = problem.inputs.shape[0]
    options: dict[str, Any] = {
        "stopping": Stopping(norm="rms", accept_early=0.5),
        "conditioning": Conditioning(damping=0.1, clip=2.0, projection=False),
        "active_set": True,
        "atol": jnp.full(steps, 1e-4),
        "rtol": 1e-4,
    }
    found = evaluate(*problem, method="auto", guess=jnp.zeros((steps, 3)), **options)
    assert len(seen) == 2
    for keywords in seen:
        assert {name: keywords[name] for name in ("stopping", "conditioning")} == {
            name: options[name] for name in ("stopping", "conditioning")
        }
        assert keywords["active_set"] is True
        assert keywords["atol"].shape == (20,)
        assert keywords["guess"].shape == (20, 3)
    # A sixteenth of the window of 16, not of the chain of 23: every batch is a single step.
    by_hand = evaluate(*problem, method="quasi_newton", window=16, guess=jnp.zeros((steps, 3)), **options)
    assert found.evaluations == by_hand.evaluations
