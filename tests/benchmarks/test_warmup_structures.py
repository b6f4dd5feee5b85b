"""The grid that the structures of warm-up are compared on."""

import itertools

import numpy as np
import pytest

from benchmarks.warmup_structures import CHAINS, DIMS, RUINED, SPECTRA, WARMUPS, Spectrum, cells, directions_and_scales


def test_every_two_levels_meet_in_the_thinned_grid() -> None:
    thinned = cells()
    for (i, first), (j, second) in itertools.combinations(enumerate((DIMS, WARMUPS, CHAINS, SPECTRA)), 2):
        assert {(cell[i], cell[j]) for cell in thinned} == set(itertools.product(first, second))
    assert set(RUINED) <= set(thinned) <= set(cells(full=True))
    assert len(thinned) < 0.2 * len(cells(full=True))


@pytest.mark.parametrize("spectrum", SPECTRA, ids=str)
def test_the_covariance_has_its_condition_number(spectrum: Spectrum) -> None:
    directions, scales = directions_and_scales(10, spectrum)
    covariance = directions @ np.diag(scales**2) @ directions.T
    assert np.linalg.cond(covariance) == pytest.approx(spectrum.condition)
    assert np.allclose(covariance, np.diag(np.diag(covariance))) != spectrum.rotated
