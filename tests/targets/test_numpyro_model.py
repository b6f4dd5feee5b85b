"""NumPyro models as targets: against NumPyro's own functions, scipy, and a posterior in closed form."""

import warnings
from typing import Any

import arviz
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas
import pytest
import xarray
from scipy import stats

import parsample as ps
from parsample.results.trace import as_datatree, posterior_dataset
from parsample.run import stages
from parsample.targets import NumPyroModel
from tests.tolerances import MIN_EFFECTIVE_SAMPLES, SAME_COMPUTATION, check_mean

FEATURES = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
RESPONSES = (FEATURES @ [1.0, -2.0] + np.random.default_rng(1).normal(size=20)).astype(np.float32)
SETTINGS: dict[str, Any] = {"num_warmup": 300, "num_samples": 1000, "num_chains": 4, "progress": False}


def regression(features: Any, responses: Any = None, scale: float = 1.0) -> None:
    slopes = numpyro.sample(
        "slopes", dist.Normal(jnp.zeros(2), 3.0).to_event(1), infer={"event_dims": ["feature"]}
    )  # fmt: skip
    noise = numpyro.sample("noise", dist.HalfNormal(scale))
    mean = numpyro.deterministic("mean", features @ slopes)
    with numpyro.plate("row", features.shape[0]):
        numpyro.sample("responses", dist.Normal(mean, noise), obs=responses)


def known_noise(features: Any, responses: Any) -> None:
    """Conjugate: the posterior of the slopes is normal."""
    slopes = numpyro.sample("slopes", dist.Normal(jnp.zeros(2), 3.0).to_event(1))
    numpyro.sample("responses", dist.Normal(features @ slopes, 1.0), obs=responses)


def check(draws: np.ndarray, expected: float) -> None:
    """Assert that the mean of draws, shape (chain, draw), is the expected one."""
    size = float(arviz.ess(draws, method="mean"))
    assert size > MIN_EFFECTIVE_SAMPLES
    check_mean(draws.mean(), expected, draws.std() / np.sqrt(size))


def test_the_log_density_is_that_of_the_formula_with_the_jacobian_of_the_transform() -> None:
    target = NumPyroModel(regression, FEATURES, responses=RESPONSES)
    slopes, log_noise = np.array([0.3, -0.7]), -0.4
    noise = np.exp(log_noise)
    expected = stats.norm(0, 3).logpdf(slopes).sum() + stats.halfnorm(0, 1).logpdf(noise) + log_noise
    expected += stats.norm(FEATURES @ slopes, noise).logpdf(RESPONSES).sum()
    position = {"slopes": jnp.asarray(slopes, jnp.float32), "noise": jnp.float32(log_noise)}
    np.testing.assert_allclose(target.logdensity(position), expected, rtol=1e-5)
    constrained = target.constrain(position)
    assert set(constrained) == {"slopes", "noise", "mean"}
    np.testing.assert_allclose(constrained["noise"], noise, rtol=1e-6)
    np.testing.assert_allclose(constrained["mean"], FEATURES @ slopes, rtol=1e-5, atol=1e-6)


def test_plates_and_named_events_are_dims() -> None:
    target = NumPyroModel(regression, FEATURES, RESPONSES)
    assert target.dims == {"slopes": ("feature",), "responses": ("row",)}

    def nested() -> None:
        with numpyro.plate("right", 3), numpyro.plate("left", 2):
            numpyro.sample("x", dist.Normal(jnp.zeros((2, 3, 4)), 1).to_event(1))
            numpyro.sample("named", dist.Dirichlet(jnp.ones(5)), infer={"event_dims": ["part"]})

    assert NumPyroModel(nested).dims == {"x": ("left", "right", "x_dim_0"), "named": ("left", "right", "part")}


def test_data_are_told_apart() -> None:
    target = NumPyroModel(regression, FEATURES, responses=RESPONSES, scale=2.0)
    assert set(target.observed_data) == {"responses"}
    np.testing.assert_array_equal(target.observed_data["responses"], RESPONSES)
    assert set(target.constant_data) == {"features", "scale"}
    np.testing.assert_array_equal(target.constant_data["features"], FEATURES)


@pytest.fixture(scope="module")
def trace() -> Any:
    groups = ("log_likelihood", "posterior_predictive", "prior")
    return as_datatree(ps.sample(known_noise, FEATURES, RESPONSES, groups=groups, compare=False, **SETTINGS))


@pytest.mark.slow
def test_a_model_and_its_arguments_at_the_front_door(trace: Any) -> None:
    precision = FEATURES.T @ FEATURES + np.eye(2) / 9
    mean, covariance = np.linalg.solve(precision, FEATURES.T @ RESPONSES), np.linalg.inv(precision)
    draws = np.asarray(trace["posterior"]["slopes"], np.float64)
    for k in range(2):
        check(draws[..., k], mean[k])
        check((draws[..., k] - mean[k]) ** 2, covariance[k, k])


def test_the_groups_on_request(trace: Any) -> None:
    expected = {"posterior", "sample_stats", "observed_data", "constant_data", "log_likelihood", "posterior_predictive"}
    assert set(trace.children) == expected | {"prior", "prior_predictive"}
    slopes = np.asarray(trace["posterior"]["slopes"], np.float64)
    found = stats.norm(slopes @ FEATURES.T, 1).logpdf(RESPONSES)
    np.testing.assert_allclose(trace["log_likelihood"]["responses"], found, rtol=1e-4, atol=1e-4)
    predicted = np.asarray(trace["posterior_predictive"]["responses"])
    assert predicted.shape == (4, 1000, 20)
    scores = (predicted - slopes @ FEATURES.T).ravel()
    assert stats.kstest(scores[::7], "norm").pvalue > 1e-3
    prior = np.asarray(trace["prior"]["slopes"])
    assert prior.shape == (1, 1000, 2)
    assert stats.kstest(prior.ravel() / 3, "norm").pvalue > 1e-3
    assert trace["prior_predictive"]["responses"].shape == (1, 1000, 20)


def test_the_trace_is_one_for_arviz(trace: Any, tmp_path: Any) -> None:
    path = ps.save_trace(trace, tmp_path / "trace.nc")
    back = as_datatree(ps.load_trace(path))
    assert set(back.children) == set(trace.children)
    np.testing.assert_array_equal(back["observed_data"]["responses"], RESPONSES)
    assert "slopes[0]" in ps.summarize(trace).index


def test_arviz_works_on_the_trace(trace: Any, tmp_path: Any) -> None:
    """Under both generations: what people do with a trace first."""
    given = ps.load_trace(ps.save_trace(trace, tmp_path / "trace.nc"))
    posterior = posterior_dataset(given)
    slopes: dict[str, Any] = {"var_names": ["slopes"]}
    with warnings.catch_warnings():
        # ArviZ 0.x passes matplotlib what it deprecates, and says that there are few draws.
        warnings.simplefilter("ignore")
        table = arviz.summary(given, **slopes)
        assert list(table.index) == ["slopes[0]", "slopes[1]"]
        assert float(np.min(np.asarray(arviz.ess(posterior)["slopes"]))) > 100
        assert float(np.max(np.asarray(arviz.rhat(posterior)["slopes"]))) < 1.1
        loo = arviz.loo(given)
        for plot in (arviz.plot_trace, arviz.plot_rank, arviz.plot_pair):
            assert plot(given, **slopes) is not None
        plt.close("all")
    # A regression with two slopes: about as many effective parameters, and no observation that decides all.
    estimate = loo.elpd_loo if hasattr(loo, "elpd_loo") else loo.elpd
    pointwise = np.asarray(trace["log_likelihood"]["responses"], np.float64).reshape(-1, 20)
    density = np.sum(np.log(np.mean(np.exp(pointwise), 0)))
    assert density - 6 < float(estimate) < density


def discrete(data: Any) -> None:
    kind = numpyro.sample("kind", dist.Bernoulli(0.5))
    numpyro.sample("data", dist.Normal(kind, 1), obs=data)


def subsampled(data: Any) -> None:
    mean = numpyro.sample("mean", dist.Normal())
    with numpyro.plate("rows", 10, subsample_size=2) as rows:
        numpyro.sample("data", dist.Normal(mean, 1), obs=data[rows])


def without_freedom(data: Any) -> None:
    numpyro.sample("share", dist.Dirichlet(jnp.ones(1)))


def without_latents(data: Any) -> None:
    numpyro.sample("data", dist.Normal(), obs=data)


def with_columns(features: Any, responses: Any) -> None:
    slopes = numpyro.sample("slopes", dist.Normal(jnp.zeros(3), 1).to_event(1))
    numpyro.sample("responses", dist.Normal(features @ slopes, 1), obs=responses)


def with_factor(data: Any) -> None:
    numpyro.factor("factor", jnp.sum(numpyro.sample("mean", dist.Normal(jnp.zeros(3), 1).to_event(1)) + data))


HOLES = np.where(np.arange(12).reshape(4, 3) == 7, np.nan, 1.0)


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (discrete, (1.0,), "model discrete has discrete latent sites: kind; sum them out of the model"),
        (subsampled, (np.zeros(10),), "model subsampled subsamples in rows: each step would have another density"),
        (
            without_freedom,
            (1.0,),
            "latent sites of the model without_freedom have no number that can vary: share; there",
        ),
        (without_latents, (1.0,), "target without_latents has no latent sample sites, expected a NumPyro model"),
        (discrete, (), r"target discrete cannot be run as a NumPyro model with the arguments given \(.*missing 1"),
        (
            with_columns,
            (HOLES, np.ones(4)),
            r"no start with a finite log density .*, and there is NaN in features \(column 1\); check",
        ),
        (
            with_columns,
            (np.ones((4, 3)), HOLES[:, 1]),
            "no start with a finite log density .*, and there is NaN in responses; check",
        ),
        (
            with_columns,
            (np.ones((4, 3)), np.ones(5)),
            r"the site responses observes values of shape \(5,\), and its distribution is of shape \(4,\), which has "
            r"no log density there \(sub got incompatible shapes for broadcasting: \(5,\), \(4,\)\); give data",
        ),
        (
            with_columns,
            (np.ones((4, 2)), np.ones(4)),
            r"with the arguments given \(dot_general .*\); mend the model, or",
        ),
        (
            with_factor,
            (np.ones(4),),
            r"model with the arguments given \(add got incompat.*\(3,\), \(4,\)\); mend the m",
        ),
        (
            with_columns,
            (np.ones((4, 3)), pandas.Series(np.ones(4))),
            r"the site responses observes a Series of pandas, with which JAX does not compute; give its values",
        ),
        (
            with_columns,
            (pandas.DataFrame(np.ones((4, 3))), np.ones(4)),
            r"the model with_columns computes with what JAX does not: features is a DataFrame of pandas; give the val",
        ),
        (
            with_factor,
            (xarray.DataArray(np.ones(3)),),
            "the model with_factor computes with what JAX does not: data is a DataArray of xarray; give the values",
        ),
    ],
)
def test_a_model_that_cannot_be_sampled(model: Any, arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ps.sample(model, *arguments, progress=False)


def improper(data: Any) -> None:
    mean = numpyro.sample("mean", dist.ImproperUniform(dist.constraints.real, (), ()))
    numpyro.sample("data", dist.Normal(mean, 1), obs=data)


def test_an_improper_prior_has_a_posterior_but_no_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.array([1.0, 2.0, 6.0], np.float32)
    found = as_datatree(ps.sample(improper, data, compare=False, **SETTINGS))
    check(np.asarray(found["posterior"]["mean"], np.float64), 3.0)
    monkeypatch.setattr(stages, "adapt", lambda *_, **__: pytest.fail("warmed up"))
    with pytest.raises(ValueError, match="groups asks for the prior, but the prior of mean is improper and has no dra"):
        ps.sample(improper, data, groups=("prior",), compare=False, **SETTINGS)


def test_groups_that_a_target_cannot_make() -> None:
    with pytest.raises(ValueError, match="groups asks for 'prior', which the target banana cannot make"):
        ps.sample("banana", groups=("prior",))
    with pytest.raises(ValueError, match=r"a name in groups is 'priors', expected one of .* Did you mean 'prior'\?"):
        ps.sample("banana", groups=("priors",))
    with pytest.raises(ValueError, match=r"groups is 'prior', expected a sequence of names; write groups=\('prior',\)"):
        ps.sample("banana", groups="prior")


def test_a_misspelt_argument() -> None:
    with pytest.raises(ValueError, match=r"an argument is 'num_sample', expected one of .*Did you mean 'num_samples'"):
        ps.sample("banana", num_sample=3)
    with pytest.raises(ValueError, match="2 arguments follow the target banana, expected at most the sampler"):
        ps.sample("banana", "mala", 3)


def test_double_precision(x64: None) -> None:
    target = NumPyroModel(known_noise, FEATURES.astype(float), RESPONSES.astype(float))
    position = {"slopes": jnp.asarray([0.1, 0.2])}
    assert target.logdensity(position).dtype == jnp.float64
    exact = stats.norm(0, 3).logpdf([0.1, 0.2]).sum() + stats.norm(FEATURES @ [0.1, 0.2], 1).logpdf(RESPONSES).sum()
    np.testing.assert_allclose(target.logdensity(position), exact, rtol=1e-12)


def test_it_is_numpyros_own_density() -> None:
    """At the positions of NumPyro's potential, up to rounding."""
    from numpyro.infer import initialize_model

    known = initialize_model(jax.random.key(0), regression, model_args=(FEATURES, RESPONSES))
    target = NumPyroModel(regression, FEATURES, RESPONSES)
    position = target.initial_position(jax.random.key(3))
    ours, theirs = jax.jit(lambda at: (target.logdensity(at), -known.potential_fn(at)))(position)
    SAME_COMPUTATION.check(ours, theirs)


# What NumPyro calls arguments of its own: of `log_likelihood`, of `Predictive` and what it returns, of its handlers.
NUMPYROS = (
    "self", "parallel", "batch_ndims", "rng_key", "params", "num_samples", "model", "posterior_samples", "fn", "key",
    "args", "kwargs",
)  # fmt: skip


@pytest.mark.parametrize("name", NUMPYROS)
def test_a_parameter_of_the_name_of_one_of_numpyros(name: str) -> None:
    """Given by keyword, which NumPyro's own functions would take for theirs: in all groups."""
    scope: dict[str, Any] = {"numpyro": numpyro, "dist": dist, "RESPONSES": RESPONSES}
    body = f"numpyro.sample('y', dist.Normal(numpyro.sample('x', dist.Normal({name}, 1)), 1), obs=RESPONSES)"
    exec(f"def made({name}):\n    {body}", scope)
    target = NumPyroModel(scope["made"], **{name: 1000.0})
    draws = {"x": jnp.full((2, 3), 1000.0)}
    found = target.log_likelihood(draws)["y"]
    np.testing.assert_allclose(found[1, 2], stats.norm(1000, 1).logpdf(RESPONSES), rtol=1e-5)
    assert abs(float(target.posterior_predictive(jax.random.key(0), draws)["y"].mean()) - 1000) < 10
    assert abs(float(target.prior(jax.random.key(0), 4)[0]["x"].mean()) - 1000) < 10
    position = target.unconstrain({"x": jnp.float32(1000.0)}, jax.random.key(0))
    assert float(position["x"]) == 1000
    for kernel in (ps.Kernel(scope["made"]), ps.Kernel(scope["made"], forward_mode_differentiation=True)):
        value = kernel.target((), {name: 1000.0}).logdensity({"x": jnp.float32(1000.0)})
        assert float(value) == float(target.logdensity({"x": jnp.float32(1000.0)}))
