"""Names of the last version: understood for one more, with one warning that shows the new spelling."""

import functools
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parsample as ps
from parsample import _former as former
from tests.engine.recursions import tanh_problem

PROBLEM: Any = tanh_problem()
LOOSE: dict[str, Any] = {"method": "quasi_newton", "max_iterations": 2, "throw": False}
# Without the types, which know the present names alone.
EVALUATE: Any = ps.evaluate
LOOSELY: Any = functools.partial(EVALUATE, *PROBLEM, **LOOSE)
GROUPED: dict[str, tuple[Any, str, Any]] = {
    "norm": ("rms", "stopping", ps.Stopping(norm="rms")),
    "accept_early": (0.5, "stopping", ps.Stopping(accept_early=0.5)),
    "finish": (True, "stopping", ps.Stopping(finish=True)),
    "damping": (0.5, "conditioning", ps.Conditioning(damping=0.5)),
    "projection": (False, "conditioning", ps.Conditioning(projection=False)),
    "clip": (0.1, "conditioning", ps.Conditioning(clip=0.1)),
}


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(former, "_told", set())


@pytest.mark.parametrize("name", GROUPED)
def test_an_option_that_stands_in_a_group_now(name: str) -> None:
    value, group, present = GROUPED[name]
    spelling = re.escape(f"{group}=parsample.{type(present).__name__}({name}={value!r}).")
    with pytest.warns(DeprecationWarning, match=f"{name}= is a former name.*; write {spelling}") as caught:
        found = LOOSELY(**{name: value})
    assert [Path(row.filename) for row in caught] == [Path(__file__)], "the warning is about the caller's line"
    expected = EVALUATE(*PROBLEM, **LOOSE, **{group: present})
    np.testing.assert_array_equal(found.states, expected.states)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LOOSELY(**{name: value})  # told once


def test_several_of_a_group_and_through_the_other_doors() -> None:
    nested: Any = ps.evaluate_nested
    both: dict[str, Any] = {"conditioning": ps.Conditioning(damping=0.5, clip=0.1)}
    with pytest.warns(DeprecationWarning, match=r"(damping|clip)= is a former name") as caught:
        found = nested(lambda _: PROBLEM[::2], PROBLEM[1], (1,), damping=0.5, clip=0.1, **LOOSE)
    assert len(caught) == 2
    assert {Path(row.filename) for row in caught} == {Path(__file__)}
    np.testing.assert_array_equal(found[-1].states, EVALUATE(*PROBLEM, **LOOSE, **both).states)


def test_a_warning_that_is_an_error_is_one_each_time() -> None:
    for _ in range(2):
        with pytest.raises(DeprecationWarning, match="clip= is a former name"):
            EVALUATE(*PROBLEM, clip=0.1)


@pytest.mark.parametrize("name", GROUPED)
def test_both_ways_are_refused(name: str) -> None:
    value, group, present = GROUPED[name]
    with pytest.raises(
        ValueError, match=rf"{name} is given beside {group}, which has taken its place; leave {name} out"
    ):
        EVALUATE(*PROBLEM, **{name: value, group: present})


def test_an_unknown_option_is_what_it_is_everywhere() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'dampin'"):
        EVALUATE(*PROBLEM, dampin=0.1)


@pytest.mark.parametrize(
    "make", [ps.methods.Surrogate, lambda **given: ps.methods.ScaledIdentity("surrogate", **given)]
)
def test_a_constructor_takes_a_former_name(make: Any) -> None:
    with pytest.warns(DeprecationWarning, match="stand_in= is a former name, .*; write surrogate="):
        found = make(stand_in=PROBLEM[0])
    assert found.surrogate is PROBLEM[0]
    with pytest.raises(ValueError, match="stand_in is given beside surrogate, which has taken its place"):
        make(stand_in=PROBLEM[0], surrogate=PROBLEM[0])


def test_attributes_that_have_another_name_now() -> None:
    solution: Any = ps.evaluate(*PROBLEM, **LOOSE)
    with pytest.warns(DeprecationWarning, match=r"\.is_within is a former name, .*; write \.converged_steps"):
        np.testing.assert_array_equal(solution.is_within, solution.converged_steps)
    normal = ps.samplers.diffusion.GaussianDenoiser(0.5)
    make: Any = ps.samplers.diffusion.DDIM
    with pytest.warns(DeprecationWarning, match="stand_in= is a former name, .*; write surrogate="):
        process = make(lambda x, t: x, num_steps=4, stand_in=normal)
    with pytest.warns(DeprecationWarning, match=r"\.stand_in is a former name, .*; write \.surrogate"):
        assert process.stand_in is normal
    with pytest.warns(DeprecationWarning, match=r"\.gaussian is a former name, .*; write \.with_surrogate"):
        assert process.gaussian().predict == normal


def test_a_guess_that_has_another_name_now() -> None:
    process = ps.samplers.diffusion.DDIM(lambda x, t: 0.1 * x, num_steps=4)
    with pytest.warns(DeprecationWarning, match="guess='gaussian' is a former name, .*; write guess='surrogate'"):
        found = ps.diffuse(process, (2,), guess="gaussian", method="scaled_identity")
    np.testing.assert_array_equal(
        found.samples, ps.diffuse(process, (2,), guess="surrogate", method="scaled_identity").samples
    )
