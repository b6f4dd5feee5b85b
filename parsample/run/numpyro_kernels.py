"""NumPyro's kernels: their arguments read into settings of `parsample.sample`, or refused with the remedy."""

import functools
import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpyro.infer
from jaxtyping import Array, Float, PyTree
from numpyro.infer.mcmc import MCMCKernel

from parsample.engine import options
from parsample.samplers import Barker, find
from parsample.samplers.base import Sampler, check_step_size
from parsample.samplers.configured import Configured
from parsample.samplers.hmc import HMC
from parsample.targets.base import Target
from parsample.targets.density import LogDensity
from parsample.targets.forward_mode import forward_mode
from parsample.targets.numpyro_model import NumPyroModel

# NumPyro's kernels that have a counterpart here.
READ = {"NUTS": "hmc", "HMC": "hmc", "BarkerMH": "barker"}
# Its other kernels, and what to do.
REMEDIES = {
    "SA": "it proposes without gradients; write parsample.Kernel(model, 'rwm'), which does so, too",
    "AIES": "its chains move by each other; write parsample.Kernel(model, 'hmc'), or 'rwm' for no gradients",
    "ESS": "its chains move by each other; write parsample.Kernel(model, 'hmc'), or 'rwm' for no gradients",
    "HMCECS": "it subsamples the data; leave subsample_size out and write parsample.Kernel(model, 'hmc')",
}
DISCRETE = (
    "it changes variables in turn; sum discrete ones out of the model, with "
    "numpyro.distributions.MixtureSameFamily say, and write parsample.Kernel(model, 'hmc')"
)
REMEDIES |= dict.fromkeys(
    ("DiscreteHMCGibbs", "MixedHMC", "HMCGibbs", "Gibbs", "DiscreteGibbs", "CustomGibbs"), DISCRETE
)

# Arguments of NumPyro's that leave nothing to be done here.
WITHOUT_EFFECT = {
    "max_tree_depth": "no trees are built; a trajectory has at most 64 leapfrog steps, and num_steps sets fewer",
    "find_heuristic_step_size": "warm-up always looks for a step size to begin with",
    "regularize_mass_matrix": "how much an estimate is shrunk follows from the draws there are",
}


class Kernel:
    """A NumPyro model and the sampler for it, in the place of NumPyro's kernels, with their arguments.

    Args:
        model: a Python function with NumPyro's primitives.
        sampler: a name in `SAMPLERS`, or a sampler's class.
        potential_fn: in the place of a model: position -> minus the log density, up to a constant, over unconstrained
            numbers; `run` then needs `init_params`, any pytree, and `get_samples` returns such.
        target_accept_prob: the mean acceptance that warm-up steers the step size to; None for the sampler's own.
        dense_mass: True to learn a dense covariance, False a diagonal one, None for what `mass="auto"` chooses.
        init_strategy: one of NumPyro's `init_to_uniform`, `init_to_median` and so on; None for draws uniform on
            (-2, 2) in unconstrained coordinates.
        step_size: dimensionless, in standardised coordinates. With `adapt_step_size` it is of no effect, for warm-up
            looks for one to begin with.
        adapt_step_size: False to sample with `step_size`, or 1.0 without, and no jitter. Warm-up, while it learns the
            covariance, still uses steps of its own.
        num_steps: of "hmc": leapfrog steps of a trajectory; None to let warm-up choose.
        trajectory_length: of "hmc": the time of a trajectory, as NumPyro's; None to let warm-up choose. With
            `num_steps` it makes the step size, which is then not adapted.
        adapt_mass_matrix: True; warm-up always learns the covariance.
        inverse_mass_matrix: None; warm-up always learns it.
        kinetic_fn: None, for the momentum is normal.
        forward_mode_differentiation: take gradients in forward mode, for models with `jax.lax.while_loop`.
        max_tree_depth: of no effect, for no trees are built: a trajectory has at most 64 leapfrog steps.
        find_heuristic_step_size: of no effect, for warm-up always does.
        regularize_mass_matrix: of no effect, for that follows from the number of draws.
        **sampler_options: of the sampler, such as `num_integration_steps=4`.

    Raises:
        ValueError: there is no such sampler, or it has no such option; or an argument is not what it should be, or
            asks for what is not done here.
    """

    sample_field = "z"
    default_fields = ("z", "diverging")
    is_ensemble_kernel = False

    def __init__(
        self,
        model: Any = None,
        sampler: str | type[Sampler] = "hmc",
        *,
        potential_fn: Any = None,
        target_accept_prob: Any = None,
        dense_mass: Any = None,
        init_strategy: Any = None,
        step_size: Any = None,
        adapt_step_size: Any = True,
        num_steps: Any = None,
        trajectory_length: Any = None,
        adapt_mass_matrix: Any = True,
        inverse_mass_matrix: Any = None,
        kinetic_fn: Any = None,
        forward_mode_differentiation: Any = False,
        max_tree_depth: Any = None,
        find_heuristic_step_size: Any = None,
        regularize_mass_matrix: Any = None,
        **sampler_options: Any,
    ):
        """Check the options; nothing is run."""
        _check_source(model, potential_fn, init_strategy)
        _check_served(kinetic_fn, dense_mass, adapt_mass_matrix, inverse_mass_matrix)
        self.model, self.potential_fn, self.init_strategy = model, potential_fn, init_strategy
        self.forward_mode = bool(forward_mode_differentiation)
        self.sampler = sampler
        sampler_class = find(sampler)
        if step_size is not None:
            check_step_size(step_size)
        fixed = None if adapt_step_size else float(1.0 if step_size is None else step_size)
        if num_steps is not None or trajectory_length is not None:
            fixed, found = _trajectory(sampler_class, sampler_options, num_steps, trajectory_length, fixed)
            sampler_options |= found
        if fixed is not None and issubclass(sampler_class, HMC):
            # The step size that was asked for, and no other.
            sampler_options = {"step_size_jitter": 0.0, **sampler_options}
        self.sampler_options = sampler_options
        make = Configured(sampler_class, sampler_options, target_accept_prob)
        make(lambda z: -z @ z, 0.1)  # refuses what no run could use
        # What `parsample.sample` is told beside the sampler.
        self.settings: dict[str, Any] = {} if fixed is None else {"step_size": fixed}
        if target_accept_prob is not None:
            self.settings["target_acceptance"] = target_accept_prob
        if init_strategy is not None:
            self.settings["start"] = init_strategy
        if dense_mass is not None:
            self.settings["mass"] = "dense" if dense_mass else "diagonal"

    @property
    def has_raw_matrices(self) -> bool:
        """Whether NumPyro's kernel of this kind has its mass matrix as an array, not by the names of the sites."""
        return issubclass(find(self.sampler), Barker)

    def target(self, args: tuple, kwargs: dict[str, Any], position: PyTree = None) -> Target:
        """Return the target, given the arguments of the model, or a position of a potential function.

        Raises:
            ValueError: the model cannot be run with these arguments; or a potential function gets arguments, or no
                position to start from.
        """
        if self.model is not None:
            kind = _ForwardModel if self.forward_mode else NumPyroModel
            return kind(self.model, *args, **kwargs)
        if args or kwargs:
            raise ValueError(
                "run got arguments for a model, but the kernel has a potential_fn, which takes a position and nothing "
                "else; leave them out, or put them into the function."
            )
        if position is None:
            raise ValueError(
                "init_params is None, expected a position to start from, such as init_params=jnp.zeros(3), for a "
                "potential_fn says nothing of its argument."
            )
        energy: Any = self.potential_fn
        density = lambda z: -energy(z)  # noqa: E731
        return LogDensity(forward_mode(density) if self.forward_mode else density, position)


class _ForwardModel(NumPyroModel):
    """A NumPyro model whose gradient is taken in forward mode."""

    def __init__(self, model: Callable, /, *args: Any, **kwargs: Any):
        super().__init__(model, *args, **kwargs)

    def logdensity(self, position: Any) -> Float[Array, ""]:
        return forward_mode(super().logdensity)(position)


def read_kernel(kernel: Any) -> Kernel:
    """Return a kernel of this package, made of one of NumPyro's where that has a counterpart here.

    What stands at NumPyro's default is left to this package's.

    Args:
        kernel: a `Kernel`, or NumPyro's `NUTS`, `HMC` or `BarkerMH`.

    Raises:
        ValueError: it is another; the sentence says what to write.
    """
    if isinstance(kernel, Kernel):
        return kernel
    name = type(kernel).__name__
    expected = "a parsample.Kernel, or NumPyro's NUTS, HMC or BarkerMH"
    if not isinstance(kernel, MCMCKernel):
        hint = "write parsample.Kernel(model, 'hmc')"
        raise ValueError(f"kernel is a {name}, expected {expected}; {hint}.")
    if name not in READ or type(kernel) is not getattr(numpyro.infer, name):
        why = REMEDIES.get(name, "its random numbers cannot be drawn in advance; write parsample.Kernel(model, 'hmc')")
        raise ValueError(f"kernel is NumPyro's {name}, expected {expected}: {why}, or run it by numpyro.infer.MCMC.")
    given = changed_arguments(kernel)
    forward = given.pop("forward_mode_differentiation", False)
    found = Kernel(given.pop("model", None), READ[name], forward_mode_differentiation=forward, **given)
    _say_once(name, READ[name])
    return found


def changed_arguments(kernel: MCMCKernel) -> dict[str, Any]:
    """Return the arguments of one of NumPyro's kernels that are not at their defaults."""
    # What a constructor makes of its defaults is not always what it was given.
    usual: Any = type(kernel)(lambda: None)
    found = {}
    for name in inspect.signature(type(kernel)).parameters:
        value, default = getattr(kernel, f"_{name}", None), getattr(usual, f"_{name}", None)
        if value is not default and not (isinstance(value, float | int) and value == default):
            found[name] = value
    if found.get("model") is None:
        found.pop("model", None)
    else:
        found.pop("potential_fn", None)  # a kernel that has run keeps there what it made of the model
    return found


@functools.cache
def _say_once(name: str, sampler: str) -> None:
    """Say what a kernel of NumPyro's becomes, once for each."""
    if sampler == "hmc":
        what = "HMC with trajectories whose length warm-up chooses"
    else:
        what = "the Barker proposal"
    warnings.warn(
        f"NumPyro's {name} runs here as parsample's {sampler!r}: {what}, its steps evaluated in parallel; the "
        f"posterior is the same, the draws are not. parsample.Kernel(model, {sampler!r}) does it without this line.",
        UserWarning,
        stacklevel=4,
    )


def _check_source(model: Any, potential_fn: Any, init_strategy: Any) -> None:
    if (model is None) == (potential_fn is None):
        what = "neither" if model is None else "both"
        raise ValueError(f"model and potential_fn: {what} given, expected one of the two; write Kernel(model, 'hmc').")
    given = "potential_fn" if model is None else "model"
    if not callable(potential_fn if model is None else model):
        kind = type(potential_fn if model is None else model).__name__
        raise ValueError(f"{given} is a {kind}, expected a function.")
    if init_strategy is None:
        return
    if not callable(init_strategy):
        raise ValueError(
            f"init_strategy is {init_strategy!r}, expected one of NumPyro's, such as numpyro.infer.init_to_median."
        )
    if model is None:
        raise ValueError("init_strategy needs a model; with a potential_fn say where to start by run(init_params=...).")


def _check_served(kinetic_fn: Any, dense_mass: Any, adapt_mass_matrix: bool, inverse_mass_matrix: Any) -> None:
    """Raise ValueError for what NumPyro does and this package does not."""
    if kinetic_fn is not None:
        raise ValueError("kinetic_fn is given, but momenta are normal here; leave it out.")
    if not (dense_mass is None or isinstance(dense_mass, bool)):
        raise ValueError(
            f"dense_mass is {dense_mass!r}, expected True, False or None: a covariance in blocks is not learnt here; "
            "True learns all of it."
        )
    if not adapt_mass_matrix or inverse_mass_matrix is not None:
        name = "inverse_mass_matrix is given" if adapt_mass_matrix else "adapt_mass_matrix is False"
        raise ValueError(f"{name}, but warm-up always learns the covariance anew; leave it out.")


def _trajectory(
    sampler_class: type[Sampler],
    sampler_options: Mapping[str, Any],
    num_steps: Any,
    trajectory_length: Any,
    step_size: float | None,
) -> tuple[float | None, dict[str, Any]]:
    """Return the step size, None where warm-up finds it, and the options that make trajectories as they were asked for.

    Raises:
        ValueError: the sampler has no trajectories, or their length is no positive number.
    """
    given = "num_steps" if trajectory_length is None else "trajectory_length"
    if not issubclass(sampler_class, HMC):
        raise ValueError(f"{given} is of trajectories, which {sampler_class.__name__} does not have; leave it out.")
    if "num_integration_steps" in sampler_options:
        raise ValueError(f"{given} and num_integration_steps are both given; leave one out.")
    if num_steps is not None:
        num_steps = options.whole("num_steps", num_steps, "a trajectory is that many leapfrog steps")
    if trajectory_length is None:
        return step_size, {"num_integration_steps": num_steps}
    if not (options.is_number(trajectory_length) and 0 < trajectory_length < math.inf):
        raise ValueError(f"trajectory_length is {trajectory_length!r}, expected a number above 0, such as 2.0.")
    if num_steps is not None:
        return trajectory_length / num_steps, {"num_integration_steps": num_steps}
    if step_size is not None:
        return step_size, {"num_integration_steps": max(1, round(trajectory_length / step_size))}
    return None, {"trajectory_length": float(trajectory_length)}
