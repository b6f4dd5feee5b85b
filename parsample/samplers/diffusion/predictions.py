"""What a model predicts, and how one prediction becomes another.

With x = alpha x0 + sigma noise any one of these gives all others:

    noise      standard normal
    x0         the clean sample
    v          alpha noise - sigma x0
    score      -noise / sigma, the gradient of the log density of x
    velocity   noise - x0, which for rectified flow is dx / dt

For the velocity of another schedule than rectified flow, the prediction is still noise - x0.
"""

from collections.abc import Callable

from jaxtyping import Array

# Prediction -> (x, output, alpha, sigma) -> the clean sample x0.
TO_X0: dict[str, Callable[[Array, Array, Array, Array], Array]] = {
    "noise": lambda x, noise, alpha, sigma: (x - sigma * noise) / alpha,
    "x0": lambda x, x0, alpha, sigma: x0,
    "v": lambda x, v, alpha, sigma: (alpha * x - sigma * v) / (alpha**2 + sigma**2),
    "score": lambda x, score, alpha, sigma: (x + sigma**2 * score) / alpha,
    "velocity": lambda x, velocity, alpha, sigma: (x - sigma * velocity) / (alpha + sigma),
}

# Prediction -> the same arguments -> the noise. Not by way of x0 where that would lose digits.
TO_NOISE: dict[str, Callable[[Array, Array, Array, Array], Array]] = {
    "noise": lambda x, noise, alpha, sigma: noise,
    "x0": lambda x, x0, alpha, sigma: (x - alpha * x0) / sigma,
    "v": lambda x, v, alpha, sigma: (sigma * x + alpha * v) / (alpha**2 + sigma**2),
    "score": lambda x, score, alpha, sigma: -sigma * score,
    "velocity": lambda x, velocity, alpha, sigma: (x + alpha * velocity) / (alpha + sigma),
}

# Prediction -> (x0, noise, alpha, sigma) -> what a model of that kind would put out.
FROM: dict[str, Callable[[Array, Array, Array, Array], Array]] = {
    "noise": lambda x0, noise, alpha, sigma: noise,
    "x0": lambda x0, noise, alpha, sigma: x0,
    "v": lambda x0, noise, alpha, sigma: alpha * noise - sigma * x0,
    "score": lambda x0, noise, alpha, sigma: -noise / sigma,
    "velocity": lambda x0, noise, alpha, sigma: noise - x0,
}

PREDICTIONS = tuple(TO_X0)
# Those from which the clean sample follows only where there is some signal.
DIVIDED_BY_SIGNAL = ("noise", "score")


def convert(source: str, target: str, x: Array, output: Array, alpha: Array, sigma: Array) -> Array:
    """Return a model's output as another prediction.

    Args:
        source: what the model predicts, one of `PREDICTIONS`.
        target: what is wanted, one of them.
        x: the noisy sample.
        output: of the model there.
        alpha: of the signal, broadcasts with x.
        sigma: of the noise, broadcasts with x.

    Raises:
        ValueError: an unknown prediction.
    """
    check_prediction(source)
    check_prediction(target)
    if source == target:
        return output
    x0 = TO_X0[source](x, output, alpha, sigma)
    return FROM[target](x0, TO_NOISE[source](x, output, alpha, sigma), alpha, sigma)


def check_prediction(prediction: str) -> None:
    """Raise ValueError unless `prediction` is the name of one."""
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction is {prediction!r}, expected one of {', '.join(map(repr, PREDICTIONS))}.")
