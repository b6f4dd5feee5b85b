"""Models larger than those of benchmarks/ordinary, written as their users would, with simulated data."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from benchmarks.ordinary.problem import Problem

SCHOOLS, ROWS, EMBEDDING, SENSORS = 500, 1024, 768, 9_998


def hierarchical_500() -> Problem:
    """Marks in 500 schools of 5 to 40 pupils, an intercept and the effect of a covariate for each; 1,005 numbers."""
    rng = np.random.default_rng(100)
    school = np.repeat(np.arange(SCHOOLS), rng.integers(5, 41, SCHOOLS))
    x = rng.normal(size=len(school))
    effects = rng.normal([2.0, 0.5], [1.0, 0.3], (SCHOOLS, 2))
    marks = rng.normal(effects[school, 0] + effects[school, 1] * x, 1.5)

    def model(school: Any, x: Any, marks: Any) -> None:
        mean = numpyro.sample("mean", dist.Normal(0, 5).expand([2]).to_event(1))
        scale = numpyro.sample("scale", dist.HalfNormal(2).expand([2]).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(3))
        with numpyro.plate("schools", SCHOOLS):
            effect = numpyro.sample("effect", dist.Normal(mean, scale).to_event(1))
        numpyro.sample("marks", dist.Normal(effect[school, 0] + effect[school, 1] * x, sigma), obs=marks)

    return model, (school, x, marks), {}


def embeddings() -> Problem:
    """A logistic regression on 1,024 rows of 768 numbers, whose singular values fall as those of embeddings do."""
    rng = np.random.default_rng(101)
    left = np.linalg.qr(rng.standard_normal((ROWS, EMBEDDING)))[0]
    right = np.linalg.qr(rng.standard_normal((EMBEDDING, EMBEDDING)))[0]
    spectrum = 1 / np.sqrt(1 + np.arange(EMBEDDING))
    # Rows have a mean square length of 1.
    x = (left * (spectrum * np.sqrt(ROWS / np.sum(spectrum**2)))) @ right.T
    y = (rng.random(ROWS) < 1 / (1 + np.exp(-(x @ rng.standard_normal(EMBEDDING))))).astype(np.int32)

    def model(x: Any, y: Any) -> None:
        coefficients = numpyro.sample("coefficients", dist.Normal(0, 1).expand([EMBEDDING]).to_event(1))
        numpyro.sample("y", dist.Bernoulli(logits=x @ coefficients), obs=y)

    return model, (x.astype(np.float32), y), {}


def ten_thousand() -> Problem:
    """Counts of 9,998 sensors whose log rates scatter around a common one; 10,000 numbers."""
    rng = np.random.default_rng(102)
    counts = rng.poisson(np.exp(rng.normal(1.0, 0.5, SENSORS)))

    def model(counts: Any) -> None:
        mean = numpyro.sample("mean", dist.Normal(0, 2))
        scale = numpyro.sample("scale", dist.HalfNormal(1))
        with numpyro.plate("sensors", SENSORS):
            z = numpyro.sample("z", dist.Normal(0, 1))
            numpyro.sample("counts", dist.Poisson(jnp.exp(mean + scale * z)), obs=counts)

    return model, (counts,), {}
