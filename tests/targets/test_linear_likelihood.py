import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from parsample.targets.linear_likelihood import LinearLikelihood
from tests.tolerances import SAME_COMPUTATION


def by_rows(design, observed, coefficients, log_sigma):
    return stats.norm(design @ coefficients, np.exp(log_sigma)).logpdf(observed).sum()


@pytest.mark.parametrize("rows", [40, 4, 3, 2, 1])
def test_it_is_the_sum_over_rows(rows, x64, rng):
    design, observed = rng.standard_normal((rows, 3)), rng.standard_normal(rows)
    likelihood = LinearLikelihood(design, observed, float)
    assert likelihood.triangle.shape == (min(rows, 4), 4)
    for _ in range(3):
        coefficients, log_sigma = rng.uniform(-2, 2, 3), rng.uniform(-2, 2)
        found = likelihood(jnp.asarray(coefficients), jnp.asarray(log_sigma))
        SAME_COMPUTATION.check(found, by_rows(design, observed, coefficients, log_sigma))
        spread = np.sqrt(np.mean((observed - design @ coefficients) ** 2))
        SAME_COMPUTATION.check(likelihood.log_spread(jnp.asarray(coefficients)), np.log(spread))


def test_columns_that_depend_on_each_other_do_no_harm(x64, rng):
    column, observed = rng.standard_normal((20, 1)), rng.standard_normal(20)
    design = np.hstack([column, column])
    coefficients = np.array([0.7, -0.4])
    found = LinearLikelihood(design, observed, float)(jnp.asarray(coefficients), jnp.asarray(0.3))
    SAME_COMPUTATION.check(found, by_rows(design, observed, coefficients, 0.3))


def test_single_precision_is_enough_where_products_cancel(rng):
    """As in kidiq: predictions of a hundred are differences of terms ten times as large."""
    x = 100 + 15 * rng.standard_normal(400)
    design = np.column_stack([np.ones(400), x, 10 * x + rng.standard_normal(400)])
    coefficients = np.array([3.0, -9.0, 1.0])
    observed = design @ coefficients + 0.1 * rng.standard_normal(400)
    likelihood = LinearLikelihood(design, observed, np.float32)
    found = likelihood(jnp.asarray(coefficients, np.float32), jnp.asarray(np.log(0.1), np.float32))
    np.testing.assert_allclose(found, by_rows(design, observed, coefficients, np.log(0.1)), atol=0.5)
