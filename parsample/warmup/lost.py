"""Which chains of warm-up are in a place with next to nothing of the posterior."""

import numpy as np
from jaxtyping import Bool, Float

# A chain whose steps are far smaller is lost if its log density, too, is lower than that of most by so much, and by 1
# for each dimension: its place is both narrower and lower, and the posterior has next to nothing of it. Any chain is,
# if so much is not made up for by how much wider its place is than another's.
LOST = 10.0
# How wide a chain's place is, is not known from this many steps and three for each dimension.
FEW = 20


def outweighed(
    draws: Float[np.ndarray, "chain steps dim"], means: Float[np.ndarray, " chain"], far: float
) -> Bool[np.ndarray, " chain"]:
    """Say which chains are in a place that is next to nothing of the posterior, beside that of another chain.

    Its log density is lower by `far`, and so is the logarithm of what it would hold as a normal distribution: a place
    that is lower can be as much wider. Nothing is said where there are too few steps for a covariance.

    Args:
        draws: of one segment.
        means: of the log density, of each chain.
        far: natural logarithm.
    """
    steps, dim = draws.shape[1:]
    if steps < 3 * dim + FEW:
        return np.zeros(len(draws), bool)
    with np.errstate(invalid="ignore"):
        covariances = np.stack([np.atleast_2d(np.cov(rows, rowvar=False)) for rows in draws.astype(float)])
        weights = means + 0.5 * np.linalg.slogdet(covariances)[1]
        return ((means[:, None] < means - far) & (weights[:, None] < weights - far)).any(1)
