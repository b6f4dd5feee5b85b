import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.targets import checks


@pytest.mark.parametrize(
    ("value", "axes", "message"),
    [
        (
            [[1.0], [1.0, 2.0]],
            ("rows", "features"),
            r"data has rows of different lengths, expected .*\(rows, fea",
        ),
        (["a", "b"], ("rows",), r"data has dtype <U1, expected real numbers"),
        ([1.0, None, "b"], ("rows",), r"data holds values that are no numbers .*'b'"),
        ([1j], ("rows",), r"data has dtype complex128, expected real numbers"),
        ([[1.0]], ("rows",), r"data has shape \(1, 1\), expected \(rows,\)"),
        (3.0, ("rows", "features"), r"data has shape \(\), expected \(rows, features\)"),
        (np.zeros((0, 3)), ("rows", "features"), r"data has shape \(0, 3\), .*no axis of size 0"),
        ([[1.0, 2.0], [3.0, np.nan]], ("rows", "features"), r"data\[1, 1\] is nan, expected a finite number; remove"),
        ([0.0, -np.inf], ("rows",), r"data\[1\] is -inf, expected a finite number"),
        (np.nan, (), r"data is nan, expected a finite number"),
    ],
)
def test_real_array_says_what_is_wrong(value, axes, message):
    with pytest.raises(ValueError, match=message):
        checks.real_array("data", value, axes)


def test_real_array_takes_whole_numbers_booleans_and_numbers_as_objects():
    for value in ([1, 0], [True, False], np.array([1, 0], object), jnp.array([1.0, 0.0])):
        array = checks.real_array("data", value, ("rows",))
        np.testing.assert_array_equal(array, [1.0, 0.0])
        assert array.dtype == np.float64


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_positive_refuses_what_is_not(value):
    with pytest.raises(ValueError, match=rf"scale holds {value:g}, expected numbers above 0"):
        checks.positive("scale", [1.0, value], ("dim",))


def test_same_size():
    checks.same_size("labels", np.zeros(2), "features", 2)
    with pytest.raises(ValueError, match="labels has 2 entries, expected 3, as many as features has"):
        checks.same_size("labels", np.zeros(2), "features", 3)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((2, 3)), r"C has shape \(2, 3\), expected a square matrix"),
        ([[1.0, 0.5], [0.4, 1.0]], r"C is not symmetric: entries across the diagonal differ by 0.1"),
        ([[1.0, 2.0], [2.0, 1.0]], r"C is not positive definite: its smallest eigenvalue is -1, expected one above 0"),
        (np.ones((3, 3)), r"C is not positive definite: its smallest eigenvalue is .*e-"),
        (np.zeros((1, 1)), r"C is not positive definite: its smallest eigenvalue is 0"),
    ],
)
def test_inverse_cholesky_refuses_what_is_no_covariance(matrix, message):
    with pytest.raises(ValueError, match=message):
        checks.inverse_cholesky("C", np.asarray(matrix))


def test_inverse_cholesky_whitens(rng):
    factor = rng.standard_normal((4, 4))
    covariance = factor @ factor.T
    whitening = checks.inverse_cholesky("C", covariance)
    np.testing.assert_allclose(whitening @ covariance @ whitening.T, np.eye(4), atol=1e-10)
    np.testing.assert_array_equal(whitening, np.tril(whitening))


def test_inverse_cholesky_works_at_any_scale():
    for scale in (1e-30, 1e30):
        checks.inverse_cholesky("C", scale * np.array([[1.0, 0.95], [0.95, 1.0]]))


def test_float_dtype_follows_arrays_and_the_default_for_numbers():
    for x64 in (False, True):
        with jax.enable_x64(x64):
            default = jnp.float64 if x64 else jnp.float32
            assert checks.float_dtype(1.0, 3) == default
            assert checks.float_dtype([1, 2]) == default
            assert checks.float_dtype(np.arange(3)) == default
            assert checks.float_dtype(np.zeros(2, np.float32)) == jnp.float32
            assert checks.float_dtype(np.zeros(2, np.float32), 2.0) == jnp.float32
            assert checks.float_dtype(np.zeros(2, np.float32), np.zeros(2)) == default


def test_labels():
    assert checks.labels("names", ["a", 3], 2) == ("a", "3")
    with pytest.raises(ValueError, match="names has 1 names, expected 2"):
        checks.labels("names", ["a"], 2)
    with pytest.raises(ValueError, match="names has the name 'a' twice"):
        checks.labels("names", ["a", "b", "a"], 3)
