import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from parsample.targets import GARCH
from parsample.targets.garch import by_doubling, by_loop
from tests.targets.builders import log_density, log_jacobian, random_positions, small_data
from tests.tolerances import SAME_COMPUTATION


def reference(data, mu, alpha0, alpha1, beta1):
    """As the Stan program has it, a loop over times."""
    series, sigma = data["y"], data["sigma1"]
    total = stats.norm(mu, sigma).logpdf(series[0])
    for t in range(1, len(series)):
        sigma = np.sqrt(alpha0 + alpha1 * (series[t - 1] - mu) ** 2 + beta1 * sigma**2)
        total += stats.norm(mu, sigma).logpdf(series[t])
    return total


@pytest.mark.parametrize("length", [30, 1])
def test_log_density_is_that_of_the_model(length, x64, rng):
    data = small_data("garch")
    data |= {"y": data["y"][:length], "T": length}
    target = GARCH(data)
    for position in random_positions(target, rng):
        draw = {name: float(value) for name, value in target.constrain(position).items()}
        assert 0 < draw["alpha1"] < 1
        assert 0 < draw["beta1"] < 1 - draw["alpha1"]
        SAME_COMPUTATION.check(
            log_density(target, **position), reference(data, **draw) + log_jacobian(target, position)
        )


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33])
def test_both_recursions_are_the_textbook_one(length, x64, rng):
    """One runs on a CPU and one elsewhere: values and derivatives."""
    offsets, factor = rng.standard_normal(length), 0.9
    expected = np.zeros(length)
    for t in range(length):
        expected[t] = offsets[t] + (factor * expected[t - 1] if t else 0)
    weights = rng.standard_normal(length)

    def all_of_it(recursion):
        def total(factor, offsets):
            return jnp.sum(weights * recursion(factor, offsets) ** 2)

        hessian = jax.jacfwd(jax.grad(total, (0, 1)), (0, 1))
        return jax.jit(lambda *given: (recursion(*given), jax.grad(total, (0, 1))(*given), hessian(*given)))(
            factor, offsets
        )

    loop, doubling = all_of_it(by_loop), all_of_it(by_doubling)
    SAME_COMPUTATION.check(loop[0], expected)
    for one, other in zip(jax.tree.leaves(loop), jax.tree.leaves(doubling), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("logit", [-80.0, 80.0])
def test_it_is_finite_at_the_ends_of_the_parameters(logit):
    target = GARCH(small_data("garch"))
    for name in ("logit_alpha1", "logit_beta1"):
        position = target.position_template() | {name: jnp.float32(logit)}
        value, gradient = jax.jit(jax.value_and_grad(lambda p: target.logdensity(p)))(position)
        assert np.isfinite([value, *gradient.values()]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma1": 0}, r"data\['sigma1'\] holds 0, expected numbers above 0"),
        ({"sigma1": [1.0]}, r"data\['sigma1'\] has shape \(1,\), expected \(\)"),
        ({"T": 29}, r"data\['y'\] has 30 entries, expected 29, as data\['T'\] says"),
        ({"y": [[1.0]]}, r"data\['y'\] has shape \(1, 1\), expected \(times,\)"),
    ],
)
def test_data_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        GARCH(small_data("garch") | change)
