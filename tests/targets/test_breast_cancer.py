import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler

from parsample.targets import BreastCancer
from tests.targets.builders import log_density
from tests.targets.test_logistic_regression import reference, with_ones
from tests.tolerances import SAME_COMPUTATION


def test_log_density_is_that_of_the_standardised_data(x64, rng):
    features, labels = load_breast_cancer(return_X_y=True)
    coefficients = rng.standard_normal(31)
    value = log_density(BreastCancer(prior_scale=2.0), coefficients=coefficients)
    expected = reference(with_ones(StandardScaler().fit_transform(features)), labels, coefficients, 2.0)
    SAME_COMPUTATION.check(value, expected)


def test_coefficients_have_the_names_of_the_features():
    target = BreastCancer()
    assert target.coords["feature"] == ["intercept", *load_breast_cancer().feature_names]
    assert target.signed_features.shape == (31, 569)
    assert int(np.sum(np.asarray(target.signed_features[0]) == 1)) == 357, "benign tumours have the label 1"


def test_bad_scale():
    with pytest.raises(ValueError, match="prior_scale holds -1, expected numbers above 0"):
        BreastCancer(prior_scale=-1.0)
