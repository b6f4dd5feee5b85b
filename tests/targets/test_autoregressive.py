import pytest
from scipy import stats

from parsample.targets import Autoregressive
from tests.targets.builders import log_density, log_jacobian, random_positions, small_data
from tests.tolerances import SAME_COMPUTATION


def reference(data, alpha, beta, sigma):
    """As the Stan program has it, a loop over times and lags."""
    order, series = data["K"], data["y"]
    total = stats.norm(0, 10).logpdf([alpha, *beta]).sum() + stats.halfcauchy(scale=2.5).logpdf(sigma)
    for t in range(order, len(series)):
        mean = alpha + sum(beta[k] * series[t - 1 - k] for k in range(order))
        total += stats.norm(mean, sigma).logpdf(series[t])
    return total


@pytest.mark.parametrize("order", [1, 2, 24])
def test_log_density_is_that_of_the_model(order, x64, rng):
    data = small_data("autoregressive") | {"K": order}
    target = Autoregressive(data)
    assert target.coords == {"lag": range(1, order + 1)}
    for position in random_positions(target, rng):
        draw = target.constrain(position)
        expected = reference(data, draw["alpha"], draw["beta"], draw["sigma"]) + log_jacobian(target, position)
        SAME_COMPUTATION.check(log_density(target, **position), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"K": 25}, r"data\['y'\] has 25 entries, expected more than data\['K'\], which is 25"),
        ({"K": 0}, r"data\['K'\] is 0, expected a whole number of at least 1"),
        ({"K": 1.5}, r"data\['K'\] is 1.5, expected a whole number of at least 1"),
        ({"T": 24}, r"data\['y'\] has 25 entries, expected 24, as data\['T'\] says"),
    ],
)
def test_data_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        Autoregressive(small_data("autoregressive") | change)
