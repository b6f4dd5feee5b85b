"""What a run is of, and whether it fits: the fingerprint of its model, its transform, and the memory it will take."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from parsample._version import __version__
from parsample.engine import options
from parsample.engine.methods import Newton
from parsample.engine.methods.base import innermost
from parsample.engine.traceable import untraceable
from parsample.results.dims import plain_names
from parsample.results.groups import EVALUATION
from parsample.run.draws import BUDGET, bytes_between
from parsample.run.segments import Job
from parsample.run.settings import Settings
from parsample.samplers.base import Sampler, check_step_size
from parsample.targets.base import Target, position_shapes
from parsample.targets.external import External
from parsample.warmup.coordinates import plain
from parsample.warmup.scale import check_mass

# Statistics of a draw that go into the trace, about; and what a segment has on the device beside the draws: inputs,
# states, the guess and the states before each, each of the size of the unknowns.
STATISTICS, COPIES = 8, 6


def fingerprint(target: Target, vectors: Float[Array, "chain dim"]) -> dict[str, Any]:
    """Return what must be the same when a run goes on: versions, and the model as its log density shows it.

    Args:
        target: to sample.
        vectors: where the chains start, flat positions.
    """
    density = plain(target)
    if isinstance(target, External):
        found = target.look(vectors)[0]
    else:
        found = jax.jit(jax.vmap(lambda vector: target.logdensity(density.unravel(vector))))(vectors)
    leaves = jax.tree_util.tree_leaves_with_path(position_shapes(target))
    return {
        "version": __version__,
        "version of JAX": jax.__version__,
        "target": target.name,
        "dtype": str(vectors.dtype),
        "number of chains": len(vectors),
        "number of coordinates": vectors.shape[1],
        "paths of the position": [jax.tree_util.keystr(path) for path, _ in leaves],
        "log densities at the starts": np.asarray(found, np.float64).tolist(),
    }


def check_settings(settings: Settings) -> Settings:
    """Return the settings with whole numbers and truth values as such, once every option that stands alone is checked.

    Raises:
        ValueError: an option is not what it should be.
    """
    num_warmup = settings.num_warmup
    if isinstance(num_warmup, bool) or not hasattr(num_warmup, "__index__") or num_warmup.__index__() != 0:
        num_warmup = options.whole("num_warmup", num_warmup, "0 leaves warm-up out")
    num_samples = options.whole("num_samples", settings.num_samples, "each chain needs a draw")
    thin = options.whole("thin", settings.thin, "1 keeps every draw")
    if thin > num_samples:
        raise ValueError(f"thin is {thin}, expected at most num_samples, which is {num_samples}.")
    if settings.step_size is not None:
        check_step_size(settings.step_size)
    check_mass(settings.mass)
    if isinstance(settings.warmup_method, str) and settings.warmup_method == "auto":
        raise ValueError("warmup_method is 'auto', expected the name of a method; 'sequential' is seldom slower.")
    return dataclasses.replace(
        settings,
        num_warmup=int(num_warmup),
        num_samples=num_samples,
        num_chains=options.whole("num_chains", settings.num_chains, "one chain is enough to sample, four to judge"),
        seed=options.check_seed(settings.seed),
        thin=thin,
        compare=settings.compare if settings.compare is None else bool(settings.compare),
        keep_warmup=bool(settings.keep_warmup),
        dims=plain_names("dims", settings.dims),
        coords=plain_names("coords", settings.coords),
    )


def chosen_sampler(sampler: str | type[Sampler], target: Target) -> str | type[Sampler]:
    """Return the sampler that is asked for; "auto" is by the target."""
    if not isinstance(sampler, str) or sampler != "auto":
        return sampler
    if not isinstance(target, External):
        return "hmc"
    return "mala" if target.has_gradient else "rwm"


def refuse_external(target: Target, door: str) -> None:
    """Raise ValueError where a front door runs a model in ways that only one in JAX can be."""
    if isinstance(target, External):
        raise ValueError(
            f"target runs outside of JAX, which {door} cannot foresee; parsample.sample with a few hundred draws says "
            "in its verdict what its runs took."
        )


def check_transform(transform: Callable, target: Target, groups: Sequence[str]) -> None:
    """Raise ValueError unless a transform makes variables of a draw, and no group needs those that it replaces."""
    needed = [name for name in groups if name not in ("prior", EVALUATION)]
    if needed:
        raise ValueError(
            f"groups asks for {needed[0]!r}, which is made of the variables that transform replaces; leave one out."
        )
    draw = jax.eval_shape(lambda: target.constrain(target.position_template()))
    try:
        found = jax.eval_shape(transform, draw)
    except Exception as error:
        raise untraceable(error, "transform") or ValueError(
            f"transform cannot be applied to a draw, which has {', '.join(draw)}: {type(error).__name__}: {error}"
        ) from error
    named = isinstance(found, dict) and found and all(isinstance(name, str) for name in found)
    if not (named and all(hasattr(value, "shape") for value in found.values())):
        raise ValueError(
            f"transform returned a {type(found).__name__}, expected a dict of arrays by name, such as "
            f"{{'{next(iter(draw))}': ...}}."
        )


def check_memory(job: Job, has_store: bool) -> None:
    """Raise ValueError if a run would take more memory than there is, and say how many chains would fit.

    A rough lower bound, from the sizes of the arrays alone.

    Args:
        job: what is asked for.
        has_store: whether draws leave the memory.
    """
    settings, target = job.settings, job.target
    device, host = _device_bytes(), _host_bytes()
    template = position_shapes(target)
    vector = plain(target).center
    variables = job.form.variables
    row = sum(leaf.size * leaf.dtype.itemsize for leaf in variables.shapes.values()) + STATISTICS * 4
    # Those of a segment are worked out in batches, whatever the number of chains.
    between = bytes_between(variables.of_draw, template)
    shared = min(max(BUDGET, between), settings.num_chains * job.plan.steps * between)
    dim = vector.size * vector.dtype.itemsize
    plan, itemsize = job.plan, vector.dtype.itemsize
    # Warm-up draws the inputs of all its steps at once.
    on_device = max(plan.steps * (COPIES * dim + row), settings.num_warmup * dim)
    if plan.history:
        on_device += plan.max_iterations * plan.window * itemsize
    if isinstance(innermost(plan.method), Newton):
        # As they are, and projected; of one chain at a time on a CPU.
        matrices = 2 * plan.window * vector.size * dim
        on_device, shared = (on_device, shared + matrices) if device is None else (on_device + matrices, shared)
    # Putting the segments together takes the trace once more.
    on_host = job.plan.steps * row if has_store else 2 * row * (settings.num_samples // settings.thin)
    on_host += settings.num_warmup * dim if settings.keep_warmup else 0
    needs = [("the device", on_device, device), ("this machine", on_host, host)]
    if device is None:
        needs = [("this machine", on_device + on_host, host)]
    for where, needed, there in needs:
        taken = settings.num_chains * needed + (shared if where != "this machine" or device is None else 0)
        if there is not None and taken > there:
            fit = max(0, int((there - taken) // needed) + settings.num_chains)
            raise ValueError(
                f"num_chains is {settings.num_chains}, which takes at least {_size(taken)} with "
                f"{settings.num_samples:,} draws each, but {where} has {_size(there)} left; {fit or 'no'} chains would "
                f"fit{_remedies(job, has_store)}."
            )


def _remedies(job: Job, has_store: bool) -> str:
    remedies = [] if has_store else ["fewer draws", "thin=", "store="]
    remedies += ["a smaller window"] if job.plan.steps > job.piece else []
    words = " or ".join(filter(None, (", ".join(remedies[:-1]), *remedies[-1:])))
    return f", and more with {words}" if words else ""


def _device_bytes() -> int | None:
    """Memory that is left on the device, None where it is the machine's own or not known."""
    if jax.default_backend() == "cpu":
        return None
    stats = jax.devices()[0].memory_stats() or {}
    return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None


def _host_bytes() -> int | None:
    """Memory that is left on this machine, or to this container; None where it is not known."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
        found += [] if limit == "max" else [max(0, int(limit) - used)]
    except (OSError, ValueError):
        pass
    return min(found) if found else None


def _size(number: Any) -> str:
    return f"{number / 2**30:,.1f} GiB" if number >= 2**30 else f"{number / 2**20:,.0f} MiB"
