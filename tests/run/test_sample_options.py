"""What is chosen for the sampler of a run: its options, the length of its trajectories, its acceptance."""

import json
import math
import re
from typing import Any

import numpy as np
import pytest

import parsample as ps
from tests.run.test_sample import run


def test_options_of_the_sampler_reach_warm_up_and_chain() -> None:
    settings: dict[str, Any] = {"num_warmup": 80, "step_size": None, "num_samples": 128}
    trace = run("banana", "hmc", sampler_options={"num_integration_steps": 3, "step_size_jitter": 0}, **settings)
    assert np.all(trace["sample_stats"]["n_steps"] == 3)
    assert json.loads(trace.attrs["sampler_options"]) == {"num_integration_steps": 3, "step_size_jitter": 0}
    # Twice as many leapfrog steps leave another chain, from the warm-up on.
    longer = run("banana", "hmc", sampler_options={"num_integration_steps": 6}, **settings)
    assert longer["sample_stats"]["step_size"].values[0, 0] != trace["sample_stats"]["step_size"].values[0, 0]


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({}, None),
        ({"min_integration_steps": 5}, 5),  # the step size alone asks for fewer
        ({"num_integration_steps": 5}, 5),
        ({"step_size": 0.3}, 8),
        ({"num_warmup": 0}, 8),
    ],
)
def test_warm_up_chooses_the_length_of_a_trajectory_where_it_may(
    keywords: dict[str, Any], expected: int | None
) -> None:
    """Without a length of its own: the least of 2, 3, 4, 6, 8, ... by which length * step size is 0.8 of 2 at least."""
    sampler_options = {name: value for name, value in keywords.items() if name.endswith("integration_steps")}
    settings: dict[str, Any] = {"num_warmup": 160, "step_size": None, "num_samples": 128, "method": "sequential"}
    settings |= {name: value for name, value in keywords.items() if name not in sampler_options}
    trace = run("multivariate_normal", "hmc", sampler_options=sampler_options, **settings)
    step_size = float(trace["sample_stats"]["step_size"][0, 0])
    if expected is None:
        lengths = np.array([2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64])
        expected = int(lengths[lengths * step_size >= 0.8 * 2][0])
        assert expected != 8, "or this test could not fail"
    drawn = trace["sample_stats"]["n_steps"]
    assert int(drawn.max()) == expected
    # What may follow is an acceptance that was asked for as steps of warm-up were divergent.
    said = ps.read_verdict(trace).sampler.split(", for an acceptance")[0]
    assert said == f"hmc, step size {step_size:.3g}, {expected} leapfrog steps"


@pytest.mark.parametrize("method", ["sequential", "newton"])
def test_a_draw_of_several_trajectories_is_told_and_counted_as_such(method: str) -> None:
    options = {"num_integration_steps": 4, "num_trajectories": 3}
    settings: dict[str, Any] = {"step_size": 0.4, "num_warmup": 0, "num_samples": 128, "method": method}
    trace = run("multivariate_normal", "hmc", sampler_options=options, **settings)
    assert np.all(trace["sample_stats"]["n_steps"] == 12)
    verdict = ps.read_verdict(trace)
    assert verdict.sampler == "hmc, step size 0.4, 3 trajectories of 4 leapfrog steps"
    assert verdict.judgement is not None
    assert verdict.judgement.transitions == 3 * trace["sample_stats"]["diverging"].size


@pytest.mark.parametrize("sampler", ["hmc", "mala", "rwm"])
def test_the_acceptance_is_the_one_that_was_asked_for(sampler: str) -> None:
    settings: dict[str, Any] = {"num_warmup": 1000, "step_size": None, "method": "sequential", "num_samples": 2000}
    own = run("multivariate_normal", sampler, **settings)
    asked = run("multivariate_normal", sampler, target_acceptance=0.95, **settings)
    assert float(asked["sample_stats"]["acceptance_rate"].mean()) == pytest.approx(0.95, abs=0.03)
    assert float(own["sample_stats"]["acceptance_rate"].mean()) < 0.85
    assert ps.read_settings(asked).target_acceptance == 0.95


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_acceptance": 1.0}, "target_acceptance is 1.0, expected a number between 0 and 1, such as 0.9; None "),
        ({"target_acceptance": math.nan}, "target_acceptance is nan, expected a number between 0 and 1"),
        ({"target_acceptance": 0.9, "sampler": "ula"}, "target_acceptance is 0.9, but ULA has no accept/reject; leave"),
        ({"target_acceptance": 0.9, "step_size": 0.1}, "but step_size is 0.1, so that nothing is steered to it; leave"),
        ({"target_acceptance": 0.9, "num_warmup": 0}, "target_acceptance is 0.9, but there is no warm-up"),
    ],
)
def test_an_acceptance_that_nothing_can_be_steered_to_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ps.sample("banana", progress=False, **settings)


def test_a_ladder_as_an_array_is_an_option() -> None:
    trace = run("banana", "tempering", sampler_options={"inverse_temperatures": np.array([1.0, 0.5])}, num_samples=128)
    assert json.loads(trace.attrs["sampler_options"]) == {"inverse_temperatures": [1.0, 0.5]}
