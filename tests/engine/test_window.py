"""The window's bookkeeping, against lists in Python."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsample.engine.iteration import shift
from parsample.engine.window import Window, count_leading, move


def rows(numbers: list[float]) -> jnp.ndarray:
    return jnp.asarray(numbers, jnp.float32)[:, None]


def window_of(numbers: list[float], first_step: int = 3, boundary: float = -1.0) -> Window:
    return Window(jnp.asarray(first_step), jnp.asarray([boundary]), rows(numbers))


def test_the_state_before_the_first_row_is_the_boundary() -> None:
    for numbers, expected in (([10.0, 11.0, 12.0], [-1.0, 10.0, 11.0]), ([10.0], [-1.0])):
        window = window_of(numbers)
        np.testing.assert_array_equal(shift(window.boundary, window.guesses), rows(expected))


@pytest.mark.parametrize(
    ("first_step", "expected"), [(0, [1, 1, 1]), (7, [1, 1, 1]), (8, [1, 1, 0]), (9, [1, 0, 0]), (10, [0, 0, 0])]
)
def test_rows_beyond_the_end_are_padding(first_step: int, expected: list[int]) -> None:
    np.testing.assert_array_equal(window_of([1, 2, 3], first_step).inside(10), np.array(expected, bool))


@given(st.lists(st.booleans(), min_size=5, max_size=5))
def test_rows_are_counted_up_to_the_first_that_is_not_accepted(accept: list[bool]) -> None:
    assert count_leading(jnp.asarray(accept)) == [*accept, False].index(False)


@given(st.sampled_from([1, 2, 5]), st.integers(1, 5), st.booleans())
def test_a_window_moves_past_what_was_accepted(length: int, advance: int, guessed: bool) -> None:
    advance = min(advance, length)
    accepted = [100.0 + row for row in range(length)]
    updated = [200.0 + row for row in range(length)]
    incoming = [300.0 + row for row in range(length)] if guessed else [updated[-1]] * length
    window = window_of([0.0] * length)
    moved = move(window, rows(accepted), rows(updated), rows(incoming) if guessed else None, jnp.asarray(advance))
    assert moved.first_step == 3 + advance
    np.testing.assert_array_equal(moved.boundary, [accepted[advance - 1]])
    np.testing.assert_array_equal(moved.guesses, rows((updated + incoming)[advance : advance + length]))
