"""Random NumPyro models from the front door to the summary, held against NumPyro's own handlers."""

from pathlib import Path

import pytest

from benchmarks.random_models import check

# Seeds whose models have most kinds of things in them; benchmarks/results/random_models.md has 300.
SOME = range(12)
MORE = range(100, 160)


@pytest.mark.parametrize("seed", SOME)
def test_a_random_model(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path)


@pytest.mark.grid
@pytest.mark.parametrize("seed", MORE)
def test_more_random_models(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path)
