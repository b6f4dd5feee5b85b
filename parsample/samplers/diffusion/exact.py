"""Models that are known exactly: mixtures of normal distributions, noised."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from parsample.samplers.diffusion.continuous import Continuous
from parsample.samplers.diffusion.predictions import FROM, check_prediction
from parsample.samplers.diffusion.schedules import Discrete, Schedule


class MixtureModel(eqx.Module):
    """The exact prediction for data from a mixture of round normal distributions: a model without training.

    Args:
        schedule: whose times it is called with.
        means: of the components, shape (components, dim), in the units of the data.
        deviation: of every component, in the same units.
        weights: of the components, above 0; equal ones by default.
        prediction: what it predicts, such as "noise".

    Raises:
        ValueError: an argument is not what it should be.

    Cost: O(components dim) a call.
    """

    schedule: Schedule
    means: Float[Array, "components dim"]
    deviation: float = eqx.field(static=True)
    log_weights: Float[Array, " components"]
    prediction: str = eqx.field(static=True)

    def __init__(
        self, schedule: Schedule, means: Any, deviation: Any = 0.2, weights: Any = None, prediction: str = "noise"
    ):
        """Check the arguments."""
        check_prediction(prediction)
        self.means = jnp.asarray(means)
        if self.means.ndim != 2 or not np.isfinite(np.asarray(means)).all():
            raise ValueError(f"means has shape {self.means.shape}, expected (components, dim) of finite numbers.")
        if not deviation > 0:
            raise ValueError(f"deviation is {deviation}, expected a number above 0.")
        count = len(self.means)
        shares = np.full(count, 1 / count) if weights is None else np.asarray(weights, np.float64)
        if shares.shape != (count,) or not (shares > 0).all():
            raise ValueError(f"weights has shape {shares.shape}, expected {count} numbers above 0.")
        self.schedule, self.deviation, self.prediction = schedule, float(deviation), prediction
        self.log_weights = jnp.asarray(np.log(shares / shares.sum()), self.means.dtype)

    @classmethod
    def at_random(
        cls,
        rng_key: Key[Array, ""],
        schedule: Schedule,
        dim: int,
        components: int = 10,
        deviation: float = 0.2,
        prediction: str = "noise",
    ) -> "MixtureModel":
        """Return a mixture whose means are drawn from a standard normal distribution."""
        return cls(schedule, jax.random.normal(rng_key, (components, dim)), deviation, None, prediction)

    def __call__(self, x: Float[Array, " dim"], t: Array) -> Float[Array, " dim"]:
        """Return the prediction for a sample at a time."""
        alpha, sigma = (value.astype(x.dtype) for value in level_at(self.schedule, t, x.dtype))
        variance = (alpha * self.deviation) ** 2 + sigma**2
        away = x - alpha * self.means.astype(x.dtype)
        shares = jax.nn.softmax(self.log_weights.astype(x.dtype) - 0.5 * jnp.sum(away**2, 1) / variance)
        # x - alpha (the mean of the component): what is left of x, shared between its data and the noise.
        left = shares @ away
        noise = sigma * left / variance
        if self.prediction == "noise":
            return noise
        x0 = shares @ self.means.astype(x.dtype) + alpha * self.deviation**2 * left / variance
        return FROM[self.prediction](x0, noise, alpha, sigma)

    def draw(self, rng_key: Key[Array, ""], num_samples: int) -> Float[Array, "num_samples dim"]:
        """Draw data from the mixture itself."""
        first, second = jax.random.split(rng_key)
        which = jax.random.categorical(first, self.log_weights, shape=(num_samples,))
        noise = jax.random.normal(second, (num_samples, self.means.shape[1]), self.means.dtype)
        return self.means[which] + self.deviation * noise


def level_at(schedule: Schedule, t: Array, dtype: Any) -> tuple[Array, Array]:
    """Return signal and noise at a traced time."""
    if isinstance(schedule, Discrete):
        table = schedule.level(np.arange(schedule.betas().size))
        return jnp.asarray(table.alpha, dtype)[t], jnp.asarray(table.sigma, dtype)[t]
    assert isinstance(schedule, Continuous)
    return schedule.level(t, jnp)[1:]
