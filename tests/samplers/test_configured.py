"""A sampler with its options: what warm-up steers it by."""

from typing import Any

import pytest

from parsample.samplers import MALA, MCLMC, RWM, SAMPLERS, SGHMC, ULA, Tempering
from parsample.samplers.base import PositionSampler
from parsample.samplers.configured import Configured


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_row_says_how_its_step_size_scales(name):
    assert SAMPLERS[name].power_of_length in (0, 1, 2)


@pytest.mark.parametrize("inner", [RWM, ULA, MALA])
def test_tempering_is_steered_as_its_inner_sampler(inner):
    make = Configured(Tempering, {"inner": inner})
    assert make.target_acceptance == inner.target_acceptance
    assert make.warm_up_by_mala == inner.warm_up_by_mala
    assert make.beside_mala(0.3, 5) == Configured(inner).beside_mala(0.3, 5)
    assert Configured(Tempering).target_acceptance == MALA.target_acceptance


def test_the_inner_sampler_of_tempering_is_checked_before_warm_up():
    with pytest.raises(
        ValueError, match="inner is 'mala', expected the class of a sampler that knows but the position"
    ):
        Configured(Tempering, {"inner": "mala"})


def test_steps_beside_malas_by_hand():
    assert Configured(ULA).beside_mala(0.4, 9) == pytest.approx(0.1 * 0.4)
    assert Configured(MCLMC).beside_mala(0.4, 9) == pytest.approx(0.5 * 0.4**0.5 * 3)
    assert Configured(SGHMC).beside_mala(0.4, 9) == pytest.approx(0.1 * 0.4**0.5)


class Unscaled(PositionSampler):
    """Without accept/reject, and without a word on its step size."""

    target_acceptance = None


def test_a_sampler_that_cannot_be_put_beside_mala_is_refused():
    unscaled: Any = Unscaled
    with pytest.raises(ValueError, match="Unscaled does not say how its step size goes with the scale of"):
        Configured(unscaled)
