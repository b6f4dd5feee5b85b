"""The effects of a NumPyro model: sites with a location and a scale, which can be centred or not, or be in between."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

# NumPyro's families of a location and a scale on the real line -> their other parameters.
FAMILIES: dict[str, tuple[str, ...]] = {
    "Cauchy": (),
    "Gumbel": (),
    "Laplace": (),
    "Logistic": (),
    "Normal": (),
    "SoftLaplace": (),
    "StudentT": ("df",),
}
# What NumPyro adds to the name of a site whose numbers are not those of the site.
ENDING = "_decentered"


def is_effect(fn: Any) -> bool:
    """Say whether a distribution, or the one that it repeats, is of a family of a location and a scale."""
    return _family(fn) is not None


def _family(fn: Any) -> tuple[str, ...] | None:
    kind = type(_repeated(fn))
    return FAMILIES.get(kind.__name__) if kind.__module__.startswith("numpyro.distributions.") else None


def _repeated(fn: Any) -> Any:
    """Return the distribution that one repeats along axes, as plates and events do."""
    from numpyro.distributions import ExpandedDistribution, Independent

    while isinstance(fn, ExpandedDistribution | Independent):
        fn = fn.base_dist
    return fn


def partly_centred(
    model: Callable, centred: Mapping[str, Array], seen: dict[str, tuple[Array, Array]] | None = None
) -> tuple[Callable, dict[str, str]]:
    """Return a model in which sites are centred more or less, and the names under which it has their numbers.

    Args:
        model: of NumPyro, with its arguments.
        centred: site -> how far (`targets.centring`), of the site's shape; traced.
        seen: site -> its location and its scale, of its shape, when the model runs; filled.

    Source: `numpyro.infer.reparam.LocScaleReparam`.
    """
    if not centred:
        return model, {}
    from numpyro import handlers
    from numpyro.infer.reparam import LocScaleReparam

    def config(site: Mapping[str, Any]) -> Any:
        name, others = site["name"], _family(site["fn"])
        # Of a site in a scan, say, the value is there already.
        if name not in centred or site["value"] is not None or others is None:
            return None
        if seen is not None:
            base, shape = _repeated(site["fn"]), site["fn"].shape()
            seen[name] = (jnp.broadcast_to(base.loc, shape), jnp.broadcast_to(base.scale, shape))
        return LocScaleReparam(centred[name], others)

    return handlers.reparam(model, config=config), {name: name + ENDING for name in centred}
