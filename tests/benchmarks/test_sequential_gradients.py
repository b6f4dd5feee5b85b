"""What waits for each other in a run, whichever way its method was given."""

import dataclasses

import pytest

from benchmarks.sequential_gradients import gradients_in_sequence
from parsample.engine import methods
from tests.verdicts import VERDICT


@pytest.mark.parametrize(
    ("method", "a_turn"),
    [
        ("sequential", 7),
        ("newton", 8),
        (repr(methods.QuasiNewton("hutchinson", 2, "straight_through")), 8),
        ("lifted_newton", 1),
        (repr(methods.LiftedQuasiNewton(radius=0.1)), 1),
    ],
)
def test_an_iteration_waits_for_its_leapfrog_steps_and_for_one_where_it_is_lifted(method: str, a_turn: int) -> None:
    verdict = dataclasses.replace(VERDICT, method=method, iterations=100, chains=4, finished_sequentially=8)
    assert gradients_in_sequence(verdict, 7) == 100 * a_turn + 2 * 7
