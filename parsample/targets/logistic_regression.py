"""Bayesian logistic regression."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision
from jaxtyping import Array, Float, Int

from parsample.engine.arrays import to_jax
from parsample.targets import checks
from parsample.targets.base import Position, Target, check_basis
from parsample.targets.logistic_likelihood import curvature, sum_log_sigmoid


class AbstractBinaryRegression(Target):
    """What regressions of a yes or no share: data with the label in the sign, and independent normal priors.

    The variable of the trace is `coefficients`; b_j ~ N(0, s^2), that of the intercept included.

    Attributes:
        signed_features: shape (dim, rows): column i is x_i where the label is 1, and -x_i where it is 0. Dimensions
            come first so that in a batch each position's margins lie in one piece: with rows first, a naive
            implementation takes half as long again.
        prior_scale: s, above 0. In the units of the coefficients.
        feature_names: one for each of the coefficients.
    """

    signed_features: eqx.AbstractVar[Float[Array, "dim rows"]]
    prior_scale: eqx.AbstractVar[Float[Array, ""]]
    feature_names: eqx.AbstractVar[tuple[str, ...]]

    def log_prior(self, coefficients: Float[Array, "dim"]) -> Float[Array, ""]:
        """Return the log density of the prior."""
        scale = self.prior_scale.astype(coefficients.dtype)
        white = coefficients / scale
        return -0.5 * (white @ white) - white.size * (jnp.log(scale) + 0.5 * math.log(2 * math.pi))

    def margins(self, coefficients: Float[Array, "dim"]) -> Float[Array, "rows"]:
        """Return x^T b where the label is 1, and -x^T b where it is 0."""
        features = self.signed_features.astype(coefficients.dtype)
        return jnp.matmul(coefficients, features, precision=Precision.HIGHEST)

    def position_template(self) -> Position:
        """Return zeros: coefficients, shape (dim,)."""
        return {"coefficients": jnp.zeros_like(self.signed_features[:, 0])}

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Name the one dimension."""
        return {"coefficients": ("feature",)}

    @property
    def coords(self) -> dict[str, Sequence]:
        """Label the coefficients with the features they multiply."""
        return {"feature": list(self.feature_names)}


class AbstractLogistic(AbstractBinaryRegression):
    """Log density of logistic regression with independent normal priors, on whatever data.

    P(label 1) = sigmoid(x^T b). The log density is the normalised joint one of coefficients and labels. Attributes are
    those of `AbstractBinaryRegression`.
    """

    def logdensity(self, position: Position) -> Float[Array, ""]:
        """Return the log density at `position["coefficients"]`, shape (dim,). Cost: O(rows dim)."""
        self.check_position(position)
        coefficients = position["coefficients"]
        return sum_log_sigmoid(self.margins(coefficients)) + self.log_prior(coefficients)

    @property
    def num_data(self) -> int:
        """The number of rows, which minibatches are drawn from."""
        return self.signed_features.shape[1]

    def minibatch(self, position: Position, indices: Int[Array, "batch"]) -> Float[Array, ""]:
        """Return an estimate of the log density from the rows with these indices, unbiased if they are drawn uniformly.

        Cost: O(batch dim).
        """
        self.check_position(position)
        coefficients = position["coefficients"]
        features = self.signed_features[:, indices].astype(coefficients.dtype)
        margins = jnp.matmul(coefficients, features, precision=Precision.HIGHEST)
        return self.num_data / indices.size * sum_log_sigmoid(margins) + self.log_prior(coefficients)

    def hessian_diagonal(self, position: Position, basis: Float[Array, "dim k"]) -> Float[Array, "k"]:
        """Return the diagonal of B^T H B with H = -X^T W X - I / s^2. Cost: O(rows dim k) once a basis, O(rows k)."""
        self.check_position(position)
        coefficients = position["coefficients"]
        check_basis(basis, coefficients.size)
        weights = curvature(self.margins(coefficients))
        basis = basis.astype(coefficients.dtype)
        squares = jax.vmap(self.margins, in_axes=1)(basis) ** 2
        prior = jnp.sum((basis / self.prior_scale.astype(basis.dtype)) ** 2, axis=0)
        return -jnp.matmul(squares, weights, precision=Precision.HIGHEST) - prior


class LogisticRegression(AbstractLogistic):
    """Bayesian logistic regression on given data; on a small synthetic set by default.

    P(label 1) = sigmoid(x^T b) with b_j ~ N(0, s^2). The variable of the trace is `coefficients`, its dimension
    `feature`.

    Attributes:
        signed_features: see `AbstractLogistic`.
        prior_scale: see `AbstractLogistic`.
        feature_names: see `AbstractLogistic`.
    """

    name: ClassVar[str] = "logistic_regression"
    signed_features: Float[Array, "dim rows"]
    prior_scale: Float[Array, ""]
    feature_names: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        features: Any = None,
        labels: Any = None,
        *,
        prior_scale: Any = 1.0,
        intercept: bool = True,
        standardize: bool = False,
        feature_names: Sequence[str] | None = None,
    ) -> None:
        """Prepare the data.

        Args:
            features: shape (rows, features); a data frame's columns name the features.
            labels: shape (rows,), each 0 or 1. Features and labels come together, or neither.
            prior_scale: s, the standard deviation of every coefficient's prior.
            intercept: put a column of ones before the features.
            standardize: subtract each column's mean and divide by its standard deviation.
            feature_names: without that of the intercept.

        Raises:
            ValueError: only one of features and labels is given, their sizes differ, a value is not finite, a label is
                neither 0 nor 1, a column to standardise is constant, or the prior's scale is not above 0.
        """
        self.signed_features, self.prior_scale, self.feature_names = prepare(
            features, labels, prior_scale, intercept, standardize, feature_names
        )


def synthetic_data(rows: int = 200, size: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return standard normal features, shape (rows, size), and labels drawn from the model; always the same."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((rows, size))
    logits = features @ rng.standard_normal(size) - 0.5
    return features, (rng.random(rows) < 1 / (1 + np.exp(-logits))).astype(np.int64)


def prepare(
    features: Any, labels: Any, prior_scale: Any, intercept: bool, standardize: bool, feature_names: Any
) -> tuple[Array, Array, tuple[str, ...]]:
    """Return the three fields of a logistic target, with the arguments of `LogisticRegression`.

    Raises:
        ValueError: see `LogisticRegression`.
    """
    if (features is None) != (labels is None):
        missing = "labels" if labels is None else "features"
        raise ValueError(f"{missing} is None, expected features and labels together, or neither for synthetic data.")
    if features is None:
        features, labels = synthetic_data()
    if feature_names is None:
        feature_names = getattr(features, "columns", None)
    dtype = checks.float_dtype(features)
    matrix = checks.real_array("features", features, ("rows", "features"))
    if feature_names is None:
        feature_names = [f"feature_{j + 1}" for j in range(matrix.shape[1])]
    names = checks.labels("feature_names", feature_names, matrix.shape[1])
    signs = _signs(labels, len(matrix))
    if standardize:
        matrix = _standardized(matrix, names)
    if intercept:
        matrix = np.concatenate([np.ones((len(matrix), 1)), matrix], axis=1)
        names = checks.labels("feature_names with the intercept", ("intercept", *names), matrix.shape[1])
    signed = np.ascontiguousarray((signs[:, None] * matrix).T)
    return to_jax(signed, dtype), to_jax(checks.positive("prior_scale", prior_scale), dtype), names


def _signs(labels: Any, rows: int) -> np.ndarray:
    """Return 1 where a label is 1, and -1 where it is 0."""
    values = checks.real_array("labels", labels, ("rows",))
    checks.same_size("labels", values, "features", rows)
    wrong = np.flatnonzero((values != 0) & (values != 1))
    if wrong.size:
        raise ValueError(f"labels[{wrong[0]}] is {values[wrong[0]]:g}, expected 0 or 1 in every row.")
    return 2 * values - 1


def _standardized(matrix: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return the columns with mean 0 and standard deviation 1."""
    spread = matrix.std(axis=0)
    constant = np.flatnonzero(spread <= 1e-12 * np.abs(matrix).max(axis=0))
    if constant.size:
        raise ValueError(
            f"features has the same value in every row of column {constant[0]} ({names[constant[0]]!r}), which cannot "
            "be standardised; remove it."
        )
    return (matrix - matrix.mean(axis=0)) / spread
