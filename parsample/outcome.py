"""What a run gave: the verdict, and the trace."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from parsample.chains import Plan, Segment
from parsample.engine import methods
from parsample.groups import extra_groups
from parsample.running import Comparison, Run
from parsample.samplers import SAMPLERS
from parsample.samplers.configured import Configured
from parsample.targets.base import Target
from parsample.trace import build_trace
from parsample.verdict import Verdict
from parsample.warmup import Adaptation

# Diagnostics of a step whose name in ArviZ's schema is another than BlackJAX's, which the samplers use.
STATISTICS = {"is_divergent": "diverging", "num_integration_steps": "n_steps"}


def _total(segments: list[Segment], name: str) -> np.ndarray:
    """Add a count of each chain up over the segments, in 64 bits, which the device's own counts do not have."""
    return np.stack([getattr(segment, name) for segment in segments]).astype(np.int64).sum(0)


def judge(plan: Plan, num_samples: int, segments: list[Segment], run: Run, comparison: Comparison) -> Verdict:
    """Return the verdict about the evaluation of all segments."""
    chains = len(run.positions)
    run_steps = plan.steps * len(segments)
    # The loop finishes a segment from some step to its end, and the last segment may end beyond the last draw.
    finished_beyond = np.minimum(segments[-1].finished, run_steps - num_samples)
    defaults = (name for name in methods.METHODS if bool(eqx.tree_equal(methods.METHODS[name](), plan.method)))
    name = next(defaults, repr(plan.method))
    return Verdict(
        method=name,
        window=1 if name == "sequential" else plan.window,
        chains=chains,
        steps=num_samples,
        iterations=int(_total(segments, "iterations").max()),
        evaluations_per_step=float(_total(segments, "evaluations").sum() / run_steps / chains),
        largest_residual=float(max(segment.residual.max() for segment in segments)),
        atol=float(plan.atol),
        rtol=float(plan.rtol),
        finished_sequentially=int((_total(segments, "finished") - finished_beyond).sum()),
        approximate_steps=int(np.sum(~np.concatenate([segment.is_within for segment in segments], 1)[:, :num_samples])),
        run_seconds=run.run_seconds,
        compile_seconds=run.compile_seconds,
        **comparison._asdict(),
    )


def trace_of(
    target: Target,
    make: Configured,
    adaptation: Adaptation,
    num_samples: int,
    segments: list[Segment],
    verdict: Verdict,
    requests: Sequence[str],
    settings: dict[str, Any],
) -> Any:
    """Return the trace, with the settings and the verdict as its attributes."""

    def join(rows: list[Any]) -> np.ndarray:
        return np.concatenate(rows, 1)[:, :num_samples]

    posterior = {name: join([segment.draws[name] for segment in segments]) for name in segments[0].draws}
    stats = {"lp": join([segment.lp for segment in segments])}
    for name in segments[0].info:
        stats[STATISTICS.get(name, name)] = join([segment.info[name] for segment in segments])
    stats["residual"] = join([segment.residual for segment in segments])
    stats["step_size"] = np.full_like(stats["lp"], adaptation.step_size)
    stats["iterations"] = _total(segments, "iterations")
    groups = {"posterior": posterior, "sample_stats": stats}
    if adaptation.draws.shape[1]:
        constrain = jax.jit(jax.vmap(jax.vmap(lambda x: target.constrain(adaptation.density.unravel(x)))))
        groups["warmup_posterior"] = jax.device_get(constrain(jnp.asarray(adaptation.draws)))
    device, used = jax.devices()[0], make.sampler_class
    attributes = {
        "target": target.name,
        "sampler": next((name for name, row in SAMPLERS.items() if row is used), used.__name__),
        "sampler_options": make.sampler_options,
        **settings,
        "dtype": str(adaptation.last.dtype),
        "device": f"{device.platform} {device.device_kind}",
        "jax_version": jax.__version__,
        **verdict.attributes(),
    }
    groups |= extra_groups(target, requests, posterior, jax.random.fold_in(jax.random.key(settings["seed"]), 1))
    named = {name for variables in groups.values() for name in variables}
    dims = {name: dims for name, dims in target.dims.items() if name in named}
    return build_trace(groups, dims=dims, coords=target.coords, attrs=attributes)
