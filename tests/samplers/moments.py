"""Moments of draws against the truth, behind a gate on the effective sample size."""

from collections.abc import Mapping

import numpy as np

from tests.tolerances import MIN_EFFECTIVE_SAMPLES, check_mean


def check_moments(moments: Mapping[str, tuple[np.ndarray, float]]) -> None:
    """Assert that means are right.

    Args:
        moments: name -> values along the chains, shape (chain, draw), and their expectation.
    """
    import arviz

    for name, (values, expected) in moments.items():
        size = float(arviz.ess(np.asarray(values, np.float64), method="mean"))
        assert size > MIN_EFFECTIVE_SAMPLES, f"{name}: {size:.0f} effective samples, {MIN_EFFECTIVE_SAMPLES} needed"
        try:
            check_mean(values.mean(), expected, values.std() / np.sqrt(size))
        except AssertionError as error:
            raise AssertionError(f"{name} is {values.mean():.4f}, expected {expected:.4f}: {error}") from None
