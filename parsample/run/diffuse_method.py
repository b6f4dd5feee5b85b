"""How diffusion samples are drawn: what a method's name means for a process, and what is soonest on this device."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from parsample.engine import methods
from parsample.engine.methods.base import innermost
from parsample.engine.planner import MARGIN
from parsample.engine.rules import Conditioning, Stopping
from parsample.run.choose import least_seconds
from parsample.run.progress import in_seconds
from parsample.samplers.diffusion.base import Process
from parsample.samplers.diffusion.denoisers import NormalDenoiser

# Seconds of the loop up to which a batch is not timed: that compiles the model once more.
CHEAP, CHEAP_ON_ACCELERATOR = 10.0, 0.5
# Rounds below which hardly a sample is done (benchmarks/results/diffusion.md).
FEWEST_ROUNDS = 4
# Iterations of the process on its surrogate, where these are not a loop.
MOST_OF_SURROGATE = 8


def soonest(
    process: Process, shape: tuple[int, ...], dtype: Any, keys: Array, window: int
) -> tuple[str, int | None, str]:
    """Choose between the loop and "scaled_identity" by the time that their batches of model calls take.

    A step of all samples is timed; where the loop is not done soon, a batch of a window's steps, too.

    Args:
        process: to draw from.
        shape: of a sample.
        dtype: of a sample.
        keys: of the samples.
        window: steps solved at a time.

    Returns:
        The method's name; the iterations that take as long as the loop, after which the loop is to go on, so that no
        draw takes more than twice as long; and the reason in words.

    Cost: a step of all samples, compiled, up to five times; the same for a window of steps.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(process)):
        return "scaled_identity", None, "scaled_identity: nothing can be timed inside a compiled function"
    initial, inputs = _begin(process, keys, shape, dtype)
    step = least_seconds(lambda: _steps(process, initial, jax.tree.map(lambda leaf: leaf[:, :1], inputs)))
    loop = step * process.num_steps
    if loop < (CHEAP if jax.default_backend() == "cpu" else CHEAP_ON_ACCELERATOR):
        return "sequential", None, f"the loop, expected to take {in_seconds(loop)}: too short to look for better"
    batch = least_seconds(lambda: _steps(process, initial, jax.tree.map(lambda leaf: leaf[:, :window], inputs)))
    words = f"a step takes {in_seconds(step)}, a batch of {window:,} steps {in_seconds(batch)}"
    most = int(loop / (batch * MARGIN))
    if most < FEWEST_ROUNDS * math.ceil(process.num_steps / window):
        return "sequential", None, f"the loop: {words}"
    return "scaled_identity", most, f"scaled_identity: {words}, so that up to {most:,} iterations are worth it"


@eqx.filter_jit
def _begin(process: Process, keys: Array, shape: tuple[int, ...], dtype: Any) -> tuple[PyTree, PyTree]:
    return jax.vmap(lambda key: begin(process, key, shape, dtype))(keys)


@eqx.filter_jit
def _steps(process: Process, states: PyTree, inputs: PyTree) -> PyTree:
    """Make some steps of every sample from the same state, all at once."""
    return jax.vmap(jax.vmap(process.transition, (None, 0)))(states, inputs)


def begin(process: Process, rng_key: Array, shape: tuple[int, ...], dtype: Any) -> tuple[PyTree, Any]:
    """Return the state that a sample starts from, and the inputs of all its steps."""
    state_key, input_key = jax.random.split(rng_key)
    return process.init(state_key, shape, dtype), process.draw_inputs(input_key, shape, dtype)


def find_method(process: Process, method: str | methods.Method) -> tuple[methods.Method, dict[str, Any]]:
    """Return the method, with what a name means for a diffusion process, and the options of `evaluate` it needs."""
    parts = len(jax.tree.leaves(jax.eval_shape(process.start, jax.ShapeDtypeStruct((), jnp.float32))))
    found: methods.Method

    def scale(deviation: float | None = None) -> Array:
        jacobians = process.jacobians(deviation)
        return jacobians if parts > 1 else jnp.clip(jacobians[:, 0, 0], -1, 1)

    if method == "scaled_identity":
        found = methods.ScaledIdentity(scale())
    elif method == "subspace_newton":
        known = process.surrogate
        if not isinstance(known, NormalDenoiser):
            raise ValueError(
                "method is 'subspace_newton', which needs the data's principal directions; give the process "
                "surrogate=NormalDenoiser.fit(images), or parsample.methods.SubspaceNewton(basis)."
            )
        found = methods.SubspaceNewton(known.vectors, scale=scale(math.sqrt(known.rest)))
    elif method == "parareal":
        found = methods.Parareal(segment=math.isqrt(process.num_steps - 1) + 1)
    else:
        found = methods.find(method, or_auto=True)
    # A Jacobian may expand, and where a state holds past predictions hardly one contracts, though their product does.
    # What is made of differences, without derivatives, has to be kept within bounds.
    is_jacobian = innermost(found).has_matrices and (parts > 1 or found.needs_derivative)
    return found, {"conditioning": Conditioning(projection=False)} if is_jacobian else {}


def of_surrogate(process: Process, limits: Array, is_cpu: bool) -> dict[str, Any]:
    """Return the options of `evaluate` for the process on its surrogate, whose trajectories are a guess.

    On a CPU a loop over steps so cheap is soonest. Elsewhere a loop waits for each of them; a few iterations do not,
    with the Jacobian of normal data, which is nearly the surrogate's, if not its own.

    Args:
        process: to draw from.
        limits: what the error of every state may be, shape (steps,).
        is_cpu: whether it runs on a CPU.
    """
    if is_cpu:
        return {"method": "sequential"}
    found, options = find_method(process, "scaled_identity")
    stopping = Stopping(norm="rms", accept_early=0.0)
    most = min(MOST_OF_SURROGATE, process.num_steps)
    return {**options, "method": found, "max_iterations": most, "atol": limits, "rtol": 0.0, "stopping": stopping}


def per_iteration(method: methods.Method, window: int, dim: int) -> tuple[float, int]:
    """Return what an evaluation costs in calls of the model, derivatives included, and the rounds of an iteration."""
    inner = innermost(method)
    if isinstance(inner, methods.Parareal):
        # What joins the segments calls the model too, unless it is the process on normal data.
        return 1.0, inner.depth(window)
    return 1.0 + method.tangents(dim), 1
