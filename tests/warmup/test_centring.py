"""How far effects are centred: the change of variables, what is chosen, and posteriors that are funnels otherwise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import arviz
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.contrib.control_flow import scan
from numpyro.handlers import reparam
from numpyro.infer.reparam import LocScaleReparam
from numpyro.infer.util import potential_energy
from scipy import stats

import parsample as ps
from parsample.results.trace import as_datatree, posterior_dataset
from parsample.samplers.hmc import HMC
from parsample.targets import NumPyroModel
from parsample.warmup.adapt import adapt
from parsample.warmup.centring import carried, centring_words, chosen
from parsample.warmup.coordinates import plain
from parsample.warmup.starts import starts
from tests.tolerances import SAME_COMPUTATION, check_mean

EFFECTS, ERRORS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def schools(effect: Any, error: Any) -> None:
    """Eight schools as first written: a funnel."""
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("schools", len(effect)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("effect", dist.Normal(theta, error), obs=effect)


def levels(values: Any) -> None:
    """Effects of effects, of three families, in plates and in events."""
    spread = numpyro.sample("spread", dist.HalfNormal(1).expand([2]).to_event(1))
    with numpyro.plate("regions", 3):
        region = numpyro.sample("region", dist.StudentT(4, 1.0, spread[0]))
        with numpyro.plate("years", 2):
            town = numpyro.sample("town", dist.Laplace(region, spread[1]))
    shift = numpyro.sample("shift", dist.Normal(0, jnp.exp(town[0])).to_event(1))
    numpyro.sample("values", dist.Normal(town + shift, 1.0), obs=values)


VALUES = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)


def centred_otherwise(target: NumPyroModel, rng_key: Any) -> NumPyroModel:
    keys = jax.random.split(rng_key, len(target.centred))
    degrees = {
        name: jax.random.uniform(key, leaf.shape, leaf.dtype)
        for key, (name, leaf) in zip(keys, target.centred.items(), strict=True)
    }
    return eqx.tree_at(lambda target: target.centred, target, degrees)


def test_a_change_is_a_change_of_variables() -> None:
    """The draws are the same, the density grows as the volume shrinks, and gradients are those of that density."""
    first = centred_otherwise(NumPyroModel(levels, VALUES), jax.random.key(0))
    other = centred_otherwise(first, jax.random.key(1))
    density = plain(first)
    draws = jax.random.normal(jax.random.key(2), (2, 3, density.center.size))
    valued = lambda target: jax.vmap(  # noqa: E731
        jax.vmap(jax.value_and_grad(lambda row: target.logdensity(density.unravel(row))))
    )
    values, gradients = valued(first)(draws)
    found, slopes, grown = carried(density, other, np.asarray(draws), np.asarray(gradients))
    expected, expected_slopes = valued(other)(found)
    np.testing.assert_allclose(values - grown, expected, rtol=1e-5)
    np.testing.assert_allclose(slopes, expected_slopes, rtol=1e-3, atol=1e-3)
    constrained = [
        jax.vmap(jax.vmap(lambda row, target=target: target.constrain(density.unravel(row))))(rows)
        for target, rows in ((first, draws), (other, found))
    ]
    assert sorted(constrained[0]) == sorted(constrained[1]) == ["region", "shift", "spread", "town"]
    for name in constrained[0]:
        np.testing.assert_allclose(constrained[0][name], constrained[1][name], rtol=1e-4, atol=1e-5)
    assert np.abs(found - draws).max() > 0.1


def test_as_the_model_has_it_the_density_is_numpyros() -> None:
    target = NumPyroModel(levels, VALUES)
    position = target.initial_position(jax.random.key(0))
    expected = -potential_energy(levels, (VALUES,), {}, position)
    SAME_COMPUTATION.check(target.logdensity(position), expected)


def by_hand(values: Any) -> None:
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    with reparam(config={"x": LocScaleReparam(0)}):
        numpyro.sample("x", dist.Normal(0, scale))


def walk() -> None:
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    scan(lambda last, _: (numpyro.sample("x", dist.Normal(last, scale)), None), 0.0, jnp.arange(3))


def named() -> None:
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    numpyro.sample("x", dist.Normal(0, scale))
    numpyro.deterministic("x_decentered", scale)


def single(make: Callable[[Any], Any], **options: Any) -> Callable[[], None]:
    def model() -> None:
        scale = numpyro.sample("scale", dist.HalfNormal(1))
        numpyro.sample("x", make(scale), **options)

    return model


MODELS: dict[str, tuple[Callable, tuple, list[str]]] = {
    "normal": (single(lambda scale: dist.Normal(0, scale)), (), ["x"]),
    "cauchy": (single(lambda scale: dist.Cauchy(1, scale)), (), ["x"]),
    "gumbel": (single(lambda scale: dist.Gumbel(1, scale)), (), ["x"]),
    "logistic": (single(lambda scale: dist.Logistic(1, scale)), (), ["x"]),
    "soft laplace": (single(lambda scale: dist.SoftLaplace(1, scale)), (), ["x"]),
    "event": (single(lambda scale: dist.Normal(0, scale).expand([3, 2]).to_event(2)), (), ["x"]),
    "levels": (levels, (VALUES,), ["region", "shift", "town"]),
    "the location alone is unknown": (single(lambda scale: dist.Normal(scale, 2.0)), (), []),
    "observed": (single(lambda scale: dist.Normal(0, scale), obs=1.0), (), []),
    "another family": (single(lambda scale: dist.LogNormal(0, scale)), (), []),
    "a vector of one scale": (single(lambda scale: dist.MultivariateNormal(jnp.zeros(2), scale * jnp.eye(2))), (), []),
    "written so": (by_hand, (VALUES,), []),
    "a scan": (walk, (), []),
    "a name that is taken": (named, (), []),
}


@pytest.mark.parametrize("name", MODELS)
def test_effects_are_sites_of_which_the_scale_is_unknown(name: str) -> None:
    model, args, expected = MODELS[name]
    target = NumPyroModel(model, *args)
    assert sorted(target.centred) == expected
    other = centred_otherwise(target, jax.random.key(0)) if expected else target
    assert np.isfinite(other.logdensity(other.initial_position(jax.random.key(1))))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_effects_are_centred_as_far_as_data_say_much_of_them(share: float) -> None:
    """Conjugate, the scale varying widely: of nothing but the prior, and of data far more precise than it."""
    rng = np.random.default_rng(0)
    scale = np.exp(rng.normal(size=(2000, 1)))
    location = rng.normal(size=(2000, 1))
    precision = np.array([0.0, 1e4 * share])
    variance = 1 / (scale**-2.0 + precision)
    mean = variance * (location / scale**2 + precision * 3.0)
    value = mean + np.sqrt(variance) * rng.normal(size=variance.shape)
    gradient = (mean - value) / variance
    found = chosen(np.full(2, 0.5), *np.broadcast_arrays(location, scale, value, gradient))
    np.testing.assert_array_equal(found, [0.0, share])


def test_where_nothing_is_known_effects_stay_as_they_are() -> None:
    nothing = np.full((10, 3), np.nan)
    nothing[:, 1] = 0.0
    nothing[:, 2] = np.inf
    now = np.array([0.3, 0.5, 1.0])
    np.testing.assert_array_equal(chosen(now, nothing, nothing + 1, nothing, nothing), now)


def exact_moments() -> tuple[float, float]:
    """Return the posterior means of mu and tau, by quadrature over both: given these the effects are independent."""
    mu = np.linspace(-25, 35, 601)[:, None]
    log_tau = np.linspace(-12, 6, 1801)
    tau = np.exp(log_tau)
    log_density = stats.norm(0, 5).logpdf(mu) + stats.halfcauchy(0, 5).logpdf(tau) + log_tau
    for effect, error in zip(EFFECTS, ERRORS, strict=True):
        log_density = log_density + stats.norm(mu, np.hypot(tau, error)).logpdf(effect)
    weights = np.exp(log_density - log_density.max())
    return float((weights * mu).sum() / weights.sum()), float((weights * tau).sum() / weights.sum())


@pytest.mark.parametrize("seed", [0, 1])
def test_a_funnel_is_sampled_as_it_is_written(seed: int) -> None:
    """Without a change chains miss its neck: an R-hat of 1.02 and effective sizes below 200."""
    trace = ps.sample(schools, EFFECTS, ERRORS, seed=seed, method="sequential", progress=False)
    judgement = ps.judge(trace)
    assert judgement.worst.r_hat < 1.01
    assert min(judgement.worst.ess_bulk, judgement.worst.ess_tail) > 400
    assert "theta not centred" in ps.read_verdict(trace).sampler
    for name, expected in zip(("mu", "tau"), exact_moments(), strict=True):
        draws = posterior_dataset(trace)[name].values
        size = float(arviz.ess(draws, method="mean"))
        check_mean(draws.mean(), expected, draws.std() / np.sqrt(size))


def test_draws_of_warm_up_are_those_of_the_model(tmp_path: Path) -> None:
    """Though they were made with effects centred otherwise."""
    trace = ps.sample(
        schools, EFFECTS, ERRORS, num_warmup=200, num_samples=50, keep_warmup=True, method="sequential", progress=False
    )
    theta = np.asarray(as_datatree(trace)["warmup_posterior"]["theta"])
    assert theta.shape == (4, 200, 8)
    assert np.abs(theta).max() < 100
    # Standard deviations of the data are 9 to 18: effects that lie within 1 of each other are numbers of another kind.
    assert theta[:, :100].std() > 3


def test_a_run_goes_on_with_effects_as_warm_up_left_them(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"num_warmup": 100, "num_chains": 2, "method": "sequential", "progress": False}
    expected = ps.sample(schools, EFFECTS, ERRORS, num_samples=300, **settings)
    path = tmp_path / "run.zarr"
    ps.sample(schools, EFFECTS, ERRORS, num_samples=100, store=path, **settings)
    found = ps.resume(path, schools, EFFECTS, ERRORS, num_samples=300, progress=False)
    for name in ("mu", "tau", "theta"):
        np.testing.assert_array_equal(posterior_dataset(found)[name], posterior_dataset(expected)[name])


PARTS = ("z.mu", "z.tau", "z.theta")


def test_numpyros_interface_shows_the_coordinates_of_the_model_as_it_is_written() -> None:
    """Whatever was sampled; and it goes on from them after a warm-up that was asked for by itself."""
    energy = jax.vmap(lambda z: potential_energy(schools, (EFFECTS, ERRORS), {}, z))
    draws = []
    for is_apart in (False, True):
        mcmc = ps.MCMC(ps.Kernel(schools), num_warmup=200, num_samples=100, num_chains=2, progress_bar=False)
        if is_apart:
            mcmc.warmup(jax.random.key(0), EFFECTS, ERRORS)
            state = mcmc.post_warmup_state
            assert state.adapt_state.centred["theta"].mean() < 0.5
            np.testing.assert_allclose(state.potential_energy, energy(state.z), rtol=1e-4)
        mcmc.run(jax.random.key(0), EFFECTS, ERRORS, extra_fields=("potential_energy", *PARTS))
        found, fields = mcmc.get_samples(group_by_chain=True), mcmc.get_extra_fields(group_by_chain=True)
        np.testing.assert_allclose(fields["z.theta"], found["theta"], rtol=1e-5)
        free = {name.removeprefix("z."): fields[name] for name in PARTS}
        np.testing.assert_allclose(fields["potential_energy"], jax.vmap(energy)(free), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(mcmc.last_state.z["theta"], found["theta"][:, -1], rtol=1e-5)
        draws.append(found["theta"])
    np.testing.assert_allclose(draws[0], draws[1], rtol=1e-2, atol=1e-2)


def test_warm_up_changes_nothing_where_no_scale_is_unknown() -> None:
    model = single(lambda scale: dist.Normal(scale, 2.0))
    keys = jax.random.split(jax.random.key(0), 2)
    target = NumPyroModel(model)
    found = adapt(target, HMC, starts(target, keys), keys, 40)
    assert found.density.target is target
    assert not centring_words(found.density.target)
    assert ravel_pytree(target.position_template())[0].size == 2
