"""Hierarchical models, centred and not."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer.reparam import LocScaleReparam

from benchmarks.ordinary.problem import Problem

SCHOOLS = (np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18]))


def eight_schools_centred() -> Problem:
    """Eight schools as first written: a funnel."""

    def model(effect: Any, error: Any) -> None:
        mu = numpyro.sample("mu", dist.Normal(0, 5))
        tau = numpyro.sample("tau", dist.HalfCauchy(5))
        with numpyro.plate("schools", 8):
            theta = numpyro.sample("theta", dist.Normal(mu, tau))
            numpyro.sample("effect", dist.Normal(theta, error), obs=effect)

    return model, SCHOOLS, {}


def eight_schools() -> Problem:
    """Eight schools, not centred."""

    def model(effect: Any, error: Any) -> None:
        mu = numpyro.sample("mu", dist.Normal(0, 5))
        tau = numpyro.sample("tau", dist.HalfCauchy(5))
        with (
            numpyro.plate("schools", 8),
            numpyro.handlers.reparam(config={"theta": LocScaleReparam(0)}),
        ):
            theta = numpyro.sample("theta", dist.Normal(mu, tau))
            numpyro.sample("effect", dist.Normal(theta, error), obs=effect)

    return model, SCHOOLS, {}


def radon_centred() -> Problem:
    """Log radon in 40 counties of 2 to 15 houses, intercepts centred."""
    rng = np.random.default_rng(30)
    county = np.repeat(np.arange(40), rng.integers(2, 16, 40))
    floor = rng.random(county.size) < 0.2
    radon = rng.normal(rng.normal(1.5, 0.35, 40)[county] - 0.7 * floor, 0.75)

    def model(county: Any, floor: Any, radon: Any) -> None:
        mu = numpyro.sample("mu", dist.Normal(0, 10))
        tau = numpyro.sample("tau", dist.HalfNormal(2))
        with numpyro.plate("counties", 40):
            alpha = numpyro.sample("alpha", dist.Normal(mu, tau))
        beta = numpyro.sample("beta", dist.Normal(0, 10))
        sigma = numpyro.sample("sigma", dist.HalfNormal(5))
        numpyro.sample("radon", dist.Normal(alpha[county] + beta * floor, sigma), obs=radon)

    return model, (county, floor, radon), {}


def rats_raw() -> Problem:
    """Weights of 30 rats in grams at 8 to 36 days, intercept and slope of each, days not centred."""
    rng = np.random.default_rng(31)
    day = np.array([8.0, 15, 22, 29, 36])
    intercept, slope = rng.normal(106, 11, 30), rng.normal(6.2, 0.5, 30)
    weight = rng.normal(intercept[:, None] + slope[:, None] * day, 6)

    def model(day: Any, weight: Any) -> None:
        mu_a, mu_b = (numpyro.sample(name, dist.Normal(0, 100)) for name in ("mu_a", "mu_b"))
        tau_a, tau_b = (numpyro.sample(name, dist.HalfCauchy(10)) for name in ("tau_a", "tau_b"))
        sigma = numpyro.sample("sigma", dist.HalfCauchy(10))
        with numpyro.plate("rats", 30):
            a = numpyro.sample("a", dist.Normal(mu_a, tau_a))
            b = numpyro.sample("b", dist.Normal(mu_b, tau_b))
        numpyro.sample("weight", dist.Normal(a[:, None] + b[:, None] * day, sigma), obs=weight)

    return model, (day, weight), {}


def _cafes() -> tuple[Any, ...]:
    rng = np.random.default_rng(32)
    cafe, afternoon = np.repeat(np.arange(20), 10), np.tile([0, 1], 100)
    effects = rng.multivariate_normal([3.5, -1], [[1, -0.35], [-0.35, 0.25]], 20)
    wait = rng.normal(effects[cafe, 0] + effects[cafe, 1] * afternoon, 0.5)
    return cafe, afternoon, wait


def lkj_slopes_centred() -> Problem:
    """Waiting in 20 cafes, mornings and afternoons: intercepts and slopes that correlate, centred."""

    def model(cafe: Any, afternoon: Any, wait: Any) -> None:
        mean = numpyro.sample("mean", dist.Normal(jnp.array([5.0, -1.0]), jnp.array([2.0, 0.5])).to_event(1))
        scale = numpyro.sample("scale", dist.Exponential(1).expand([2]).to_event(1))
        correlation = numpyro.sample("correlation", dist.LKJ(2, concentration=2))
        covariance = jnp.outer(scale, scale) * correlation
        with numpyro.plate("cafes", 20):
            effect = numpyro.sample("effect", dist.MultivariateNormal(mean, covariance))
        sigma = numpyro.sample("sigma", dist.Exponential(1))
        numpyro.sample("wait", dist.Normal(effect[cafe, 0] + effect[cafe, 1] * afternoon, sigma), obs=wait)

    return model, _cafes(), {}


def lkj_slopes() -> Problem:
    """The same by a Cholesky factor and standard normals."""

    def model(cafe: Any, afternoon: Any, wait: Any) -> None:
        mean = numpyro.sample("mean", dist.Normal(jnp.array([5.0, -1.0]), jnp.array([2.0, 0.5])).to_event(1))
        scale = numpyro.sample("scale", dist.Exponential(1).expand([2]).to_event(1))
        factor = numpyro.sample("factor", dist.LKJCholesky(2, concentration=2))
        with numpyro.plate("cafes", 20):
            raw = numpyro.sample("raw", dist.Normal(0, 1).expand([2]).to_event(1))
        effect = mean + raw @ (scale[:, None] * factor).T
        sigma = numpyro.sample("sigma", dist.Exponential(1))
        numpyro.sample("wait", dist.Normal(effect[cafe, 0] + effect[cafe, 1] * afternoon, sigma), obs=wait)

    return model, _cafes(), {}


def batting() -> Problem:
    """Efron and Morris's 18 batters: beta-binomial averages with a Pareto concentration."""
    hits = np.array([18, 17, 16, 15, 14, 14, 13, 12, 11, 11, 10, 10, 10, 10, 10, 9, 8, 7])

    def model(hits: Any) -> None:
        mean = numpyro.sample("mean", dist.Uniform(0, 1))
        concentration = numpyro.sample("concentration", dist.Pareto(1, 1.5))
        with numpyro.plate("players", 18):
            average = numpyro.sample("average", dist.Beta(mean * concentration, (1 - mean) * concentration))
            numpyro.sample("hits", dist.Binomial(45, average), obs=hits)

    return model, (hits,), {}


def pumps() -> Problem:
    """Failures of ten pumps over very different hours: gamma and Poisson."""
    hours = np.array([94.3, 15.7, 62.9, 126, 5.24, 31.4, 1.05, 1.05, 2.1, 10.5])
    failures = np.array([5, 1, 5, 14, 3, 19, 1, 1, 4, 22])

    def model(hours: Any, failures: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Exponential(1))
        beta = numpyro.sample("beta", dist.Gamma(0.1, 1))
        with numpyro.plate("pumps", 10):
            rate = numpyro.sample("rate", dist.Gamma(alpha, beta))
            numpyro.sample("failures", dist.Poisson(rate * hours), obs=failures)

    return model, (hours, failures), {}


def seeds_overdispersed() -> Problem:
    """Germination on 21 plates, binomial with an effect of each plate, centred at zero."""
    germinated = np.array([10, 23, 23, 26, 17, 5, 53, 55, 32, 46, 10, 8, 10, 8, 23, 0, 3, 22, 15, 32, 3])
    total = np.array([39, 62, 81, 51, 39, 6, 74, 72, 51, 79, 13, 16, 30, 28, 45, 4, 12, 41, 30, 51, 7])
    kind = (np.arange(21) >= 11).astype(float)
    extract = np.isin(np.arange(21), [5, 6, 7, 8, 9, 10, 16, 17, 18, 19, 20]).astype(float)
    x = np.column_stack([np.ones(21), kind, extract, kind * extract])

    def model(x: Any, total: Any, germinated: Any) -> None:
        beta = numpyro.sample("beta", dist.Normal(0, 10).expand([4]).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfCauchy(1))
        with numpyro.plate("plates", 21):
            effect = numpyro.sample("effect", dist.Normal(0, sigma))
            numpyro.sample("germinated", dist.Binomial(total, logits=x @ beta + effect), obs=germinated)

    return model, (x, total, germinated), {}


def crossed_effects() -> Problem:
    """Marks of 30 students by 10 examiners, both as effects, not centred."""
    rng = np.random.default_rng(33)
    student, examiner = rng.integers(30, size=200), rng.integers(10, size=200)
    mark = rng.normal(60 + rng.normal(0, 8, 30)[student] + rng.normal(0, 4, 10)[examiner], 5)

    def model(student: Any, examiner: Any, mark: Any) -> None:
        mean = numpyro.sample("mean", dist.Normal(50, 20))
        scales = numpyro.sample("scales", dist.HalfNormal(10).expand([3]).to_event(1))
        of_student = numpyro.sample("of_student", dist.Normal(0, 1).expand([30]).to_event(1))
        of_examiner = numpyro.sample("of_examiner", dist.Normal(0, 1).expand([10]).to_event(1))
        expected = mean + scales[0] * of_student[student] + scales[1] * of_examiner[examiner]
        numpyro.sample("mark", dist.Normal(expected, scales[2]), obs=mark)

    return model, (student, examiner, mark), {}


def dirichlet_multinomial() -> Problem:
    """Shares of four answers in 15 districts, Dirichlet around a common share."""
    rng = np.random.default_rng(34)
    answers = np.stack([rng.multinomial(60, share) for share in rng.dirichlet([8, 5, 3, 1.5], 15)])

    def model(answers: Any) -> None:
        share = numpyro.sample("share", dist.Dirichlet(jnp.ones(4)))
        concentration = numpyro.sample("concentration", dist.Gamma(2, 0.1))
        with numpyro.plate("districts", 15):
            numpyro.sample("answers", dist.DirichletMultinomial(concentration * share, 60), obs=answers)

    return model, (answers,), {}


def ab_test() -> Problem:
    """Two conversion rates and their difference."""

    def model(shown: Any, bought: Any) -> None:
        rate = numpyro.sample("rate", dist.Beta(1, 1).expand([2]).to_event(1))
        numpyro.deterministic("lift", rate[1] - rate[0])
        numpyro.sample("bought", dist.Binomial(shown, rate), obs=bought)

    return model, (np.array([1200, 1180]), np.array([48, 71])), {}
