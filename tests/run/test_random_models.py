"""Random NumPyro models from the front door to the summary, held against NumPyro's own handlers."""

from pathlib import Path

import pytest

from benchmarks.random_models import check, make_case

# Few seeds whose models have between them 62 of the kinds of things that a model may have in it, all that the first
# twelve have and more; benchmarks/results/random_models.md has many.
SOME = (24, 303, 58, 8, 346, 127, 61, 244)
MORE = (*range(12), *range(100, 160))


# The quickest are always run, the others with the slow tests.
@pytest.mark.parametrize(
    "seed", [seed if seed in (303, 61, 127) else pytest.param(seed, marks=pytest.mark.slow) for seed in SOME]
)
def test_a_random_model(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path)


def test_the_few_have_every_kind_of_the_first_twelve() -> None:
    few, twelve = ({kind for seed in seeds for kind in make_case(seed).kinds} for seeds in (SOME, range(12)))
    assert twelve < few


@pytest.mark.grid
@pytest.mark.parametrize("seed", [seed for seed in MORE if seed not in SOME])
def test_more_random_models(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path)
