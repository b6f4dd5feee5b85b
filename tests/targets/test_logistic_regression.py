import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import numpyro.infer.util
import pandas as pd
import pytest

from parsample.targets import LogisticRegression
from parsample.targets.logistic_regression import synthetic_data
from tests.targets.builders import log_density
from tests.tolerances import SAME_COMPUTATION


@pytest.fixture
def data(rng):
    return rng.standard_normal((45, 3)), rng.integers(0, 2, 45)


def reference(features, labels, coefficients, scale=1.0):
    """The log density as a user would write it, in double precision."""
    features, coefficients = np.asarray(features, np.float64), np.asarray(coefficients, np.float64)
    logits = features @ coefficients
    prior = -0.5 * np.sum((coefficients / scale) ** 2) - coefficients.size * np.log(scale * np.sqrt(2 * np.pi))
    return np.sum(labels * logits - np.logaddexp(0, logits)) + prior


def with_ones(features):
    return np.column_stack([np.ones(len(features)), features])


def test_log_density_is_that_of_the_numpyro_model(data, x64, rng):
    features, labels = data
    coefficients = rng.standard_normal(4)

    def model():
        b = numpyro.sample("b", dist.Normal(0, 2.5).expand([4]))
        numpyro.sample("y", dist.Bernoulli(logits=with_ones(features) @ b), obs=labels)

    value = log_density(LogisticRegression(features, labels, prior_scale=2.5), coefficients=coefficients)
    theirs = jax.jit(lambda b: numpyro.infer.util.log_density(model, (), {}, {"b": b})[0])(coefficients)
    SAME_COMPUTATION.check(value, theirs)
    SAME_COMPUTATION.check(value, reference(with_ones(features), labels, coefficients, 2.5))


def test_value_and_gradient_in_single_precision_against_double(rng):
    features, labels = rng.standard_normal((1000, 24)), rng.integers(0, 2, 1000)
    target = LogisticRegression(features.astype(np.float32), labels)
    features = with_ones(features.astype(np.float32)).astype(np.float64)
    value_and_grad = jax.jit(jax.value_and_grad(lambda position: target.logdensity(position)))
    for spread in (0.0, 0.3, 100.0):
        coefficients = (spread * rng.standard_normal(25)).astype(np.float32)
        value, gradient = value_and_grad({"coefficients": jnp.asarray(coefficients)})
        np.testing.assert_allclose(value, reference(features, labels, coefficients), rtol=1e-6)
        logits = features @ coefficients.astype(np.float64)
        residuals = labels - np.exp(-np.logaddexp(0, -logits))
        expected = features.T @ residuals - coefficients
        assert np.abs(gradient["coefficients"] - expected).max() < 1e-5 * np.abs(expected).max()


def test_intercept_and_names(data):
    features, labels = data
    target = LogisticRegression(features, labels)
    assert target.coords == {"feature": ["intercept", "feature_1", "feature_2", "feature_3"]}
    np.testing.assert_array_equal(target.signed_features[0], 2 * labels - 1)
    bare = LogisticRegression(features, labels, intercept=False, feature_names=["a", "b", "c"])
    assert bare.coords == {"feature": ["a", "b", "c"]}
    assert bare.signed_features.shape == (3, 45)


def test_a_data_frame_names_the_features(data):
    features, labels = data
    frame = pd.DataFrame(features, columns=["age", "dose", "weight"])
    target = LogisticRegression(frame, pd.Series(labels))
    assert target.coords == {"feature": ["intercept", "age", "dose", "weight"]}


def test_standardised_columns_have_mean_0_and_standard_deviation_1(data, x64):
    features, labels = data
    target = LogisticRegression(features * [1, 10, 100] + [0, 5, -1000], labels, standardize=True)
    columns = (target.signed_features * (2 * labels - 1))[1:]
    np.testing.assert_allclose(columns.mean(axis=1), 0, atol=1e-10)
    np.testing.assert_allclose(columns.std(axis=1), 1, rtol=1e-10)


def test_labels_may_be_booleans_or_floats(data):
    features, labels = data
    targets = [LogisticRegression(features, values) for values in (labels, labels.astype(bool), labels.astype(float))]
    for target in targets[1:]:
        np.testing.assert_array_equal(target.signed_features, targets[0].signed_features)


def test_default_data_are_always_the_same():
    features, labels = synthetic_data()
    assert features.shape == (200, 3)
    assert 0.2 < labels.mean() < 0.8
    np.testing.assert_array_equal(features, synthetic_data()[0])
    expected = LogisticRegression(features, labels).signed_features
    np.testing.assert_array_equal(LogisticRegression().signed_features, expected)


def test_dtype_follows_the_features(data, x64):
    features, labels = data
    assert LogisticRegression(features, labels).signed_features.dtype == jnp.float64
    assert (
        LogisticRegression(features.astype(np.float32), labels).position_template()["coefficients"].dtype == jnp.float32
    )


FEATURES = np.arange(12.0).reshape(4, 3)
LABELS = [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((FEATURES,), {}, "labels is None, expected features and labels together, or neither"),
        ((None, LABELS), {}, "features is None, expected features and labels together"),
        ((FEATURES, [0, 1, 2, 0]), {}, r"labels\[2\] is 2, expected 0 or 1 in every row"),
        ((FEATURES, [0, 1, 0.5, 0]), {}, r"labels\[2\] is 0.5, expected 0 or 1"),
        ((FEATURES, [0, 1, np.nan, 0]), {}, r"labels\[2\] is nan"),
        ((FEATURES, ["good", "bad", "good", "bad"]), {}, "labels has dtype <U4, expected real numbers"),
        ((FEATURES, [0, 1]), {}, "labels has 2 entries, expected 4, as many as features has"),
        ((FEATURES[0], LABELS), {}, r"features has shape \(3,\), expected \(rows, features\)"),
        ((np.where(FEATURES == 5, np.nan, FEATURES), LABELS), {}, r"features\[1, 2\] is nan, expected a finite number"),
        ((FEATURES, LABELS), {"prior_scale": 0.0}, "prior_scale holds 0, expected numbers above 0"),
        ((FEATURES, LABELS), {"feature_names": ["a"]}, "feature_names has 1 names, expected 3"),
        ((FEATURES, LABELS), {"feature_names": ["a", "b", "a"]}, "feature_names has the name 'a' twice"),
        ((FEATURES, LABELS), {"feature_names": ["a", "intercept", "b"]}, "the name 'intercept' twice"),
        (
            (FEATURES * [1, 0, 1], LABELS),
            {"standardize": True, "feature_names": ["a", "b", "c"]},
            r"features has the same value in every row of column 1 \('b'\), which cannot be standardised",
        ),
    ],
)
def test_bad_arguments(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        LogisticRegression(*arguments, **options)
