"""`numpyro.infer.MCMC` with chains evaluated in parallel, for code that already calls that."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.infer
from jaxtyping import Array, Float, Key, PyTree
from numpyro.infer.util import unconstrain_fn

from parsample.engine import options
from parsample.results.trace import as_datatree
from parsample.results.verdict import Verdict, read_verdict
from parsample.run.result import Memory
from parsample.run.sample import sample
from parsample.samplers import find
from parsample.samplers.base import Sampler
from parsample.samplers.configured import Configured
from parsample.targets.numpyro_model import NumPyroModel
from parsample.warmup.adapt import Adaptation
from parsample.warmup.coordinates import plain
from parsample.warmup.starts import given_positions

# Statistics whose name in NumPyro is another than in ArviZ; its potential energy is minus `lp`.
FIELDS = {"accept_prob": "acceptance_rate", "num_steps": "n_steps", "adapt_state.step_size": "step_size"}


class Kernel:
    """A NumPyro model and the sampler for it, in the place of NumPyro's kernels.

    Args:
        model: a Python function with NumPyro's primitives.
        sampler: a name in `SAMPLERS`, or a sampler's class.
        **sampler_options: of the sampler, such as `num_integration_steps=4`.

    Raises:
        ValueError: there is no such sampler, or it has no such option.
    """

    sample_field = "z"
    default_fields = ("z", "diverging")

    def __init__(self, model: Callable, sampler: str | type[Sampler] = "hmc", **sampler_options: Any):
        """Check the options."""
        Configured(find(sampler), sampler_options)
        self.model, self.sampler, self.sampler_options = model, sampler, sampler_options


class State(NamedTuple):
    """Where the chains stand after warm-up, or in the end.

    Attributes:
        z: the latent sites in unconstrained coordinates, leading axis `chain`.
        potential_energy: minus the log density there.
        rng_key: to go on with.
        adapt_state: what warm-up found, its `step_size` and coordinates; None for a run with a store, which keeps it
            there.
    """

    z: PyTree
    potential_energy: Float[Array, " chain"]
    rng_key: Key[Array, ""] | Array
    adapt_state: Adaptation | None


class MCMC(numpyro.infer.MCMC):
    """Run a kernel, and keep draws and statistics as `numpyro.infer.MCMC` does; `arviz.from_numpyro` takes it.

    The methods are NumPyro's own: `warmup`, `run`, `get_samples`, `get_extra_fields`, `print_summary`, `last_state`,
    `post_warmup_state`. What is more is `trace`, the ArviZ object of `parsample.sample`, and `verdict`. Chains start at
    draws uniform on (-2, 2) in unconstrained coordinates, as with NumPyro's default.

    Where `post_warmup_state` is set, by `warmup` or by its user, `run` leaves warm-up out and goes on from there, with
    other data too: `mcmc.post_warmup_state = mcmc.last_state` gives further draws of the same chains. What a sampler
    knows beside the position, such as a momentum, is drawn anew.

    Args:
        kernel: a `parsample.Kernel`.
        num_warmup: warm-up steps a chain.
        num_samples: draws a chain.
        num_chains: chains.
        progress_bar: show one, if the output is a terminal.
        **settings: of `parsample.sample`: `method`, `window`, `step_size`, `atol` and so on.

    Raises:
        ValueError: an argument is not what it should be.
    """

    def __init__(
        self,
        kernel: Any,
        *,
        num_warmup: int,
        num_samples: int,
        num_chains: int = 1,
        progress_bar: bool = True,
        **settings: Any,
    ):
        """Take note of the settings; nothing is run."""
        if not isinstance(kernel, Kernel):
            raise ValueError(
                f"kernel is a {type(kernel).__name__}, expected a parsample.Kernel, for NumPyro's own draw random "
                "numbers as they go; write parsample.Kernel(model, 'hmc')."
            )
        # Not NumPyro's own initialisation, which prepares for its kernels.
        self.sampler, self.settings = kernel, settings
        self.num_warmup = num_warmup
        self.num_samples = options.whole("num_samples", num_samples, "each chain needs a draw")
        self.num_chains = options.whole("num_chains", num_chains, "one chain is enough to sample, four to judge")
        self.thinning, self.progress_bar = 1, progress_bar
        self._sample_field, self._default_fields = kernel.sample_field, kernel.default_fields
        self._states: Any = None
        self._states_flat: Any = None
        self._last_state: Any = None
        self._warmup_state: Any = None
        self._args: tuple = ()
        self._kwargs: dict[str, Any] = {}

    def warmup(
        self,
        rng_key: Key[Array, ""] | Array,
        *args: Any,
        extra_fields: Sequence[str] = (),
        collect_warmup: bool = False,
        init_params: PyTree | None = None,
        **kwargs: Any,
    ) -> None:
        """Warm up, and set `post_warmup_state`, so that `run` does not.

        With the same key, `run` then gives the draws that it would have given alone.

        Args:
            rng_key: the same key gives the same warm-up.
            *args: of the model.
            extra_fields: statistics to collect, as for `run`.
            collect_warmup: let `get_samples` and `get_extra_fields` return the warm-up steps.
            init_params: where chains start, as for `run`.
            **kwargs: of the model.

        Raises:
            ValueError: an argument is not what it should be.
        """
        self._warmup_state = None
        target, memory = NumPyroModel(self.sampler.model, *args, **kwargs), Memory(wants_draws=False)
        settings = {**self._with_start(target, init_params), "store": memory, "keep_warmup": collect_warmup}
        self._sample(target, rng_key, settings)
        assert memory.outcome is not None
        found = memory.outcome.adaptation
        self._args, self._kwargs = args, kwargs
        if collect_warmup and self.num_warmup:
            groups = memory.outcome.warmup()
            self._keep(groups["warmup_posterior"], groups["warmup_sample_stats"], extra_fields)
        free = jax.vmap(plain(target).unravel)(found.last)
        energy = -jax.vmap(target.logdensity)(free)
        self._warmup_state = self._last_state = State(free, energy, jax.random.fold_in(rng_key, 1), found)

    def run(
        self,
        rng_key: Key[Array, ""] | Array,
        *args: Any,
        extra_fields: Sequence[str] = (),
        init_params: PyTree | None = None,
        **kwargs: Any,
    ) -> None:
        """Warm up, unless `post_warmup_state` is set, and sample.

        Args:
            rng_key: the same key gives the same draws.
            *args: of the model.
            extra_fields: statistics to keep beside `diverging`, by the names of NumPyro (`potential_energy`,
                `accept_prob`, `num_steps`, `energy`) or of ArviZ.
            init_params: where chains start, in unconstrained coordinates, such as `last_state.z`; with a leading axis
                for the chains where there are several. None for random starts. Of no effect, as in NumPyro, where
                `post_warmup_state` is set.
            **kwargs: of the model.

        Raises:
            ValueError: an argument is not what it should be, or the sampler has no such statistic.
        """
        kernel, target, memory = self.sampler, NumPyroModel(self.sampler.model, *args, **kwargs), None
        if self._warmup_state is not None:
            memory = Memory(self._known(target, self._warmup_state))
            settings = {**self.settings, "start": self._warmup_state.z, "num_warmup": 0, "keep_warmup": False}
        else:
            settings = self._with_start(target, init_params)
            memory = Memory() if settings.get("store") is None else None
        self.trace = self._sample(target, rng_key, settings if memory is None else {**settings, "store": memory})
        tree = as_datatree(self.trace)
        draws, stats = (
            {str(name): row.values for name, row in tree[group].data_vars.items()}
            for group in ("posterior", "sample_stats")
        )
        self._keep(draws, stats, extra_fields)
        self._args, self._kwargs = args, kwargs
        latent = {name: jnp.asarray(draws[name][:, -1]) for name in target.position_template()}
        free = jax.vmap(lambda row: unconstrain_fn(kernel.model, args, kwargs, row))(latent)
        found = None if memory is None or memory.outcome is None else memory.outcome.adaptation
        energy = -jnp.asarray(stats["lp"][:, -1])
        self._last_state = State(free, energy, jax.random.fold_in(rng_key, 1), found)

    def _with_start(self, target: NumPyroModel, init_params: PyTree | None) -> dict[str, Any]:
        """Return the settings, with positions to start from where they are given."""
        if init_params is None:
            return dict(self.settings)
        template = target.position_template()
        one = self.num_chains == 1 and jax.tree.map(jnp.shape, init_params) == jax.tree.map(jnp.shape, template)
        start = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], init_params) if one else init_params
        return {**self.settings, "start": start}

    def _known(self, target: NumPyroModel, state: Any) -> Adaptation:
        """Return what warm-up found, for a target, with the chains where the state has them."""
        if not isinstance(state, State):
            raise ValueError(
                f"post_warmup_state is a {type(state).__name__}, expected None or a state of parsample.MCMC, such as "
                "its last_state."
            )
        if state.adapt_state is None or self.settings.get("store") is not None:
            raise ValueError(
                "post_warmup_state is set, but one of the two runs has a store; leave store out, or go on with it by "
                "parsample.resume(store, num_samples=...)."
            )
        vectors, known = given_positions(target, state.z, self.num_chains, "post_warmup_state"), state.adapt_state
        density = dataclasses.replace(known.density, target=target, unravel=plain(target).unravel)
        return known._replace(density=density, last=vectors, draws=known.draws[:, :0], stats={})

    def _sample(self, target: NumPyroModel, rng_key: Array, settings: dict[str, Any]) -> Any:
        kernel = self.sampler
        given = {
            "sampler": kernel.sampler,
            "sampler_options": kernel.sampler_options,
            "num_warmup": self.num_warmup,
            "num_samples": self.num_samples,
            "num_chains": self.num_chains,
            "seed": int(jax.random.bits(rng_key)),
            "progress": self.progress_bar,
        }
        return sample(target, **{**given, **settings})

    def _keep(self, draws: Mapping[str, Any], stats: Mapping[str, Any], extra_fields: Sequence[str]) -> None:
        """Keep draws, and of the statistics `diverging` and those that are wanted, where NumPyro's methods look."""
        rows = {name: jnp.asarray(values) for name, values in stats.items()}
        rows = {"diverging": jnp.zeros(rows["lp"].shape, bool), "potential_energy": -rows["lp"], **rows}
        kept = {}
        for field in ("diverging", *extra_fields):
            name = FIELDS.get(field, field)
            if name not in rows:
                known = ", ".join(map(str, rows))
                raise ValueError(f"extra_fields has {field!r}, expected statistics of the sampler: {known}.")
            kept[field] = rows[name]
        arrays = {name: jnp.asarray(values) for name, values in draws.items()}
        self._states, self._states_flat = {self._sample_field: arrays, **kept}, None

    @property
    def verdict(self) -> Verdict:
        """What the parallel evaluation took, and whether every step is within tolerance."""
        return read_verdict(self.trace)
