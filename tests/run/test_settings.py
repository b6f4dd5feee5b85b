"""Settings: to JSON and back, and a run again from its own file."""

import dataclasses
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
import pytest

import parsample as ps
from parsample.results.trace import build_trace
from parsample.run.settings import method_text, read_method

FEW: dict[str, Any] = {"num_warmup": 0, "step_size": 0.5, "num_samples": 128, "num_chains": 2, "progress": False}


def test_the_defaults_are_those_of_the_front_door() -> None:
    import inspect

    parameters = inspect.signature(inspect.unwrap(ps.sample)).parameters
    found = {name: value for name, value in ps.Settings("banana").arguments().items() if name != "sampler_options"}
    assert found == {name: parameters[name].default for name in found}
    assert set(parameters) >= set(found)


@pytest.mark.parametrize(
    "method",
    ["newton", "auto", ps.methods.QuasiNewton(estimator="hutchinson", num_probes=2), ps.methods.Picard(mismatch=0.1)],
)
def test_json_both_ways(method: Any) -> None:
    settings = ps.Settings(
        "banana",
        sampler="hmc",
        sampler_options={"n": np.float32(0.5)},
        until={"ess": 4},
        method=method_text(method),
        warmup_method=method_text(method),
    )
    found = ps.Settings.from_json(settings.to_json())
    assert found.sampler_options == {"n": 0.5}
    assert found == dataclasses.replace(settings, sampler_options={"n": 0.5})
    for name in ("method", "warmup_method"):
        again = found.arguments()[name]
        assert again == method if isinstance(method, str) else bool(eqx.tree_equal(again, method))
    assert found.differences(dataclasses.replace(found, seed=3)) == ["seed is 0, not 3"]


def test_a_run_is_repeated_from_its_own_file(tmp_path: Path) -> None:
    method = ps.methods.QuasiNewton(estimator="hutchinson", num_probes=2)
    few = {**FEW, "num_warmup": 80}
    first = ps.sample("multivariate_normal", method=method, warmup_method=method, seed=3, **few)
    ps.save_trace(first, tmp_path / "run.nc")
    settings = ps.read_settings(tmp_path / "run.nc")
    assert settings == ps.read_settings(first)
    again = ps.sample(settings.target, **settings.arguments(), progress=False)
    np.testing.assert_array_equal(again.posterior["x"].values, first.posterior["x"].values)


def test_settings_that_cannot_be_read() -> None:
    with pytest.raises(ValueError, match=r"trace has no attribute 'settings', expected a trace that parsample.sample"):
        ps.read_settings(build_trace({"posterior": {"x": np.zeros((1, 2))}}))
    for text in ("nothing", '{"target": "banana", "new": 1}', "[]"):
        with pytest.raises(ValueError, match="the settings cannot be read"):
            ps.Settings.from_json(text)
    with pytest.raises(ValueError, match=r"method is Scaled.*, which holds more than plain values; pass it as method="):
        read_method("ScaledIdentity(array)")
    with pytest.raises(ValueError, match=r"warmup_method is Scaled.*; pass it as warmup_method="):
        ps.Settings("banana", warmup_method="ScaledIdentity(array)").arguments()
    with pytest.raises(ValueError, match="sampler is the class Own, which has no name in SAMPLERS"):
        ps.Settings("banana", sampler="Own").arguments()
