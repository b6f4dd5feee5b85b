import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import potential_energy

from parsample.targets import EightSchools, EightSchoolsCentered
from parsample.targets.eight_schools import EFFECTS, SCHOOLS, STANDARD_ERRORS
from tests.tolerances import SAME_COMPUTATION, STATISTICAL

BOTH = pytest.mark.parametrize("row", [EightSchools, EightSchoolsCentered])


def not_centered():
    mu, tau = numpyro.sample("mu", dist.Normal(0, 5)), numpyro.sample("tau", dist.HalfCauchy(5))
    theta_trans = numpyro.sample("theta_trans", dist.Normal(0, 1).expand([8]))
    numpyro.sample("y", dist.Normal(mu + tau * theta_trans, np.array(STANDARD_ERRORS)), obs=np.array(EFFECTS))


def centered():
    mu, tau = numpyro.sample("mu", dist.Normal(0, 5)), numpyro.sample("tau", dist.HalfCauchy(5))
    theta = numpyro.sample("theta", dist.Normal(mu, tau).expand([8]))
    numpyro.sample("y", dist.Normal(theta, np.array(STANDARD_ERRORS)), obs=np.array(EFFECTS))


@pytest.mark.parametrize(("row", "model"), [(EightSchools, not_centered), (EightSchoolsCentered, centered)])
def test_log_density_is_that_of_the_numpyro_model(row, model, x64, rng):
    target = row()
    zeros = target.position_template()

    @jax.jit
    def both(position):
        unconstrained = {("tau" if name == "log_tau" else name): value for name, value in position.items()}
        return target.logdensity(position), -potential_energy(model, (), {}, unconstrained)

    for _ in range(3):
        SAME_COMPUTATION.check(*both({name: rng.uniform(-2, 2, zero.shape) for name, zero in zeros.items()}))


def exact_means(target) -> dict[str, np.ndarray]:
    """Posterior means by quadrature over mu and log tau; given those, the density of the effects is normal."""
    zeros = target.position_template()
    effects = next(name for name, value in zeros.items() if value.shape)

    def integrate_effects_out(mu, log_tau):
        def density(values):
            return target.logdensity({"mu": mu, "log_tau": log_tau, effects: values})

        origin = zeros[effects]
        variances = -1 / jnp.diagonal(jax.hessian(density)(origin))
        mode = origin + variances * jax.grad(density)(origin)
        draw = target.constrain({"mu": mu, "log_tau": log_tau, effects: mode})
        return density(mode) + 0.5 * jnp.sum(jnp.log(variances)), {k: draw[k] for k in ("mu", "tau", "theta")}

    grid = jnp.meshgrid(jnp.linspace(-25, 30, 201), jnp.linspace(-9, 6, 301), indexing="ij")
    log_mass, draws = jax.jit(jax.vmap(integrate_effects_out))(*(axis.ravel() for axis in grid))
    weights = jax.nn.softmax(log_mass)
    return {name: np.asarray(weights @ values) for name, values in draws.items()}


@BOTH
def test_posterior_means_are_those_of_posteriordb(row, x64, shared_data):
    path = shared_data / "posteriors" / "eight_schools-eight_schools_noncentered.json"
    posterior = json.loads(path.read_text())
    assert posterior["data"] == {"J": 8, "y": list(EFFECTS), "sigma": list(STANDARD_ERRORS)}
    means = exact_means(row())
    found = {"mu": means["mu"], "tau": means["tau"]} | {f"theta[{j + 1}]": means["theta"][j] for j in range(8)}
    assert set(found) == set(posterior["reference"])
    for name, reference in posterior["reference"].items():
        distance = abs(found[name] - reference["mean"]) / reference["mcse_mean"]
        assert distance < STATISTICAL, f"{name} is {distance:.1f} standard errors away"


def test_trace_variables():
    target = EightSchools()
    position = {"mu": jnp.array(1.0), "log_tau": jnp.log(jnp.array(2.0)), "theta_trans": jnp.arange(8.0)}
    draw = target.constrain(position)
    np.testing.assert_allclose(draw["theta"], 1 + 2 * np.arange(8), rtol=1e-6)
    np.testing.assert_allclose(draw["tau"], 2, rtol=1e-6)
    assert list(draw) == ["mu", "tau", "theta", "theta_trans"]
    assert target.coords == {"school": list(SCHOOLS)}
    centered = EightSchoolsCentered()
    assert list(centered.constrain(centered.position_template())) == ["mu", "tau", "theta"]
    assert centered.coords == {"school": list(SCHOOLS)}


@BOTH
def test_prior_of_tau_is_finite_however_large_or_small(row):
    target = row()
    for log_tau in (-80.0, 80.0):
        assert np.isfinite(target.log_prior(jnp.float32(0), jnp.float32(log_tau)))


@BOTH
def test_other_data_have_numbered_schools(row):
    target = row([1.0, 2.0], [1.0, 1.0])
    assert target.coords == {"school": ["1", "2"]}
    assert row([1.0, 2.0], [1.0, 1.0], ["a", "b"]).coords == {"school": ["a", "b"]}


@BOTH
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0], [1.0]), "standard_errors has 1 entries, expected 2, as many as effects has"),
        (([1.0], [0.0]), "standard_errors holds 0, expected numbers above 0"),
        (([np.nan], [1.0]), r"effects\[0\] is nan"),
        (([1.0], [1.0], ["a", "b"]), "schools has 2 names, expected 1"),
    ],
)
def test_bad_arguments(row, arguments, message):
    with pytest.raises(ValueError, match=message):
        row(*arguments)
