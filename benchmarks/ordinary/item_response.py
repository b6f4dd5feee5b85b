"""Tests and their items, paired comparisons, factors."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from sklearn import datasets

from benchmarks.ordinary.problem import Problem


def _answers(seed: int, people: int, items: int, discriminating: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    slope = rng.lognormal(0, 0.4, items) if discriminating else np.ones(items)
    logits = slope * (rng.normal(size=(people, 1)) - rng.normal(size=items))
    return (rng.random((people, items)) < 1 / (1 + np.exp(-logits))).astype(int)


def rasch() -> Problem:
    """40 people, 10 items, one parameter an item."""

    def model(answers: Any) -> None:
        ability = numpyro.sample("ability", dist.Normal(0, 1).expand([40]).to_event(1))
        mean = numpyro.sample("mean", dist.Normal(0, 2))
        spread = numpyro.sample("spread", dist.HalfNormal(2))
        difficulty = numpyro.sample("difficulty", dist.Normal(mean, spread).expand([10]).to_event(1))
        numpyro.sample("answers", dist.Bernoulli(logits=ability[:, None] - difficulty), obs=answers)

    return model, (_answers(90, 40, 10, False),), {}


def two_parameter() -> Problem:
    """60 people, 12 items, each with its difficulty and discrimination."""

    def model(answers: Any) -> None:
        ability = numpyro.sample("ability", dist.Normal(0, 1).expand([60]).to_event(1))
        difficulty = numpyro.sample("difficulty", dist.Normal(0, 2).expand([12]).to_event(1))
        slope = numpyro.sample("slope", dist.LogNormal(0, 0.5).expand([12]).to_event(1))
        numpyro.sample("answers", dist.Bernoulli(logits=slope * (ability[:, None] - difficulty)), obs=answers)

    return model, (_answers(91, 60, 12, True),), {}


def paired_comparisons() -> Problem:
    """Bradley and Terry's model: 200 games of 12 teams, strengths of unknown spread."""
    rng = np.random.default_rng(92)
    strength = rng.normal(0, 1, 12)
    home, away = np.stack([rng.choice(12, 2, replace=False) for _ in range(200)]).T
    won = (rng.random(200) < 1 / (1 + np.exp(strength[away] - strength[home] - 0.3))).astype(int)

    def model(home: Any, away: Any, won: Any) -> None:
        advantage = numpyro.sample("advantage", dist.Normal(0, 1))
        spread = numpyro.sample("spread", dist.HalfNormal(2))
        strength = numpyro.sample("strength", dist.Normal(0, spread).expand([12]).to_event(1))
        numpyro.sample("won", dist.Bernoulli(logits=advantage + strength[home] - strength[away]), obs=won)

    return model, (home, away, won), {}


def football() -> Problem:
    """Goals of 12 teams: attack and defence of each, which nothing but their prior pins to zero."""
    rng = np.random.default_rng(93)
    attack, defence = rng.normal(0, 0.3, 12), rng.normal(0, 0.2, 12)
    home, away = np.nonzero(~np.eye(12, dtype=bool))
    goals = rng.poisson(np.exp([0.4 + attack[home] - defence[away], 0.1 + attack[away] - defence[home]]))

    def model(home: Any, away: Any, goals: Any) -> None:
        intercept = numpyro.sample("intercept", dist.Normal(0, 1))
        advantage = numpyro.sample("advantage", dist.Normal(0, 1))
        spreads = numpyro.sample("spreads", dist.HalfNormal(1).expand([2]).to_event(1))
        attack = numpyro.sample("attack", dist.Normal(0, spreads[0]).expand([12]).to_event(1))
        defence = numpyro.sample("defence", dist.Normal(0, spreads[1]).expand([12]).to_event(1))
        of_home = intercept + advantage + attack[home] - defence[away]
        of_away = intercept + attack[away] - defence[home]
        numpyro.sample("goals", dist.Poisson(jnp.exp(jnp.stack([of_home, of_away]))), obs=goals)

    return model, (home, away, goals), {}


def one_factor() -> Problem:
    """Six tests of 60 people by one factor, its loadings positive."""
    rng = np.random.default_rng(94)
    scores = rng.normal(rng.normal(size=(60, 1)) * rng.uniform(0.4, 1.2, 6), 0.6)

    def model(scores: Any) -> None:
        loading = numpyro.sample("loading", dist.HalfNormal(1).expand([6]).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(1).expand([6]).to_event(1))
        factor = numpyro.sample("factor", dist.Normal(0, 1).expand([60]).to_event(1))
        numpyro.sample("scores", dist.Normal(factor[:, None] * loading, sigma), obs=scores)

    return model, (scores,), {}


def two_factors_rotated() -> Problem:
    """Two factors with free loadings, the factors summed out: any rotation of them fits as well."""
    rng = np.random.default_rng(95)
    scores = rng.normal(rng.normal(size=(100, 2)) @ rng.normal(0, 1, (2, 6)), 0.5)

    def model(scores: Any) -> None:
        loading = numpyro.sample("loading", dist.Normal(0, 1).expand([6, 2]).to_event(2))
        sigma = numpyro.sample("sigma", dist.HalfNormal(1).expand([6]).to_event(1))
        normal = dist.LowRankMultivariateNormal(jnp.zeros(6), loading, sigma**2)
        with numpyro.plate("people", 100):
            numpyro.sample("scores", normal, obs=scores)

    return model, (scores,), {}


def lkj_iris() -> Problem:
    """Mean, scales and correlations of four raw lengths in centimetres."""
    data: Any = datasets.load_iris()

    def model(lengths: Any) -> None:
        mean = numpyro.sample("mean", dist.Normal(0, 10).expand([4]).to_event(1))
        scale = numpyro.sample("scale", dist.HalfCauchy(2).expand([4]).to_event(1))
        factor = numpyro.sample("factor", dist.LKJCholesky(4, concentration=1))
        normal = dist.MultivariateNormal(mean, scale_tril=scale[:, None] * factor)
        with numpyro.plate("flowers", lengths.shape[0]):
            numpyro.sample("lengths", normal, obs=lengths)

    return model, (data.data,), {}
