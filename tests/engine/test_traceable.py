"""What JAX cannot trace of a user's function is said in a sentence, with its line, wherever the function goes in."""

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.special

import parsample as ps
from parsample.engine.traceable import traceable
from parsample.samplers.diffusion import DDPM

CANNOT = {
    "NumPy": (lambda x: jnp.asarray(np.exp(np.asarray(x))).sum(), "NumPy, SciPy, pandas"),
    "SciPy": (lambda x: scipy.special.gammaln(x).sum(), "NumPy, SciPy, pandas"),
    "if": (lambda x: x.sum() if x[0] > 0 else -x.sum(), "branches"),
    "and": (lambda x: (x[0] > 0 and x[1] > 0) * x.sum(), "branches"),
    "float": (lambda x: float(x[0]) * x.sum(), "a number of Python"),
    "item": (lambda x: x[0].item() * x.sum(), "a number of Python"),
    "size": (lambda x: jnp.arange(x[0]).sum(), "a number of Python"),
    "mask": (lambda x: x[x > 0].sum(), "selects by booleans"),
    "index": (lambda x: [x.sum(), -x.sum()][x.astype(int)[0]], "for an index"),
}


@pytest.mark.parametrize("name", CANNOT)
def test_what_it_does_is_said(name: str) -> None:
    function, words = CANNOT[name]
    with (
        pytest.raises(ValueError, match=f"^density .*{words}.*; .*, or leave it.$") as found,
        traceable("density", "leave it"),
    ):
        jax.eval_shape(function, jnp.ones(2))
    assert f"in line {inspect.getsourcelines(function)[1]} of test_traceable.py" in str(found.value)
    assert isinstance(found.value.__cause__, jax.errors.JAXTypeError | jax.errors.JAXIndexError)


def test_other_errors_are_the_users_own() -> None:
    with pytest.raises(KeyError, match="'x'"), traceable("density"):
        jax.eval_shape(lambda position: position["x"], {"y": jnp.ones(2)})


def bad(x: jax.Array) -> jax.Array:
    return x.sum() if x[0] > 0 else -x.sum()


class Own(ps.targets.Target):
    name: ClassVar[str] = "own"

    def logdensity(self, position: dict[str, Any]) -> jax.Array:
        return bad(position["x"])

    def position_template(self) -> dict[str, Any]:
        return {"x": jnp.zeros(2)}


def model() -> None:
    numpyro.factor("factor", bad(numpyro.sample("x", dist.Normal(jnp.zeros(2)))))


START: Any = jnp.zeros(2)
DOORS: dict[str, tuple[str, Callable[[], Any]]] = {
    "evaluate": ("transition", lambda: ps.evaluate(lambda x, u: x + bad(x), START, jnp.ones(5))),
    "evaluate_sequential": ("transition", lambda: ps.evaluate_sequential(lambda x, u: x + bad(x), START, jnp.ones(5))),
    "diagnose": ("transition", lambda: ps.diagnose(lambda x, u: x + bad(x), START, jnp.ones(5))),
    "laplace": ("logdensity_fn", lambda: ps.laplace(bad, START)),
    "sample": ("the log density", lambda: ps.sample(bad, initial_position=START)),
    "plan": ("the log density", lambda: ps.plan(bad, initial_position=START)),
    "target": ("the log density of the target own", lambda: ps.sample(Own())),
    "model": ("the model model", lambda: ps.sample(model)),
    "transform": ("transform", lambda: ps.sample("funnel", transform=lambda draw: {"v": bad(draw["x"])})),
    "diffuse": ("predict", lambda: ps.diffuse(DDPM(lambda x, t: x + bad(x), num_steps=5), (2,))),
}


@pytest.mark.parametrize("door", DOORS)
def test_wherever_the_function_goes_in(door: str) -> None:
    what, call = DOORS[door]
    line = inspect.getsourcelines(bad)[1] + 1
    with pytest.raises(ValueError, match=f"^{what} branches .*, in line {line} of test_traceable.py; choose with"):
        call()


def test_a_target_that_a_user_added_to_the_table_is_looked_at_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ps.TARGETS, "own", Own)
    with pytest.raises(ValueError, match=r"^the log density of the target own branches"):
        ps.sample("own")
