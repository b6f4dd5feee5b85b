"""The diagnosis of a chain: closed forms on linear chains, and forecasts against what happens."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsample as ps
from parsample.engine import diagnose as module
from tests.engine.recursions import tanh_problem, tree_problem
from tests.tolerances import SAME_COMPUTATION

pytestmark = pytest.mark.usefixtures("x64")

MATRIX = np.array([[0.9, 0.3], [-0.2, 0.6]])


def linear_step(state: jax.Array, input: jax.Array) -> jax.Array:
    return jnp.asarray(MATRIX) @ state + input


@pytest.fixture(scope="module")
def linear() -> ps.Diagnosis:
    with jax.enable_x64(True):
        noise = jax.random.normal(jax.random.key(0), (60, 2), jnp.float64)
        return ps.diagnose(linear_step, jnp.zeros(2), noise)


def test_distances_from_a_constant_matrix(linear: ps.Diagnosis) -> None:
    rows = {row.method: row for row in linear.forecasts}
    expected = {
        "jacobi": MATRIX,
        "picard": MATRIX - np.eye(2),
        "scaled_identity": MATRIX - 0.75 * np.eye(2),
        "quasi_newton": MATRIX - np.diag([0.9, 0.6]),
    }
    for name, difference in expected.items():
        assert rows[name].mean_distance == pytest.approx(np.linalg.norm(difference, 2))
        assert rows[name].high_distance == pytest.approx(rows[name].mean_distance)
    assert linear.scale == pytest.approx(0.75)
    assert (rows["newton"].mean_distance, rows["newton"].iterations) == (0, 2)
    assert linear.exponent == pytest.approx(np.log(np.abs(np.linalg.eigvals(MATRIX)).max()), abs=0.05)


def test_the_smallest_singular_value_and_its_bounds(linear: ps.Diagnosis) -> None:
    jacobian = np.eye(120) - np.kron(np.eye(60, k=-1), MATRIX)
    exact = np.linalg.svd(jacobian, compute_uv=False)[-1]
    assert exact * (1 - 1e-9) <= linear.smallest_singular_value <= 1.01 * exact
    assert linear.bounds[0] <= exact <= linear.bounds[1]


def test_a_linear_chain_is_foreseen(linear: ps.Diagnosis) -> None:
    """There is nothing beyond first order; what the driver has accepted it freezes: an iteration or two less."""
    noise = jax.random.normal(jax.random.key(0), (60, 2), jnp.float64)
    methods: dict[str, Any] = {"jacobi": "jacobi", "picard": "picard", "newton": "newton"}
    methods["scaled_identity"] = ps.methods.ScaledIdentity(linear.scale)
    for row in linear.forecasts:
        assert row.linear_iterations == row.iterations
        if row.method in methods:
            found = ps.evaluate(linear_step, jnp.zeros(2), noise, method=methods[row.method])
            assert 0 <= row.iterations - int(found.iterations) <= 2, row


@pytest.mark.slow
def test_a_chain_with_decisions_is_foreseen() -> None:
    target = ps.targets.TwoWells()
    mala = ps.samplers.MALA(target.logdensity, 0.1)
    start = {"x": jnp.array([1.0, 0.5])}
    inputs = mala.draw_inputs(jax.random.key(0), 200, start)
    found = ps.diagnose(mala.transition, start, inputs)
    for row in found.forecasts[-2:]:
        happened = int(ps.evaluate(mala.transition, start, inputs, method=row.method).iterations)
        assert 0.5 <= row.iterations / happened <= 2
        assert row.finished
        assert 1 <= row.moving <= row.iterations
    assert found.method in {"scaled_identity", "quasi_newton", "newton"}


@pytest.mark.slow
def test_a_chaotic_chain_speaks_for_the_loop() -> None:
    found = ps.diagnose(lambda x, u: 4 * x * (1 - x), jnp.array([0.3]), jnp.arange(200))
    assert found.exponent > 0.5
    assert found.method == "sequential"
    assert "chaotic, e-fold in" in found.text()
    assert found.bounds[0] <= found.smallest_singular_value <= found.bounds[1] * (1 + 1e-9) < 1e-20


@pytest.mark.slow
def test_many_dimensions_go_without_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = tanh_problem(np.float64)
    dense = ps.diagnose(*problem)
    monkeypatch.setattr(module, "LARGEST_DENSE", 2)
    probed = ps.diagnose(*problem)
    assert [row.method for row in probed.forecasts] == ["jacobi", "picard", "scaled_identity", "quasi_newton"]
    for ours, theirs in zip(probed.forecasts[:2], dense.forecasts[:2], strict=True):
        assert ours.iterations == theirs.iterations
        assert ours.mean_distance < 1.2 * theirs.mean_distance, "a Frobenius norm over sqrt(dim) is below the spectral"
    SAME_COMPUTATION.check(probed.smallest_singular_value, dense.smallest_singular_value)


@pytest.mark.slow
def test_pytrees_and_a_prefix() -> None:
    problem = tree_problem(np.float64)
    found = ps.diagnose(*problem, window=9, max_iterations=3)
    assert (found.steps, found.dim) == (9, 10)
    assert not found.forecasts[1].finished
    assert "> 3" in found.text()


def test_the_text() -> None:
    row = module.Forecast("newton", 0.0, 0.0, 2, 5, 3.5, True, 3.0)
    found = ps.Diagnosis(100, 2, -0.1, 0.01, 1.5, 0.09, (0.06, 1.0), 0.9, (row,))
    lines = found.text().splitlines()
    assert lines[1].endswith("-0.1 ± 0.01 a step: predictable, forgets within 10 steps")
    assert lines[4].split() == ["speaks", "for", "newton"]
    assert lines[-1].split() == ["newton", "0", "0", "2", "5", "3.5"]
    slow = dataclasses.replace(found, forecasts=(dataclasses.replace(row, iterations=26),), exponent=0.001)
    assert slow.method == "sequential"
    assert "neither clearly predictable nor chaotic" in slow.text()


def test_messages() -> None:
    problem = tanh_problem(np.float64)
    with pytest.raises(ValueError, match=r"window is -1, expected a whole number of at least 1"):
        ps.diagnose(*problem, window=-1)
    with pytest.raises(ValueError, match=r"max_iterations is 0, expected a whole number of at least 1"):
        ps.diagnose(*problem, max_iterations=0)
    with pytest.raises(ValueError, match=r"traced by jit or vmap, expected arrays with values.* call diagnose outside"):
        jax.jit(lambda inputs: ps.diagnose(problem.transition, problem.initial_state, inputs).exponent)(problem.inputs)
    with pytest.raises(ps.ConvergenceError, match=r"is not finite"):
        ps.diagnose(lambda x, u: x / 0, jnp.ones(2), jnp.arange(5))
