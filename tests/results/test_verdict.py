"""The verdict in words, and its way into a trace and out of it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parsample.results.trace import build_trace, load_trace, save_trace
from parsample.results.verdict import EVALUATION_FIELDS, Verdict, read_verdict
from parsample.results.words import COMMAND_LINE, PYTHON

CONVERGED = Verdict(
    method="quasi_newton",
    window=16,
    chains=4,
    steps=5000,
    iterations=1234,
    evaluations_per_step=3.456,
    largest_residual=2.34e-6,
    atol=1e-5,
    rtol=2e-5,
    finished_sequentially=0,
    approximate_steps=0,
    run_seconds=1.234,
    compile_seconds=5.678,
    compared_steps=1024,
    parallel_seconds=0.5,
    sequential_seconds=2.0,
    largest_difference=3.21e-6,
    decisions_that_differ=0,
)


def verdict(**changes: Any) -> Verdict:
    return dataclasses.replace(CONVERGED, **changes)


def rows(**changes: Any) -> dict[str, str]:
    return dict(verdict(**changes).rows())


def test_a_run_that_converged() -> None:
    assert CONVERGED.converged
    assert rows() == {
        "method": "quasi_newton, window 16",
        "converged": "yes: all 20,000 steps of 4 chains",
        "iterations": "1,234 in the slowest chain, for 5,000 steps",
        "evaluations per step": "3.46",
        "largest residual": "2.3e-06 posterior sd (tolerance 1e-05 + 2e-05 |state|)",
        "wall time": "1.23 s, and 5.68 s to compile",
        "sequential loop": "2.00 s against 0.50 s on 1,024 steps of each chain; "
        "the parallel evaluation is 4.0 times faster",
        "same chain": "largest difference 3.2e-06 posterior sd, no accept decisions differ (on the same 1,024 steps)",
    }


def test_a_tolerance_that_was_measured_says_by_what() -> None:
    assert rows(noise=2.5e-6)["largest residual"] == (
        "2.3e-06 posterior sd (tolerance 1e-05 + 2e-05 |state|; rounding noise of a step: 2.5e-06)"
    )


def test_a_run_that_the_loop_finished_says_so() -> None:
    found = verdict(finished_sequentially=1500)
    assert not found.converged
    outcome = dict(found.rows())["converged"]
    assert outcome == "18,500 of 20,000 steps; the other 1,500 were finished by the sequential loop"
    assert "yes" not in outcome


def test_an_approximation_says_that_it_is_one() -> None:
    found = verdict(approximate_steps=1234, decisions_that_differ=900)
    assert not found.converged
    outcome = dict(found.rows())["converged"]
    assert outcome == (
        "no, as asked: 1,234 of 20,000 steps are not within tolerance, so this is not the chain of the loop"
    )


def test_the_loop_itself_is_exact() -> None:
    found = rows(method="sequential", window=1, compared_steps=0)
    assert found["converged"] == "exact: the sequential loop itself"
    assert not {"sequential loop", "same chain"} & set(found)


@pytest.mark.parametrize(
    ("parallel", "words"),
    [
        (6.0, "the loop is 3.0 times faster here: method='sequential' gives the same draws sooner"),
        (2.3, "the loop is 1.1 times faster here"),
        (2.1, "about as fast"),
        (1.9, "about as fast"),
        (1.7, "the parallel evaluation is 1.2 times faster"),
    ],
)
def test_which_of_the_two_is_faster(parallel: float, words: str) -> None:
    found = rows(parallel_seconds=parallel)["sequential loop"]
    assert found.split("; ")[1].startswith(words)
    assert found.startswith(f"2.00 s against {parallel:.2f} s on 1,024 steps of each chain")


def test_decisions_that_differ_are_counted_and_part_the_chain_from_the_loops() -> None:
    found = rows(decisions_that_differ=7, largest_difference=1.5, parallel_seconds=6.0)
    assert found["same chain"] == (
        "not to the end: largest difference 1.5 posterior sd, 7 accept decisions differ (on the same 1,024 steps); "
        "differences within the tolerance grew, or accepting hung on one, until the two parted: from there on the "
        "draws are those of a valid chain of the same sampler, up to the tolerance, but not the loop's; smaller atol "
        "and rtol, with double precision where need be, put that off"
    )
    assert found["sequential loop"].endswith("method='sequential' gives equally good draws sooner")
    assert "1 accept decision differs (" in rows(decisions_that_differ=1)["same chain"]
    # Of a sampler that accepts always.
    assert rows(largest_difference=0.02)["same chain"].startswith("not to the end: largest difference 0.02")


def test_an_approximation_parts_from_the_loop_for_another_reason() -> None:
    found = rows(decisions_that_differ=7, approximate_steps=30, parallel_seconds=6.0)
    assert found["same chain"].endswith("7 accept decisions differ (on the same 1,024 steps)")
    assert found["sequential loop"].endswith("method='sequential' gives the exact chain sooner")


def test_advice_where_the_chain_parts_from_the_loops() -> None:
    parted = " ".join(verdict(decisions_that_differ=7, parallel_seconds=6.0).advice())
    assert "gives equally good draws sooner" in parted
    assert "not the same as the loop's: smaller atol and rtol" in parted
    same = " ".join(verdict(parallel_seconds=6.0).advice())
    assert "gives the same draws sooner" in same
    assert "not the same" not in same
    assert verdict().advice() == ["Nothing needs to be done: use the draws."]


def test_it_speaks_the_words_of_the_caller() -> None:
    found = verdict(decisions_that_differ=7, parallel_seconds=6.0, finished_sequentially=3000)
    python, command = (" ".join([found.text(caller), *found.advice(caller)]) for caller in (PYTHON, COMMAND_LINE))
    for words in ("method='sequential' gives", "smaller atol and rtol", "(parsample.forecast tells which)"):
        assert words in python
        assert words not in command
    for words in ("--method sequential gives", "smaller --atol and --rtol", "(parsample diagnose tells which)"):
        assert words in command
        assert words not in python


def test_without_a_comparison_nothing_is_said_of_it() -> None:
    assert not {"sequential loop", "same chain"} & set(rows(compared_steps=0))


def test_the_text_is_aligned() -> None:
    lines = CONVERGED.text().splitlines()
    assert len(lines) == len(CONVERGED.rows())
    for line, (heading, text) in zip(lines, CONVERGED.rows(), strict=True):
        assert line == f"{heading:<20}  {text}"


def trace_with(attributes: dict[str, Any]) -> Any:
    return build_trace({"posterior": {"x": np.zeros((2, 3))}}, attrs=attributes)


def test_a_trace_and_its_file_hold_the_verdict(tmp_path: Path) -> None:
    found = verdict(method="QuasiNewton(diagonal='exact')", finished_sequentially=7)
    trace = trace_with(found.attributes())
    assert read_verdict(trace) == found
    read = read_verdict(load_trace(save_trace(trace, tmp_path / "trace.nc")))
    assert read == found
    for name in EVALUATION_FIELDS:
        assert type(getattr(read, name)) is type(getattr(found, name))


def test_another_trace_holds_none() -> None:
    with pytest.raises(ValueError, match="trace has no attribute 'evaluation_method', expected a trace that parsample"):
        read_verdict(trace_with({}))
    without = {name: value for name, value in CONVERGED.attributes().items() if name != "evaluation_rtol"}
    with pytest.raises(ValueError, match="trace has no attribute 'evaluation_rtol'"):
        read_verdict(trace_with(without))
