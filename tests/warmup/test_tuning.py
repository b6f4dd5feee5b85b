"""Tuning for draws a round: pilot runs, the choice among them, and the words about it."""

from typing import Any

import numpy as np
import pytest

import parsample as ps
from parsample.results.trace import as_datatree
from parsample.run import stages
from parsample.samplers import HMC, MALA, ULA
from parsample.samplers.configured import Configured
from parsample.warmup import tuning
from parsample.warmup.tuning import TRIED, Moves, Pilot, Tuned, check_tune, tune_for_rounds


def pilot(**changes: Any) -> Pilot:
    return Pilot(0.3, Moves(8), 0.8, 0.81, 300, 512, -0.14, 9)._replace(**changes)


def test_moves_are_told_and_counted() -> None:
    told = {
        moves: (moves.words(0.3), moves.gradients)
        for moves in map(
            Moves.of, (MALA(lambda x: x), HMC(lambda x: x), HMC(lambda x: x, 0.1, None, 6, num_trajectories=3))
        )
    }
    assert told == {
        (None, 1): ("step size 0.3", 1),
        (8, 1): ("step size 0.3, 8 leapfrog steps", 8),
        (6, 3): ("step size 0.3, 3 trajectories of 6 leapfrog steps", 18),
    }


def test_the_choice_is_the_architectures_example() -> None:
    """Eight schools by HMC: 8 leapfrog steps mix best a gradient, 4 give more effective draws a round."""
    long, short = (
        pilot(),
        pilot(moves=Moves(4), ess_per_draw=0.29, iterations=44, exponent=-0.46, in_sequence=5),
    )
    assert long.per_gradient > short.per_gradient
    assert short.per_round == pytest.approx(0.29 * 512 / (44 * 5))
    assert short.per_round > 4 * long.per_round
    text = Tuned(Configured(HMC), 0.3, short, long, (short, long)).text
    assert text == (
        "step size 0.3, 4 leapfrog steps (0.29 effective draws a step, 44 iterations for 512 steps, exponent -0.46); "
        "the best for the loop is step size 0.3, 8 leapfrog steps (0.81 effective draws a step, 300 iterations for 512 "
        "steps, exponent -0.14): 4.39 times as many effective draws for the gradients that have to wait for each other"
    )
    assert Tuned(Configured(HMC), 0.3, short, short, (short,)).text.endswith("which is the best for the loop as well")


@pytest.mark.parametrize(
    ("tune", "sampler", "method", "words"),
    [
        ("draws", MALA, "quasi_newton", "tune is 'draws', expected None or 'rounds'"),
        ("rounds", ULA, "quasi_newton", "ULA has no accept/reject: its step size is its bias"),
        ("rounds", MALA, "sequential", "method is 'sequential', expected a parallel one"),
    ],
)
def test_what_cannot_be_tuned_is_refused(tune: str, sampler: Any, method: str, words: str) -> None:
    check_tune(None, Configured(sampler), method)
    with pytest.raises(ValueError, match=words):
        check_tune(tune, Configured(sampler), method)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["mala", "hmc"])
def test_pilot_runs_choose_the_most_effective_draws_a_round(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Tuned] = []

    def keep(*given: Any) -> Tuned:
        found.append(tune_for_rounds(*given))
        return found[-1]

    monkeypatch.setattr(stages, "tune_for_rounds", keep)
    monkeypatch.setattr(tuning, "PILOT", 256)
    settings: dict[str, Any] = {"num_warmup": 400, "num_samples": 128, "num_chains": 2, "window": 128}
    trace = ps.sample("multivariate_normal", sampler, tune="rounds", compare=False, progress=False, **settings)
    (tuned,) = found
    first = tuned.pilots[0]
    # Of a trajectory as long as warm-up chose, of one half as long again, and of one step.
    longest = first.moves.num_integration_steps or 0
    assert (longest > 0) == (sampler == "hmc")
    # Chosen at the step size of a little before.
    assert not longest or 1.4 < longest * first.step_size < 2.8
    rows = [(times, share) for times, shares in TRIED.items() for share in shares if longest or times == 1]
    lengths = [max(1, round(times * longest)) if longest else None for times, _ in rows]
    assert [row.moves.num_integration_steps for row in tuned.pilots] == lengths
    assert [row.steps for row in tuned.pilots] == [256] * len(tuned.pilots)
    shares = [row.step_size / first.step_size for row in tuned.pilots]
    np.testing.assert_allclose(shares, [share for _, share in rows])
    gradients = lambda row: row.moves.gradients  # noqa: E731
    best = max(tuned.pilots, key=lambda row: row.ess_per_draw / (row.iterations * (gradients(row) + 1)))
    assert tuned.chosen == best
    assert tuned.sequential == max(tuned.pilots, key=lambda row: row.ess_per_draw / gradients(row))
    rates = [row.acceptance_rate for row in tuned.pilots[: len(TRIED[1.0])]]
    assert rates == sorted(rates), "shorter steps are accepted more often"
    verdict = ps.read_verdict(trace)
    assert dict(verdict.rows())["tuned"] == tuned.text
    assert float(as_datatree(trace)["sample_stats"].to_dataset()["step_size"][0, 0]) == pytest.approx(
        tuned.chosen.step_size
    )
