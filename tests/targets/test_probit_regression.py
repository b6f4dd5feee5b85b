"""Probit regression: its density by SciPy, its Gibbs sampler against quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from parsample.samplers import Gibbs
from parsample.targets import ProbitRegression
from tests.samplers.moments import check_moments
from tests.targets.builders import log_density, quadrature
from tests.tolerances import SAME_COMPUTATION

# Few rows and some with a large feature, so that the posterior is skewed and latent means lie far in the tails.
FEATURES = np.array([0.5, -1.0, 2.0, 8.0, 0.3, -0.7, 1.5, -6.0])[:, None]
LABELS = np.array([1, 0, 1, 1, 0, 0, 1, 1])
SCALE = 2.0


def test_log_density_is_scipys(x64, rng):
    target = ProbitRegression(FEATURES, LABELS, prior_scale=SCALE)
    for _ in range(3):
        b = rng.normal(size=2)
        margins = (2 * LABELS - 1) * (b[0] + FEATURES[:, 0] * b[1])
        expected = norm.logcdf(margins).sum() + norm.logpdf(b, scale=SCALE).sum()
        SAME_COMPUTATION.check(log_density(target, coefficients=b), np.float64(expected))


def test_log_density_far_in_the_tail_stays_finite():
    target = ProbitRegression(FEATURES, LABELS)
    value, gradient = jax.value_and_grad(target.logdensity)({"coefficients": jnp.asarray([-300.0, 40.0])})
    assert np.isfinite(value)
    assert np.isfinite(gradient["coefficients"]).all()


def test_data_augmentation_has_the_moments_of_quadrature():
    target = ProbitRegression(FEATURES, LABELS, prior_scale=SCALE)
    axes = np.linspace(-8, 8, 241), np.linspace(-4, 5, 241)
    _, mean, sd = quadrature(lambda b: target.logdensity({"coefficients": b.astype(jnp.float32)}), *axes)
    gibbs = Gibbs(target.logdensity, updates=target.conditional_updates)

    @jax.jit
    @jax.vmap
    def chain(rng_key):
        start = target.initial_position(rng_key)
        inputs = gibbs.draw_inputs(rng_key, 6000, start)
        _, states = jax.lax.scan(lambda state, input: (gibbs.transition(state, input),) * 2, start, inputs)
        return states["coefficients"]

    draws = np.asarray(chain(jax.random.split(jax.random.key(0), 8)), np.float64)[:, 600:]
    check_moments(
        {f"b{i}": (draws[..., i], mean[i]) for i in (0, 1)}
        | {f"variance of b{i}": ((draws[..., i] - mean[i]) ** 2, sd[i] ** 2) for i in (0, 1)}
    )


def test_features_without_labels_are_refused():
    with pytest.raises(ValueError, match="labels is None, expected features and labels together"):
        ProbitRegression(FEATURES)
