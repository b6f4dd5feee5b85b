"""Time series: autoregressions, states, volatility, regimes, seasons."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from benchmarks.ordinary.problem import Problem


def ar2() -> Problem:
    """An autoregression of order two, given the first two values."""
    rng = np.random.default_rng(50)
    y = [10.0, 10.0]
    for noise in rng.normal(size=150):
        y.append(3 + 0.5 * y[-1] + 0.2 * y[-2] + noise)

    def model(y: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, 10))
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([2]).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(3))
        numpyro.sample("y", dist.Normal(alpha + beta[0] * y[1:-1] + beta[1] * y[:-2], sigma), obs=y[2:])

    return model, (np.array(y),), {}


def arma11() -> Problem:
    """One autoregressive and one moving-average term, by a scan over the errors."""
    rng = np.random.default_rng(51)
    noise = rng.normal(0, 0.3, 121)
    y = [0.0]
    for now, before in zip(noise[1:], noise[:-1], strict=True):
        y.append(0.2 + 0.7 * y[-1] + 0.4 * before + now)

    def model(y: Any) -> None:
        mu = numpyro.sample("mu", dist.Normal(0, 10))
        phi = numpyro.sample("phi", dist.Normal(0, 2))
        theta = numpyro.sample("theta", dist.Normal(0, 2))
        sigma = numpyro.sample("sigma", dist.HalfCauchy(5))

        def step(carry: Any, now: Any) -> tuple[Any, Any]:
            before, error = carry
            mean = mu + phi * before + theta * error
            return (now, now - mean), mean

        start = (mu, jnp.zeros_like(mu))
        _, mean = jax.lax.scan(step, start, jnp.asarray(y))
        numpyro.sample("y", dist.Normal(mean, sigma), obs=y)

    return model, (np.array(y),), {}


def local_level() -> Problem:
    """A level that walks, and what is observed of it: 60 states as the steps of the walk."""
    rng = np.random.default_rng(52)
    flow = rng.normal(1100 + np.cumsum(rng.normal(0, 40, 60)), 120)

    def model(flow: Any) -> None:
        first = numpyro.sample("first", dist.Normal(1000, 500))
        walk, noise = (numpyro.sample(name, dist.HalfNormal(200)) for name in ("walk", "noise"))
        steps = numpyro.sample("steps", dist.Normal(0, 1).expand([60]).to_event(1))
        numpyro.sample("flow", dist.Normal(first + walk * jnp.cumsum(steps), noise), obs=flow)

    return model, (flow,), {}


def stochastic_volatility() -> Problem:
    """Returns of 100 days whose log volatility is a random walk, as in NumPyro's example."""
    rng = np.random.default_rng(53)
    volatility = np.exp(-4 + np.cumsum(rng.normal(0, 0.15, 100)))
    returns = volatility * rng.standard_t(8, 100)

    def model(returns: Any) -> None:
        step = numpyro.sample("step", dist.Exponential(50.0))
        s = numpyro.sample("s", dist.GaussianRandomWalk(scale=step, num_steps=len(returns)))
        nu = numpyro.sample("nu", dist.Exponential(0.1))
        numpyro.sample("returns", dist.StudentT(nu, 0.0, jnp.exp(s)), obs=returns)

    return model, (returns,), {}


def garch() -> Problem:
    """GARCH(1, 1), its variance by a scan."""
    rng = np.random.default_rng(54)
    returns, variance = [0.5], 1.0
    for noise in rng.normal(size=199):
        variance = 0.2 + 0.2 * returns[-1] ** 2 + 0.6 * variance
        returns.append(float(np.sqrt(variance) * noise))

    def model(returns: Any) -> None:
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        omega = numpyro.sample("omega", dist.HalfNormal(1))
        alpha = numpyro.sample("alpha", dist.Uniform(0, 1))
        beta = numpyro.sample("beta", dist.Uniform(0, 1 - alpha))

        def step(variance: Any, before: Any) -> tuple[Any, Any]:
            after = omega + alpha * (before - mu) ** 2 + beta * variance
            return after, after

        _, variance = jax.lax.scan(step, jnp.asarray(1.0) + 0 * omega, jnp.asarray(returns[:-1]))
        numpyro.sample("returns", dist.Normal(mu, jnp.sqrt(variance)), obs=returns[1:])

    return model, (np.array(returns),), {}


def hidden_markov() -> Problem:
    """Two regimes, summed out by the forward recursion."""
    rng = np.random.default_rng(55)
    regime = [0]
    for u in rng.random(119):
        regime.append(regime[-1] if u < 0.9 else 1 - regime[-1])
    y = rng.normal(np.array([-1.0, 2.0])[regime], 1.0)

    def model(y: Any) -> None:
        stay = numpyro.sample("stay", dist.Beta(8, 2).expand([2]).to_event(1))
        ordered = dist.transforms.OrderedTransform()
        mean = numpyro.sample("mean", dist.TransformedDistribution(dist.Normal(0, 3).expand([2]).to_event(1), ordered))
        sigma = numpyro.sample("sigma", dist.HalfNormal(2))
        log_move = jnp.log(jnp.stack([jnp.stack([stay[0], 1 - stay[0]]), jnp.stack([1 - stay[1], stay[1]])]))
        emitted = dist.Normal(mean, sigma).log_prob(jnp.asarray(y)[:, None])

        def step(log_alpha: Any, now: Any) -> tuple[Any, None]:
            return jax.nn.logsumexp(log_alpha[:, None] + log_move, axis=0) + now, None

        log_alpha, _ = jax.lax.scan(step, emitted[0] - jnp.log(2.0), emitted[1:])
        numpyro.factor("likelihood", jax.nn.logsumexp(log_alpha))

    return model, (y,), {}


def trend_and_season() -> Problem:
    """Three years of weekly sales in the hundreds: a trend in days, and three harmonics of the year."""
    rng = np.random.default_rng(56)
    day = np.arange(0.0, 3 * 365, 7)
    angles = 2 * np.pi * day[:, None] / 365.25 * np.arange(1, 4)
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    sales = rng.normal(400 + 0.15 * day + waves @ [40, 10, 5, -30, 8, 2], 25)

    def model(day: Any, waves: Any, sales: Any) -> None:
        level = numpyro.sample("level", dist.Normal(0, 1000))
        slope = numpyro.sample("slope", dist.Normal(0, 10))
        beta = numpyro.sample("beta", dist.Normal(0, 100).expand([6]).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(100))
        numpyro.sample("sales", dist.Normal(level + slope * day + waves @ beta, sigma), obs=sales)

    return model, (day, waves, sales), {}
