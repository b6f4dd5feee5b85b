"""A NumPyro model whose effects are centred more or less than it is written."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpyro
from jaxtyping import Array
from numpyro import handlers
from numpyro.distributions import Distribution, constraints

from parsample.targets.numpyro_effects import ENDING, FAMILIES, is_effect, repeated


def partly_centred(
    model: Callable, centred: Mapping[str, Array], seen: dict[str, tuple[Array, Array]] | None = None
) -> tuple[Callable, dict[str, str]]:
    """Return a model in which sites are centred more or less, and the names under which it has their numbers.

    Args:
        model: of NumPyro, with its arguments.
        centred: site -> how far (`targets.centring`), of the site's shape; traced.
        seen: site -> its location and its scale, of its shape, when the model runs; filled.
    """
    if not centred:
        return model, {}

    def config(site: Mapping[str, Any]) -> Any:
        # Of a site in a scan, say, the value is there already.
        is_other = site["name"] not in centred or site["value"] is not None or not is_effect(site["fn"])
        return None if is_other else write

    def write(name: str, fn: Any, obs: Any) -> tuple[None, Array]:
        """Sample z in the place of x, which follows from it."""
        base = repeated(fn)
        if seen is not None:
            seen[name] = (jnp.broadcast_to(base.loc, fn.shape()), jnp.broadcast_to(base.scale, fn.shape()))
        found = PartlyCentred(base, centred[name])
        return None, found.value(numpyro.sample(name + ENDING, found.to_event(fn.event_dim)))

    return handlers.reparam(model, config=config), {name: name + ENDING for name in centred}


class PartlyCentred(Distribution):
    """The distribution of z = c m + s^(c - 1) (x - m), where x has the location m and the scale s.

    NumPyro's `LocScaleReparam` takes half a dozen powers of every number; here it is one exponential.

    Args:
        base: of x, of one of `FAMILIES`.
        degree: c, dimensionless, of x's shape.
    """

    support = constraints.real

    def __init__(self, base: Any, degree: Array):
        """Take the parameters of x."""
        others = {name: getattr(base, name) for name in FAMILIES[type(base).__name__]}
        self.standard = type(base)(**others, loc=jnp.zeros_like(base.loc), scale=jnp.ones_like(base.scale))
        self.location, self.scale, self.degree = base.loc, base.scale, degree
        self.shrinks = degree * jnp.log(base.scale)
        super().__init__(batch_shape=degree.shape)

    def standardised(self, z: Array) -> Array:
        """Return (x - m) / s."""
        return (z - self.degree * self.location) * jnp.exp(-self.shrinks)

    def value(self, z: Array) -> Array:
        """Return x."""
        return self.location + self.scale * self.standardised(z)

    def log_prob(self, value: Array, intermediates: Any = None) -> Array:
        """Return the log density at z."""
        return self.standard.log_prob(self.standardised(value)) - self.shrinks

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw z."""
        drawn = self.standard.expand(self.batch_shape).sample(key, sample_shape)
        return drawn * jnp.exp(self.shrinks) + self.degree * self.location
