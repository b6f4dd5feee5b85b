"""How chains on a model outside of JAX are evaluated, and what cannot be asked for there."""

import jax
import jax.numpy as jnp

from parsample.engine import methods, options
from parsample.run.settings import Settings
from parsample.samplers.base import BLOCK
from parsample.samplers.chains import Plan
from parsample.samplers.configured import Configured
from parsample.targets.base import position_shapes
from parsample.targets.external import External
from parsample.warmup.coordinates import plain
from parsample.warmup.hosted import check_sampler

# Steps that are handed over at a time: their runs are dear.
STEPS = BLOCK
# In posterior standard deviations: so near, a run that has a gradient stands in for another.
TOLERANCE = 1e-4


def check_external(target: External, make: Configured, settings: Settings) -> None:
    """Raise ValueError if something is asked for that a model outside of JAX cannot do; nothing is run."""
    if isinstance(settings.start, str) and settings.start == "laplace":
        raise ValueError(
            "start is 'laplace', but the model runs outside of JAX, which knows no Hessian of it; leave start out, or "
            "give values to start at."
        )
    if settings.compare:
        raise ValueError(
            "compare is True, but the model runs outside of JAX, where the loop would take long to compare with; leave "
            "it out: the verdict says how many runs it would have waited for."
        )
    if settings.tune is not None:
        raise ValueError(
            f"tune is {settings.tune!r}, but the model runs outside of JAX, where nothing is tuned; leave it out."
        )
    check_sampler(make(plain(target), 0.1))


def external_plan(target: External, method: str | methods.Method | None, settings: Settings) -> Plan:
    """Return how chains on a model outside of JAX are evaluated: as far ahead as there are workers."""
    chosen = methods.Surrogate() if method in (None, "auto") else methods.find(method)
    if not isinstance(chosen, methods.Surrogate | methods.Picard | methods.Sequential):
        raise ValueError(
            f"method is {method!r}, but the model runs outside of JAX, which knows no derivative of a step; expected "
            "'auto' or 'surrogate' for steps that are foreseen by what was run before, or by the target's emulator, "
            "'picard' for steps that are not, or 'sequential' for the loop."
        )
    window = settings.window
    if isinstance(window, str):
        raise ValueError(
            f"window is {window!r}, expected a whole number of runs ahead; None for as many as there are workers."
        )
    # Of the runs ahead some are there already, and stay: so there may be more of them than workers.
    window = 2 * target.workers.size if window is None else options.whole("window", window, "1 is the loop")
    atol, rtol = (TOLERANCE if given is None else given for given in (settings.atol, settings.rtol))
    shapes = jax.tree.leaves(position_shapes(target))
    options.check_tolerances(atol, rtol, jnp.result_type(*shapes), method=chosen)
    return Plan(chosen, window, STEPS, STEPS, float(atol), float(rtol))
