"""`numpyro.infer.MCMC` with chains evaluated in parallel, for code that already calls that."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.infer
from jaxtyping import Array, Float, Key, PyTree
from numpyro.infer.util import unconstrain_fn

from parsample.engine import options
from parsample.samplers import find
from parsample.samplers.base import Sampler
from parsample.samplers.configured import Configured
from parsample.sampling import sample
from parsample.targets.numpyro_model import NumPyroModel
from parsample.trace import as_datatree
from parsample.verdict import Verdict, read_verdict

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


class LastState(NamedTuple):
    """Where the chains ended.

    Attributes:
        z: the latent sites in unconstrained coordinates, leading axis `chain`.
        potential_energy: minus the log density there.
    """

    z: PyTree
    potential_energy: Float[Array, " chain"]


class MCMC(numpyro.infer.MCMC):
    """Run a kernel, and keep draws and statistics as `numpyro.infer.MCMC` does; `arviz.from_numpyro` takes it.

    The methods are NumPyro's own: `get_samples`, `get_extra_fields`, `print_summary`, `last_state`. What is more is
    `trace`, the ArviZ object of `parsample.sample`, and `verdict`. Chains start at draws uniform on (-2, 2) in
    unconstrained coordinates, as with NumPyro's default.

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
        self._args: tuple = ()
        self._kwargs: dict[str, Any] = {}

    def run(
        self,
        rng_key: Key[Array, ""] | Array,
        *args: Any,
        extra_fields: Sequence[str] = (),
        init_params: PyTree | None = None,
        **kwargs: Any,
    ) -> None:
        """Warm up, and sample.

        Args:
            rng_key: the same key gives the same draws.
            *args: of the model.
            extra_fields: statistics to keep beside `diverging`, by the names of NumPyro (`potential_energy`,
                `accept_prob`, `num_steps`, `energy`) or of ArviZ.
            init_params: where chains start, in unconstrained coordinates, such as `last_state.z`; with a leading axis
                for the chains where there are several. None for random starts.
            **kwargs: of the model.

        Raises:
            ValueError: an argument is not what it should be, or the sampler has no such statistic.
        """
        kernel, target = self.sampler, NumPyroModel(self.sampler.model, *args, **kwargs)
        settings = dict(self.settings)
        if init_params is not None:
            template = target.position_template()
            one = self.num_chains == 1 and jax.tree.map(jnp.shape, init_params) == jax.tree.map(jnp.shape, template)
            settings["start"] = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], init_params) if one else init_params
        self.trace = sample(
            target,
            sampler=kernel.sampler,
            sampler_options=kernel.sampler_options,
            num_warmup=self.num_warmup,
            num_samples=self.num_samples,
            num_chains=self.num_chains,
            seed=int(jax.random.bits(rng_key)),
            progress=self.progress_bar,
            **settings,
        )
        tree = as_datatree(self.trace)
        draws = {name: jnp.asarray(row.values) for name, row in tree["posterior"].data_vars.items()}
        stats = {name: jnp.asarray(row.values) for name, row in tree["sample_stats"].data_vars.items()}
        stats = {"diverging": jnp.zeros_like(stats["is_accepted"]), "potential_energy": -stats["lp"], **stats}
        kept = {}
        for field in ("diverging", *extra_fields):
            name = FIELDS.get(field, field)
            if name not in stats:
                known = ", ".join(map(str, stats))
                raise ValueError(f"extra_fields has {field!r}, expected statistics of the sampler: {known}.")
            kept[field] = stats[name]
        self._states, self._states_flat = {self._sample_field: draws, **kept}, None
        self._args, self._kwargs = args, kwargs
        latent = {name: draws[name][:, -1] for name in target.position_template()}
        free = jax.vmap(lambda row: unconstrain_fn(kernel.model, args, kwargs, row))(latent)
        self._last_state = LastState(free, stats["potential_energy"][:, -1])

    @property
    def verdict(self) -> Verdict:
        """What the parallel evaluation took, and whether every step is within tolerance."""
        return read_verdict(self.trace)
