"""A NumPyro model with new data of the same shapes is neither traced nor compiled again."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import parsample as ps
from parsample.results.trace import as_datatree
from parsample.targets import NumPyroModel, numpyro_program

GROUPS = ("log_likelihood", "posterior_predictive")
SHORT: dict[str, Any] = {
    "num_warmup": 0,
    "num_samples": 8,
    "num_chains": 1,
    "sampler": "rwm",
    "step_size": 0.1,
    "method": "sequential",
    "progress": False,
    "compare": False,
    "groups": GROUPS,
}
events: list[str] = []


def _listen(event: str, duration_secs: float, **kwargs: Any) -> None:
    events.append(event.rpartition("/")[2])


jax.monitoring.register_event_duration_secs_listener(_listen)
calls = 0
scale_of_prior = 5.0


def called() -> None:
    global calls
    calls += 1


def regression(x: Any, y: Any = None, scale: float = 1.0) -> None:
    called()
    slope = numpyro.sample("slope", dist.Normal(0, scale_of_prior))
    with numpyro.plate("rows", len(x)):
        mean = numpyro.deterministic("mean", slope * x)
        numpyro.sample("y", dist.Normal(mean, scale), obs=y)


def grouped(group: Any, y: Any) -> None:
    """Looks into the numbers of the groups, not into the data."""
    called()
    with numpyro.plate("groups", int(group.max()) + 1):
        mean = numpyro.sample("mean", dist.Normal(0, 5))
    numpyro.sample("y", dist.Normal(mean[group], 1), obs=y)


def in_numpy(x: Any, y: Any) -> None:
    """Computes with NumPy, which no traced array can."""
    called()
    slope = numpyro.sample("slope", dist.Normal(0, 5))
    numpyro.sample("y", dist.Normal(slope * np.log(x), 1), obs=y)


def in_64_bits(x: Any, y: Any) -> None:
    """Takes a difference that 32 bits do not have, of numbers that NumPy has in 64."""
    called()
    slope = numpyro.sample("slope", dist.Normal(0, 5))
    numpyro.sample("y", dist.Normal(slope * (x - x.min()) * 1e6, 1), obs=y)


def logarithm(y: Any) -> None:
    called()
    mean = numpyro.sample("mean", dist.Normal(0, 5))
    numpyro.sample("log", dist.Normal(mean, 1), obs=jnp.log(y))


X = np.linspace(1, 2, 6)
Y = np.linspace(-1, 1, 6)
GROUP = np.array([0, 1, 2, 2, 1, 0])
# The model, its arguments, others of the same shapes, and how many of the arguments are data.
MODELS: dict[str, tuple[Callable, tuple, tuple, int]] = {
    "arrays": (regression, (X, Y), (X + 1, Y * 2), 2),
    "of JAX": (regression, (jnp.asarray(X), jnp.asarray(Y)), (jnp.asarray(X + 1), jnp.asarray(Y)), 2),
    "a size is read from one": (grouped, (GROUP, Y), (GROUP, Y + 1), 1),
    "observed after a transform": (logarithm, (X,), (X + 1,), 1),
    "looked into by NumPy": (in_numpy, (X, Y), (X, Y), 0),
    "of 64 bits that count": (in_64_bits, (1e3 + X * 1e-6, Y), (1e3 + X * 1e-6, Y), 0),
}


@pytest.fixture(autouse=True)
def nothing_compiled_yet() -> Iterator[None]:
    numpyro_program._programs.clear()
    numpyro_program._choices.clear()
    yield
    globals()["scale_of_prior"] = 5.0


def sampled(model: Callable, *args: Any, **options: Any) -> tuple[Any, int, int]:
    """Return the trace, how often the model was called, and how many programs were compiled."""
    before = calls
    events.clear()
    trace = as_datatree(ps.sample(model, *args, **{**SHORT, **options}))
    return trace, calls - before, events.count("backend_compile_duration")


@pytest.mark.slow
def test_nothing_of_a_run_by_default_is_compiled_twice() -> None:
    defaults = {"sampler": "hmc", "num_warmup": 40, "step_size": None, "num_chains": 2, "compare": True}
    sampled(regression, X, Y, **defaults, method="quasi_newton")
    trace, traced, compiled = sampled(regression, X + 1, Y - 1, **defaults, method="quasi_newton")
    assert (traced, compiled) == (0, 0)
    assert abs(float(trace["posterior"]["slope"].mean())) < 5


def test_a_first_run_by_default_compiles_few_programs() -> None:
    """Each of them takes tens of milliseconds, however small: nothing is worked out operation by operation."""
    jax.clear_caches()
    cases: list[Any] = [(regression, (X, Y)), ("eight_schools", ())]
    for model, arguments in cases:
        # The keys, which the second run has, starts, the way down, inputs and these put together, chains that begin,
        # steps, the variables.
        expected = 8 if model is regression else 7
        compiled = sampled(model, *arguments, sampler="hmc", num_warmup=40, step_size=None, groups=(), method="auto")[2]
        assert compiled == expected, model


QUICK = ("arrays", "a size is read from one", "looked into by NumPy")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in MODELS])
def test_new_data_of_the_same_shapes_compile_nothing(name: str) -> None:
    model, first, second, num_data = MODELS[name]
    _, traced, compiled = sampled(model, *first)
    assert min(traced, compiled) > 0
    trace, traced, compiled = sampled(model, *second)
    assert (traced, compiled) == (0, 0)
    assert len(NumPyroModel(model, *second).data) == num_data
    # The same as if nothing had been there before.
    numpyro_program._programs.clear()
    jax.clear_caches()
    alone, _, _ = sampled(model, *second)
    for group in ("posterior", "observed_data", "constant_data", *GROUPS):
        for variable, values in alone[group].data_vars.items():
            np.testing.assert_array_equal(trace[group][variable], values, err_msg=f"{group} {variable}")


def test_data_are_in_the_trace_as_they_were_given() -> None:
    years = 2000 + X / 1e6  # single precision has not these digits
    trace, _, _ = sampled(regression, years, Y)
    np.testing.assert_array_equal(trace["constant_data"]["x"], years)
    np.testing.assert_array_equal(trace["observed_data"]["y"], Y)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["another shape", "another constant", "a global number", "none observed"])
def test_what_else_changes_is_compiled_anew(what: str) -> None:
    sampled(regression, X, Y)
    options: dict[str, Any] = {"groups": ()} if what == "none observed" else {}
    arguments = {
        "another shape": (X[:4], Y[:4]),
        "another constant": (X, Y, 2.0),
        "a global number": (X, Y),
        "none observed": (X,),
    }[what]
    if what == "a global number":
        globals()["scale_of_prior"] = 0.01
    trace, traced, _ = sampled(regression, *arguments, **options)
    assert traced
    if what == "a global number":
        assert float(trace["sample_stats"]["lp"].max()) < -1000, "the prior is narrow now, and the start is not in it"


def test_the_log_density_is_numpyros_whatever_is_data() -> None:
    from numpyro.infer.util import log_density

    for model, first, second, _ in MODELS.values():
        for arguments in (first, second):
            target = NumPyroModel(model, *arguments)
            position = jax.tree.map(lambda leaf: leaf + 0.3, target.position_template())
            # All latent sites are real.
            expected = jax.jit(lambda at, its=(model, arguments): log_density(*its, {}, at)[0])(position)
            np.testing.assert_allclose(
                jax.jit(lambda at, its=target: its.logdensity(at))(position), expected, rtol=1e-5
            )


def test_the_number_of_programs_that_are_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpyro_program, "REMEMBERED", 2)
    for size in (2, 3, 4):
        NumPyroModel(regression, X[:size], Y[:size])
    assert len(numpyro_program._programs) == len(numpyro_program._choices) == 2
