"""Curves: dose and response, growth, splines, measurement error, a change point."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.interpolate import BSpline

from benchmarks.ordinary.problem import Problem


def dose_response() -> Problem:
    """The logistic curve of four parameters over doses from 0.01 to 100."""
    rng = np.random.default_rng(20)
    dose = np.repeat(np.logspace(-2, 2, 9), 4)
    response = rng.normal(5 + 90 / (1 + (dose / 1.5) ** -1.2), 6)

    def model(dose: Any, response: Any) -> None:
        bottom = numpyro.sample("bottom", dist.Normal(0, 20))
        top = numpyro.sample("top", dist.Normal(100, 50))
        log_ec50 = numpyro.sample("log_ec50", dist.Normal(0, 3))
        hill = numpyro.sample("hill", dist.LogNormal(0, 0.5))
        sigma = numpyro.sample("sigma", dist.HalfNormal(20))
        mean = bottom + (top - bottom) * jax.nn.sigmoid(hill * (jnp.log(dose) - log_ec50))
        numpyro.sample("response", dist.Normal(mean, sigma), obs=response)

    return model, (dose, response), {}


def growth_curves() -> Problem:
    """Orange trees: logistic growth in days, the asymptote of each of five trees its own."""
    rng = np.random.default_rng(21)
    day = np.array([118.0, 484, 664, 1004, 1231, 1372, 1582])
    asymptote = rng.normal(190, 30, 5)
    girth = rng.normal(asymptote[:, None] / (1 + np.exp(-(day - 720) / 350)), 8)

    def model(day: Any, girth: Any) -> None:
        mean = numpyro.sample("mean", dist.Normal(200, 50))
        spread = numpyro.sample("spread", dist.HalfNormal(50))
        midpoint = numpyro.sample("midpoint", dist.Normal(700, 200))
        scale = numpyro.sample("scale", dist.Normal(350, 100))
        sigma = numpyro.sample("sigma", dist.HalfNormal(20))
        with numpyro.plate("trees", 5):
            asymptote = numpyro.sample("asymptote", dist.Normal(mean, spread))
        curve = asymptote[:, None] * jax.nn.sigmoid((day - midpoint) / scale)
        numpyro.sample("girth", dist.Normal(curve, sigma), obs=girth)

    return model, (day, girth), {}


def spline() -> Problem:
    """A cubic spline of 15 knots' basis whose weights are a random walk of unknown step."""
    rng = np.random.default_rng(22)
    x = np.sort(rng.uniform(0, 1, 120))
    knots = np.concatenate([[0] * 3, np.linspace(0, 1, 13), [1] * 3])
    basis = BSpline.design_matrix(x, knots, 3).toarray()
    y = rng.normal(np.sin(7 * x) + x, 0.3)

    def model(basis: Any, y: Any) -> None:
        tau = numpyro.sample("tau", dist.HalfNormal(1))
        first = numpyro.sample("first", dist.Normal(0, 3))
        steps = numpyro.sample("steps", dist.Normal(0, 1).expand([basis.shape[1] - 1]).to_event(1))
        weights = first + jnp.concatenate([jnp.zeros(1), tau * jnp.cumsum(steps)])
        sigma = numpyro.sample("sigma", dist.HalfNormal(1))
        numpyro.sample("y", dist.Normal(basis @ weights, sigma), obs=y)

    return model, (basis, y), {}


def measurement_error() -> Problem:
    """A regression on a covariate that was itself measured, with a known error; 50 true values are unknown."""
    rng = np.random.default_rng(23)
    truth = rng.normal(10, 3, 50)
    measured, y = rng.normal(truth, 1.5), rng.normal(2 + 0.8 * truth, 1.0)

    def model(measured: Any, y: Any) -> None:
        mean = numpyro.sample("mean", dist.Normal(0, 20))
        spread = numpyro.sample("spread", dist.HalfNormal(5))
        alpha = numpyro.sample("alpha", dist.Normal(0, 10))
        beta = numpyro.sample("beta", dist.Normal(0, 2))
        sigma = numpyro.sample("sigma", dist.HalfNormal(3))
        with numpyro.plate("rows", 50):
            truth = numpyro.sample("truth", dist.Normal(mean, spread))
            numpyro.sample("measured", dist.Normal(truth, 1.5), obs=measured)
            numpyro.sample("y", dist.Normal(alpha + beta * truth, sigma), obs=y)

    return model, (measured, y), {}


def missing_ages() -> Problem:
    """A logistic regression where 30 of 150 ages are missing and imputed as parameters."""
    rng = np.random.default_rng(24)
    age, sex = rng.normal(30, 14, 150), rng.random(150) < 0.4
    survived = (rng.random(150) < 1 / (1 + np.exp(1 + 0.03 * (age - 30) - 2 * sex))).astype(int)
    missing = np.sort(rng.choice(150, 30, replace=False))
    known = np.where(np.isin(np.arange(150), missing), 0.0, age)

    def model(known: Any, missing: Any, sex: Any, survived: Any) -> None:
        mean = numpyro.sample("mean", dist.Normal(30, 10))
        spread = numpyro.sample("spread", dist.HalfNormal(20))
        imputed = numpyro.sample("imputed", dist.Normal(mean, spread).expand([30]).to_event(1))
        age = jnp.asarray(known).at[missing].set(imputed)
        seen = jnp.ones(150, bool).at[missing].set(False)
        numpyro.sample("age", dist.Normal(mean, spread).mask(seen), obs=known)
        alpha = numpyro.sample("alpha", dist.Normal(0, 3))
        beta = numpyro.sample("beta", dist.Normal(0, 1))
        gamma = numpyro.sample("gamma", dist.Normal(0, 3))
        numpyro.sample("survived", dist.Bernoulli(logits=alpha + beta * age + gamma * sex), obs=survived)

    return model, (known, missing, sex, survived), {}


def change_point() -> Problem:
    """Disasters a year, before and after a year that is summed out."""
    rng = np.random.default_rng(25)
    count = np.concatenate([rng.poisson(3.1, 40), rng.poisson(0.9, 70)])

    def model(count: Any) -> None:
        early = numpyro.sample("early", dist.Exponential(1))
        late = numpyro.sample("late", dist.Exponential(1))
        before = jnp.cumsum(dist.Poisson(early).log_prob(count))
        after = jnp.cumsum(dist.Poisson(late).log_prob(count)[::-1])[::-1]
        numpyro.factor("likelihood", jax.nn.logsumexp(before[:-1] + after[1:]) - jnp.log(len(count) - 1))

    return model, (count,), {}
