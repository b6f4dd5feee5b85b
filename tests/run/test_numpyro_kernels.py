"""NumPyro's kernels and their arguments: read into settings, or refused with the remedy."""

import inspect
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import numpyro.infer
import pytest
from numpyro.infer import HMC, NUTS, BarkerMH, init_to_median
from numpyro.infer.mcmc import MCMCKernel

import parsample as ps
from parsample.run.numpyro_kernels import READ, _say_once, read_kernel
from parsample.samplers import SAMPLERS
from parsample.targets.forward_mode import forward_mode


def model() -> None:
    numpyro.sample("x", dist.Normal(1, 2))


def energy(z: Any) -> Any:
    return 0.5 * jnp.sum(z**2)


KERNELS = [
    getattr(numpyro.infer, name)
    for name in numpyro.infer.__all__
    if isinstance(getattr(numpyro.infer, name), type) and issubclass(getattr(numpyro.infer, name), MCMCKernel)
]


@pytest.mark.parametrize("kind", [HMC, NUTS, BarkerMH])
def test_every_argument_of_numpyros_kernel_is_known(kind: Any) -> None:
    """A later NumPyro may have more: then this says which."""
    assert set(inspect.signature(kind).parameters) <= set(inspect.signature(ps.Kernel).parameters)
    made: Any = kind(model)
    assert all(hasattr(made, f"_{name}") for name in inspect.signature(kind).parameters if name != "max_tree_depth")


# What is given to ps.Kernel -> the settings of parsample.sample, the options of the sampler.
ARGUMENTS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({}, {}, {}),
    ({"target_accept_prob": 0.9}, {"target_acceptance": 0.9}, {}),
    ({"dense_mass": True}, {"mass": "dense"}, {}),
    ({"dense_mass": False}, {"mass": "diagonal"}, {}),
    ({"step_size": 0.2}, {}, {}),
    ({"step_size": 0.2, "adapt_step_size": False}, {"step_size": 0.2}, {"step_size_jitter": 0.0}),
    ({"adapt_step_size": False}, {"step_size": 1.0}, {"step_size_jitter": 0.0}),
    ({"num_steps": 5}, {}, {"num_integration_steps": 5}),
    ({"trajectory_length": 1.5}, {}, {"trajectory_length": 1.5}),
    (
        {"trajectory_length": 1.5, "num_steps": 6},
        {"step_size": 0.25},
        {"num_integration_steps": 6, "step_size_jitter": 0.0},
    ),
    (
        {"trajectory_length": 1.5, "step_size": 0.5, "adapt_step_size": False, "step_size_jitter": 0.1},
        {"step_size": 0.5},
        {"num_integration_steps": 3, "step_size_jitter": 0.1},
    ),
    ({"max_tree_depth": 8, "find_heuristic_step_size": True, "regularize_mass_matrix": False}, {}, {}),
]


@pytest.mark.parametrize(("given", "settings", "sampler_options"), ARGUMENTS)
def test_arguments_become_settings(
    given: dict[str, Any], settings: dict[str, Any], sampler_options: dict[str, Any]
) -> None:
    kernel = ps.Kernel(model, "hmc", **given)
    assert kernel.settings == settings
    assert kernel.sampler_options == sampler_options


# Kernels of NumPyro's -> the sampler, the settings, the options.
OBJECTS: list[tuple[Any, str, dict[str, Any], dict[str, Any]]] = [
    (NUTS(model), "hmc", {}, {}),
    (NUTS(potential_fn=energy, dense_mass=True), "hmc", {"mass": "dense"}, {}),
    (NUTS(model, target_accept_prob=0.95, max_tree_depth=(5, 10)), "hmc", {"target_acceptance": 0.95}, {}),
    (HMC(model, num_steps=5, trajectory_length=None), "hmc", {}, {"num_integration_steps": 5}),
    (HMC(model, trajectory_length=8), "hmc", {}, {"trajectory_length": 8.0}),
    (BarkerMH(model, target_accept_prob=0.5), "barker", {"target_acceptance": 0.5}, {}),
    (
        HMC(model, step_size=3, adapt_step_size=False),
        "hmc",
        {"step_size": 3.0},
        {"step_size_jitter": 0.0},
    ),
]


@pytest.mark.filterwarnings("ignore:NumPyro's")
@pytest.mark.parametrize(("given", "sampler", "settings", "sampler_options"), OBJECTS)
def test_kernels_of_numpyro_are_read(
    given: Any, sampler: str, settings: dict[str, Any], sampler_options: dict[str, Any]
) -> None:
    kernel = read_kernel(given)
    assert (kernel.sampler, kernel.settings, kernel.sampler_options) == (sampler, settings, sampler_options)
    assert (kernel.model is model) != (kernel.potential_fn is energy)


def test_what_a_kernel_becomes_is_said_once() -> None:
    _say_once.cache_clear()
    with pytest.warns(UserWarning, match=r"NumPyro's NUTS runs here as parsample's 'hmc': .*Kernel\(model, 'hmc'\)"):
        read_kernel(NUTS(model, init_strategy=init_to_median))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_kernel(NUTS(model, init_strategy=init_to_median)).init_strategy is init_to_median
        kernel = ps.Kernel(model)
        assert read_kernel(kernel) is kernel


@pytest.mark.parametrize(
    "kind", [kind for kind in KERNELS if kind.__name__ not in READ], ids=lambda kind: kind.__name__
)
def test_other_kernels_are_refused_with_the_remedy(kind: type) -> None:
    """All that NumPyro has; made without their arguments, for only the class is looked at."""
    with pytest.raises(
        ValueError, match=rf"kernel is NumPyro's {kind.__name__}, expected .*: .*; .*, or run it by num"
    ):
        ps.MCMC(object.__new__(kind), num_warmup=1, num_samples=1)


class Own(NUTS):
    """A user's kernel may do anything."""


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "model and potential_fn: neither given, expected one"),
    ({"model": model, "potential_fn": energy}, "model and potential_fn: both given, expected one"),
    ({"model": 3}, "model is a int, expected a function"),
    ({"potential_fn": energy, "init_strategy": init_to_median}, "init_strategy needs a model; .*init_params"),
    ({"model": model, "init_strategy": "median"}, "init_strategy is 'median', expected one of NumPyro's, such as"),
    ({"model": model, "kinetic_fn": energy}, "kinetic_fn is given, but momenta are normal here; leave it out"),
    ({"model": model, "dense_mass": [("x",)]}, r"dense_mass is \[\('x',\)\], expected True, False or None: .*blocks"),
    ({"model": model, "adapt_mass_matrix": False}, "adapt_mass_matrix is False, but warm-up always learns"),
    ({"model": model, "inverse_mass_matrix": 1.0}, "inverse_mass_matrix is given, but warm-up always learns"),
    ({"model": model, "num_steps": 2, "sampler": "mala"}, "num_steps is of trajectories, which MALA does not have"),
    ({"model": model, "num_steps": 0}, "num_steps is 0, expected a whole number of at least 1"),
    ({"model": model, "trajectory_length": -1}, "trajectory_length is -1, expected a number above 0"),
    ({"model": model, "num_steps": 2, "num_integration_steps": 3}, "num_steps and num_integration_steps are both"),
    ({"model": model, "step_size": 0.0}, "step_size is 0.0, expected one finite number above 0"),
    ({"model": model, "target_accept_prob": 1.5}, r"target_acceptance is 1.5, expected a number between 0 and 1"),
    ({"model": model, "step_size_jitter": 2}, r"step_size_jitter is 2, expected a number in \[0, 1\)"),
    ({"model": model, "tree_depth": 2}, "sampler_options of HMC is 'tree_depth', expected one of"),
    ({"model": model, "sampler": "nust"}, "sampler is 'nust', expected one of"),
]


@pytest.mark.parametrize(("given", "sentence"), REFUSED)
def test_what_is_not_served_is_refused_at_construction(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ps.Kernel(**given)


def test_kernels_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"kernel is a function, expected a parsample\.Kernel, or NumPyro's NUTS"):
        read_kernel(model)
    with pytest.raises(ValueError, match=r"kernel is NumPyro's Own, .*: its random numbers cannot be drawn in advance"):
        read_kernel(Own(model))


def test_potential_functions_need_a_position_and_nothing_else() -> None:
    kernel = ps.Kernel(potential_fn=energy)
    with pytest.raises(ValueError, match=r"init_params is None, expected a position to start from, such as"):
        kernel.target((), {})
    with pytest.raises(ValueError, match="run got arguments for a model, but the kernel has a potential_fn"):
        kernel.target((1,), {}, jnp.zeros(2))
    assert float(kernel.target((), {}, jnp.zeros(2)).logdensity(jnp.array([1.0, 2.0]))) == -2.5  # type: ignore[arg-type]


def test_a_trajectory_of_a_given_length() -> None:
    hmc = SAMPLERS["hmc"]
    made: Any = hmc(lambda z: -z @ z, 0.25, trajectory_length=2.0)  # type: ignore[call-arg]
    assert made.num_integration_steps == 8
    assert hmc.options_at({"trajectory_length": 0.1}, 1.0) == {"num_integration_steps": 1}
    assert hmc.options_at({"trajectory_length": 30.0}, 0.1) == {"num_integration_steps": 256}
    assert hmc.options_at({"num_integration_steps": 3}, 0.1) is None
    with pytest.raises(ValueError, match=r"num_integration_steps is 3 and trajectory_length 2.0, expected one of the"):
        hmc(lambda z: -z @ z, 0.25, num_integration_steps=3, trajectory_length=2.0)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="trajectory_length needs a step size that is known"):
        jax.jit(lambda step: hmc(lambda z: -z @ z, step, trajectory_length=2.0).step_size)(0.1)  # type: ignore[call-arg]


def test_a_gradient_in_forward_mode() -> None:
    """A loop that reverse mode cannot differentiate; its function is x^5, with derivatives that are known."""

    def fifth(position: Any) -> Any:
        start = position["x"], jnp.zeros((), int)
        return jax.lax.while_loop(lambda s: s[1] < 4, lambda s: (s[0] * position["x"], s[1] + 1), start)[0]

    density, position = forward_mode(fifth), {"x": jnp.asarray(2.0)}
    assert float(jax.grad(density)(position)["x"]) == 80.0
    assert float(jax.jvp(jax.grad(density), (position,), (position,))[1]["x"]) == 2 * 160.0
    assert float(jax.jvp(density, (position,), (position,))[1]) == 160.0
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.grad(fifth)(position)
    kernel = ps.Kernel(
        lambda: numpyro.sample("x", dist.Normal(fifth({"x": 1.0}), 1)), forward_mode_differentiation=True
    )
    assert float(jax.grad(kernel.target((), {}).logdensity)(position)["x"]) == -1.0
