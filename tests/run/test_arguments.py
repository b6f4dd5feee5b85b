"""Whose argument it is: nothing that a model may mean is taken by an option, and the other way round."""

import functools
import inspect
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import parsample as ps
from parsample.results.trace import as_datatree
from parsample.run.arguments import ELSEWHERE, serves_models
from parsample.run.sample import sample
from parsample.targets.numpyro_model import NumPyroModel

OPTIONS = [name for name, row in inspect.signature(sample).parameters.items() if row.kind is row.KEYWORD_ONLY]
Y = np.zeros(3)


@serves_models(0)
def door(target: Any, *args: Any, window: int = 1, seed: int = 0, **kwargs: Any) -> Any:
    """Say what arrived."""
    made = target if isinstance(target, NumPyroModel) else NumPyroModel(target, *args, **kwargs)
    given, keywords = made.program.arguments(made.data)
    return {**keywords, "args": given}, window


def model(y: Any, window: int = 5, scale: float = 1.0) -> None:
    x = numpyro.sample("x", dist.Normal(0, window * scale))
    numpyro.sample("y", dist.Normal(x, 1), obs=y)


def with_parameter(name: str) -> Any:
    """A model with one parameter, of that name."""
    scope: dict[str, Any] = {"numpyro": numpyro, "dist": dist}
    exec(f"def made({name}=1.0):\n    numpyro.sample('x', dist.Normal(0, {name}))", scope)
    return scope["made"]


def keywords(name: str, value: Any) -> dict[str, Any]:
    return {name: value}


@pytest.mark.parametrize("name", [*OPTIONS, "target"])
def test_every_option_that_a_model_has_too_is_refused_or_served(name: str) -> None:
    """Both ways out that the sentence names lead there."""
    made = with_parameter(name)
    if name != "target":
        with pytest.raises(
            ValueError, match=rf"{name}=.* the option of parsample.sample or the parameter of the model"
        ):
            ps.sample(made, **keywords(name, 3.0))
    served = serves_models(0)(lambda target, *, seed=0, **options: (target.program.arguments(target.data)[1], options))
    assert served(made, model_kwargs={name: 3.0}) == ({name: 3.0}, {})


def test_the_option_and_the_models_parameter_side_by_side() -> None:
    assert door(model, Y, window=7, model_kwargs={"window": 2})[1] == 7
    assert door(model, Y, window=7, model_kwargs={"window": 2})[0]["window"] == 2
    assert door(model, Y, 2, window=7)[1] == 7, "bound by its place"
    assert door(functools.partial(model, window=2), Y, window=7)[1] == 7, "bound beforehand"
    assert door(model, Y, seed=3)[1] == 1, "no other option is concerned"
    handled = numpyro.handlers.reparam(model, config={})
    with pytest.raises(ValueError, match=r"window=7 may be the option of parsample.door or the parameter of the model"):
        door(handled, Y, window=7)


def test_a_parameter_called_target_goes_to_the_model() -> None:
    found, _ = door(with_parameter("target"), **keywords("target", 2.0))
    assert found == {"target": 2.0, "args": ()}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model_kwargs": 7}, r"model_kwargs is a int, expected the model's arguments by name"),
        ({"scale": 1.0, "model_kwargs": {"scale": 2.0}}, r"scale is given twice, by itself and in model_kwargs"),
        ({"scael": 1.0}, r"an argument beside the model model is 'scael', expected one of window, scale, .* 'scale'\?"),
        ({"sead": 1}, r"an argument beside the model model is 'sead', .* Did you mean 'seed'\?"),
        ({"cores": 4}, r"cores is what other libraries call it; here it is num_chains says how many"),
    ],
)
def test_what_is_refused_beside_a_model(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        door(model, Y, **given)


@pytest.mark.parametrize("word", ELSEWHERE)
def test_words_of_other_libraries(word: str) -> None:
    with pytest.raises(ValueError, match=rf"{word} is what other libraries call it; here it is "):
        ps.sample("eight_schools", **keywords(word, 4))


def test_a_word_that_the_model_has_is_the_models() -> None:
    assert door(with_parameter("cores"), cores=4.0)[0]["cores"] == 4.0


def test_the_other_doors(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"seed=3 may be the option of parsample.forecast or the parameter of the model"
    ):
        ps.forecast(with_parameter("seed"), seed=3)
    with pytest.raises(ValueError, match=r"seed=3 may be the option of parsample.resume or the parameter of"):
        ps.resume(tmp_path / "run.zarr", with_parameter("seed"), seed=3)
    with pytest.raises(ValueError, match=r"model_kwargs is given, but parsample.sample has no NumPyro model here"):
        ps.sample("eight_schools", model_kwargs={"window": 7})


# Every door that hands arguments on to a model, with what it needs before them.
SHORT: dict[str, Any] = {"num_warmup": 0, "num_samples": 20, "num_chains": 1}
QUICK: dict[str, Any] = {"step_size": 0.1, "method": "sequential", "compare": False}


def runs(name: str, method: str = "run") -> Any:
    """What calls a method of an MCMC of the model with that parameter, and returns the model's arguments."""
    mcmc: Any = ps.MCMC(ps.Kernel(with_parameter(name), "rwm"), **SHORT, **QUICK, progress_bar=False)

    def call(**given: Any) -> Any:
        getattr(mcmc, method)(jax.random.key(0), **given)
        return mcmc._kwargs

    return call


def extends(name: str) -> Any:
    made = with_parameter(name)
    trace = ps.sample(made, sampler="rwm", **SHORT, **QUICK, progress=False)

    def call(**given: Any) -> Any:
        found = ps.extend(trace, made, **{"groups": ["prior"], **given})
        # The scale of the prior is the argument, 3 in place of 1.
        return {name: pytest.approx(np.std(np.asarray(as_datatree(found)["prior"]["x"])), rel=0.5)}

    return call


DOORS: list[tuple[str, Any, str]] = [
    *(("MCMC.run", runs, name) for name in ("extra_fields", "init_params", "rng_key", "model_kwargs")),
    *(("MCMC.warmup", functools.partial(runs, method="warmup"), name) for name in ("collect_warmup", "rng_key")),
    *(("extend", extends, name) for name in ("seed", "coords", "initial_position", "trace", "target", "model_kwargs")),
]


@pytest.mark.parametrize(("door", "make", "name"), DOORS)
def test_every_door_refuses_or_serves_what_its_model_has_too(door: str, make: Any, name: str) -> None:
    call = make(name)
    if name in ("rng_key", "trace", "target"):  # which stand before the arguments, so the name is the model's
        assert call(**{name: 3.0}) == {name: 3.0}
    else:
        with pytest.raises(ValueError, match=rf"{name}=.* may be the option of parsample\.{door} or the parameter of"):
            call(**{name: {"seed": 1} if name == "model_kwargs" else 3.0})
    assert call(model_kwargs={name: 3.0}) == {name: 3.0}


def test_keys_by_name_and_strangers_of_an_mcmc() -> None:
    mcmc: Any = ps.MCMC(ps.Kernel(model, "rwm"), **SHORT, **QUICK, progress_bar=False)
    mcmc.run(rng_key=jax.random.key(0), y=Y, extra_fields=("potential_energy",))
    assert set(mcmc._kwargs) == {"y"}
    assert "potential_energy" in mcmc.get_extra_fields()
    with pytest.raises(ValueError, match=r"rng_key=.* may be the option of parsample\.MCMC\.run or the parameter of"):
        ps.MCMC(ps.Kernel(with_parameter("rng_key")), **SHORT).run(rng_key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"an argument beside the model model is 'wndow', .* Did you mean 'window'"):
        mcmc.run(jax.random.key(0), Y, wndow=3)
    with pytest.raises(ValueError, match=r"y is given twice, by itself and in model_kwargs; leave one out"):
        mcmc.run(jax.random.key(0), y=Y, model_kwargs={"y": Y})
    with pytest.raises(ValueError, match=r"model_kwargs is a int, expected the model's arguments by name, as a dict"):
        mcmc.run(jax.random.key(0), Y, model_kwargs=3)
    bowl = ps.MCMC(ps.Kernel(potential_fn=lambda z: z @ z), **SHORT)
    with pytest.raises(ValueError, match=r"model_kwargs is given, but the kernel of parsample\.MCMC\.run has no model"):
        bowl.run(jax.random.key(0), init_params=jnp.zeros(2), model_kwargs={})
