"""How hard a posterior's chain is to evaluate in parallel: warm-up, then the diagnosis of a stretch of the chain."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from parsample.engine import options
from parsample.engine.diagnose import Diagnosis, diagnose
from parsample.run.arguments import check_left, serves_models
from parsample.run.checks import chosen_sampler, refuse_external
from parsample.run.keywords import documents_options
from parsample.run.settings import Settings, Warmup
from parsample.samplers import find
from parsample.samplers.base import Sampler, check_step_size
from parsample.samplers.chains import draw
from parsample.samplers.configured import Configured, check_steered
from parsample.targets.given import as_target
from parsample.warmup.adapt import adapt
from parsample.warmup.coordinates import begin_chains
from parsample.warmup.starts import starts

CHAINS = 2


@serves_models(0)
@documents_options
def forecast(  # noqa: D417  # the decorator puts the docs of the options in their place
    target: Any,
    *args: Any,
    sampler: str | type[Sampler] = Settings.sampler,
    sampler_options: Mapping[str, Any] | None = Settings.sampler_options,
    num_warmup: int = Warmup.num_warmup,
    num_steps: int = 512,
    step_size: float | None = Warmup.step_size,
    target_acceptance: float | None = Warmup.target_acceptance,
    seed: int = Settings.seed,
    initial_position: PyTree | None = None,
    bijectors: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Diagnosis:
    """Foresee the iterations that each method would need on a chain of a posterior.

    Args:
        target: as for `parsample.sample`: a name in `TARGETS`, a target, a NumPyro model, a distribution or a log
            density.
        *args: of a NumPyro model; with any other target the only one is the sampler.
        sampler, sampler_options: see `Settings`.
        num_warmup: warm-up steps of each of two chains.
        num_steps: of the chain that is looked at, solved at once.
        step_size, target_acceptance: see `Warmup`.
        seed: a whole number.
        initial_position: for a plain log density.
        bijectors: for a plain log density.
        **kwargs: of a NumPyro model; and `model_kwargs`, as for `parsample.sample`.

    Returns:
        What `parsample.diagnose` says of the chain, in coordinates where the posterior has about unit scale.

    Raises:
        ValueError: an argument is not what it should be.
        ConvergenceError: the chain meets a value that is not finite.

    Cost: warm-up, and that of `parsample.diagnose`.
    """
    target, args, kwargs = as_target(target, args, kwargs, initial_position, bijectors)
    check_left(args, kwargs)
    refuse_external(target, "parsample.forecast")
    make = Configured(find(chosen_sampler(args[0] if args else sampler, target)), sampler_options, target_acceptance)
    num_warmup = options.whole("num_warmup", num_warmup, "the posterior's scale comes from it")
    num_steps = options.whole("num_steps", num_steps, "there must be something to look at")
    if step_size is not None:
        check_step_size(step_size)
    check_steered(target_acceptance, step_size, num_warmup)
    keys = [jax.random.split(key, CHAINS) for key in jax.random.split(jax.random.key(options.check_seed(seed)), 3)]
    careful: dict[str, Any] = {"step_size": step_size, "may_be_careful": target_acceptance is None}
    found = adapt(target, make, starts(target, keys[0]), keys[1], num_warmup, **careful)
    chain = make.chosen(found.sampler_options)(found.density, jnp.asarray(found.step_size, found.last.dtype))
    first = jax.tree.map(lambda leaf: leaf[0], begin_chains.of(chain)(found.last, keys[2], np.uint32(0)))
    inputs = jax.tree.map(lambda leaf: leaf[0], draw(chain, keys[2], found.last, 0, num_steps))
    with jax.default_matmul_precision("highest"):
        return diagnose(chain.transition, first, inputs, window=num_steps)
