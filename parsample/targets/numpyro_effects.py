"""Which sites of a NumPyro model are effects: those with a location and a scale, which can be centred more or less."""

from typing import Any

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
# What is added to the name of a site for that of the numbers that it is made of, as in NumPyro.
ENDING = "_decentered"


def is_effect(fn: Any) -> bool:
    """Say whether a distribution, or the one that it repeats, is of a family of a location and a scale."""
    return _family(fn) is not None


def _family(fn: Any) -> tuple[str, ...] | None:
    kind = type(repeated(fn))
    return FAMILIES.get(kind.__name__) if kind.__module__.startswith("numpyro.distributions.") else None


def repeated(fn: Any) -> Any:
    """Return the distribution that one repeats along axes, as plates and events do."""
    from numpyro.distributions import ExpandedDistribution, Independent

    while isinstance(fn, ExpandedDistribution | Independent):
        fn = fn.base_dist
    return fn
