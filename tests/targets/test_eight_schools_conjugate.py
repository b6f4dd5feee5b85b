"""Eight schools with conjugate priors: the density by SciPy on students, the updates by the density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from parsample.targets import EightSchoolsConjugate
from parsample.targets.eight_schools import EFFECTS, STANDARD_ERRORS
from tests.targets.builders import log_density
from tests.tolerances import SAME_COMPUTATION

STUDENTS = 20


def random_position(rng):
    return {
        "theta": jnp.asarray(rng.normal(8, 5, 8)),
        "log_sigma": jnp.asarray(rng.normal(4, 0.5, 8)),
        "mu": jnp.asarray(rng.normal(8, 5)),
        "log_tau": jnp.asarray(rng.normal(1, 0.5)),
    }


def scaled_inverse_chi2(freedom, scale):
    return stats.invgamma(freedom / 2, scale=freedom * scale / 2)


def test_log_density_is_that_of_the_students(x64, rng):
    # Any results with these means and standard errors will do.
    results = rng.normal(size=(STUDENTS, 8))
    results = (results - results.mean(0)) / results.std(0)
    results = np.array(EFFECTS) + np.sqrt(STUDENTS) * np.array(STANDARD_ERRORS) * results
    for _ in range(3):
        position = random_position(rng)
        theta, sigma, mu, tau = (
            np.asarray(position["theta"]),
            np.exp(position["log_sigma"]),
            float(position["mu"]),
            float(np.exp(position["log_tau"])),
        )
        expected = (
            stats.norm.logpdf(results, theta, sigma).sum()
            + stats.norm.logpdf(theta, mu, tau).sum()
            + stats.norm.logpdf(mu, 0, tau / np.sqrt(0.1))
            + scaled_inverse_chi2(0.1, 100).logpdf(tau**2)
            + np.log(2 * tau**2)
            + (scaled_inverse_chi2(0.1, 10).logpdf(sigma**2) + np.log(2 * sigma**2)).sum()
        )
        SAME_COMPUTATION.check(log_density(EightSchoolsConjugate(), **position), np.float64(expected))


# The log density of what each update draws.
LAWS = {
    "log_tau": lambda x: stats.loggamma.logpdf(x, (0.1 + 9) / 2),
    "mu": stats.norm.logpdf,
    "theta": lambda x: stats.norm.logpdf(x).sum(),
    "log_sigma": lambda x: stats.loggamma.logpdf(x, (0.1 + STUDENTS) / 2).sum(),
}


@pytest.mark.usefixtures("x64")
def test_each_update_is_the_conditional_distribution(rng):
    """Where x = update(n), log p(x | rest) = log q(n) - log |dx/dn|, up to what does not depend on n."""
    target = EightSchoolsConjugate()
    position = random_position(rng)
    logdensity = jax.jit(lambda position: target.logdensity(position))
    for block, update, draw in target.conditional_updates:
        inputs = draw(jax.random.key(0), 6, jnp.dtype("float64"))
        constants = []
        for input in inputs:
            value = update(position, input)
            jacobian = np.atleast_2d(jax.jacfwd(lambda n, update=update: update(position, n))(input))
            change = np.linalg.slogdet(jacobian)[1]
            constants.append(float(logdensity({**position, block: value})) + change - LAWS[block](np.asarray(input)))
        assert np.std([LAWS[block](np.asarray(input)) for input in inputs]) > 0.1
        np.testing.assert_allclose(constants, constants[0], rtol=1e-12, atol=1e-9, err_msg=block)


@pytest.mark.usefixtures("x64")
def test_what_each_update_draws_has_the_law_it_needs():
    for block, _, draw in EightSchoolsConjugate().conditional_updates:
        drawn = np.asarray(draw(jax.random.key(1), 4000, jnp.dtype("float64"))).reshape(4000, -1)
        law = {
            "log_tau": stats.loggamma((0.1 + 9) / 2),
            "log_sigma": stats.loggamma((0.1 + STUDENTS) / 2),
        }.get(block, stats.norm)
        for column in drawn.T:
            assert stats.kstest(column, law.cdf).pvalue > 1e-3, block


def test_starts_are_near_the_data(rng_key):
    target = EightSchoolsConjugate()
    start = target.initial_position(rng_key)
    assert np.all(np.abs(start["theta"] - target.effects) <= 2 * target.standard_errors)
    assert np.isfinite(target.logdensity(start))


def test_there_must_be_a_student():
    with pytest.raises(ValueError, match="students holds 0, expected numbers above 0"):
        EightSchoolsConjugate(students=0)
