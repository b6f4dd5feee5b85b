"""How long trajectories should be, from how much the draws of warm-up depend on each other."""

import math

import numpy as np
from jaxtyping import Float

# Trajectories are made longer where a draw is worth fewer effective draws than this, of the worst coordinate.
ENOUGH = 0.25
# By so much at most.
LONGEST = 8
# A share of effective draws needs this many.
FEWEST = 4


def times_longer(draws: Float[np.ndarray, "chain steps dim"]) -> int:
    """Return how many times longer trajectories should be for draws that depend on each other less: a power of two.

    While a chain goes at random, effective draws grow as the square of a trajectory's length. What chains differ in
    is left out: no trajectory leads from mode to mode.

    Args:
        draws: of one segment.
    """
    from numpyro.diagnostics import effective_sample_size  # takes a quarter of a second

    if draws.shape[1] < FEWEST:
        return 1
    centred = draws - draws.mean(1, keepdims=True)
    moving = centred[..., np.ptp(centred, (0, 1)) > 0]
    if not moving.size:
        return 1
    share = np.min(effective_sample_size(moving)) / math.prod(draws.shape[:2])
    return int(min(LONGEST, 2 ** max(0, math.ceil(math.log2(ENOUGH / share) / 2)))) if share > 0 else 1
