"""Mixtures and latent classes, summed over their components."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions.transforms import OrderedTransform

from benchmarks.ordinary.problem import Problem


def _ordered(scale: float, size: int) -> Any:
    return dist.TransformedDistribution(dist.Normal(0, scale).expand([size]).to_event(1), OrderedTransform())


def mixture_of_two() -> Problem:
    """Two normals with ordered means, apart from each other."""
    rng = np.random.default_rng(40)
    y = np.concatenate([rng.normal(-2, 0.8, 90), rng.normal(1.5, 1.0, 160)])

    def model(y: Any) -> None:
        weight = numpyro.sample("weight", dist.Beta(2, 2))
        mean = numpyro.sample("mean", _ordered(3.0, 2))
        sd = numpyro.sample("sd", dist.HalfNormal(2).expand([2]).to_event(1))
        mixing = dist.Categorical(jnp.array([weight, 1 - weight]))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.MixtureSameFamily(mixing, dist.Normal(mean, sd)), obs=y)

    return model, (y,), {}


def _three() -> np.ndarray:
    rng = np.random.default_rng(41)
    return np.concatenate([rng.normal(-4, 0.7, 70), rng.normal(0, 0.9, 100), rng.normal(4, 1.1, 80)])


def mixture_of_three() -> Problem:
    """Three normals with ordered means and a Dirichlet of weights."""

    def model(y: Any) -> None:
        weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(3, 2.0)))
        mean = numpyro.sample("mean", _ordered(4.0, 3))
        sd = numpyro.sample("sd", dist.LogNormal(0, 0.5).expand([3]).to_event(1))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(mean, sd)), obs=y)

    return model, (_three(),), {}


def mixture_unordered() -> Problem:
    """The same without an order: six modes that are each other's relabelling."""

    def model(y: Any) -> None:
        weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(3, 2.0)))
        mean = numpyro.sample("mean", dist.Normal(0, 5).expand([3]).to_event(1))
        sd = numpyro.sample("sd", dist.LogNormal(0, 0.5).expand([3]).to_event(1))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(mean, sd)), obs=y)

    return model, (_three(),), {}


def mixture_of_poissons() -> Problem:
    """Counts from two rates, ordered on the log scale."""
    rng = np.random.default_rng(42)
    count = np.concatenate([rng.poisson(2, 120), rng.poisson(9, 80)])

    def model(count: Any) -> None:
        weight = numpyro.sample("weight", dist.Beta(2, 2))
        log_rate = numpyro.sample("log_rate", _ordered(2.0, 2))
        mixing = dist.Categorical(jnp.array([weight, 1 - weight]))
        with numpyro.plate("rows", len(count)):
            numpyro.sample("count", dist.MixtureSameFamily(mixing, dist.Poisson(jnp.exp(log_rate))), obs=count)

    return model, (count,), {}


def outlier_mixture() -> Problem:
    """A line, with a share of the points from a broad normal instead."""
    rng = np.random.default_rng(43)
    x = rng.uniform(0, 10, 80)
    y = np.where(rng.random(80) < 0.2, rng.normal(5, 10, 80), rng.normal(1 + 1.5 * x, 0.5))

    def model(x: Any, y: Any) -> None:
        alpha = numpyro.sample("alpha", dist.Normal(0, 10))
        beta = numpyro.sample("beta", dist.Normal(0, 10))
        sigma = numpyro.sample("sigma", dist.HalfNormal(2))
        share = numpyro.sample("share", dist.Uniform(0, 0.5))
        broad = numpyro.sample("broad", dist.HalfNormal(20))
        center = numpyro.sample("center", dist.Normal(0, 10))
        line = alpha + beta * x
        means = jnp.stack([line, jnp.broadcast_to(center, line.shape)], axis=-1)
        sds = jnp.stack([sigma, sigma + broad])
        mixing = dist.Categorical(jnp.stack([1 - share, share]))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.MixtureSameFamily(mixing, dist.Normal(means, sds)), obs=y)

    return model, (x, y), {}


def latent_class() -> Problem:
    """Eight yes-or-no items in two classes, the first class the larger one by its prior."""
    rng = np.random.default_rng(44)
    rate = np.where(rng.random((200, 1)) < 0.65, [0.8] * 8, np.linspace(0.15, 0.4, 8))
    answers = (rng.random((200, 8)) < rate).astype(int)

    def model(answers: Any) -> None:
        share = numpyro.sample("share", dist.Uniform(0.5, 1))
        rate = numpyro.sample("rate", dist.Beta(1, 1).expand([2, 8]).to_event(2))
        mixing = dist.Categorical(jnp.stack([share, 1 - share]))
        with numpyro.plate("people", answers.shape[0]):
            numpyro.sample("answers", dist.MixtureSameFamily(mixing, dist.Bernoulli(rate).to_event(1)), obs=answers)

    return model, (answers,), {}
