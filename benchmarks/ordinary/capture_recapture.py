"""Animals seen and not seen, with what is unknown of each summed out."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from benchmarks.ordinary.problem import Problem


def cormack_jolly_seber() -> Problem:
    """Survival and recapture over seven occasions, by what is seen of each animal after its first capture."""
    rng = np.random.default_rng(100)
    first = rng.integers(0, 6, 120)
    seen = np.zeros((120, 7), int)
    for animal, start in enumerate(first):
        seen[animal, start] = alive = 1
        for occasion in range(start + 1, 7):
            alive *= rng.random() < 0.7
            seen[animal, occasion] = alive * (rng.random() < 0.6)
    last = 6 - seen[:, ::-1].argmax(axis=1)

    def model(seen: Any, first: Any, last: Any) -> None:
        survival = numpyro.sample("survival", dist.Uniform(0, 1).expand([6]).to_event(1))
        recapture = numpyro.sample("recapture", dist.Uniform(0, 1).expand([6]).to_event(1))
        never = [jnp.ones(())]  # the chance of not being seen after an occasion, the last one first
        for phi, p in zip(survival[::-1], recapture[::-1], strict=True):
            never.append(1 - phi + phi * (1 - p) * never[-1])
        occasion = jnp.arange(6)
        between = (occasion >= first[:, None]) & (occasion < last[:, None])
        of_seen = jnp.where(seen[:, 1:] == 1, jnp.log(recapture), jnp.log1p(-recapture))
        known = jnp.sum(jnp.where(between, jnp.log(survival) + of_seen, 0.0))
        numpyro.factor("likelihood", known + jnp.sum(jnp.log(jnp.stack(never[::-1]))[last]))

    return model, (seen, first, last), {}


def closed_population() -> Problem:
    """How many there are, by 100 animals that may not exist: captures over five nights, detection of each night."""
    rng = np.random.default_rng(101)
    captures = rng.random((80, 5)) < [0.2, 0.3, 0.25, 0.4, 0.3]
    seen = np.concatenate([captures[captures.any(axis=1)], np.zeros((100, 5), bool)]).astype(int)

    def model(seen: Any) -> None:
        share = numpyro.sample("share", dist.Uniform(0, 1))
        p = numpyro.sample("p", dist.Uniform(0, 1).expand([5]).to_event(1))
        real = jnp.log(share) + dist.Bernoulli(p).log_prob(seen).sum(-1)
        unreal = jnp.where(seen.any(axis=1), -jnp.inf, jnp.log1p(-share))
        numpyro.factor("likelihood", jnp.sum(jnp.logaddexp(real, unreal)))

    return model, (seen,), {}


def occupancy() -> Problem:
    """Sites that may be empty, visited four times; forest cover in percent and elevation in metres."""
    rng = np.random.default_rng(102)
    forest, elevation = rng.uniform(0, 100, 120), rng.uniform(200, 2000, 120)
    occupied = rng.random(120) < 1 / (1 + np.exp(2 - 0.04 * forest))
    visits = rng.binomial(4, 0.45 * occupied)

    def model(forest: Any, elevation: Any, visits: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, 5))
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([2]).to_event(1))
        p = numpyro.sample("p", dist.Beta(1, 1))
        logit = alpha + beta[0] * forest + beta[1] * elevation / 100
        occupied = jax.nn.log_sigmoid(logit) + dist.Binomial(4, p).log_prob(visits)
        empty = jnp.where(visits > 0, -jnp.inf, jax.nn.log_sigmoid(-logit))
        numpyro.factor("likelihood", jnp.sum(jnp.logaddexp(occupied, empty)))

    return model, (forest, elevation, visits), {}


def n_mixture() -> Problem:
    """Abundance at 40 sites by repeated counts; numbers up to 40 are summed out."""
    rng = np.random.default_rng(103)
    x = rng.normal(size=40)
    count = rng.binomial(rng.poisson(np.exp(1.5 + 0.5 * x))[:, None], 0.5, (40, 3))

    def model(x: Any, count: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, 2))
        beta = numpyro.sample("beta", dist.Normal(0, 1))
        p = numpyro.sample("p", dist.Uniform(0, 1))
        n, count = jnp.arange(41), jnp.asarray(count)[:, :, None]
        abundance = dist.Poisson(jnp.exp(alpha + beta * x)[:, None]).log_prob(n)
        detected = count <= n
        trials = jnp.where(detected, n, count)  # so that no branch has a NaN in its derivative
        log_prob = jnp.where(detected, dist.Binomial(trials, p).log_prob(count), -jnp.inf)
        numpyro.factor("likelihood", jnp.sum(jax.nn.logsumexp(abundance + log_prob.sum(1), axis=-1)))

    return model, (x, count), {}
