"""`numpyro.infer.MCMC` with chains evaluated in parallel, for code that already calls that."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.infer
from jaxtyping import Array, PyTree
from numpyro.infer.util import unconstrain_fn

from parsample.engine import options
from parsample.engine.names import unknown
from parsample.engine.traceable import untraceable
from parsample.results.trace import as_datatree
from parsample.results.variables import Variables
from parsample.results.verdict import Verdict, read_verdict
from parsample.run.arguments import serves_own_model
from parsample.run.numpyro_kernels import read_kernel
from parsample.run.numpyro_states import AdaptState, Fields, State
from parsample.run.sample import ARGUMENTS, sample
from parsample.run.sink import Memory
from parsample.samplers import find
from parsample.samplers.configured import Configured
from parsample.targets.base import Target
from parsample.targets.numpyro_model import NumPyroModel
from parsample.warmup.adapt import Adaptation
from parsample.warmup.centring import carried
from parsample.warmup.coordinates import plain
from parsample.warmup.given_starts import given_positions

CHAIN_METHODS = ("parallel", "sequential", "vectorized")
# Arguments of `parsample.sample` that go by another name here, or are set by what stands there.
ELSEWHERE = {
    "sampler": "write it into the kernel: parsample.Kernel(model, 'mala')",
    "sampler_options": "write them into the kernel: parsample.Kernel(model, 'hmc', num_integration_steps=4)",
    "seed": "give the key to run",
    "thin": "write thinning=",
    "progress": "write progress_bar=",
    "initial_position": "give run(..., init_params=...)",
    "bijectors": "a model has its own, and potential_fn is over unconstrained numbers",
    "origin": "leave it out",
}


class MCMC(numpyro.infer.MCMC):
    """Run a kernel, and keep draws and statistics as `numpyro.infer.MCMC` does; `arviz.from_numpyro` takes it.

    The methods are NumPyro's own: `warmup`, `run`, `get_samples`, `get_extra_fields`, `print_summary`, `last_state`,
    `post_warmup_state`. What is more is `trace`, the ArviZ object of `parsample.sample`, and `verdict`. Chains start at
    draws uniform on (-2, 2) in unconstrained coordinates, as with NumPyro's default. All chains share what warm-up
    learns.

    Where `post_warmup_state` is set, by `warmup` or by its user, `run` leaves warm-up out and goes on from there, with
    other data too: `mcmc.post_warmup_state = mcmc.last_state` gives further draws of the same chains. What a sampler
    knows beside the position, such as a momentum, is drawn anew.

    Args:
        kernel: a `parsample.Kernel`; or NumPyro's `NUTS`, `HMC` or `BarkerMH`, which become such, and say so once.
        num_warmup: warm-up steps a chain.
        num_samples: draws a chain, before thinning.
        num_chains: chains.
        thinning: keep the last of every so many draws.
        postprocess_fn: what `get_samples` returns of a draw: a function of its unconstrained position; None for the
            model's own variables. The trace has these either way.
        chain_method: "parallel", "sequential", "vectorized" or a function such as `jax.vmap`: of no effect. All chains
            are one batch on the device, and their draws are the same by any method.
        progress_bar: show one, if the output is a terminal.
        progress_rate: of no effect: the bar moves as segments of draws end.
        jit_model_args: of no effect on the draws, nor on what is compiled.
        **settings: of `parsample.sample`: `method`, `window`, `atol` and so on.

    Raises:
        ValueError: an argument is not what it should be, or no argument of `parsample.sample`; or the kernel has no
            counterpart here.
    """

    def __init__(
        self,
        kernel: Any,
        *,
        num_warmup: int,
        num_samples: int,
        num_chains: int = 1,
        thinning: int = 1,
        postprocess_fn: Any = None,
        chain_method: Any = "parallel",
        progress_bar: bool = True,
        progress_rate: int | None = None,
        jit_model_args: bool = False,
        **settings: Any,
    ):
        """Take note of the settings; nothing is run."""
        kernel = read_kernel(kernel)
        self.settings = {**kernel.settings, **_checked(settings, kernel.settings)}
        if isinstance(num_warmup, bool) or not hasattr(num_warmup, "__index__") or num_warmup.__index__() < 0:
            raise ValueError(f"num_warmup is {num_warmup!r}, expected a whole number of at least 0; 0 leaves it out.")
        num_samples = options.whole("num_samples", num_samples, "each chain needs a draw")
        num_chains = options.whole("num_chains", num_chains, "one chain is enough to sample, four to judge")
        thinning = options.whole("thinning", thinning, "1 keeps every draw")
        if thinning > num_samples:
            raise ValueError(f"thinning is {thinning}, expected at most num_samples, which is {num_samples}.")
        if not (callable(chain_method) or chain_method in CHAIN_METHODS):
            raise unknown("chain_method", chain_method, CHAIN_METHODS, "a function such as jax.vmap")
        if not (postprocess_fn is None or callable(postprocess_fn)):
            kind = type(postprocess_fn).__name__
            raise ValueError(f"postprocess_fn is a {kind}, expected a function of an unconstrained position, or None.")
        super().__init__(
            kernel,
            num_warmup=num_warmup.__index__(),
            num_samples=num_samples,
            num_chains=num_chains,
            thinning=thinning,
            postprocess_fn=postprocess_fn,
            chain_method="vectorized",  # for the others NumPyro asks for devices
            progress_bar=bool(progress_bar),
            progress_rate=progress_rate,
            jit_model_args=bool(jit_model_args),
        )
        self.chain_method = chain_method
        self.trace: Any = None

    @serves_own_model
    def warmup(
        self,
        rng_key: Any,
        *args: Any,
        extra_fields: Any = (),
        collect_warmup: bool = False,
        init_params: PyTree | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Warm up, and set `post_warmup_state`, so that `run` does not.

        With the same key, `run` then gives the draws that it would have given alone (to rounding, where warm-up centres
        effects otherwise than the model does); `last_state.rng_key` is that key.

        Args:
            rng_key: as for `run`.
            *args: of the model.
            extra_fields: fields to collect, as for `run`; of warm-up there are `diverging`, `potential_energy`,
                `accept_prob`, `mean_accept_prob` and `adapt_state.step_size`.
            collect_warmup: let `get_samples` and `get_extra_fields` return the warm-up steps.
            init_params: where chains start, as for `run`.
            model_kwargs: arguments of the model by name, for those that have the name of one of these; such a name by
                itself is refused, where it may be meant for either.
            **kwargs: of the model.

        Raises:
            ValueError: an argument is not what it should be.
        """
        kwargs |= model_kwargs or {}
        self._warmup_state = None
        target, fields = self._prepare(rng_key, args, kwargs, init_params, extra_fields)
        memory = Memory(wants_draws=False)
        settings = {"store": memory, "keep_warmup": collect_warmup}
        self._sample(target, rng_key, {**self._start(target, init_params), **settings})
        assert memory.outcome is not None
        found = memory.outcome.adaptation
        self._args, self._kwargs = args, kwargs
        if collect_warmup and self.num_warmup:
            groups = memory.outcome.warmup()
            kept = slice(self.thinning - 1, None, self.thinning)
            draws, stats = (
                {name: rows[:, kept] for name, rows in groups[group].items()}
                for group in ("warmup_posterior", "warmup_sample_stats")
            )
            self._keep(target, Variables(target).given(draws), stats, fields)
        # Here positions are those of the model as it is written, whatever warm-up centred.
        vectors, *_ = carried(found.density, target, np.asarray(found.last)[:, None])
        free = jax.vmap(plain(target).unravel)(vectors[:, 0])
        self._warmup_state = self._last_state = self._state(target, free, rng_key, found)

    @serves_own_model
    def run(
        self,
        rng_key: Any,
        *args: Any,
        extra_fields: Any = (),
        init_params: PyTree | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Warm up, unless `post_warmup_state` is set, and sample.

        Args:
            rng_key: one key, or one for each chain. The same give the same draws.
            *args: of the model.
            extra_fields: fields to keep beside `diverging`, by the names of NumPyro (`potential_energy`, `num_steps`,
                `accept_prob`, `mean_accept_prob`, `energy`, `adapt_state.step_size`, `z_grad`, "z.a" for an
                unconstrained site) or of ArviZ; "~z.a" leaves a site out of `get_samples`. With thinning,
                `mean_accept_prob` is that of the draws that are kept.
            init_params: where chains start, in unconstrained coordinates, such as `last_state.z`; with a leading axis
                for the chains where there are several. None for random starts. Of no effect, as in NumPyro, where
                `post_warmup_state` is set.
            model_kwargs: arguments of the model by name, for those that have the name of one of these; such a name by
                itself is refused, where it may be meant for either.
            **kwargs: of the model.

        Raises:
            ValueError: an argument is not what it should be, or there is no such field.
        """
        kwargs |= model_kwargs or {}
        state = self._warmup_state
        if state is not None and self.sampler.model is None and isinstance(state, State):
            init_params = state.z
        target, fields = self._prepare(rng_key, args, kwargs, init_params, extra_fields)
        memory = Memory() if self.settings.get("store") is None else None
        if state is not None:
            memory = Memory(self._known(target, state))
            settings: dict[str, Any] = {"start": self._batched(state.z), "num_warmup": 0, "keep_warmup": False}
        else:
            settings = self._start(target, init_params)
        self.trace = self._sample(target, rng_key, settings if memory is None else {**settings, "store": memory})
        self._args, self._kwargs = args, kwargs
        tree = as_datatree(self.trace)
        stored, stats = (
            {str(name): row.values for name, row in tree[group].data_vars.items()}
            for group in ("posterior", "sample_stats")
        )
        draws = Variables(target).given(stored)
        self._keep(target, draws, stats, fields)
        last = {name: values[:, -1:] for name, values in draws.items()}
        free = jax.tree.map(lambda leaf: leaf[:, 0], self._positions(target, last))
        found = None if memory is None or memory.outcome is None else memory.outcome.adaptation
        self._last_state = self._state(target, free, _next_key(rng_key), found)

    def _prepare(
        self, rng_key: Any, args: tuple, kwargs: dict[str, Any], init_params: PyTree | None, extra_fields: Any
    ) -> tuple[Target, Fields]:
        """Return the target and the fields to keep; all that can be refused is refused here."""
        _check_key(rng_key, self.num_chains)
        kernel, position = self.sampler, None
        if kernel.model is None and init_params is not None:
            rows = self._batched(init_params)
            if any(np.shape(leaf)[:1] != (self.num_chains,) for leaf in jax.tree.leaves(rows)):
                raise ValueError(
                    f"init_params has the shapes {jax.tree.map(np.shape, init_params)}, expected a leading axis for "
                    f"the {self.num_chains} chains."
                )
            position = jax.tree.map(lambda leaf: leaf[0], rows)
        target = kernel.target(args, kwargs, position)
        if self.postprocess_fn is not None:
            try:
                jax.eval_shape(self.postprocess_fn, target.position_template())
            except Exception as error:
                raise untraceable(error, "postprocess_fn") or ValueError(
                    f"postprocess_fn cannot be applied to an unconstrained position, which has the shapes "
                    f"{jax.tree.map(np.shape, target.position_template())}: {type(error).__name__}: {error}"
                ) from error
        return target, Fields(extra_fields, Configured(find(kernel.sampler), kernel.sampler_options), target)

    def _start(self, target: Target, init_params: PyTree | None) -> dict[str, Any]:
        """Return where the chains start, as a setting; nothing where `run` was not told."""
        if init_params is None:
            return {}
        template = target.position_template()
        if self.num_chains == 1 and jax.tree.map(np.shape, init_params) == jax.tree.map(np.shape, template):
            init_params = self._batched(init_params)
        vectors = given_positions(target, init_params, self.num_chains, "init_params")
        return {"start": jax.vmap(plain(target).unravel)(vectors)}

    def _batched(self, position: PyTree) -> PyTree:
        """Return a position with a leading axis of chains, which it has where there are several."""
        return position if self.num_chains > 1 else jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], position)

    def _state(self, target: Target, free: PyTree, rng_key: Array, found: Adaptation | None) -> State:
        """Return where the chains stand, as NumPyro has it: without the axis of chains where there is one."""
        energy = -jax.jit(jax.vmap(target.logdensity))(free)
        if self.num_chains == 1:
            free, energy = jax.tree.map(lambda leaf: leaf[0], (free, energy))
        named = isinstance(free, dict) and not self.sampler.has_raw_matrices
        sites = tuple(sorted(free)) if named else None
        return State(free, energy, rng_key, None if found is None else AdaptState.of(found, sites))

    def _known(self, target: Target, state: Any) -> Adaptation:
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
        vectors = given_positions(target, self._batched(state.z), self.num_chains, "post_warmup_state")
        return state.adapt_state.adaptation(target, vectors)

    def _sample(self, target: Target, rng_key: Array, settings: dict[str, Any]) -> Any:
        kernel = self.sampler
        given = {
            "sampler": kernel.sampler,
            "sampler_options": kernel.sampler_options,
            "num_warmup": self.num_warmup,
            "num_samples": self.num_samples,
            "num_chains": self.num_chains,
            "thin": self.thinning,
            "seed": _seed(rng_key),
            "progress": self.progress_bar,
        }
        return sample(target, **{**given, **self.settings, **settings})

    def _keep(self, target: Target, draws: Mapping[str, Any], stats: Mapping[str, Any], fields: Fields) -> None:
        """Keep the draws and the fields that are wanted where NumPyro's methods look."""
        positions = functools.cache(lambda: self._positions(target, draws))
        arrays: Any = {name: jnp.asarray(values) for name, values in draws.items() if name not in fields.left_out}
        if self.postprocess_fn is not None:
            arrays = jax.jit(jax.vmap(jax.vmap(self.postprocess_fn)))(positions())
        elif self.sampler.model is None:
            arrays = positions()
        kept = fields.collect(stats, positions)
        self._states, self._states_flat = {self._sample_field: arrays, **kept}, None

    def _positions(self, target: Target, draws: Mapping[str, Any]) -> PyTree:
        """Return draws in unconstrained coordinates, leading axes (chain, draw)."""
        template = target.position_template()
        if isinstance(target, NumPyroModel):
            model, args, kwargs = self.sampler.model, self._args, self._kwargs
            unconstrain = jax.vmap(jax.vmap(lambda row: unconstrain_fn(model, args, kwargs, row)))
            return jax.jit(unconstrain)(target.latent(draws))
        # The variables of a potential function are the leaves of its position, in order.
        names = list(target.constrain(template))
        return jax.tree.unflatten(jax.tree.structure(template), [jnp.asarray(draws[name]) for name in names])

    @property
    def verdict(self) -> Verdict:
        """What the parallel evaluation took, and whether every step is within tolerance."""
        return read_verdict(self.trace)


def _checked(settings: dict[str, Any], of_kernel: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of `parsample.sample`, once their names are known.

    Raises:
        ValueError: there is no such setting, or it is set elsewhere.
    """
    for name in settings:
        if name in ELSEWHERE:
            raise ValueError(f"{name} is set elsewhere in parsample.MCMC: {ELSEWHERE[name]}.")
        if name in of_kernel:
            raise ValueError(f"{name} is given, and the kernel says {of_kernel[name]!r} of it; leave one out.")
        if name not in ARGUMENTS:
            raise unknown("an argument", name, [row for row in ARGUMENTS if row not in ELSEWHERE])
    return settings


def _check_key(rng_key: Any, num_chains: int) -> None:
    """Raise ValueError unless there is one key, or one for each chain."""
    if isinstance(rng_key, jax.core.Tracer):
        raise ValueError(
            "rng_key is traced, but parsample.MCMC decides on the host and cannot run inside jax.jit, jax.vmap or "
            "jax.pmap; call run outside, with num_chains= for many chains."
        )
    is_new = isinstance(rng_key, jax.Array) and jnp.issubdtype(rng_key.dtype, jax.dtypes.prng_key)
    is_old = isinstance(rng_key, jax.Array | np.ndarray) and rng_key.dtype == np.uint32 and rng_key.shape[-1:] == (2,)
    if not (is_new or is_old):
        raise ValueError(f"rng_key is a {type(rng_key).__name__}, expected a key; write jax.random.key(0).")
    shape = rng_key.shape if is_new else rng_key.shape[:-1]
    if shape not in ((), (num_chains,)):
        raise ValueError(
            f"rng_key holds keys of the shape {shape}, expected one key, or one for each of the {num_chains} chains."
        )


def _is_one(rng_key: Array) -> bool:
    return rng_key.ndim == (0 if jnp.issubdtype(rng_key.dtype, jax.dtypes.prng_key) else 1)


def _seed(rng_key: Array) -> int:
    """Return the seed of a run: a number that all keys take part in."""
    if _is_one(rng_key):
        return int(jax.random.bits(rng_key))
    bits = jax.vmap(jax.random.bits)(rng_key)
    found = jax.random.key(0)
    for number in bits:
        found = jax.random.fold_in(found, number)
    return int(jax.random.bits(found))


def _next_key(rng_key: Array) -> Array:
    """Return the key, or the keys, that go on from there."""
    go_on = lambda key: jax.random.fold_in(key, 1)  # noqa: E731
    return go_on(rng_key) if _is_one(rng_key) else jax.vmap(go_on)(rng_key)
