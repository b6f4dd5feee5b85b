"""Dual averaging: the step size of a target acceptance."""

import math

import pytest

from parsample.warmup.step_size import DualAveraging


def test_dual_averaging_finds_the_step_size_of_the_target() -> None:
    averaging = DualAveraging(5.0, 0.574)
    for _ in range(300):
        averaging.update(math.exp(-math.exp(averaging.log_step)))
    assert math.exp(-math.exp(averaging.log_average)) == pytest.approx(0.574, abs=0.01)


@pytest.mark.parametrize(("acceptance", "direction"), [(0.9, 1), (0.1, -1)])
def test_dual_averaging_moves_the_right_way_and_can_start_anew(acceptance: float, direction: int) -> None:
    averaging = DualAveraging(1.0, 0.574)
    averaging.update(acceptance)
    first = averaging.log_step
    averaging.update(acceptance)
    assert (averaging.log_step - first) * direction > 0
    assert first * direction > 0, "relative to the step size that it started from"
    averaging.restart()
    assert (averaging.center, averaging.error, averaging.count) == (averaging.log_step, 0.0, 0)
