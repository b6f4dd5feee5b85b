"""How long trajectories should be, and how many a draw, from how much the draws of warm-up depend on each other."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# Draws are set further apart where one is worth fewer effective draws than this, of the worst coordinate.
ENOUGH = 0.25
# By trajectories so many times as long at most, and by so many of them.
LONGEST = 8
MOST = 4
# The worst of more coordinates than this is worse than that of a few.
MANY = 256
# A share of effective draws needs this many.
FEWEST = 4


class Further(NamedTuple):
    """What sets draws further apart: trajectories `longer` times as long, and `more` of them a draw."""

    longer: int = 1
    more: int = 1


def how_much_further(
    draws: Float[np.ndarray, "chain steps dim"], log_densities: Float[np.ndarray, "chain steps"]
) -> Further:
    """Return how many times longer trajectories should be, a power of two, and how many of them a draw is worth.

    While a chain goes at random, effective draws grow as the square of a trajectory's length. They do not where it is
    the energy that changes little from draw to draw: it is the same all along a trajectory, and only the next momentum
    changes it. So longer trajectories are not to give a coordinate more effective draws than the log density has; what
    is then missing is made up for by more of them. So it is in hundreds of dimensions where no more than twice as much
    is wanted: a trajectory of twice the length costs as much as two, and turns all other coordinates about their means,
    which leaves how far they are from there as it was, and of so many the worst is bad. What chains differ in is left
    out: no trajectory leads from mode to mode.

    Args:
        draws: of one segment.
        log_densities: of the draws.
    """
    share = effective_share(draws)
    if not share > 0:
        return Further()
    # A log density that is the same everywhere holds nothing back.
    reach = min(ENOUGH, effective_share(log_densities[..., None]) or ENOUGH)
    longer = min(LONGEST, 2 ** max(0, math.ceil(math.log2(reach / share) / 2)))
    then = max(share, min(reach, share * longer**2))
    found = Further(longer, max(1, min(MOST, round(ENOUGH / then))))
    in_two = found == (2, 1) and reach <= 2 * share and draws.shape[-1] > MANY
    return Further(1, 2) if in_two else found


def effective_share(draws: Float[np.ndarray, "chain steps dim"]) -> float:
    """Return the effective draws of the worst coordinate that moves, for a draw; 0 where there are too few draws."""
    from numpyro.diagnostics import effective_sample_size  # takes a quarter of a second

    if draws.shape[1] < FEWEST:
        return 0.0
    centred = draws - draws.mean(1, keepdims=True)
    moving = centred[..., np.ptp(centred, (0, 1)) > 0]
    return float(np.min(effective_sample_size(moving))) / math.prod(draws.shape[:2]) if moving.size else 0.0
