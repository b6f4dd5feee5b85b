"""What a run is asked for, checked before anything is spent, and how its chains are evaluated on this device."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from parsample.engine import methods, options
from parsample.results.form import find_form
from parsample.results.groups import EVALUATION, check_requests
from parsample.run.checks import check_settings, check_transform, chosen_sampler
from parsample.run.external import STEPS, check_external, external_plan
from parsample.run.keys import run_keys
from parsample.run.segments import Job
from parsample.run.settings import Settings
from parsample.run.until import check_until
from parsample.samplers import find as find_sampler
from parsample.samplers.base import BLOCK
from parsample.samplers.chains import Plan
from parsample.samplers.configured import Configured, check_steered
from parsample.targets.base import Target, position_shapes
from parsample.targets.external import External
from parsample.warmup.coordinates import plain
from parsample.warmup.given_starts import given_starts
from parsample.warmup.noise import least_tolerance
from parsample.warmup.tuning import check_tune

# Steps of a piece, at most: how many rows are handed over at a time, and looked at by `until`. A segment, which is
# evaluated at once, is one piece, or as many as its window is long.
PIECE = 1024
# What the window is where all of the chain is to be one.
WHOLE = "all"
# Window by device: on a CPU evaluations are what costs, and short windows waste fewest of them; on an accelerator
# iterations are.
WINDOW_CPU, WINDOW_ACCELERATOR = 16, 1024
# A chain whose window advances by fewer steps an iteration than this, on average, is left to the sequential loop.
SLOWEST_ADVANCE = 1.5


def check_job(target: Target, settings: Settings) -> Job:
    """Check the settings, and work out how chains are evaluated.

    Raises:
        ValueError: an option is not what it should be.
    """
    settings = check_settings(settings)
    settings = dataclasses.replace(settings, sampler=chosen_sampler(settings.sampler, target))
    check_requests(settings.groups, target)
    make = Configured(find_sampler(settings.sampler), settings.sampler_options, settings.target_acceptance)
    check_steered(settings.target_acceptance, settings.step_size, settings.num_warmup)
    good = check_until(settings.until, settings.num_chains)
    check_tune(settings.tune, make, settings.method)
    for name in ("method", "warmup_method"):
        _check_loop(make, name, getattr(settings, name))
    if settings.transform is not None:
        check_transform(settings.transform, target, settings.groups)
    form = find_form(target, settings.groups, transform=settings.transform, dims=settings.dims, coords=settings.coords)
    make(plain(target), settings.step_size or 0.1)  # refuses what no run could use, before warm-up
    if isinstance(target, External):
        check_external(target, make, settings)
    plan, warmup_plan = (
        _plan(target, settings.method, settings, True),
        _plan(target, settings.warmup_method, settings, False),
    )
    plan = plan._replace(history=EVALUATION in settings.groups)
    # Warm-up runs before the rounding noise can be measured.
    least = least_tolerance(_dtype(target))
    warmup_plan = warmup_plan._replace(
        atol=least if plan.atol is None else plan.atol, rtol=least if plan.rtol is None else plan.rtol
    )
    settings = dataclasses.replace(settings, groups=tuple(settings.groups), atol=plan.atol, rtol=plan.rtol)
    keys = run_keys(settings.seed, settings.num_chains)
    starts = given_starts(target, settings.start, keys.start)
    piece = piece_of(settings.num_samples, target)
    return Job(target, make, plan, piece, _kept(settings, target, starts), good, form, warmup_plan, keys, starts)


def _check_loop(make: Configured, name: str, method: str | methods.Method | None) -> None:
    """Raise ValueError if a sampler that only the loop evaluates is to be evaluated otherwise."""
    if not make.sampler_class.loop_only or isinstance(method, methods.Sequential):
        return
    if method not in (None, "auto", "sequential"):
        raise ValueError(
            f"{name} is {method!r}, but {make.sampler_class.__name__} is evaluated by the sequential loop alone; leave "
            "it out, or take another sampler, such as 'hmc'."
        )


def _kept(settings: Settings, target: Target, starts: Float[Array, "chain dim"] | None) -> Settings:
    """Return the settings with the positions that a function led to in its place, which a file can hold."""
    if starts is None or "start" not in settings.plain()["unkept"]:
        return settings
    positions = jax.tree.map(np.asarray, jax.vmap(plain(target).unravel)(starts))
    led_to = dataclasses.replace(settings, start=positions)
    return settings if "start" in led_to.plain()["unkept"] else led_to


def _dtype(target: Target) -> jnp.dtype:
    return jnp.result_type(*jax.tree.leaves(position_shapes(target)))


def _plan(target: Target, method: str | methods.Method | None, settings: Settings, or_auto: bool) -> Plan:
    """Check the options of the evaluation, and fill in what depends on the device."""
    if isinstance(target, External):
        return external_plan(target, method, settings)
    method = "sequential" if method is None else method
    piece, window = piece_of(settings.num_samples, target), settings.window
    pieces = -(-settings.num_samples // piece)
    if window is None:
        window = WINDOW_CPU if jax.default_backend() == "cpu" else WINDOW_ACCELERATOR
    elif isinstance(window, str):
        if window != WHOLE:
            raise ValueError(
                f"window is {window!r}, expected a whole number of steps, or {WHOLE!r} for the whole chain at once."
            )
        window = pieces * piece
    window = options.whole("window", window, f"{WHOLE!r} solves the whole chain at once")
    # Of equal length: the last one may run too far, which is cheaper than compiling another program for it.
    steps = piece * min(pieces, -(-window // piece))
    max_iterations = settings.max_iterations
    if max_iterations is None:
        max_iterations = max(64, int(steps / SLOWEST_ADVANCE))
    dtype = _dtype(target)
    is_auto = or_auto and isinstance(method, str) and method == "auto"
    chosen = methods.QuasiNewton() if is_auto else methods.find(method, or_auto)
    atol, rtol = settings.atol, settings.rtol
    absolute, relative = (least_tolerance(dtype) if given is None else given for given in (atol, rtol))
    options.check_tolerances(absolute, relative, dtype, method=chosen)
    atol, rtol = (None if given is None else float(given) for given in (atol, rtol))
    checked = options.check(chosen, steps, window, max_iterations)
    return Plan(chosen, checked.window, steps, checked.max_iterations, atol, rtol)


def piece_of(num_samples: int, target: Target) -> int:
    """Return the steps of a piece: about equal ones, in whole blocks of inputs; short ones where runs are dear."""
    if isinstance(target, External):
        return STEPS
    number = -(-num_samples // PIECE)
    return -(-num_samples // (number * BLOCK)) * BLOCK
