"""The step size, steered so that proposals are accepted as often as the sampler wants."""

import math

# Step sizes stay within this many doublings and halvings of 1: where every proposal is accepted, whatever its length,
# they would grow for ever.
DOUBLINGS = 60
# How strongly dual averaging is drawn to its centre (gamma in its source).
SHRINKAGE = 0.1


class DualAveraging:
    """Steer the logarithm of the step size so that the mean acceptance tends to a target.

    Source: Hoffman & Gelman 2014, section 3.2; here an update sees the mean over a segment, so that the shrinkage of
    0.05 is too little: iterates would swing between far too large and far too small steps.
    """

    def __init__(self, step_size: float, target_acceptance: float):
        """Start from a step size, which the iterates are drawn towards."""
        self.target = target_acceptance
        self.log_step = math.log(step_size)
        self.restart()

    def restart(self) -> None:
        """Forget the past, and go on from the current step size."""
        self.log_average = self.log_step
        self.center, self.error, self.count = self.log_step, 0.0, 0

    def update(self, acceptance: float) -> None:
        """Take the mean acceptance of a segment into account."""
        self.count += 1
        weight = 1 / (self.count + 10)
        self.error = (1 - weight) * self.error + weight * (self.target - acceptance)
        log_step = self.center - math.sqrt(self.count) / SHRINKAGE * self.error
        self.log_step = max(-DOUBLINGS * math.log(2), min(log_step, DOUBLINGS * math.log(2)))
        share = self.count**-0.75
        self.log_average = share * self.log_step + (1 - share) * self.log_average
