"""What `numpyro.infer.MCMC` shows of a run beside the draws: states, and the fields of the draws."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from parsample.engine.names import unknown
from parsample.run.segments import STATISTICS
from parsample.samplers.configured import Configured
from parsample.targets.base import Target
from parsample.warmup.adapt import Adaptation
from parsample.warmup.centring import carried
from parsample.warmup.coordinates import Standardised, plain
from parsample.warmup.low_rank import LowRank

# Fields of NumPyro's that are statistics of the trace by another name.
RENAMED = {
    "accept_prob": "acceptance_rate",
    "num_steps": "n_steps",
    "adapt_state.step_size": "step_size",
}
# Fields that follow from statistics: name -> (statistic, function of its values, shape (chain, draw)).
DERIVED: dict[str, tuple[str, Callable]] = {
    "potential_energy": ("lp", jnp.negative),
    "mean_accept_prob": (
        "acceptance_rate",
        lambda rates: jnp.cumsum(rates, 1) / jnp.arange(1, rates.shape[1] + 1, dtype=rates.dtype),
    ),
}
# What a run counts beside the diagnostics of the sampler.
COUNTED = ("lp", "residual", "step_size")


class AdaptState(eqx.Module):
    """What warm-up found.

    Attributes:
        step_size: dimensionless, in standardised coordinates.
        center: of these coordinates, shape (dim,), in the units of the position.
        root: of the covariance, as `Standardised` has it.
        surrogate: a density that resembles the target's in these coordinates, or None.
        sampler_options: those that warm-up chose; None for those that were given.
        centred: how far the effects are, in these coordinates, of a model that has some (`targets.centring`).
        sites: the latent sites, sorted, as the rows of the matrices have them; None for a potential function, and for
            a kernel whose matrices NumPyro does not name.
    """

    step_size: float | Float[Array, ""]
    center: Float[Array, " dim"]
    root: Any
    surrogate: Callable | None
    sampler_options: dict[str, Any] | None
    centred: dict[str, Array]
    sites: tuple[str, ...] | None = eqx.field(static=True)

    @classmethod
    def of(cls, found: Adaptation, sites: tuple[str, ...] | None) -> "AdaptState":
        """Return the state of what warm-up found."""
        density = found.density
        parts = density.center, density.root, density.surrogate
        return cls(found.step_size, *parts, found.sampler_options, getattr(density.target, "centred", {}), sites)

    def adaptation(self, target: Target, vectors: Float[Array, "chain dim"]) -> Adaptation:
        """Return what warm-up found, for a target and chains that stand at these flat positions of it."""
        unravel = plain(target).unravel
        if self.centred:
            other = eqx.tree_at(lambda target: target.centred, target, self.centred)
            moved, *_ = carried(plain(target), other, np.asarray(vectors)[:, None])
            target, vectors = other, jnp.asarray(moved[:, 0])
        density = Standardised(target, self.center, self.root, unravel, self.surrogate)
        nothing = np.empty((len(vectors), 0, vectors.shape[1]))
        return Adaptation(density, float(self.step_size), vectors, nothing, {}, sampler_options=self.sampler_options)

    def _replace(self, **changes: Any) -> "AdaptState":
        """Return the state with other fields, as NumPyro's, a named tuple, does."""
        return dataclasses.replace(self, **changes)

    @property
    def inverse_mass_matrix(self) -> Any:
        """The covariance that warm-up found, shape (dim,) or (dim, dim), by the names of the sites as in NumPyro."""
        root = self._matrix
        return self._named(root**2 if root.ndim == 1 else root @ root.T)

    @property
    def mass_matrix_sqrt(self) -> Any:
        """A root S of its inverse, S S^T."""
        root = self._matrix
        return self._named(1 / root if root.ndim == 1 else jnp.linalg.inv(root).T)

    @property
    def _matrix(self) -> Array:
        return self.root.dense() if isinstance(self.root, LowRank) else self.root

    def _named(self, matrix: Array) -> Any:
        return matrix if self.sites is None else {self.sites: matrix}


class State(NamedTuple):
    """Where the chains stand after warm-up, or in the end; leading axis `chain` where there are several.

    Attributes:
        z: the latent sites in unconstrained coordinates, or the position of a potential function.
        potential_energy: minus the log density there.
        rng_key: to go on with.
        adapt_state: what warm-up found, its `step_size` and `inverse_mass_matrix` among it; None for a run with a
            store, which keeps it there.
    """

    z: PyTree
    potential_energy: Float[Array, " *chain"]
    rng_key: Key[Array, "*chain"] | Array
    adapt_state: AdaptState | None


class Fields:
    """The fields that a run is to keep, checked before it begins.

    Args:
        extra_fields: what was asked for, by the names of NumPyro's states or of the trace's statistics; "z.a" for an
            unconstrained site, "~z.a" to leave a site out.
        make: the sampler.
        target: to sample.

    Raises:
        ValueError: there is no such field.
    """

    def __init__(self, extra_fields: Any, make: Configured, target: Target):
        """Look every field up."""
        if not isinstance(extra_fields, list | tuple) or not all(isinstance(name, str) for name in extra_fields):
            raise ValueError(f"extra_fields is {extra_fields!r}, expected a tuple of names, such as ('num_steps',).")
        self.target = target
        asked = dict.fromkeys(extra_fields)
        self.left_out = [name.removeprefix("~z.") for name in asked if name.startswith("~z.")]
        self.names = [name for name in asked if not name.startswith("~") and name != "z"]
        sites = list(target.position_template()) if isinstance(target.position_template(), dict) else []
        self._check(sites, _statistics(make, target))

    def _check(self, sites: list[str], known: list[str]) -> None:
        variables = self.target.constrain(self.target.position_template())
        for name in self.left_out:
            if name not in variables:
                raise unknown("a site that extra_fields leaves out", name, variables)
        derived = [name for name, (statistic, _) in DERIVED.items() if statistic in known]
        renamed = [name for name, statistic in RENAMED.items() if statistic in known]
        whole = ["diverging", *derived, *renamed, *known, "z", "z_grad"]
        parts = [f"{field}.{site}" for field in ("z", "z_grad") for site in sites]
        for name in self.names:
            if name not in whole and name not in parts:
                raise unknown("a name in extra_fields", name, dict.fromkeys([*whole, *parts]))

    def collect(self, statistics: Mapping[str, Any], positions: Callable[[], PyTree]) -> dict[str, Any]:
        """Return `diverging` and the fields that were asked for, each (chain, draw, ...).

        Args:
            statistics: of the trace.
            positions: gives the unconstrained positions of all draws, leading axes (chain, draw).
        """
        rows = {name: jnp.asarray(values) for name, values in statistics.items()}
        rows = {"diverging": jnp.zeros(rows["lp"].shape, bool), **rows}
        kept: dict[str, Any] = {}
        for name in dict.fromkeys(["diverging", *self.names]):
            field, _, site = name.partition(".")
            if field == "z":
                kept[name] = positions()[site]
            elif field == "z_grad":
                slopes = self._slopes(positions())
                kept[name] = slopes[site] if site else slopes
            elif name == "potential_energy" and getattr(self.target, "centred", None):
                # The statistic is that of the numbers that were sampled, with effects centred otherwise.
                kept[name] = -jax.jit(jax.vmap(jax.vmap(self.target.logdensity)))(positions())
            elif name in DERIVED:
                statistic, derive = DERIVED[name]
                kept[name] = derive(rows[statistic])
            else:
                kept[name] = rows[RENAMED.get(name, name)]
        return kept

    def _slopes(self, positions: PyTree) -> PyTree:
        """Return the gradients of the potential energy. Cost: one a draw."""
        slope = jax.grad(lambda position: -self.target.logdensity(position))
        return jax.jit(jax.vmap(jax.vmap(slope)))(positions)


def _statistics(make: Configured, target: Target) -> list[str]:
    """Return the statistics that the draws of a sampler will have, without running it."""
    density = plain(target)
    sampler = make(density)

    def step() -> Any:
        key = jax.random.key(0)
        inputs = jax.tree.map(lambda leaf: leaf[0], sampler.draw_inputs(key, 1, density.center))
        return sampler.step(sampler.init(density.center, key), inputs)[1]._asdict()

    info = jax.eval_shape(step)
    return [*COUNTED, *(STATISTICS.get(name, name) for name, row in info.items() if row.shape == ())]
