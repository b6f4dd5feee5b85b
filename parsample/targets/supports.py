"""What a distribution is a density on: its support, as a bijector from all real numbers, or why there is none."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from parsample.targets.bijectors import Bijector

REMEDY = "give bijectors={'x': ...}, a name such as 'positive' or a distrax bijector, or 'real' for no constraint."

# Classes of distrax, which says nothing of supports, by the constraint of NumPyro's that their events obey.
DISTRAX = {
    **dict.fromkeys(("Normal", "LogStddevNormal", "Laplace", "Logistic", "Gumbel"), "real"),
    **dict.fromkeys((f"MultivariateNormal{kind}" for kind in ("Diag", "DiagPlusLowRank", "FullCovariance")), "real"),
    **dict.fromkeys((f"MultivariateNormal{kind}" for kind in ("Tri", "FromBijector")), "real"),
    "Beta": "unit_interval",
    "Gamma": "positive",
    "Dirichlet": "simplex",
}
# Classes that put probability on single points, in any of the libraries, beside those whose draws are whole numbers.
POINTS = (
    *("Deterministic", "VectorDeterministic", "Delta", "Empirical", "FiniteDiscrete", "Inflated", "Clipped"),
    *(
        "Quantized",
        "QuantizedDistribution",
        "HurdleGamma",
        "HurdleLogNormal",
        "ZeroInflatedProbs",
        "ZeroInflatedLogits",
    ),
    *("HurdleProbs", "HurdleLogits", "OneHotCategorical"),
)
# Classes whose log_prob is a likelihood of observations and no density of them, unless what they wrap is all there is.
CENSORED = ("LeftCensoredDistribution", "RightCensoredDistribution", "IntervalCensoredDistribution")
MASKED = ("MaskedDistribution", "Masked")
# Under which names the libraries keep the distributions that one is made of.
PARTS = (
    *("distribution", "distributions", "base_dist", "components_distribution", "component_distribution", "components"),
    *("component_distributions", "_component_a", "_component_b"),
)
# How the libraries write that batch axes belong to one event.
INDEPENDENT = {
    "distrax": "distrax.Independent(distribution, reinterpreted_batch_ndims={count})",
    "tfp": "tfd.Independent(distribution, reinterpreted_batch_ndims={count})",
    "numpyro": "distribution.to_event({count})",
    "other": "one with an event of that shape",
}


def library_of(given: Any) -> str:
    """Return "numpyro", "tfp", "distrax" or "other"."""
    # What distrax makes of a distribution of TensorFlow Probability knows its event space.
    if hasattr(given, "experimental_default_event_space_bijector"):
        return "tfp"
    roots = [kind.__module__.partition(".")[0] for kind in type(given).__mro__]
    return next((root for root in roots if root in ("numpyro", "distrax")), "other")


def title(given: Any) -> str:
    """Return how a sentence calls a distribution."""
    return f"the distribution {type(given).__name__}"


def discrete(given: Any) -> str:
    """Return the sentence that refuses a discrete distribution."""
    return (
        f"{title(given)} is discrete, and a chain in real numbers cannot sample it; sum it out of a log density, or "
        "sample it by Gibbs, with a target that has conditional_updates."
    )


def check_density(given: Any) -> None:
    """Raise ValueError where a distribution has batch axes, or is known to have no density."""
    # TensorFlow Probability has a shape of its own, which is no tuple; joint distributions have one for each part.
    leaves = jax.tree.leaves(given.batch_shape)
    batch = tuple(int(size) for leaf in leaves for size in (leaf if isinstance(leaf, Iterable) else (leaf,)))
    if batch:
        wrapped = INDEPENDENT[library_of(given)].format(count=len(batch))
        raise ValueError(
            f"{title(given)} has batch_shape {batch}: so many distributions side by side, with a log density "
            f"each; make them one with {wrapped}."
        )
    for kind in (kind for part in _parts(given) for kind in _kinds(part)):
        if kind in CENSORED:
            raise ValueError(
                f"{title(given)} is the likelihood of censored observations and no density; use it in a NumPyro model "
                "with obs=, or give what it wraps."
            )
        if kind in POINTS:
            raise ValueError(
                f"{title(given)} puts probability on single points, which a chain in real numbers cannot sample; give "
                "a distribution with a density."
            )
        if kind in MASKED:
            raise ValueError(f"{title(given)} is masked, which leaves no density; give what it wraps.")
    if _says_discrete(given):
        raise ValueError(discrete(given))


def find(given: Any, event: PyTree) -> Bijector:
    """Return the bijector from all real numbers to a distribution's support.

    Args:
        given: a distribution without batch axes.
        event: one of its draws.

    Raises:
        ValueError: its support is not known; or it has no such bijector.
    """
    library = library_of(given)
    row = {"numpyro": _numpyro, "tfp": _tfp, "distrax": _distrax}.get(library)
    found = None if row is None else row(given, event)
    if found is None:
        raise ValueError(f"{title(given)} has a support that is not known; {REMEDY}")
    shapes = jax.eval_shape(lambda event: found.forward(found.inverse(event))[0], event)
    if jax.tree.map(np.shape, shapes) != jax.tree.map(np.shape, event):
        raise ValueError(f"{title(given)} has a support of its own for each of its components; {REMEDY}")
    return found


def _numpyro(given: Any, event: PyTree) -> Bijector | None:
    return None if given.support is None else _constrained(given.support)


def _constrained(constraint: Any) -> Bijector | None:
    """Return the bijector of a constraint of NumPyro's, or None if it has none."""
    from numpyro.distributions import biject_to

    try:
        transform = biject_to(constraint)
    except (NotImplementedError, KeyError):
        return None

    def forward(free: Array) -> tuple[Array, Float[Array, ""]]:
        value = transform(free)
        return value, jnp.sum(transform.log_abs_det_jacobian(free, value))

    # A transform is a pytree of its parameters, which has no place among what is known at compile time; a function has.
    return Bijector(forward, lambda value: transform.inv(value))


def _tfp(given: Any, event: PyTree) -> Bijector | None:
    kinds = _kinds(given)
    if "VonMises" in kinds:  # its own bijector leaves it on all the line, where it has infinitely many periods
        return _interval(-math.pi, math.pi)
    # The bijectors of mixtures ask of NumPy what it no longer does.
    if "MixtureSameFamily" in kinds:
        return _tfp(given.components_distribution, event)
    if "Mixture" in kinds:
        return _tfp(given.components[0], event)
    try:
        bijector = given.experimental_default_event_space_bijector()
        free_ndims = jax.tree.map(np.ndim, bijector.inverse(event))
    except (NotImplementedError, AttributeError, TypeError, ValueError):
        return None

    def forward(free: PyTree) -> tuple[PyTree, Float[Array, ""]]:
        return bijector.forward(free), jnp.sum(bijector.forward_log_det_jacobian(free, event_ndims=free_ndims))

    return Bijector(forward, bijector.inverse)


def _distrax(given: Any, event: PyTree) -> Bijector | None:
    kinds = _kinds(given)
    known = next((DISTRAX[kind] for kind in kinds if kind in DISTRAX), None)
    if known is not None:
        from numpyro.distributions import constraints

        return _constrained(getattr(constraints, known))
    if "Uniform" in kinds:
        return _interval(given.low, given.high)
    if "VonMises" in kinds:
        return _interval(-math.pi, math.pi)
    if "Joint" in kinds:
        return _together(given.distributions, event)
    if "Independent" in kinds:
        return _distrax(given.distribution, event)
    if "MixtureSameFamily" in kinds:
        return _distrax(given.components_distribution, event)
    if "MixtureOfTwo" in kinds:
        return _distrax(given._component_a, event)
    if "Transformed" in kinds:
        return _transformed(given, event)
    return None


def _transformed(given: Any, event: PyTree) -> Bijector | None:
    outer = given.bijector
    inner = find(given.distribution, outer.inverse(event))

    def forward(free: Array) -> tuple[Array, Float[Array, ""]]:
        value, first = inner.forward(free)
        value, second = outer.forward_and_log_det(value)
        return value, first + jnp.sum(second)

    return Bijector(forward, lambda value: inner.inverse(outer.inverse(value)))


def _together(given: PyTree, event: PyTree) -> Bijector:
    """Return the bijectors of independent distributions as one."""
    rows, structure = jax.tree.flatten(given, is_leaf=_is_distribution)
    tree: Any = structure
    found = [find(row, leaf) for row, leaf in zip(rows, tree.flatten_up_to(event), strict=True)]

    def forward(free: PyTree) -> tuple[PyTree, Float[Array, ""]]:
        pairs = [row.forward(leaf) for row, leaf in zip(found, tree.flatten_up_to(free), strict=True)]
        return tree.unflatten([value for value, _ in pairs]), sum((term for _, term in pairs), jnp.zeros(()))

    def inverse(value: PyTree) -> PyTree:
        return tree.unflatten([row.inverse(leaf) for row, leaf in zip(found, tree.flatten_up_to(value), strict=True)])

    return Bijector(forward, inverse)


def _interval(low: Any, high: Any) -> Bijector | None:
    from numpyro.distributions import constraints

    return _constrained(constraints.interval(low, high))


def _says_discrete(given: Any) -> bool:
    """Say whether a distribution says itself that it is discrete, without a draw; some that are do not."""
    support = getattr(given, "support", None)
    if library_of(given) == "numpyro":
        return support is not None and bool(support.is_discrete)
    try:
        dtypes = jax.tree.leaves(given.dtype)
    except (AttributeError, NotImplementedError):
        return False
    return any(dtype is not None and not jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes)


def _parts(given: Any) -> Iterator[Any]:
    """Yield a distribution and those that it is made of."""
    yield given
    for name in PARTS:
        found = jax.tree.leaves(getattr(given, name, None), is_leaf=_is_distribution)
        for part in found:
            if _is_distribution(part) and part is not given:
                yield from _parts(part)


def _is_distribution(value: Any) -> bool:
    return hasattr(value, "log_prob")


def _kinds(given: Any) -> list[str]:
    return [kind.__name__ for kind in type(given).__mro__]
