"""Diffusion at the front door: draw samples, all denoising steps at once, and say what it cost."""

import functools
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from parsample._former import tell
from parsample.engine import methods
from parsample.engine.evaluate import evaluate
from parsample.engine.memory import evaluation_bytes, largest_within
from parsample.engine.options import check_seed, is_number, whole
from parsample.engine.reads import pinned
from parsample.engine.rules import Stopping
from parsample.engine.solution import ConvergenceError, Solution, raise_unless_converged
from parsample.engine.traceable import traceable
from parsample.run.diffuse_method import begin, find_method, of_surrogate, per_iteration, soonest
from parsample.samplers.diffusion.base import Process
from parsample.samplers.diffusion.denoisers import HeldDenoiser

GUESSES = ("surrogate", "coarse", "start")
# A step keeps the error it is accepted with and hands it on, undiminished beside the noise level, or amplified where a
# sample hesitates between modes. So a full window is accepted as a whole, when every error before its end has been
# mended; a shorter one has to let go of its first steps, and does so at this share of the tolerance, or at so many
# roundings if that is more: below those no step would be let go but the one that every iteration makes exact.
ACCEPT_EARLY, ROUNDINGS = 1e-3, 8
# The tolerance where none is given, and the roundings of the dtype below which it does not go: 5e-2 for bfloat16.
TOLERANCE, TOLERANCE_ROUNDINGS = 1e-3, 6.4


class Diffused(NamedTuple):
    """What `parsample.diffuse` returns.

    Attributes:
        samples: leading axis `num_samples`, in the units of the data.
        solution: the trajectories, leading axes (num_samples, steps), and the verdict about each.
        rounds: batches of model calls that had to wait for one another, of each sample: the steps of a coarse guess,
            the calls one after the other inside a step or a segment, and what was left to the loop all count. The
            sequential sampler needs `num_steps` times the calls of a step. The number that a batch waits for is the
            largest.
        model_evaluations: calls of the model in all of them, of each sample. A derivative along a probe counts as one.
        finished_sequentially: steps of each sample that were left to the loop.
        window: steps solved at a time.
        choice: what `method="auto"` took, and why, in words; empty where the method was named.
    """

    samples: Float[Array, "num_samples ..."]
    solution: Solution
    rounds: Int[Array, " num_samples"]
    model_evaluations: Int[Array, " num_samples"]
    finished_sequentially: Int[Array, " num_samples"]
    window: int
    choice: str = ""


@traceable("predict", "hand a torch.nn.Module to parsample.samplers.diffusion.from_torch")
def diffuse(
    process: Any,
    shape: Any,
    num_samples: int = 1,
    *,
    seed: int = 0,
    method: str | methods.Method = "auto",
    tolerance: Any = None,
    window: int | None = None,
    memory_budget: int | None = None,
    guess: Any = "surrogate",
    coarse_steps: int = 5,
    max_iterations: int | None = None,
    active_set: bool | int = False,
    dtype: Any = None,
    throw: bool = True,
) -> Diffused:
    """Draw samples by a diffusion process, solving for its denoising steps in parallel.

    The samples are those of the sequential sampler with the same noise, whatever the method. A sample is done once all
    its steps have their error within `tolerance` at the same time, as far as the method can tell: the root mean square
    over pixels of the residual, and of what the linear system would still change, as a share of the noise level of the
    step. That is sqrt(sigma^2 + alpha^2 sigma_data^2), the noise that is left and below it the data's own spread.
    The true error of a sample, against the sequential one, was at most two times `tolerance * sigma_data`, in the
    data's units, in every row of `benchmarks/results`. It is an estimate, and no bound: where a sample hesitates
    between modes that are far apart, the sampler amplifies any error. With a window shorter than the chain the steps
    that it leaves behind are held to a thousandth of the tolerance, as far as rounding allows, and such a sample may
    end in another mode than the sequential one; a smaller tolerance is the remedy.

    Args:
        process: such as `parsample.samplers.diffusion.DDPM(predict)`.
        shape: of one sample.
        num_samples: how many.
        seed: a whole number of at most 32 bits.
        method: a name in `METHODS` or an instance. "auto": what is soonest on this device, of the loop and
            "scaled_identity"; the loop where it is done in seconds, or where a batch of all steps takes as long as the
            steps one after the other, as on a CPU; `choice` of what is returned says why. "scaled_identity": the scale
            that the schedule gives for normal data of deviation `process.sigma_data`, which takes no derivative.
            "subspace_newton": the Jacobian along the principal directions of `process.surrogate`, for the fewest rounds
            where derivatives can be paid for. "picard" is ParaDiGMS. "parareal" has segments of sqrt(steps) steps,
            joined by the process on normal data. No matrix is projected: a sample that decides between modes amplifies
            what it is given, and a chain of a few hundred steps that ends is not in danger of running away with it.
        tolerance: the largest error of a step per pixel, root mean square, relative to its noise level; dimensionless.
            None for 1e-3, or where `dtype` is coarser for what its roundings do to a sample, 5e-2 for bfloat16. Give
            that, too, for a model that computes in bfloat16; a finer one takes far more rounds.
        window: steps solved at a time; None for all, or for as many as `memory_budget` allows.
        memory_budget: bytes that the evaluation of one sample may take on the device, as compiled; what is chosen has
            been compiled and measured.
        guess: "surrogate": the process on normal data (`process.surrogate`, if it has one) with the same noise, which
            calls no model; "coarse": the process with the model called only at `coarse_steps` steps and its answer held
            between, which costs as many rounds;
            "start": every step from the noise itself; or trajectories, like `solution.states` of a neighbouring run,
            for one sample or for each.
        coarse_steps: calls of the model for guess="coarse".
        max_iterations: before the loop takes over; None for as many as there are steps, within which every method ends.
        active_set: evaluate again only the steps that moved; see `evaluate`.
        dtype: of the samples, a floating-point one; None for JAX's.
        throw: raise where a sample is not finite; otherwise return it with its status.

    Returns:
        A `Diffused`.

    Raises:
        ValueError: an argument is not what it should be; the sentence says which and how to mend it.
        ConvergenceError: with `throw`, the sequential sampler itself meets a value that is not finite; the sentence
            names the step and its time.

    Cost: `rounds` batches of at most `window` calls of the model. Memory O(window) samples, beside the trajectory. With
        "auto" also a step of all samples, and where the loop takes more than ten seconds (half a second on an
        accelerator) a batch of all steps, each compiled, and timed up to five times.

    Source: Shih et al. 2023 (ParaDiGMS) for windows and tolerance; the scale from the schedule and the guess from
    normal data are ours.
    """
    _check(process, shape)
    num_samples = whole("num_samples", num_samples, "it is how many samples are drawn")
    seed, steps, dtype = check_seed(seed), process.num_steps, _floating(dtype)
    tolerance = _check_tolerance(tolerance, dtype, method)
    limits = tolerance * process.noise_levels
    keys = jax.random.split(jax.random.key(seed), num_samples)
    choice = ""
    if isinstance(method, str) and method == "auto":
        asked = steps if window is None else min(_whole_window(window), steps)
        method, most, choice = soonest(process, shape, dtype, keys, asked)
        max_iterations = most if max_iterations is None else max_iterations
    found, options = find_method(process, method)
    options |= {
        "method": found,
        "max_iterations": max_iterations,
        "active_set": active_set,
        "atol": jnp.asarray(limits, dtype),
        "rtol": 0.0,
    }
    early = min(1.0, max(ACCEPT_EARLY, ROUNDINGS * float(jnp.finfo(dtype).eps) / tolerance))
    options |= _window(process, shape, dtype, window, memory_budget, options, early)
    window = options["window"]
    states, guesses = _guesses(process, shape, dtype, num_samples, guess)
    if guess == "coarse":
        coarse_steps = _check_coarse(process, coarse_steps)
    rounds_of_guess = coarse_steps if guess == "coarse" else 0
    is_cpu = jax.default_backend() == "cpu"
    guessing = of_surrogate(process, options["atol"], is_cpu) if guesses == "surrogate" else {}
    solution = _run(pinned(process), shape, dtype, keys, guesses, states, rounds_of_guess, options, guessing)
    finished = solution.finished
    if throw:
        _raise_if_not_finite(process, solution)
    dim = sum(leaf[0, 0].size for leaf in jax.tree.leaves(solution.states))
    depth, work, inner = process.evaluations_per_step, *per_iteration(found, window, dim)
    samples = jax.vmap(lambda rows: process.sample(jax.tree.map(lambda leaf: leaf[-1], rows)))(solution.states)
    is_loop = isinstance(found, methods.Sequential)
    passes = jnp.where(is_loop, steps, solution.iterations * inner + finished)
    parallel = solution.evaluations - finished
    return Diffused(
        samples=samples,
        solution=solution,
        rounds=rounds_of_guess + depth * passes,
        model_evaluations=rounds_of_guess + depth * (jnp.round(parallel * work).astype(parallel.dtype) + finished),
        finished_sequentially=finished,
        window=window,
        choice=choice,
    )


@eqx.filter_jit
def _run(
    process: Process,
    shape: tuple[int, ...],
    dtype: Any,
    keys: Array,
    guesses: str,
    given: PyTree,
    coarse_steps: int,
    options: dict[str, Any],
    guessing: dict[str, Any],
) -> Solution:
    initial, inputs = jax.vmap(lambda key: begin(process, key, shape, dtype))(keys)
    guess = given
    if guesses == "surrogate":
        surrogate = process.with_surrogate().transition
        guess = evaluate(surrogate, initial, inputs, throw=False, chains=True, **guessing).states
    elif guesses == "coarse":
        hold = lambda initial, inputs: _hold_predictions(process, initial, inputs, coarse_steps)  # noqa: E731
        guess = jax.vmap(hold)(initial, inputs)
    return evaluate(process.transition, initial, inputs, guess=guess, throw=False, chains=True, **options)


def _hold_predictions(process: Process, initial: PyTree, inputs: Any, coarse_steps: int) -> PyTree:
    """Run the process with the model called at a few steps only, and its clean sample held between."""
    steps = process.num_steps
    calls = jnp.zeros(steps, bool).at[jnp.linspace(0, steps, coarse_steps, endpoint=False).astype(int)].set(True)

    def step(carry: tuple[PyTree, Array], element: tuple[Any, Array]) -> tuple[tuple[PyTree, Array], PyTree]:
        state, x0 = carry
        input, call = element
        x0 = jax.lax.cond(call, lambda: process.denoise(process.sample(state), input.now), lambda: x0)
        held = process.with_denoiser(HeldDenoiser(x0))
        state = held.step(state, input)
        return (state, x0), state

    return jax.lax.scan(step, (initial, jnp.zeros_like(process.sample(initial))), (inputs, calls))[1]


def _whole_window(window: Any) -> int:
    return whole("window", window, "None solves all steps at once")


def _window(
    process: Process,
    shape: tuple[int, ...],
    dtype: Any,
    window: int | None,
    budget: int | None,
    options: dict[str, Any],
    early: float,
) -> dict[str, Any]:
    """Return the options for the window, the largest that the budget allows where none is given."""
    steps = process.num_steps
    asked = steps if window is None else min(_whole_window(window), steps)

    def of(window: int) -> dict[str, Any]:
        stopping = Stopping(norm="rms", accept_early=0.0 if window == steps else early, finish=True)
        return {"window": window, "stopping": stopping}

    if budget is None:
        return of(asked)
    budget = whole("memory_budget", budget, "it is in bytes; None sets no limit")
    initial, inputs = (
        process.init(jax.random.key(0), shape, dtype),
        process.draw_inputs(jax.random.key(0), shape, dtype),
    )

    @functools.cache
    def size(window: int) -> int:
        # The tolerance makes no difference to the memory.
        chosen = {**options, **of(window), "max_iterations": None, "atol": 1.0}
        return evaluation_bytes(process.transition, initial, inputs, 1, **chosen)

    allowed = largest_within(budget, asked, size)
    if allowed < 1:
        raise ValueError(
            f"memory_budget is {budget:,} bytes, and even a window of 1 takes {size(1):,} bytes a sample; give more."
        )
    if window is not None and allowed < asked:
        raise ValueError(
            f"window is {window}, which takes {size(asked):,} bytes a sample, more than memory_budget, {budget:,}; a "
            f"window of {allowed} fits."
        )
    return of(allowed)


def _guesses(process: Process, shape: tuple[int, ...], dtype: Any, num_samples: int, guess: Any) -> tuple[PyTree, str]:
    """Return trajectories to start from, leading axis `num_samples`, or None, and what kind of a guess it is."""
    if isinstance(guess, str):
        if guess == "gaussian":
            tell("guess='gaussian'", "guess='surrogate'")
            return None, "surrogate"
        if guess not in GUESSES:
            raise ValueError(f"guess is {guess!r}, expected one of {', '.join(map(repr, GUESSES))}, or trajectories.")
        return None, guess
    states = guess.solution.states if isinstance(guess, Diffused) else guess
    state = jax.eval_shape(lambda: process.init(jax.random.key(0), shape, dtype))
    one = jax.tree.map(lambda leaf: (process.num_steps, *leaf.shape), state)
    found = jax.tree.map(np.shape, states)
    batched = jax.tree.map(lambda leaf: (num_samples, process.num_steps, *leaf.shape), state)
    if found == one:
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_samples, *leaf.shape)), states), "given"
    if found != batched:
        raise ValueError(f"guess has the shapes {found}, expected {one} for one sample, or {batched} for each.")
    return states, "given"


def _floating(dtype: Any) -> jnp.dtype:
    """Return the dtype of the samples."""
    if dtype is None:
        return jnp.result_type(float)
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        found = None
    if found is None or not jnp.issubdtype(found, jnp.floating):
        raise ValueError(f"dtype is {dtype!r}, expected a floating-point one such as jnp.float32 or jnp.bfloat16.")
    if found.itemsize > jnp.result_type(float).itemsize:
        raise ValueError(f"dtype is {found}, which JAX has in its x64 mode only; switch that on, or leave dtype out.")
    return found


def _check_tolerance(tolerance: Any, dtype: jnp.dtype, method: Any) -> float:
    """Return the tolerance, or the default where none is given."""
    rounding = float(jnp.finfo(dtype).eps)
    if tolerance is None:
        return max(TOLERANCE, TOLERANCE_ROUNDINGS * rounding)
    if not (is_number(tolerance) and 0 < tolerance < math.inf):
        raise ValueError(f"tolerance is {tolerance!r}, expected a finite number above 0, such as 1e-3.")
    is_loop = isinstance(method, methods.Sequential) or (isinstance(method, str) and method == "sequential")
    if tolerance < rounding and not is_loop:
        raise ValueError(
            f"tolerance is {tolerance}, below {rounding:.2g}, the rounding error of {dtype}: no iteration could tell "
            "that it has converged; leave it out, or take a dtype with more digits."
        )
    return float(tolerance)


def _check(process: Any, shape: Any) -> None:
    if not isinstance(process, Process):
        raise ValueError(
            f"process is a {type(process).__name__}, expected one such as parsample.samplers.diffusion.DDPM(predict)."
        )
    if not isinstance(shape, tuple) or not all(hasattr(n, "__index__") and n >= 1 for n in shape):
        raise ValueError(f"shape is {shape!r}, expected the shape of one sample, such as (64,) or (3, 32, 32).")


def _check_coarse(process: Process, coarse_steps: Any) -> int:
    coarse_steps = whole("coarse_steps", coarse_steps, "it is how often the model is called for a guess")
    if coarse_steps > process.num_steps:
        raise ValueError(f"coarse_steps is {coarse_steps}, expected at most {process.num_steps}, the number of steps.")
    return coarse_steps


def _raise_if_not_finite(process: Process, solution: Solution) -> None:
    converged = np.asarray(solution.converged)
    if converged.all():
        return
    worst = int(np.argmin(converged))
    bad = int(solution.first_bad_step[worst])
    time = process.levels.time[bad]
    try:
        raise_unless_converged(solution)
    except ConvergenceError as error:
        error.args = (
            f"Sample {worst}: the state after step {bad} of {process.num_steps} is not finite: predict returned NaN or "
            f"infinity at t = {time:g}, or a state that is too large; the sequential sampler meets the same value. "
            "Check the model there.",
        )
        raise
