"""What every target promises. A row in `TARGETS` enrols a target here."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from parsample.targets import TARGETS, Target
from tests.conftest import SEED
from tests.targets.builders import build
from tests.tolerances import SAME_COMPUTATION

HAS_HESSIAN_DIAGONAL = {"breast_cancer", "german_credit", "log_gamma", "logistic_regression", "multivariate_normal"}
HAS_MOMENTS = {"banana", "funnel", "gaussian_mixture", "log_gamma", "multivariate_normal", "two_wells"}


class Case(NamedTuple):
    target: Target
    position: dict[str, jax.Array]
    value_and_grad: Callable  # compiled once for all tests


@functools.cache
def make_case(name: str, dtype: str, folder: Path) -> Case:
    target = build(name, folder)
    rng = np.random.default_rng(SEED)
    position = {k: jnp.asarray(rng.uniform(-2, 2, z.shape), dtype) for k, z in target.position_template().items()}
    return Case(target, position, jax.jit(jax.value_and_grad(lambda p: target.logdensity(p))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("targets")


@pytest.fixture(params=["float32", "float64"])
def dtype(request) -> Iterator[str]:
    with jax.enable_x64(request.param == "float64"):
        yield request.param


@pytest.fixture(params=list(TARGETS))
def name(request) -> str:
    return request.param


@pytest.fixture
def case(name, dtype, folder) -> Case:
    return make_case(name, dtype, folder)


def test_name_is_that_of_the_row(name, folder):
    target = make_case(name, "float32", folder).target
    assert target.name == name
    assert isinstance(target, Target)
    assert (TARGETS[name].__doc__ or "").splitlines()[0].endswith("."), "the first line is what lists show"


def test_template_names_shapes_and_dtypes(case, dtype, rng_key):
    template = case.target.position_template()
    starts = jax.eval_shape(case.target.initial_position, rng_key)
    assert set(template) == set(starts)
    for key, zeros in template.items():
        assert key.isidentifier()
        assert not np.asarray(zeros).any()
        assert zeros.dtype == starts[key].dtype == dtype
        assert zeros.shape == starts[key].shape


def test_every_chain_starts_elsewhere_within_two_units(folder, rng_key):
    target = make_case("banana", "float32", folder).target
    starts = jax.jit(jax.vmap(target.initial_position))(jax.random.split(rng_key, 50))
    values = ravel_pytree(starts)[0]
    assert np.unique(values).size > 0.99 * values.size
    assert np.all(np.abs(values) <= 2)
    assert np.min(values) < -1.5
    assert np.max(values) > 1.5


def test_starts_of_a_target_that_draws_its_own_are_finite(name, folder, rng_key):
    target = make_case(name, "float32", folder).target
    if type(target).initial_position is Target.initial_position:
        return  # as in `make_case`, tested below
    starts = [target.initial_position(key) for key in jax.random.split(rng_key, 4)]
    assert all(np.isfinite(target.logdensity(start)) for start in starts)


def test_log_density_is_a_finite_scalar_in_the_dtype_of_the_position(case, dtype):
    value, gradient = case.value_and_grad(case.position)
    assert value.shape == ()
    assert value.dtype == dtype
    assert np.isfinite(value)
    for key, leaf in gradient.items():
        assert leaf.dtype == dtype
        assert leaf.shape == case.position[key].shape
        assert np.all(np.isfinite(leaf))


def test_values_lead_back_to_the_position_that_they_came_from(case, dtype, rng_key):
    """All of them, and with one of them left out, whose entry is then that of a random start."""
    target, position = case.target, {key: 0.4 * leaf for key, leaf in case.position.items()}
    shapes, variables = target.start_shapes(), target.constrain(position)
    values = {name: variables[name] for name in shapes}
    assert {name: (row.shape, row.dtype) for name, row in shapes.items()} == {
        name: (value.shape, value.dtype) for name, value in values.items()
    }
    tolerance = 1e-4 if dtype == "float32" else 1e-10
    found = target.unconstrain(values, rng_key)
    assert set(found) == set(position)
    for key, leaf in found.items():
        assert leaf.dtype == dtype
        np.testing.assert_allclose(leaf, position[key], rtol=tolerance, atol=tolerance)
    for left_out in values:
        rest = {name: value for name, value in values.items() if name != left_out}
        back = target.constrain(target.unconstrain(rest, rng_key))
        if target.name != "garch" or left_out != "alpha1":  # of which beta1 takes a share
            for name, value in rest.items():
                np.testing.assert_allclose(back[name], value, rtol=tolerance, atol=tolerance)
        assert not np.allclose(back[left_out], values[left_out], atol=1e-3)


def test_single_precision_positions_give_single_precision_under_x64(name, folder, x64):
    target, position, _ = make_case(name, "float64", folder)
    single = {key: jax.ShapeDtypeStruct(leaf.shape, jnp.float32) for key, leaf in position.items()}
    assert jax.eval_shape(target.logdensity, single).dtype == jnp.float32
    if hasattr(target, "hessian_diagonal"):
        basis = jax.ShapeDtypeStruct((sum(leaf.size for leaf in position.values()), 3), jnp.float64)
        assert jax.eval_shape(target.hessian_diagonal, single, basis).dtype == jnp.float32


def test_vmap_equals_a_loop(name, folder):
    _, position, value_and_grad = make_case(name, "float32", folder)
    positions = [jax.tree.map(lambda leaf, f=factor: f * leaf, position) for factor in (1.0, 0.5, -1.0)]
    batch = jax.jit(jax.vmap(value_and_grad))(jax.tree.map(lambda *leaves: np.stack(leaves), *positions))
    loop = jax.tree.map(lambda *leaves: np.stack(leaves), *map(value_and_grad, positions))
    batch, loop = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (batch, loop))
    scale = np.max(np.abs(loop))
    SAME_COMPUTATION.check(batch / scale, loop / scale)


def test_trace_variables_have_the_dims_and_coords_they_say(case, dtype):
    target = case.target
    variables = jax.eval_shape(target.constrain, case.position)
    assert set(target.dims) <= set(variables)
    assert set(target.coords) == {dim for dims in target.dims.values() for dim in dims}
    for key, values in variables.items():
        assert key.isidentifier()
        assert values.dtype == dtype
        assert values.shape == tuple(len(target.coords[dim]) for dim in target.dims.get(key, ()))
    for labels in target.coords.values():
        assert len(set(labels)) == len(labels)


def test_moments_are_of_the_trace_variables(name, case, dtype):
    moments = jax.eval_shape(case.target.moments)
    assert (moments is not None) == (name in HAS_MOMENTS)
    if moments is None:
        return
    variables = jax.eval_shape(case.target.constrain, case.position)
    assert set(moments) == set(variables)
    for key, (mean, sd) in moments.items():
        assert mean.shape == sd.shape == variables[key].shape
        assert mean.dtype == sd.dtype == dtype


def test_gradient_and_its_derivative_match_finite_differences(name, folder, x64, rng):
    target, position, _ = make_case(name, "float64", folder)
    vector, unravel = ravel_pytree(position)
    direction = jnp.asarray(rng.standard_normal(vector.size))
    step = 1e-5

    @jax.jit
    def both():
        density = lambda x: target.logdensity(unravel(x))  # noqa: E731
        gradient = jax.grad(density)
        ends = vector + step * direction, vector - step * direction
        first = (density(ends[0]) - density(ends[1])) / (2 * step)
        second = (gradient(ends[0]) - gradient(ends[1])) / (2 * step)
        slope, curvature = jax.jvp(gradient, (vector,), (direction,))
        return (slope @ direction, curvature), (first, second)

    (slope, curvature), (first, second) = both()
    np.testing.assert_allclose(slope, first, rtol=1e-6)
    np.testing.assert_allclose(curvature, second, rtol=1e-5, atol=1e-6 * np.abs(second).max())


def test_hessian_diagonal_is_that_of_the_hessian(name, folder, x64, rng):
    target, position, _ = make_case(name, "float64", folder)
    assert hasattr(target, "hessian_diagonal") == (name in HAS_HESSIAN_DIAGONAL)
    if not hasattr(target, "hessian_diagonal"):
        return
    vector, unravel = ravel_pytree(position)
    basis = rng.standard_normal((vector.size, 3))

    @jax.jit
    def both(basis):
        hessian = jax.hessian(lambda x: target.logdensity(unravel(x)))(vector)
        return target.hessian_diagonal(position, basis), jnp.diagonal(basis.T @ hessian @ basis)

    SAME_COMPUTATION.check(*both(basis))
    with pytest.raises(ValueError, match=rf"basis has shape \(70, 2\), expected \({vector.size}, k\): one direction"):
        target.hessian_diagonal(position, jnp.ones((70, 2)))


def test_target_is_a_pytree_that_can_be_an_argument(name, folder):
    target, position, value_and_grad = make_case(name, "float32", folder)
    leaves = jax.tree.leaves(target)
    assert leaves
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    value = jax.jit(lambda target, position: target.logdensity(position))(target, position)
    SAME_COMPUTATION.check(value, value_and_grad(position)[0])


def test_positions_that_do_not_fit_are_refused(name, folder):
    target, position, value_and_grad = make_case(name, "float32", folder)
    key = next(iter(position))
    for function in (target.logdensity, value_and_grad, target.check_position):
        with pytest.raises(ValueError, match=rf"position has the entries .*expected .*{key}.* for the target {name}"):
            function({("other" if k == key else k): value for k, value in position.items()})
        with pytest.raises(ValueError, match=r"position has the entries .*'other'"):
            function({**position, "other": jnp.zeros(2)})
        with pytest.raises(ValueError, match=rf"position\['{key}'\] has shape \(.*7,?\), expected \("):
            function({**position, key: jnp.zeros((*position[key].shape, 7))})
    for function in (target.logdensity, target.check_position):
        with pytest.raises(ValueError, match=rf"position\['{key}'\] has dtype int32, expected a floating one"):
            function({**position, key: jnp.zeros(position[key].shape, jnp.int32)})
