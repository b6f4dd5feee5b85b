"""The three tolerances of the tests, named once.

`SAME_COMPUTATION`: the same operations in another order or shape, so that only rounding may differ: a loop against
`vmap`, a structured matrix against its dense form, one scan against another.

`CONVERGED`: a parallel trajectory against the sequential one. The driver stops at a residual of `atol + rtol |x|`, and
the error of the states is a small multiple of their residual.

`STATISTICAL`: an estimate against the truth, in standard errors of the estimate: with the seeds fixed, 4 means that one
right comparison in 16,000 would fail. Check that the effective sample size is at least `MIN_EFFECTIVE_SAMPLES` first,
because a standard error estimated from fewer draws says nothing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

STATISTICAL = 4.0
MIN_EFFECTIVE_SAMPLES = 400


@dataclass(frozen=True)
class Tolerance:
    """Relative and absolute tolerances, by the precision of what is compared."""

    float32: tuple[float, float]
    float64: tuple[float, float]

    def __call__(self, dtype: Any = np.float32) -> dict[str, Any]:
        """The arguments `rtol` and `atol` of NumPy's and JAX's `allclose` for values of this dtype."""
        rtol, atol = self.float64 if np.dtype(dtype).itemsize >= np.dtype(np.float64).itemsize else self.float32
        return {"rtol": rtol, "atol": atol}

    def check(self, actual: Any, expected: Any) -> None:
        """Compare array with array; the coarser of the two dtypes decides, and integers and booleans must be equal."""
        actual, expected = np.asarray(actual), np.asarray(expected)
        assert actual.shape == expected.shape, f"shapes {actual.shape} and {expected.shape}"
        floating = [array.dtype for array in (actual, expected) if np.issubdtype(array.dtype, np.floating)]
        if not floating:
            np.testing.assert_array_equal(actual, expected)
            return
        np.testing.assert_allclose(actual, expected, **self(min(floating, key=lambda dtype: dtype.itemsize)))


SAME_COMPUTATION = Tolerance(float32=(2e-5, 2e-6), float64=(1e-11, 1e-12))
CONVERGED = Tolerance(float32=(2e-3, 2e-4), float64=(1e-6, 1e-8))


def check_mean(draws_mean: Any, expected: Any, standard_error: Any) -> None:
    """Assert that an estimated mean lies within `STATISTICAL` of its standard errors of the expected one."""
    distance = np.abs(np.asarray(draws_mean) - np.asarray(expected)) / np.asarray(standard_error)
    assert np.all(distance < STATISTICAL), f"{np.max(distance):.1f} standard errors away, {STATISTICAL} allowed"
