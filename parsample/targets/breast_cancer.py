"""Bayesian logistic regression on scikit-learn's breast-cancer data."""

from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, Float

from parsample.targets.logistic_regression import AbstractLogistic, prepare


class BreastCancer(AbstractLogistic):
    """Bayesian logistic regression on scikit-learn's breast-cancer data, 569 rows and 30 features.

    Features are standardised and an intercept comes before them: 31 coefficients. The label is 1 for a benign tumour,
    as scikit-learn has it. The variable of the trace is `coefficients`, its dimension `feature`.

    Attributes:
        signed_features: see `AbstractLogistic`.
        prior_scale: see `AbstractLogistic`.
        feature_names: see `AbstractLogistic`.
    """

    name: ClassVar[str] = "breast_cancer"
    signed_features: Float[Array, "dim rows"]
    prior_scale: Float[Array, ""]
    feature_names: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, prior_scale: Any = 1.0) -> None:
        """Load the data from scikit-learn, which ships it.

        Args:
            prior_scale: the standard deviation of every coefficient's prior.

        Raises:
            ValueError: the scale is not above 0.
        """
        from sklearn.datasets import load_breast_cancer

        data = load_breast_cancer()
        self.signed_features, self.prior_scale, self.feature_names = prepare(
            data.data, data.target, prior_scale, intercept=True, standardize=True, feature_names=data.feature_names
        )
