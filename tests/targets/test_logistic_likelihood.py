import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from parsample.targets.logistic_likelihood import GROUP, curvature, slope, sum_log_sigmoid

EXTREMES = np.array([0.0, -0.0, 1e-30, -1e-30, 20.0, -20.0, 80.0, -80.0, 1000.0, -1000.0])


def exact(margins: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log sigmoid, its slope and its curvature at each margin, in extended precision and written otherwise."""
    margins = np.asarray(margins, np.longdouble)
    complement = np.exp(-np.logaddexp(np.longdouble(0), margins))
    return -np.logaddexp(np.longdouble(0), -margins), complement, complement * np.exp(-np.logaddexp(0, -margins))


def check_value(value, margins) -> None:
    """The accuracy that the module's docstring states."""
    eps = np.finfo(np.asarray(value).dtype).eps
    expected = exact(np.asarray(margins))[0].sum()
    assert abs(np.longdouble(value) - expected) <= eps / 2 * len(margins) + 4 * eps * abs(expected)


@pytest.fixture(params=[np.float32, np.float64])
def dtype(request):
    with jax.enable_x64(request.param == np.float64):
        yield request.param


def check_slopes(actual, expected, dtype) -> None:
    info = np.finfo(dtype)
    np.testing.assert_allclose(np.asarray(actual, np.longdouble), expected, rtol=4 * info.eps, atol=info.tiny)


def test_value_slope_and_curvature_at_extremes_and_between(dtype, rng):
    def everything(margins):
        return *jax.value_and_grad(sum_log_sigmoid)(margins), slope(margins), curvature(margins)

    between = np.concatenate([3 * rng.standard_normal(500), rng.uniform(-100, 100, 250), rng.uniform(10, 20, 250)])
    for margins in (EXTREMES, between, between[:500], between[750:]):
        margins = margins.astype(dtype)
        value, gradient, first, second = jax.jit(everything)(margins)
        assert value.dtype == gradient.dtype == dtype
        check_value(value, margins)
        _, exact_slopes, exact_curvatures = exact(margins)
        check_slopes(gradient, exact_slopes, dtype)
        check_slopes(first, exact_slopes, dtype)
        check_slopes(second, exact_curvatures, dtype)


@given(size=st.integers(1, 3000), at_zero=st.booleans())
@settings(max_examples=6)
@example(size=1, at_zero=True)
@example(size=GROUP - 1, at_zero=True)
@example(size=GROUP, at_zero=True)
@example(size=GROUP**2 + GROUP + 5, at_zero=True)
def test_any_number_of_rows_neither_overflows_nor_loses_a_row(size, at_zero):
    # The largest factors are those of margins at 0; the ramp makes every row count differently.
    margins = jnp.asarray(np.zeros(size) if at_zero else np.linspace(-0.1, 0.1, size), jnp.float32)
    check_value(jax.jit(sum_log_sigmoid)(margins), margins)


def test_no_rows_have_the_sum_0():
    assert jax.jit(sum_log_sigmoid)(jnp.zeros(0)) == 0


def test_single_margins(dtype):
    values = jax.jit(jax.vmap(sum_log_sigmoid))(jnp.asarray(EXTREMES, dtype)[:, None])
    for value, margin in zip(values, EXTREMES, strict=True):
        check_value(value, np.array([margin], dtype))


def test_half_precision_does_not_overflow():
    for dtype in (jnp.float16, jnp.bfloat16):
        value = jax.jit(sum_log_sigmoid)(jnp.zeros(200, dtype))
        np.testing.assert_allclose(np.float64(value), -200 * np.log(2), rtol=0.05)


def test_infinite_and_undefined_margins_are_not_hidden():
    margins = jnp.array([[jnp.inf, 1.0], [-jnp.inf, 1.0], [jnp.nan, 1.0]])
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(sum_log_sigmoid)))(margins)
    np.testing.assert_allclose(values, [np.log(1 / (1 + np.exp(-1.0))), -np.inf, np.nan], rtol=1e-6)
    np.testing.assert_array_equal(slopes[:, 0], [0, 1, np.nan])


def derivatives(function):
    """The orders of differentiation that the engine and its users ask for, each as a function of margins."""
    one = jnp.linspace(0.5, 1.5, 7)
    return {
        "jvp": lambda m: jax.jvp(function, (m,), (one.astype(m.dtype),))[1],
        "grad": jax.grad(function),
        "grad of jvp": lambda m: jax.grad(lambda x: jax.jvp(function, (x,), (one.astype(m.dtype),))[1])(m),
        "jvp of grad": lambda m: jax.jvp(jax.grad(function), (m,), (one.astype(m.dtype),))[1],
        "hessian": jax.hessian(function),
        "jacrev of hessian": jax.jacrev(jax.hessian(function)),
    }


def test_every_derivative_is_that_of_the_naive_form(x64, rng):
    def naive(margins):
        return jnp.sum(jax.nn.log_sigmoid(margins))

    def evaluate(function, margins):
        return {kind: jax.vmap(derivative)(margins) for kind, derivative in derivatives(function).items()}

    margins = rng.uniform(-3, 3, (2, 7))
    margins[0, 0] = 0
    actual, expected = jax.jit(lambda m: (evaluate(sum_log_sigmoid, m), evaluate(naive, m)))(margins)
    for kind, values in actual.items():
        np.testing.assert_allclose(values, expected[kind], atol=1e-12, rtol=1e-12, err_msg=kind)


def test_derivatives_at_zero_are_those_of_the_sigmoid():
    # |m| has the derivative 0 there: taken through it, the curvature would be 0.
    functions = jax.grad(sum_log_sigmoid), jax.hessian(sum_log_sigmoid), jax.jacfwd(curvature)
    first, second, third = jax.jit(lambda m: [jnp.squeeze(f(m)) for f in functions])(jnp.zeros(1))
    assert first == 0.5
    assert second == -0.25
    assert third == 0


def count(text: str | None, operation: str) -> int:
    assert text
    return text.count(f" {operation}(")


def test_value_gradient_and_second_derivative_share_one_exponential():
    features = jnp.ones((3, 1000))

    def log_density(coefficients):
        return sum_log_sigmoid(coefficients @ features)

    def with_second(coefficients):
        gradient = jax.grad(log_density)
        return log_density(coefficients), jax.jvp(gradient, (coefficients,), (coefficients,))

    for function in (jax.value_and_grad(log_density), with_second):
        compiled = jax.jit(jax.vmap(function)).lower(jnp.ones((4, 3))).compile().as_text()
        assert count(compiled, "exponential") == 1
        assert count(compiled, "log-plus-one") == 0


def test_one_logarithm_for_a_group():
    equations = jax.make_jaxpr(jax.value_and_grad(sum_log_sigmoid))(jnp.ones(1000)).jaxpr.eqns
    logarithms = sum(eqn.outvars[0].aval.size for eqn in walk(equations) if eqn.primitive.name in ("log", "log1p"))
    assert 0 < logarithms <= -(-1000 // GROUP)


def walk(equations):
    for eqn in equations:
        yield eqn
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            if hasattr(inner, "eqns"):
                yield from walk(inner.eqns)
            elif hasattr(inner, "jaxpr"):
                yield from walk(inner.jaxpr.eqns)
