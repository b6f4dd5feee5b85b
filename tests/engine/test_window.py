"""The window's bookkeeping, against lists in Python."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsample.engine.iteration import shift
from parsample.engine.window import count_leading, slide


def rows(numbers: list[float]) -> jnp.ndarray:
    return jnp.asarray(numbers, jnp.float32)[:, None]


@pytest.mark.parametrize(("numbers", "expected"), [([10.0, 11.0, 12.0], [-1.0, 10.0, 11.0]), ([10.0], [-1.0])])
def test_the_state_before_the_first_row_is_the_boundary(numbers: list[float], expected: list[float]) -> None:
    np.testing.assert_array_equal(shift(jnp.asarray([-1.0]), rows(numbers)), rows(expected))


@given(st.lists(st.booleans(), min_size=5, max_size=5))
def test_rows_are_counted_up_to_the_first_that_is_not_accepted(accept: list[bool]) -> None:
    assert count_leading(jnp.asarray(accept)) == [*accept, False].index(False)


@given(st.sampled_from([1, 2, 5]), st.integers(0, 5))
def test_what_is_kept_moves_along_and_what_enters_is_as_at_the_start(length: int, advance: int) -> None:
    advance = min(advance, length)
    old, new = ([start + row for row in range(length)] for start in (100.0, 300.0))
    moved = slide({"a": rows(old)}, {"a": rows(new)}, jnp.asarray(advance))
    np.testing.assert_array_equal(moved["a"], rows((old + new)[advance : advance + length]))
