"""Who samples: each called as its users call it: warm-up and draws from a seed, as many chains of as many draws."""

import contextlib
import functools
import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
from jax.flatten_util import ravel_pytree
from numpyro.infer import MCMC, NUTS

import parsample as ps
from benchmarks.bench.cases import Case
from benchmarks.chains import PUBLISHED
from benchmarks.sequential_gradients import gradients_in_sequence
from parsample.results.trace import as_datatree


class Size(NamedTuple):
    """How long a run is: steps of warm-up and draws a chain, and chains."""

    warmup: int = 1000
    draws: int = 1000
    chains: int = 4


class Outcome(NamedTuple):
    """What a run has to show.

    Attributes:
        draws: variable -> values, leading axes (chain, draw).
        gradients: of the draws, over all chains, warm-up not counted.
        sequence: of these the longest row that wait for each other.
        divergences: among the draws.
        more: what only some have to say: iterations and the like.
    """

    draws: Mapping[str, np.ndarray]
    gradients: int
    sequence: int
    divergences: int
    more: Mapping[str, Any] = {}


class Skip(Exception):
    """Why an opponent has no row for a target."""


# From a seed to draws that are there; what is returned makes an outcome of them, which is not timed.
Run = Callable[[int], Callable[[], Outcome]]


def outcome(draws: Mapping[str, Any], steps: Any, divergent: Any, in_step: bool = True) -> Outcome:
    """Make an outcome of draws and the leapfrog steps of each, shape (chain, draw).

    Chains that are evaluated in step wait at every draw for the longest of their trajectories.
    """
    counts = np.asarray(steps, dtype=np.int64)
    sequence = counts.max(axis=0).sum() if in_step else counts.sum(axis=1).max()
    values = {name: np.asarray(value) for name, value in draws.items()}
    return Outcome(values, int(counts.sum()), int(sequence), int(np.sum(divergent)))


# The published setting needs no clipping of its own: projecting a diagonal clips it to [-1, 1]. Where it has not
# converged after so many iterations the loop has the rest.
PUBLISHED_ITERATIONS = 32
FIXED: dict[str, Any] = {"compare": False}
OURS: dict[str, dict[str, Any]] = {
    "auto": {},
    "loop": {**FIXED, "method": "sequential"},
    "MALA, loop": {**FIXED, "sampler": "mala", "method": "sequential"},
    "quasi-Newton, window 16": {**FIXED, "method": "quasi_newton", "window": 16},
    "Newton, window 64": {**FIXED, "method": "newton", "window": 64},
}
PUBLISHED_OPTIONS: dict[str, Any] = {
    **FIXED,
    "sampler": "mala",
    "method": PUBLISHED["method"],
    "window": "all",
    "max_iterations": PUBLISHED_ITERATIONS,
}
# Newton's matrices are dense.
NEWTON_DIM = 64


def ours(case: Case, size: Size, options: Mapping[str, Any]) -> Run:
    """Return `parsample.sample` with these options, everything else by default."""
    if options.get("method") == "newton" and case.dim > NEWTON_DIM:
        raise Skip(f"dense matrices of {case.dim} dimensions")

    def run(seed: int) -> Callable[[], Outcome]:
        trace = ps.sample(
            case.target,
            **{**options, "seed": seed, "progress": False},
            num_warmup=size.warmup,
            num_samples=size.draws,
            num_chains=size.chains,
        )
        return lambda: read(trace)

    return run


def read(trace: Any) -> Outcome:
    """Return what a trace of ours holds."""
    tree: Any = as_datatree(trace)
    stats, verdict = tree["sample_stats"], ps.read_verdict(trace)
    accepted = np.asarray(stats["acceptance_rate"])
    steps = np.asarray(stats["n_steps"]) if "n_steps" in stats else np.ones(accepted.shape)
    divergent = stats["diverging"] if "diverging" in stats else 0
    found = outcome({name: value.values for name, value in tree["posterior"].data_vars.items()}, steps, divergent)
    more = {
        "iterations": verdict.iterations,
        "evaluations_per_step": verdict.evaluations_per_step,
        "finished_by_loop": verdict.finished_sequentially,
        "sampler": verdict.sampler,
        "method": verdict.method,
        "chosen": verdict.choice,
    }
    if verdict.method == "sequential":
        return found._replace(more=more)
    # An iteration evaluates every step it takes, and one gradient more where the step begins.
    gradients = int(verdict.evaluations_per_step * (found.gradients + steps.size))
    return found._replace(
        gradients=gradients, sequence=int(gradients_in_sequence(verdict, int(steps.max()))), more=more
    )


def numpyro_nuts(case: Case, size: Size, chain_method: str) -> Run:
    """Return NumPyro's MCMC with NUTS and its defaults, the same object for all runs."""
    if chain_method == "parallel" and jax.local_device_count() < size.chains:
        raise Skip(f"{jax.local_device_count()} devices for {size.chains} chains")
    kernel = NUTS(case.model) if case.model else NUTS(potential_fn=lambda position: -case.target.logdensity(position))
    mcmc = MCMC(
        kernel,
        num_warmup=size.warmup,
        num_samples=size.draws,
        num_chains=size.chains,
        chain_method=chain_method,
        progress_bar=False,
    )
    constrain = jax.jit(jax.vmap(jax.vmap(case.target.constrain)))

    def run(seed: int) -> Callable[[], Outcome]:
        start, key = jax.random.split(jax.random.key(seed))
        given = {} if case.model else {"init_params": case.starts(start, size.chains)}
        mcmc.run(key, *case.args, extra_fields=("num_steps", "diverging"), **given, **case.kwargs)
        draws = mcmc.get_samples(group_by_chain=True)
        draws = jax.block_until_ready(draws if case.model else constrain(draws))
        fields = mcmc.get_extra_fields(group_by_chain=True)
        in_step = chain_method == "vectorized"
        return lambda: outcome(draws, fields["num_steps"], fields["diverging"], in_step)

    return run


def blackjax_window(case: Case, size: Size, algorithm: str, **options: Any) -> Run:
    """Return BlackJAX's window adaptation, and the algorithm with what it finds, each chain for itself."""
    import blackjax  # which starts JAX: not before the devices are asked for

    make = getattr(blackjax, algorithm)
    warmup = blackjax.window_adaptation(make, case.target.logdensity, **options)

    def adapt(key: jax.Array, starts: Any) -> Any:
        keys = jax.random.split(key, size.chains)
        states, parameters = jax.vmap(lambda key, start: warmup.run(key, start, size.warmup)[0])(keys, starts)

        def step(key: jax.Array, state: Any, parameters: Any) -> Any:
            return make(case.target.logdensity, **{**parameters, **options}).step(key, state)

        # The options are the same for all chains, and no arrays.
        found = {name: value for name, value in parameters.items() if name not in options}
        return states, lambda keys, states: jax.vmap(step)(keys, states, found)

    return _blackjax(case, size, adapt)


def blackjax_chees(case: Case, size: Size) -> Run:
    """Return BlackJAX's ChEES: one step size and trajectory length for all chains."""
    import blackjax

    def adapt(key: jax.Array, starts: Any) -> Any:
        warmup = blackjax.chees_adaptation(case.target.logdensity, size.chains)
        (states, parameters), _ = warmup.run(key, starts, 0.1, optax.adam(0.02), size.warmup)
        return states, jax.vmap(blackjax.dynamic_hmc(case.target.logdensity, **parameters).step)

    return _blackjax(case, size, adapt)


def _blackjax(case: Case, size: Size, adapt: Callable) -> Run:
    """Return warm-up and draws by BlackJAX in one program: a scan over vmapped steps."""

    @jax.jit
    def program(key: jax.Array) -> Any:
        start, warm, sample = jax.random.split(key, 3)
        states, step = adapt(warm, case.starts(start, size.chains))

        def one(states: Any, key: jax.Array) -> Any:
            states, info = step(jax.random.split(key, size.chains), states)
            return states, (states.position, info.num_integration_steps, info.is_divergent)

        found = jax.lax.scan(one, states, jax.random.split(sample, size.draws))[1]
        positions, steps, divergent = jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), found)
        return jax.vmap(jax.vmap(case.target.constrain))(positions), steps, divergent

    def run(seed: int) -> Callable[[], Outcome]:
        found = jax.block_until_ready(program(jax.random.key(seed)))
        return lambda: outcome(*found)

    return run


def nutpie(case: Case, size: Size) -> Run:
    """Return nutpie's sampler on the log density as a compiled JAX function, one chain a core."""
    if importlib.util.find_spec("nutpie") is None:
        raise Skip("nutpie is not installed")
    library: Any = importlib.import_module("nutpie")
    from_pyfunc = importlib.import_module("nutpie.compiled_pyfunc").from_pyfunc
    template, unravel = ravel_pytree(case.target.position_template())
    shapes = jax.eval_shape(lambda: case.target.constrain(case.target.position_template()))
    # Its threads have JAX's settings from the process, not from a context that the caller has entered.
    precision = functools.partial(jax.enable_x64, True) if template.dtype == np.float64 else contextlib.nullcontext

    @jax.jit
    def value_and_grad(vector: jax.Array) -> jax.Array:
        """Return both as one array, and so with one transfer."""
        value, gradient = jax.value_and_grad(lambda vector: case.target.logdensity(unravel(vector)))(vector)
        return jnp.append(gradient, value)

    constrain = jax.jit(lambda vector: case.target.constrain(unravel(vector)))
    call = value_and_grad.lower(template).compile()

    def logp(vector: np.ndarray) -> tuple[float, np.ndarray]:
        with precision():
            found = np.asarray(call(vector.astype(template.dtype)), dtype=np.float64)
        return float(found[-1]), found[:-1]

    def expand(vector: np.ndarray) -> dict[str, np.ndarray]:
        with precision():
            found = constrain(vector.astype(template.dtype))
        return {name: np.asarray(value, dtype=np.float64) for name, value in found.items()}

    compiled = from_pyfunc(
        template.size,
        lambda: logp,
        lambda *_: expand,
        [np.dtype(np.float64)] * len(shapes),
        [shape.shape for shape in shapes.values()],
        list(shapes),
        make_initial_point_fn=lambda seed: np.random.default_rng(seed).uniform(-2, 2, template.size),
    )

    def run(seed: int) -> Callable[[], Outcome]:
        trace = library.sample(
            compiled,
            tune=size.warmup,
            draws=size.draws,
            chains=size.chains,
            cores=min(size.chains, os.cpu_count() or 1),
            seed=seed,
            save_warmup=False,
            progress_bar=False,
        )
        stats = trace.sample_stats
        draws = {name: value.values for name, value in trace.posterior.data_vars.items()}
        return lambda: outcome(draws, stats["n_steps"], stats["diverging"], in_step=False)

    return run


# Leapfrog steps of BlackJAX's HMC, which its users have to name.
LEAPFROG_STEPS = 8
# In the order of the first calls: "auto" pays for compiling what the others of ours share.
OPPONENTS: dict[str, Callable[[Case, Size], Run]] = {
    **{f"ours, {name}": functools.partial(ours, options=options) for name, options in OURS.items()},
    "published parallel method": functools.partial(ours, options=PUBLISHED_OPTIONS),
    "NumPyro NUTS, vectorized": functools.partial(numpyro_nuts, chain_method="vectorized"),
    "NumPyro NUTS, a chain a core": functools.partial(numpyro_nuts, chain_method="parallel"),
    "BlackJAX NUTS": functools.partial(blackjax_window, algorithm="nuts"),
    "BlackJAX HMC": functools.partial(blackjax_window, algorithm="hmc", num_integration_steps=LEAPFROG_STEPS),
    "BlackJAX ChEES": blackjax_chees,
    "nutpie": nutpie,
}
AUTO, LOOP = "ours, auto", "ours, loop"
FAMILIES = ("ours", "NumPyro", "BlackJAX", "nutpie", "published")
