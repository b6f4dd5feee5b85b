"""Bayesian logistic regression on the German credit data."""

import os
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from parsample.targets.logistic_regression import AbstractLogistic, prepare

NUM_FEATURES = 24


class GermanCredit(AbstractLogistic):
    """Bayesian logistic regression on the UCI German credit file, 1,000 rows and 24 features; needs its path as `data`.

    Features are standardised and an intercept comes before them: 25 coefficients. The label is 1 for a bad credit,
    which the file writes 2, and 0 for a good one, which it writes 1. The variable of the trace is `coefficients`, its
    dimension `feature`; the file does not name its features.

    Attributes:
        signed_features: see `AbstractLogistic`.
        prior_scale: see `AbstractLogistic`.
        feature_names: see `AbstractLogistic`.

    Source: `german.data-numeric` of the UCI Machine Learning Repository's Statlog (German Credit Data).
    """

    name: ClassVar[str] = "german_credit"
    signed_features: Float[Array, "dim rows"]
    prior_scale: Float[Array, ""]
    feature_names: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, data: str | os.PathLike | None = None, prior_scale: Any = 1.0) -> None:
        """Read the file.

        Args:
            data: path of `german.data-numeric`.
            prior_scale: the standard deviation of every coefficient's prior.

        Raises:
            ValueError: no path is given, the file cannot be read, or a line of it is not 24 numbers and the label 1 or
                2; or the scale is not above 0.
        """
        if data is None:
            raise ValueError(
                "data is None, expected the path of the UCI file german.data-numeric: pass it as data=PATH, or on the "
                "command line as --data PATH."
            )
        features, labels = read_german_credit(Path(data))
        names = [f"attribute_{j + 1}" for j in range(NUM_FEATURES)]
        self.signed_features, self.prior_scale, self.feature_names = prepare(
            features, labels, prior_scale, intercept=True, standardize=True, feature_names=names
        )


def read_german_credit(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the features, shape (rows, 24), and the labels, shape (rows,): 1 for a bad credit, 0 for a good one.

    Raises:
        ValueError: the file cannot be read, has no rows, or a line of it is not 24 numbers and the label 1 or 2.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise ValueError(
            f"data is {str(path)!r}, which cannot be read ({reason}); give the path of that file."
        ) from error
    rows = [_row(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise ValueError(f"data is {str(path)!r}, which has no rows, expected 24 features and a label in each line.")
    table = np.array(rows)
    return table[:, :-1], table[:, -1] - 1


def _row(path: Path, number: int, line: str) -> list[float]:
    """Return the numbers of a line."""
    words = line.split()
    where = f"line {number} of {str(path)!r}"
    if len(words) != NUM_FEATURES + 1:
        raise ValueError(f"{where} has {len(words)} columns, expected {NUM_FEATURES} features and a label.")
    row = []
    for column, word in enumerate(words, start=1):
        try:
            row.append(float(word))
        except ValueError as error:
            raise ValueError(f"{where} has {word!r} in column {column}, expected a number.") from error
        if not np.isfinite(row[-1]):
            raise ValueError(f"{where} has {word!r} in column {column}, expected a finite number.")
    if row[-1] not in (1, 2):
        raise ValueError(f"{where} has the label {words[-1]}, expected 1 for a good credit or 2 for a bad one.")
    return row
