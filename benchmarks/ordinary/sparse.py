"""Regressions whose coefficients are mostly zero."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from benchmarks.ordinary.problem import Problem


def _sparse() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(110)
    x = rng.normal(size=(100, 30))
    return x, rng.normal(x[:, :4] @ [2.0, -1.5, 1.0, 0.5], 1.0)


def horseshoe() -> Problem:
    """30 covariates, four of which matter; half-Cauchy scales, centred, as first published."""

    def model(x: Any, y: Any) -> None:
        tau = numpyro.sample("tau", dist.HalfCauchy(1))
        scale = numpyro.sample("scale", dist.HalfCauchy(1).expand([30]).to_event(1))
        beta = numpyro.sample("beta", dist.Normal(0, tau * scale).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(2))
        numpyro.sample("y", dist.Normal(x @ beta, sigma), obs=y)

    return model, _sparse(), {}


def horseshoe_noncentred() -> Problem:
    """The same by standard normals."""

    def model(x: Any, y: Any) -> None:
        tau = numpyro.sample("tau", dist.HalfCauchy(1))
        scale = numpyro.sample("scale", dist.HalfCauchy(1).expand([30]).to_event(1))
        raw = numpyro.sample("raw", dist.Normal(0, 1).expand([30]).to_event(1))
        beta = numpyro.deterministic("beta", raw * tau * scale)
        sigma = numpyro.sample("sigma", dist.HalfNormal(2))
        numpyro.sample("y", dist.Normal(x @ beta, sigma), obs=y)

    return model, _sparse(), {}


def regularised_horseshoe() -> Problem:
    """Piironen and Vehtari's, with a slab, for a binary outcome."""
    x, latent = _sparse()
    y = (latent > 0).astype(int)

    def model(x: Any, y: Any) -> None:
        tau = numpyro.sample("tau", dist.HalfCauchy(0.2))
        scale = numpyro.sample("scale", dist.HalfCauchy(1).expand([30]).to_event(1))
        slab = numpyro.sample("slab", dist.InverseGamma(2, 8))
        raw = numpyro.sample("raw", dist.Normal(0, 1).expand([30]).to_event(1))
        shrunk = scale * jnp.sqrt(slab / (slab + tau**2 * scale**2))
        beta = numpyro.deterministic("beta", raw * tau * shrunk)
        alpha = numpyro.sample("alpha", dist.Normal(0, 2))
        numpyro.sample("y", dist.Bernoulli(logits=alpha + x @ beta), obs=y)

    return model, (x, y), {}


def bayesian_lasso() -> Problem:
    """Double-exponential coefficients of unknown scale."""

    def model(x: Any, y: Any) -> None:
        scale = numpyro.sample("scale", dist.HalfCauchy(1))
        beta = numpyro.sample("beta", dist.Laplace(0, scale).expand([30]).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(2))
        numpyro.sample("y", dist.Normal(x @ beta, sigma), obs=y)

    return model, _sparse(), {}
