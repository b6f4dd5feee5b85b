"""`smooth` against the textbook: the least-squares problem written out as one matrix, and solved by NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine.kalman import smooth
from parsample.engine.matrices import Dense, Diagonal, Matrix, ScaledIdentity
from parsample.engine.scan import SHORT, solve_lds
from tests.covering import each_once
from tests.engine.test_matrices import BUILDERS, name_of, written_out
from tests.tolerances import SAME_COMPUTATION, Tolerance

SCANS = ["loop", "associative"]
STEPS = SHORT + 5
PENALTIES = [1e-8, 1e-3, 1.0, 30.0, 1e8]
solve = jax.jit(smooth, static_argnames="scan")
# A filter and a smoother: sums of products over every step, in another order than the textbook's. Relative to the
# largest entry of the answer, which is of the order of offsets / penalty for a large penalty.
SMOOTHED = Tolerance(float32=(2e-5, 0.0), float64=(1e-11, 0.0))


def system(structure: type[Matrix], steps: int, dim: int, dtype: Any, size: float = 1.0) -> tuple[Matrix, Any]:
    """Matrices whose entries are of the size given, not projected: some expand. And offsets."""
    rng = np.random.default_rng(0)
    matrices = BUILDERS[structure](rng, (steps,), dim).scale(size)
    cast = lambda leaf: jnp.asarray(leaf, dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf  # noqa: E731
    return jax.tree.map(cast, matrices), cast(jnp.asarray(rng.normal(size=(steps, dim))))


def textbook(matrices: Matrix, offsets: Any, penalty: Any) -> np.ndarray:
    """The y with (B^T B + penalty) y = B^T b, where (B y)[t] = y[t] - A[t] y[t-1], the penalty on the diagonal."""
    steps, dim = offsets.shape
    dense = np.asarray(written_out(matrices, (steps,), dim), np.float64)
    system = np.eye(steps * dim)
    for step in range(1, steps):
        rows, columns = slice(step * dim, (step + 1) * dim), slice((step - 1) * dim, step * dim)
        system[rows, columns] = -dense[step]
    penalties = np.repeat(np.broadcast_to(penalty, steps), dim)
    normal = system.T @ system + np.diag(penalties)
    return np.linalg.solve(normal, system.T @ np.asarray(offsets, np.float64).ravel()).reshape(steps, dim)


# There are two filters, one elementwise and one of matrices; the other structures are always run without a penalty.
FILTERS = (Diagonal, Dense)
CASES = [(structure, *shape) for structure in FILTERS for shape in [(STEPS, 3), (1, 1), (1, 3), (STEPS, 1)]]
ROWS = each_once(CASES, [np.float32, np.float64])
ROWS += [pytest.param((cls, STEPS, 3), np.float64, marks=pytest.mark.grid) for cls in BUILDERS if cls not in FILTERS]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("case", "dtype"), ROWS, ids=name_of)
def test_every_scan_solves_the_normal_equations(case: tuple[type[Matrix], int, int], dtype: Any) -> None:
    structure, steps, dim = case
    matrices, offsets = system(structure, steps, dim, dtype, size=0.6)
    # One penalty, or one for each step, of which some may be 0.
    each = np.resize([1e-3, 30.0, 0.0, 1.0], steps).astype(dtype)
    for penalty in (*PENALTIES, each):
        expected = textbook(matrices, offsets, penalty)
        for scan in SCANS:
            found = solve(matrices, offsets, penalty, scan=scan)
            assert found.dtype == dtype
            error = np.abs(np.asarray(found, np.float64) - expected).max()
            assert error <= SMOOTHED(dtype)["rtol"] * np.abs(expected).max(), (penalty, scan)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("structure", [Diagonal, Dense], ids=name_of)
def test_matrices_that_expand_are_held_down_by_the_penalty(structure: type[Matrix]) -> None:
    """The linear dynamical system itself would reach 3^20; the answer stays of the size of the offsets."""
    matrices, offsets = system(structure, STEPS, 3, np.float64, size=3.0)
    expected = textbook(matrices, offsets, 1.0)
    assert np.abs(expected).max() < 2 * np.abs(offsets).max()
    for scan in SCANS:
        np.testing.assert_allclose(solve(matrices, offsets, 1.0, scan=scan), expected, **SAME_COMPUTATION(np.float64))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("structure", BUILDERS, ids=name_of)
@pytest.mark.parametrize("scan", ["loop", "associative"])
def test_without_a_penalty_it_is_the_linear_dynamical_system(structure: type[Matrix], scan: str) -> None:
    matrices, offsets = system(structure, STEPS, 3, np.float64, size=0.6)
    expected = solve_lds(matrices, offsets, jnp.zeros(3), scan="loop")
    distances = [
        np.abs(np.asarray(solve(matrices, offsets, penalty, scan=scan) - expected)).max() for penalty in (1e-5, 1e-8)
    ]
    # What the penalty takes away is proportional to it.
    assert distances[1] < 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(distances[0], 1e3 * distances[1], rtol=1e-2)


@pytest.mark.usefixtures("x64")
def test_one_step_by_hand() -> None:
    """The y[0] that minimises |y - b|^2 + penalty |y|^2 is b / (1 + penalty); y before it is 0, whatever its matrix."""
    for matrix in (jnp.asarray([7.0]), jnp.asarray([-1e6])):
        found = solve(ScaledIdentity(matrix), jnp.asarray([[2.0, -1.0]]), 3.0, scan="loop")
        np.testing.assert_allclose(found, [[0.5, -0.25]], rtol=1e-15)


def test_a_batch_of_systems_equals_a_loop_over_them() -> None:
    matrices, offsets = system(Diagonal, STEPS, 3, np.float32, size=0.6)
    penalties = jnp.asarray([1e-3, 1.0, 30.0])
    for scan in ("loop", "associative"):
        batch = jax.vmap(lambda penalty, scan=scan: solve(matrices, offsets, penalty, scan=scan))(penalties)
        one_by_one = jnp.stack([solve(matrices, offsets, penalty, scan=scan) for penalty in penalties])
        SAME_COMPUTATION.check(batch, one_by_one)


@pytest.mark.parametrize(("platform", "loops"), [("cpu", True), ("cuda", False)])
def test_the_scan_is_chosen_by_backend(platform: str, loops: bool) -> None:
    arguments = system(Diagonal, 200, 2, np.float32)
    program = jax.jit(smooth).trace(*arguments, 1.0).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.while" in program) == loops


def test_an_unknown_scan_is_refused() -> None:
    with pytest.raises(ValueError, match="scan is 'parallel', expected 'loop', 'associative' or None"):
        smooth(Diagonal(jnp.ones((3, 2))), jnp.ones((3, 2)), 1.0, scan="parallel")
