"""How hard a posterior's chain is to evaluate in parallel: warm-up, then the diagnosis of a stretch of the chain."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from parsample.engine import options
from parsample.engine.diagnose import Diagnosis, diagnose
from parsample.samplers import find
from parsample.samplers.base import Sampler, check_step_size
from parsample.samplers.chains import begin, draw, start_keys
from parsample.samplers.configured import Configured, check_steered
from parsample.targets.given import as_target
from parsample.warmup.adapt import adapt
from parsample.warmup.coordinates import starts, to_standardised

CHAINS = 2


def forecast(
    target: Any,
    sampler: str | type[Sampler] = "hmc",
    *,
    sampler_options: Mapping[str, Any] | None = None,
    num_warmup: int = 1000,
    num_steps: int = 512,
    step_size: float | None = None,
    target_acceptance: float | None = None,
    seed: int = 0,
) -> Diagnosis:
    """Foresee the iterations that each method would need on a chain of a posterior.

    Args:
        target: a name in `TARGETS`, or a target.
        sampler: a name in `SAMPLERS`, or a sampler's class.
        sampler_options: of the sampler, by name.
        num_warmup: warm-up steps of each of two chains.
        num_steps: of the chain that is looked at, solved at once.
        step_size: in standardised coordinates, dimensionless; None to let warm-up find it.
        target_acceptance: that warm-up steers the step size to, as for `parsample.sample`.
        seed: a whole number.

    Returns:
        What `parsample.diagnose` says of the chain, in coordinates where the posterior has about unit scale.

    Raises:
        ValueError: an argument is not what it should be.
        ConvergenceError: the chain meets a value that is not finite.

    Cost: warm-up, and that of `parsample.diagnose`.
    """
    target, _, _ = as_target(target, (), {}, None, None)
    make = Configured(find(sampler), sampler_options, target_acceptance)
    num_warmup = options.whole("num_warmup", num_warmup, "the posterior's scale comes from it")
    num_steps = options.whole("num_steps", num_steps, "there must be something to look at")
    if step_size is not None:
        check_step_size(step_size)
    check_steered(target_acceptance, step_size, num_warmup)
    keys = [jax.random.split(key, CHAINS) for key in jax.random.split(jax.random.key(options.check_seed(seed)), 3)]
    found = adapt(target, make, starts(target, keys[0]), keys[1], num_warmup, step_size=step_size)
    chain = make.chosen(found.sampler_options)(found.density, jnp.asarray(found.step_size, found.last.dtype))
    positions = to_standardised(found.density, found.last)
    first = jax.tree.map(lambda leaf: leaf[0], begin(chain, positions, start_keys(keys[2])))
    inputs = jax.tree.map(lambda leaf: leaf[0], draw(chain, keys[2], positions, 0, num_steps))
    with jax.default_matmul_precision("highest"):
        return diagnose(chain.transition, first, inputs, window=num_steps)
