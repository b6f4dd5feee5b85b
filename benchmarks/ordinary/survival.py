"""Times until an event, some of them censored."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from benchmarks.ordinary.problem import Problem


def _patients(seed: int, shape: float) -> tuple[np.ndarray, ...]:
    """Ages in years, treatment, months until death or the end of the study, and whether they died."""
    rng = np.random.default_rng(seed)
    age, treated = rng.uniform(30, 80, 150), rng.random(150) < 0.5
    months = 30 * np.exp(-0.02 * (age - 55) + 0.5 * treated) * rng.weibull(shape, 150)
    end = rng.uniform(10, 60, 150)
    return np.column_stack([age, treated]), np.minimum(months, end), months < end


def exponential_survival() -> Problem:
    """A constant hazard on raw age and treatment, censored."""

    def model(x: Any, months: Any, died: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, 5))
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([2]).to_event(1))
        log_hazard = alpha + x @ beta
        numpyro.factor("likelihood", jnp.sum(died * log_hazard - jnp.exp(log_hazard) * months))

    return model, _patients(80, 1.0), {}


def weibull_survival() -> Problem:
    """An accelerated failure time, Weibull, on raw age and treatment, censored."""

    def model(x: Any, months: Any, died: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, 5))
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([2]).to_event(1))
        shape = numpyro.sample("shape", dist.HalfNormal(2))
        log_ratio = shape * (jnp.log(months) - alpha - x @ beta)
        log_hazard = jnp.log(shape) + log_ratio - jnp.log(months)
        numpyro.factor("likelihood", jnp.sum(died * log_hazard - jnp.exp(log_ratio)))

    return model, _patients(81, 1.5), {}


def lognormal_survival() -> Problem:
    """Lognormal times with standardised age; censored ones by the survival function."""
    x, months, died = _patients(82, 1.3)
    x[:, 0] = (x[:, 0] - x[:, 0].mean()) / x[:, 0].std()

    def model(x: Any, months: Any, died: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(3, 2))
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([2]).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(2))
        z = (jnp.log(months) - alpha - x @ beta) / sigma
        log_density = dist.Normal(0, 1).log_prob(z) - jnp.log(sigma) - jnp.log(months)
        numpyro.factor("likelihood", jnp.sum(jnp.where(died, log_density, jax.scipy.stats.norm.logsf(z))))

    return model, (x, months, died), {}


def cox() -> Problem:
    """Cox's partial likelihood on three standardised covariates."""
    rng = np.random.default_rng(83)
    x = rng.normal(size=(120, 3))
    order = np.argsort(rng.exponential(np.exp(-(x @ [0.7, -0.4, 0.0]))))[::-1]
    died = rng.random(120) < 0.7

    def model(x: Any, died: Any) -> None:
        beta = numpyro.sample("beta", dist.Normal(0, 2).expand([3]).to_event(1))
        risk = x @ beta  # from the longest time to the shortest, so that those at risk come before
        at_risk = jax.lax.associative_scan(jnp.logaddexp, risk)
        numpyro.factor("likelihood", jnp.sum(died * (risk - at_risk)))

    return model, (x[order], died), {}


def piecewise_hazard() -> Problem:
    """Hazards of six periods with a random walk of their logarithms, and an effect of treatment, as Poisson counts."""
    rng = np.random.default_rng(84)
    exposure = rng.uniform(50, 150, (2, 6)) * np.linspace(1, 0.3, 6)
    deaths = rng.poisson(exposure * np.exp(-3 + 0.1 * np.arange(6) - 0.5 * np.array([[0], [1]])))

    def model(exposure: Any, deaths: Any) -> None:
        first = numpyro.sample("first", dist.Normal(-3, 2))
        tau = numpyro.sample("tau", dist.HalfNormal(0.5))
        steps = numpyro.sample("steps", dist.Normal(0, tau).expand([5]).to_event(1))
        effect = numpyro.sample("effect", dist.Normal(0, 1))
        log_hazard = first + jnp.concatenate([jnp.zeros(1), jnp.cumsum(steps)])
        numpyro.sample(
            "deaths", dist.Poisson(exposure * jnp.exp(log_hazard + effect * jnp.arange(2)[:, None])), obs=deaths
        )

    return model, (exposure, deaths), {}


def weibull_frailty() -> Problem:
    """Weibull times of 100 patients in 15 clinics, each clinic with a frailty, gamma of mean one."""
    rng = np.random.default_rng(85)
    clinic, treated = rng.integers(15, size=100), rng.random(100) < 0.5
    frailty = rng.gamma(3, 1 / 3, 15)
    months = (rng.exponential(size=100) / frailty[clinic] / np.exp(-0.7 * treated)) ** (1 / 1.3) * 20

    def model(clinic: Any, treated: Any, months: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(3, 2))
        beta = numpyro.sample("beta", dist.Normal(0, 1))
        shape = numpyro.sample("shape", dist.HalfNormal(2))
        precision = numpyro.sample("precision", dist.Gamma(2, 0.5))
        with numpyro.plate("clinics", 15):
            frailty = numpyro.sample("frailty", dist.Gamma(precision, precision))
        scale = jnp.exp(alpha + beta * treated) * frailty[clinic] ** (-1 / shape)
        numpyro.sample("months", dist.Weibull(scale, shape), obs=months)

    return model, (clinic, treated, months), {}
