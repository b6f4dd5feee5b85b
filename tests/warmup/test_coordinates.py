"""Standardised coordinates: the same log density and the same chain in other numbers, and starts that are finite."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from parsample.engine.evaluate import evaluate_sequential
from parsample.samplers import MALA
from parsample.targets import EightSchools, LogisticRegression, Target
from parsample.targets.density import LogDensity
from parsample.warmup.coordinates import LARGEST_DENSE, Standardised, plain
from parsample.warmup.low_rank import LowRank
from parsample.warmup.starts import starts
from tests.tolerances import SAME_COMPUTATION

ROOTS = ["dense", "diagonal", "low_rank"]


def standardised(target: Target, root: str) -> Standardised:
    """Coordinates that are far from the target's own, with a fixed root."""
    rng = np.random.default_rng(1)
    density = plain(target)
    dim = density.center.size
    factor = np.tril(rng.normal(size=(dim, dim)), -1) * 0.3 + np.diag(rng.uniform(0.3, 2.0, dim))
    chosen: Any = jnp.asarray(factor if root == "dense" else np.diag(factor))
    if root == "low_rank":
        directions = np.linalg.qr(rng.normal(size=(dim, 2)))[0]
        chosen = LowRank(chosen, jnp.asarray(directions), jnp.asarray([0.1, 20.0]))
    new = jnp.asarray(rng.normal(size=dim)), chosen
    return eqx.tree_at(lambda density: (density.center, density.root), density, new)


def matrix_of(root: Any) -> np.ndarray:
    """The root as a matrix, a low-rank one written out."""
    if isinstance(root, LowRank):
        scale, directions, stretch = map(np.asarray, (root.scale, root.directions, root.stretch))
        return np.diag(scale) @ (np.eye(scale.size) + directions @ np.diag(stretch - 1) @ directions.T)
    return np.asarray(root if root.ndim == 2 else np.diag(root))


def point(dim: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(2).normal(size=dim))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("root", ROOTS)
def test_the_log_density_is_the_target_s_at_the_mapped_position(root: str) -> None:
    target = EightSchools()
    density = standardised(target, root)
    z = point(10)
    expected = np.asarray(density.center) + matrix_of(density.root) @ np.asarray(z)
    position = ravel_pytree(target.position_template())[1](jnp.asarray(expected))
    SAME_COMPUTATION.check(density.vector(z), expected)
    SAME_COMPUTATION.check(density(z), target.logdensity(position))
    jax.tree.map(SAME_COMPUTATION.check, density.position(z), position)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("root", ROOTS)
def test_the_form_for_the_loop_is_the_same_density(root: str) -> None:
    density = standardised(EightSchools(), root)
    few, many = density.for_loop(4), density.for_loop(1_000)
    assert few.by_sums == (root == "dense" and jax.default_backend() == "cpu")
    assert not many.by_sums, "wide batches are for matrix products"
    z = point(10)
    expected = jax.value_and_grad(density)(z)
    jax.tree.map(SAME_COMPUTATION.check, jax.value_and_grad(few)(z), expected)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("root", ROOTS)
def test_the_inverse_is_the_inverse(root: str) -> None:
    density = standardised(EightSchools(), root)
    z = point(10)
    SAME_COMPUTATION.check(density.inverse(density.vector(z)), z)
    many = jnp.stack([density.vector(z), density.vector(-z)])
    SAME_COMPUTATION.check(jax.vmap(density.inverse)(many), jnp.stack([z, -z]))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("root", ROOTS)
def test_gradients_at_positions_are_those_of_the_target(root: str) -> None:
    """With whatever leading axes; one that is not finite leaves the others alone."""
    target = EightSchools()
    density = standardised(target, root)
    rows = np.random.default_rng(3).normal(size=(2, 3, 10))
    rows[0, 1, 4] = np.inf
    slopes = np.asarray(jax.jit(jax.vmap(jax.vmap(jax.grad(density))))(rows))
    own = jax.grad(lambda vector: target.logdensity(density.unravel(vector)))
    expected = jax.jit(jax.vmap(jax.vmap(lambda z: own(density.vector(z)))))(rows)
    found = density.at_positions(slopes)
    assert found.shape == rows.shape
    finite = np.isfinite(np.asarray(expected)).all(-1)
    assert finite.sum() == 5
    SAME_COMPUTATION.check(found[finite], np.asarray(expected)[finite])
    assert not np.isfinite(found[~finite]).all()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("root", ROOTS)
def test_the_diagonal_of_the_hessian(root: str) -> None:
    density = standardised(LogisticRegression(), root)
    z = point(density.center.size)
    found = density.hessian_diagonal
    assert found is not None
    SAME_COMPUTATION.check(jax.jit(found)(z), np.diag(jax.jit(jax.hessian(density))(z)))


def test_a_target_that_does_not_know_its_hessian_has_none() -> None:
    assert plain(LogDensity(lambda x: -x @ x, jnp.zeros(2))).hessian_diagonal is None


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("root", ["dense", "diagonal"])
def test_mala_in_them_is_mala_with_the_inverse_mass_matrix(root: str) -> None:
    target = LogisticRegression()
    density = standardised(target, root)
    matrix = jnp.asarray(matrix_of(density.root))
    inverse_mass = matrix @ matrix.T if root == "dense" else jnp.diag(matrix) ** 2
    own = plain(target)
    inside, outside = MALA(density, 0.03), MALA(lambda x: target.logdensity(own.unravel(x)), 0.03, inverse_mass)
    z = density.inverse(jnp.zeros(density.center.size))
    inputs = inside.draw_inputs(jax.random.key(0), 50, z)
    in_z = evaluate_sequential(inside.transition, z, inputs).states
    in_x = evaluate_sequential(outside.transition, density.vector(z), inputs).states
    moved = np.any(np.diff(np.asarray(in_z), axis=0) != 0, axis=1)
    assert 5 < moved.sum() < 45, "some steps are accepted and some are not"
    np.testing.assert_allclose(jax.vmap(density.vector)(in_z), in_x, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("dim", "ndim"), [(LARGEST_DENSE, 2), (LARGEST_DENSE + 1, 1)])
def test_plain_coordinates_are_the_target_s_own(dim: int, ndim: int) -> None:
    target = LogDensity(lambda x: -x["b"] @ x["b"], {"b": jnp.ones(dim)})
    density = plain(target)
    assert not isinstance(density.root, LowRank)
    assert density.root.ndim == ndim
    x = jnp.arange(dim, dtype=jnp.float32)
    np.testing.assert_array_equal(density.vector(x), x)
    np.testing.assert_array_equal(density.position(x)["b"], x)
    np.testing.assert_array_equal(density.inverse(x), x)


class Half(Target):
    """Finite where x is positive, which a start from (-2, 2) is half of the time."""

    name: ClassVar[str] = "half"

    def logdensity(self, position: Any) -> jax.Array:
        return jnp.sum(jnp.log(position["x"])) - position["x"].sum()

    def position_template(self) -> Any:
        return {"x": jnp.zeros(2)}


def test_a_start_is_drawn_until_it_is_finite() -> None:
    keys = jax.random.split(jax.random.key(0), 20)
    assert float(jnp.min(jax.vmap(lambda key: Half().initial_position(key)["x"])(keys))) < 0
    found = starts(Half(), keys)
    assert found.shape == (20, 2)
    assert float(found.min()) > 0
    assert len(np.unique(np.asarray(found))) == 40
    np.testing.assert_array_equal(found[3:5], starts(Half(), keys[3:5]))


def no_start(function: Any, position: Any) -> str:
    with pytest.raises(ValueError, match="initial_position: chain 0 found no start with a finite") as caught:
        starts(LogDensity(function, position), jax.random.split(jax.random.key(0), 2), tries=3)
    return str(caught.value)


def test_a_target_without_a_finite_start_names_the_variables() -> None:
    tree = {"scale": {"inner": jnp.zeros(2)}, "shift": jnp.zeros(())}
    one = no_start(lambda p: jnp.sqrt(-1 - p["scale"]["inner"] ** 2).sum() - p["shift"] ** 2, tree)
    # The gradient in `shift` is finite.
    assert "finite log density in 3 draws; the last one had log density nan, with trouble in scale.inner; check" in one
    assert "with trouble in x; " in no_start(lambda x: jnp.log(-1 - x @ x), jnp.zeros(2))


def test_a_gradient_that_is_not_finite_is_no_start_either() -> None:
    message = no_start(lambda p: jnp.sqrt(p["a"] * 0.0) - p["b"] ** 2, {"a": jnp.ones(()), "b": jnp.ones(())})
    assert "no start with a finite gradient in 3 draws" in message
    assert "with trouble in a; " in message


def test_where_no_gradient_tells_every_variable_is_named() -> None:
    message = no_start(lambda p: -jnp.inf + 0 * (p["a"] + p["b"]), {"a": jnp.ones(()), "b": jnp.ones(())})
    assert "had log density -inf, with trouble in a, b; check the support of these variables" in message
