"""Regressions of every family, with covariates as they come out of a file and with standardised ones."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions.transforms import OrderedTransform
from sklearn import datasets

from benchmarks.ordinary.problem import Problem, standardised


def linear_diabetes() -> Problem:
    """Disease progression of 442 patients on ten standardised measurements, several of them nearly collinear."""
    data: Any = datasets.load_diabetes()
    return _linear(10.0, 10.0, 1.0), (standardised(data.data), standardised(data.target)), {}


def linear_diabetes_raw() -> Problem:
    """The same in years, mmHg and mg/dl, no intercept centred."""
    data: Any = datasets.load_diabetes(scaled=False)
    return _linear(500.0, 50.0, 100.0), (data.data, data.target), {}


def _linear(intercept: float, slope: float, noise: float) -> Any:
    def model(x: Any, y: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, intercept))
        beta = numpyro.sample("beta", dist.Normal(0, slope).expand([x.shape[1]]).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfCauchy(noise))
        numpyro.sample("y", dist.Normal(alpha + x @ beta, sigma), obs=y)

    return model


def linear_calendar_year() -> Problem:
    """Summer temperatures against the calendar year: intercept and slope correlate to 0.9999."""
    rng = np.random.default_rng(1)
    year = np.arange(1952.0, 2014)
    temperature = rng.normal(9.3 + 0.02 * (year - 1982), 1.1)

    def model(year: Any, temperature: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, 100))
        beta = numpyro.sample("beta", dist.Normal(0, 1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(5))
        numpyro.sample("temperature", dist.Normal(alpha + beta * year, sigma), obs=temperature)

    return model, (year, temperature), {}


def poisson_groups() -> Problem:
    """Counts on 15 covariates of scales from 0.1 to 10, with an effect for each of 20 groups."""
    rng = np.random.default_rng(2)
    scales = np.logspace(-1, 1, 15)
    x = rng.normal(size=(300, 15)) * scales
    group = rng.integers(20, size=300)
    rate = np.exp(0.5 + x @ (rng.normal(0, 0.15, 15) / scales) + rng.normal(0, 0.4, 20)[group])

    def model(x: Any, group: Any, count: Any) -> None:
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([15]).to_event(1))
        tau = numpyro.sample("tau", dist.HalfNormal(1))
        with numpyro.plate("groups", 20):
            effect = numpyro.sample("effect", dist.Normal(0, tau))
        numpyro.sample("count", dist.Poisson(jnp.exp(x @ beta + effect[group])), obs=count)

    return model, (x, group, rng.poisson(rate)), {}


def poisson_exposure() -> Problem:
    """Claims with an exposure, on age in years, income in thousands and two indicators, nothing centred."""
    rng = np.random.default_rng(3)
    age, income = rng.uniform(18, 80, 250), rng.lognormal(3.7, 0.4, 250)
    x = np.column_stack([age, income, rng.random((250, 2)) < 0.4])
    exposure = rng.uniform(0.2, 3, 250)
    claims = rng.poisson(exposure * np.exp(x @ [-0.02, 0.01, 0.4, -0.3]))

    def model(x: Any, exposure: Any, claims: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, 5))
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([4]).to_event(1))
        numpyro.sample("claims", dist.Poisson(exposure * jnp.exp(alpha + x @ beta)), obs=claims)

    return model, (x, exposure, claims), {}


def negative_binomial() -> Problem:
    """Overdispersed counts on three standardised covariates."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(200, 3))
    mean = np.exp(1.5 + x @ [0.5, -0.3, 0.1])
    count = rng.poisson(mean * rng.gamma(2.0, 1 / 2.0, 200))

    def model(x: Any, count: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, 2))
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([3]).to_event(1))
        concentration = numpyro.sample("concentration", dist.Exponential(1))
        numpyro.sample("count", dist.NegativeBinomial2(jnp.exp(alpha + x @ beta), concentration), obs=count)

    return model, (x, count), {}


def zero_inflated_poisson() -> Problem:
    """Fish caught by parties of campers, many of whom did not fish."""
    rng = np.random.default_rng(5)
    x = np.column_stack([rng.integers(1, 5, 250), rng.integers(0, 4, 250)]).astype(float)
    fish = rng.poisson(np.exp(-0.6 + x @ [0.7, -0.8])) * (rng.random(250) < 0.65)

    def model(x: Any, fish: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, 2))
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([2]).to_event(1))
        gate = numpyro.sample("gate", dist.Beta(1, 1))
        numpyro.sample("fish", dist.ZeroInflatedPoisson(gate, jnp.exp(alpha + x @ beta)), obs=fish)

    return model, (x, fish), {}


def gamma_costs() -> Problem:
    """Costs, gamma with a log link, on weight in kilograms, height in metres and age in years."""
    rng = np.random.default_rng(6)
    x = np.column_stack([rng.normal(75, 12, 200), rng.normal(1.7, 0.1, 200), rng.uniform(20, 80, 200)])
    mean = np.exp(2 + x @ [0.02, 0.5, 0.01])
    cost = rng.gamma(3.0, mean / 3.0)

    def model(x: Any, cost: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, 5))
        beta = numpyro.sample("beta", dist.Normal(0, 2).expand([3]).to_event(1))
        shape = numpyro.sample("shape", dist.Gamma(2, 0.5))
        numpyro.sample("cost", dist.Gamma(shape, shape / jnp.exp(alpha + x @ beta)), obs=cost)

    return model, (x, cost), {}


def beta_proportions() -> Problem:
    """Proportions, beta by mean and precision, on temperature in hundreds of degrees and a batch indicator."""
    rng = np.random.default_rng(7)
    temperature = rng.uniform(2.0, 4.6, 100)
    batch = rng.random(100) < 0.5
    mean = 1 / (1 + np.exp(5.5 - 1.1 * temperature - 0.6 * batch))
    share = np.clip(rng.beta(mean * 80, (1 - mean) * 80), 1e-4, 1 - 1e-4)

    def model(temperature: Any, batch: Any, share: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, 3))
        slope = numpyro.sample("slope", dist.Normal(0, 1))
        shift = numpyro.sample("shift", dist.Normal(0, 1))
        precision = numpyro.sample("precision", dist.HalfCauchy(50))
        mean = 1 / (1 + jnp.exp(-(alpha + slope * temperature + shift * batch)))
        numpyro.sample("share", dist.BetaProportion(mean, precision), obs=share)

    return model, (temperature, batch, share), {}


def logistic_breast_cancer() -> Problem:
    """569 tumours on all 30 standardised measurements, nearly separable and nearly collinear."""
    data: Any = datasets.load_breast_cancer()

    def model(x: Any, y: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, 2))
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([30]).to_event(1))
        numpyro.sample("y", dist.Bernoulli(logits=alpha + x @ beta), obs=y)

    return model, (standardised(data.data), data.target), {}


def logistic_breast_cancer_raw() -> Problem:
    """Four measurements as they are: radius about 14, texture 19, smoothness 0.1, symmetry 0.18."""
    data: Any = datasets.load_breast_cancer()

    def model(x: Any, y: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, 20))
        beta = numpyro.sample("beta", dist.Normal(0, 20).expand([4]).to_event(1))
        numpyro.sample("y", dist.Bernoulli(logits=alpha + x @ beta), obs=y)

    return model, (data.data[:, [0, 1, 4, 8]], data.target), {}


def binomial_beetles() -> Problem:
    """Bliss's beetles: deaths against log dose, not centred."""
    dose = np.array([1.6907, 1.7242, 1.7552, 1.7842, 1.8113, 1.8369, 1.8610, 1.8839])
    exposed, dead = np.array([59, 60, 62, 56, 63, 59, 62, 60]), np.array([6, 13, 18, 28, 52, 53, 61, 60])

    def model(dose: Any, exposed: Any, dead: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, 100))
        beta = numpyro.sample("beta", dist.Normal(0, 100))
        numpyro.sample("dead", dist.Binomial(exposed, logits=alpha + beta * dose), obs=dead)

    return model, (dose, exposed, dead), {}


def probit() -> Problem:
    """A binary outcome through the normal distribution function."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(200, 4))
    y = (x @ [0.8, -0.5, 0.0, 0.3] + 0.2 + rng.normal(size=200)) > 0

    def model(x: Any, y: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, 2))
        beta = numpyro.sample("beta", dist.Normal(0, 2).expand([4]).to_event(1))
        numpyro.sample("y", dist.Bernoulli(probs=dist.Normal(0, 1).cdf(alpha + x @ beta)), obs=y)

    return model, (x, y.astype(int)), {}


def ordinal() -> Problem:
    """A rating from 1 to 5 with ordered cut points."""
    rng = np.random.default_rng(9)
    x = rng.normal(size=(300, 3))
    rating = np.searchsorted([-2, -0.5, 0.5, 2], x @ [1.0, -0.6, 0.2] + rng.logistic(size=300))

    def model(x: Any, rating: Any) -> None:
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([3]).to_event(1))
        normals = dist.Normal(0, 3).expand([4]).to_event(1)
        cuts = numpyro.sample("cuts", dist.TransformedDistribution(normals, OrderedTransform()))
        numpyro.sample("rating", dist.OrderedLogistic(x @ beta, cuts), obs=rating)

    return model, (x, rating), {}


def multinomial_iris() -> Problem:
    """Three species on four raw lengths in centimetres, every class with its own coefficients."""
    data: Any = datasets.load_iris()

    def model(x: Any, species: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, 5).expand([3]).to_event(1))
        beta = numpyro.sample("beta", dist.Normal(0, 2).expand([4, 3]).to_event(2))
        numpyro.sample("species", dist.Categorical(logits=alpha + x @ beta), obs=species)

    return model, (data.data, data.target), {}


def multinomial_wine() -> Problem:
    """Three cultivars on 13 standardised measurements, the first class as the reference."""
    data: Any = datasets.load_wine()

    def model(x: Any, cultivar: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, 2).expand([2]).to_event(1))
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([13, 2]).to_event(2))
        logits = jnp.concatenate([jnp.zeros((x.shape[0], 1)), alpha + x @ beta], axis=1)
        numpyro.sample("cultivar", dist.Categorical(logits=logits), obs=cultivar)

    return model, (standardised(data.data), data.target), {}


def student_t() -> Problem:
    """Robust regression: a tenth of the observations are outliers, the degrees of freedom unknown."""
    rng = np.random.default_rng(10)
    x = rng.normal(size=(150, 3))
    y = x @ [1.0, -2.0, 0.5] + 3 + rng.normal(0, 0.5, 150) + (rng.random(150) < 0.1) * rng.normal(0, 8, 150)

    def model(x: Any, y: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, 5))
        beta = numpyro.sample("beta", dist.Normal(0, 2).expand([3]).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(2))
        nu = numpyro.sample("nu", dist.Gamma(2, 0.1))
        numpyro.sample("y", dist.StudentT(nu, alpha + x @ beta, sigma), obs=y)

    return model, (x, y), {}


def lognormal_income() -> Problem:
    """Income in dollars on years of school and of experience and its square, nothing centred."""
    rng = np.random.default_rng(11)
    school, experience = rng.integers(8, 21, 300), rng.uniform(0, 40, 300)
    x = np.column_stack([school, experience, experience**2])
    income = rng.lognormal(8.5 + x @ [0.09, 0.04, -0.0006], 0.5)

    def model(x: Any, income: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(8, 5))
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([3]).to_event(1))
        sigma = numpyro.sample("sigma", dist.Exponential(1))
        numpyro.sample("income", dist.LogNormal(alpha + x @ beta, sigma), obs=income)

    return model, (x, income), {}


def median_regression() -> Problem:
    """The median by an asymmetric Laplace likelihood, which has a kink at every observation."""
    rng = np.random.default_rng(12)
    x = rng.normal(size=(150, 2))
    y = 1 + x @ [0.7, -0.4] + rng.gumbel(size=150)

    def model(x: Any, y: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, 3))
        beta = numpyro.sample("beta", dist.Normal(0, 3).expand([2]).to_event(1))
        scale = numpyro.sample("scale", dist.HalfNormal(2))
        numpyro.sample("y", dist.AsymmetricLaplaceQuantile(alpha + x @ beta, scale, 0.5), obs=y)

    return model, (x, y), {}


def heteroscedastic() -> Problem:
    """Mean and log standard deviation both linear in a covariate."""
    rng = np.random.default_rng(13)
    x = rng.uniform(0, 10, 150)
    y = rng.normal(2 + 0.7 * x, np.exp(-1 + 0.2 * x))

    def model(x: Any, y: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, 10).expand([2]).to_event(1))
        beta = numpyro.sample("beta", dist.Normal(0, 10).expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal(alpha[0] + beta[0] * x, jnp.exp(alpha[1] + beta[1] * x)), obs=y)

    return model, (x, y), {}
