import jax
import numpy as np
import pytest
from scipy import stats
from scipy.integrate import solve_ivp

from parsample.targets import LotkaVolterra
from tests.targets.builders import log_density, log_jacobian, small_data

# Near what posteriordb's data say, where the populations go round once in ten units of time.
THETA, Z_INIT, SIGMA = np.array([0.55, 0.028, 0.8, 0.024]), np.array([34.0, 6.0]), np.array([0.25, 0.3])


def solved(theta, z_init, times):
    def slopes(_, z):
        return [(theta[0] - theta[1] * z[1]) * z[0], (-theta[2] + theta[3] * z[0]) * z[1]]

    solution = solve_ivp(slopes, (0, times[-1]), z_init, "DOP853", times, rtol=1e-12, atol=1e-12)
    return solution.y.T


def reference(data, theta, z_init, sigma):
    log_prior = sum(
        stats.truncnorm(-mean / sd, np.inf, mean, sd).logpdf(theta[j])
        for j, (mean, sd) in enumerate([(1, 0.5), (0.05, 0.05)] * 2)
    )
    log_prior += (
        stats.lognorm(1, scale=10).logpdf(z_init).sum() + stats.lognorm(1, scale=np.exp(-1)).logpdf(sigma).sum()
    )
    states = np.vstack([z_init, solved(theta, z_init, data["ts"])])
    observed = np.vstack([data["y_init"], data["y"]])
    return log_prior + stats.lognorm(sigma, scale=states).logpdf(observed).sum()


def position(theta=THETA, z_init=Z_INIT, sigma=SIGMA):
    return {"log_theta": np.log(theta), "log_z_init": np.log(z_init), "log_sigma": np.log(sigma)}


def test_log_density_is_that_of_the_model(x64, rng):
    data = small_data("lotka_volterra")
    target = LotkaVolterra(data, largest_step=0.01)
    for _ in range(3):
        draw = [values * np.exp(rng.uniform(-0.5, 0.5, values.shape)) for values in (THETA, Z_INIT, SIGMA)]
        expected = reference(data, *draw) + log_jacobian(target, position(*draw))
        np.testing.assert_allclose(log_density(target, **position(*draw)), expected, rtol=1e-8)


def test_the_error_of_the_solver_falls_with_the_fourth_power_of_the_step(x64):
    data = small_data("lotka_volterra") | {"ts": np.arange(1, 21), "y": np.ones((20, 2)), "N": 20}
    expected = np.log(solved(THETA, Z_INIT, data["ts"]))

    def error(largest_step):
        target = LotkaVolterra(data, largest_step)
        found = jax.jit(lambda *logs: target.log_populations(*logs))(np.log(THETA), np.log(Z_INIT))
        np.testing.assert_array_equal(found[0], np.log(Z_INIT))
        return np.abs(found[1:] - expected).max()

    errors = [error(step) for step in (0.2, 0.1, 0.05)]
    assert errors[0] < 1e-4, "the default, against a noise of 0.25"
    np.testing.assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 16, rtol=0.2)


def test_steps_end_at_the_observations_and_are_not_longer_than_asked():
    target = LotkaVolterra(small_data("lotka_volterra"), largest_step=0.4)
    assert target.num_steps == 4
    np.testing.assert_allclose(target.widths * 4, [1, 1, 1, 1.5, 0.5], rtol=1e-6)


def test_chains_start_near_what_the_increments_of_the_data_say(rng_key):
    times = np.arange(1, 101) / 10
    data = {"ts": times, "y_init": Z_INIT, "y": solved(THETA, Z_INIT, times)}
    target = LotkaVolterra(data)
    np.testing.assert_allclose(np.exp(target.log_rates), THETA, rtol=0.01)
    starts = jax.vmap(target.initial_position)(jax.random.split(rng_key, 50))
    for name, center in {"log_theta": np.log(THETA), "log_z_init": np.log(Z_INIT), "log_sigma": np.full(2, -1)}.items():
        offsets = np.asarray(starts[name]) - center
        assert np.all(np.abs(offsets) < 0.52)
        assert np.all(offsets.max(0) > 0.4)
        assert np.all(offsets.min(0) < -0.4)


def test_rates_that_the_data_contradict_start_at_their_prior_means():
    falling = {"ts": [1, 2, 3], "y_init": [8, 8], "y": [[4, 4], [2, 2], [1, 1]]}
    rates = np.exp(LotkaVolterra(falling).log_rates)
    np.testing.assert_allclose(rates[[0, 3]], [1, 0.05], rtol=1e-5)
    assert np.all(rates > 0)


def test_it_is_finite_almost_wherever_chains_may_be_sent(rng):
    target = LotkaVolterra(small_data("lotka_volterra"))
    spread = {key: rng.uniform(-2, 2, (400, *zeros.shape)) for key, zeros in target.position_template().items()}
    positions = {key: values.astype(np.float32) for key, values in spread.items()}
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(lambda p: target.logdensity(p))))(positions)
    finite = np.isfinite(values) & np.all([np.isfinite(leaf).all(1) for leaf in gradients.values()], axis=0)
    assert not np.isnan(values).any()
    assert finite.mean() > 0.99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ts": [1, 2, 3, 3, 5]}, r"data\['ts'\]\[3\] is 3, expected a later time than 3, the one before it"),
        ({"ts": [0, 1, 2, 3, 5]}, r"data\['ts'\] holds 0, expected numbers above 0"),
        ({"ts": [1, 2]}, r"data\['ts'\] has 2 entries, expected 5, as many as data\['y'\] has"),
        ({"y_init": [1.0]}, r"data\['y_init'\] has 1 entries, expected 2"),
        ({"y": [[1.0, 2.0, 3.0]] * 5}, r"data\['y'\] has 3 columns, expected 2: prey and predators"),
        ({"y": [[1.0, 0.0]] * 5}, r"data\['y'\] holds 0, expected numbers above 0"),
        ({"N": 6}, r"data\['y'\] has 5 entries, expected 6, as data\['N'\] says"),
    ],
)
def test_data_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        LotkaVolterra(small_data("lotka_volterra") | change)


def test_a_step_that_is_none():
    with pytest.raises(ValueError, match="largest_step holds 0, expected numbers above 0"):
        LotkaVolterra(small_data("lotka_volterra"), largest_step=0)
