"""What is sampled: the package's posteriors, ordinary models, and large ones."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.flatten_util import ravel_pytree

import parsample as ps
from benchmarks.bench import large
from benchmarks.ordinary import MODELS
from benchmarks.ordinary.problem import Problem
from benchmarks.suite import DATA
from parsample.targets import NumPyroModel

# Quick ones first, so that a run that is interrupted has them.
POSTERIORS = (
    "eight_schools", "breast_cancer", "kidscore_interaction", "garch", "german_credit", "blr", "autoregressive",
    "gp_regression", "lotka_volterra",
)  # fmt: skip
# Two numbers; a state-space model; a Gaussian process; an ODE; 500 groups; 1,024 x 768; ten thousand numbers.
ORDINARY: dict[str, Callable[[], Problem]] = {
    name: MODELS[name] for name in ("binomial_beetles", "stochastic_volatility", "gp_counts", "sir")
} | {build.__name__: build for build in (large.hierarchical_500, large.embeddings, large.ten_thousand)}
NAMES = (*POSTERIORS, *ORDINARY)


class Case(NamedTuple):
    """A posterior.

    Attributes:
        name: of the row.
        target: the log density, as ours, BlackJAX and nutpie have it.
        model: of NumPyro, with its arguments; None where the target is the package's own.
        args, kwargs: of the model.
    """

    name: str
    target: ps.targets.Target
    model: Callable | None = None
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}

    @property
    def dim(self) -> int:
        """How many unconstrained numbers there are."""
        return int(ravel_pytree(self.target.position_template())[0].size)

    def starts(self, key: jax.Array, chains: int) -> Any:
        """Return a position for every chain, uniform on (-2, 2) in the unconstrained numbers, as all draw them."""
        return jax.vmap(self.target.initial_position)(jax.random.split(key, chains))


def cases(names: tuple[str, ...], data: Path | None) -> Iterator[Case]:
    """Yield the posteriors of these names; says which cannot be had without the folder of data."""
    for name in names:
        if name in ORDINARY:
            model, args, kwargs = ORDINARY[name]()
            yield Case(name, NumPyroModel(model, *args, **kwargs), model, args, kwargs)
        elif name not in DATA:
            yield Case(name, ps.TARGETS[name]())
        elif data is not None:
            yield Case(name, ps.TARGETS[name](data=data / DATA[name]))
        else:
            print(f"{name}: left out, its data do not ship (--data FOLDER)", flush=True)
