"""Groups that are made afterwards, and errors that hand over the draws."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import parsample as ps
from parsample.results.trace import as_datatree
from parsample.run.result import Outcome

DATA = np.linspace(-1, 1, 6).astype(np.float32)
GROUPS = ("log_likelihood", "posterior_predictive", "prior")
SHORT: dict[str, Any] = {
    "num_warmup": 0,
    "num_samples": 20,
    "num_chains": 2,
    "sampler": "rwm",
    "step_size": 0.1,
    "method": "sequential",
    "compare": False,
    "progress": False,
    "seed": 3,
}


def model(y: Any) -> None:
    mean = numpyro.sample("mean", dist.Normal(0.0, 3.0))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


@pytest.fixture(scope="module")
def whole() -> Any:
    return as_datatree(ps.sample(model, DATA, groups=GROUPS, **SHORT))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Without groups, from a store."""
    return ps.sample(model, DATA, store=tmp_path_factory.mktemp("store") / "run.zarr", **SHORT)


@pytest.mark.slow
def test_what_is_made_afterwards_is_what_the_run_would_have_made(whole: Any, plain: Any) -> None:
    found = as_datatree(ps.extend(plain, model, DATA, groups=GROUPS, seed=SHORT["seed"]))
    assert set(found.children) == set(whole.children)
    for group in (*GROUPS, "prior_predictive", "posterior", "observed_data"):
        assert found[group].to_dataset().equals(whole[group].to_dataset())
    # The trace that was given is as it was.
    assert "log_likelihood" not in as_datatree(plain).children
    other = as_datatree(ps.extend(plain, model, DATA, groups=["posterior_predictive"], coords={"row": list("abcdef")}))
    assert not np.array_equal(other["posterior_predictive"]["y"], whole["posterior_predictive"]["y"])
    assert np.array_equal(other["posterior_predictive"]["row"], list("abcdef"))


def with_scale(y: Any) -> None:
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(numpyro.sample("mean", dist.Normal()), scale), obs=y)


def with_vector(y: Any) -> None:
    mean = numpyro.sample("mean", dist.Normal(jnp.zeros(3), 1.0).to_event(1))
    numpyro.sample("y", dist.Normal(mean.sum(), 1.0), obs=y)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (
            model,
            {"groups": ["prior", "log_likelihood"]},
            "groups asks for 'log_likelihood', which the trace has",
        ),
        (model, {"groups": ["evaluation"]}, r"groups is \['evaluation'\], expected one or more of log_likelihood, "),
        (model, {"groups": []}, r"groups is \[\], expected one or more of"),
        (model, {"groups": ["posterior_predictive"], "seed": -1}, "seed is -1, expected a whole number from 0"),
        (
            with_scale,
            {"groups": ["posterior_predictive"]},
            "the trace has no variable scale, which the model with_s",
        ),
        (
            with_vector,
            {"groups": ["posterior_predictive"]},
            r"the trace has mean of shape \(\) a draw, where .*3",
        ),
    ],
)
def test_what_cannot_be_made_afterwards(plain: Any, target: Any, options: dict[str, Any], message: str) -> None:
    trace = ps.extend(plain, model, DATA, groups=["log_likelihood"]) if len(options["groups"]) == 2 else plain
    with pytest.raises(ValueError, match=message):
        ps.extend(trace, target, DATA, **options)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("broken", ["group", "trace"])
def test_an_error_at_the_end_hands_over_the_draws(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, plain: Any, stored: bool, broken: str
) -> None:
    def fail(*_: Any) -> Any:
        raise MemoryError("no more")

    if broken == "group":
        monkeypatch.setattr(Outcome, "requested", fail)
    else:
        monkeypatch.setattr(Outcome, "further", fail)
    store = tmp_path / "run.zarr" if stored else None
    with pytest.raises(MemoryError, match="no more") as caught:
        ps.sample(model, DATA, groups=["log_likelihood"], store=store, **SHORT)
    tree = as_datatree(caught.value.trace)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(tree["posterior"]["mean"], as_datatree(plain)["posterior"]["mean"])
    assert "lp" in tree["sample_stats"]
    assert any("attribute `trace`" in note for note in caught.value.__notes__)
    if stored:
        # Once that is mended the store goes on to its end.
        monkeypatch.undo()
        again = as_datatree(ps.resume(tmp_path / "run.zarr", model, DATA, progress=False))
        assert again["log_likelihood"]["y"].shape == (2, 20, 6)


def test_an_error_before_there_are_draws_is_plain() -> None:
    with pytest.raises(ValueError, match="no start with a finite log density") as caught:
        ps.sample(model, DATA * np.nan, **SHORT)
    assert not hasattr(caught.value, "trace")
