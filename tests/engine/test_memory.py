"""The largest window within a budget, by few measurements."""

from collections.abc import Callable

import pytest

from parsample.engine.memory import largest_within


def measured(size: Callable[[int], int]) -> tuple[Callable[[int], int], list[int]]:
    seen: list[int] = []

    def measure(window: int) -> int:
        seen.append(window)
        return size(window)

    return measure, seen


SIZES: dict[str, Callable[[int], int]] = {
    "a line": lambda window: 5000 + 317 * window,
    "no base": lambda window: 1000 * window,
    "a jump": lambda window: 5000 + 317 * window + (20_000 if window > 40 else 0),
    "stairs": lambda window: 5000 + 3170 * -(-window // 10),
    "a bend": lambda window: 5000 + 317 * window + 900 * max(window - 60, 0),
    "a parabola": lambda window: 5000 + 40 * window**2,
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("share", [0.1, 0.35, 0.6, 0.9, 0.999])
def test_the_window_fits_and_was_measured(name: str, share: float) -> None:
    size, seen = measured(SIZES[name])
    least, most = SIZES[name](1), SIZES[name](100)
    budget = int(least + share * (most - least))
    window = largest_within(budget, 100, size)
    assert 1 <= window < 100
    assert SIZES[name](window) <= budget
    assert window in seen
    best = max(window for window in range(1, 101) if SIZES[name](window) <= budget)
    if name in ("a line", "no base"):
        assert window == best
        assert len(seen) <= 4
    assert window >= 0.5 * best
    assert len(seen) <= 12


def test_what_fits_whole_and_what_does_not_at_all() -> None:
    size, seen = measured(SIZES["a line"])
    assert largest_within(5000 + 31_700, 100, size) == 100
    assert seen == [100]
    assert largest_within(5316, 100, size) == 0
    assert largest_within(5316, 1, size) == 0
    assert largest_within(5317, 100, size) == 1
