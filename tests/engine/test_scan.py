"""`solve_lds`: every scan agrees with the textbook recursion, and so do their derivatives."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsample.engine.arrays import to_jax
from parsample.engine.kernels import LANES, LARGEST_DENSE, LENGTH
from parsample.engine.matrices import Block, Dense, Diagonal, Matrix, ScaledIdentity, Zero
from parsample.engine.scan import SHORT, solve_lds
from parsample.engine.subspace import Subspace
from tests.covering import each_once
from tests.engine.test_matrices import BUILDERS, name_of, written_out
from tests.tolerances import SAME_COMPUTATION, Tolerance

# None is one of them, by backend and size, which has tests of its own below.
SCANS = ["loop", "associative", "blocked"]
# The structures that have kernels; away from a GPU these are interpreted.
KERNELS = [ScaledIdentity, Diagonal, Block, Dense]
solve = jax.jit(solve_lds, static_argnames="scan")
# Steps and dimensions of what two tests compile once.
BATCHED = (SHORT + 1, 3)
# They add up hundreds of terms in different orders; the tolerance is that of a sum, not of one operation.
SUM = Tolerance(float32=(1e-4, 1e-5), float64=(1e-11, 1e-12))


contracted = jax.jit(lambda matrices: matrices.project().scale(0.95))


def scans_of(structure: type[Matrix]) -> list[str]:
    return [*SCANS, "pallas"] if structure in [Zero, *KERNELS] else SCANS


def system(structure: type[Matrix], steps: int, dim: int, dtype: Any, seed: int = 0) -> tuple[Matrix, Any, Any]:
    """A contracting system, its offsets and its initial state."""
    rng = np.random.default_rng(seed)
    matrices = contracted(BUILDERS[structure](rng, (steps,), dim))
    cast = lambda leaf: to_jax(leaf, dtype)  # noqa: E731
    # The indices of a permutation stay whole numbers.
    matrices = jax.tree.map(lambda leaf: cast(leaf) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, matrices)
    return matrices, cast(rng.normal(size=(steps, dim))), cast(rng.normal(size=dim))


def textbook(matrices: Matrix, offsets: Any, initial_state: Any) -> np.ndarray:
    steps, dim = offsets.shape
    dense = np.asarray(written_out(matrices, (steps,), dim), np.float64)
    state, states = np.asarray(initial_state, np.float64), []
    for matrix, offset in zip(dense, np.asarray(offsets, np.float64), strict=True):
        state = matrix @ state + offset
        states.append(state)
    return np.stack(states)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("dtype", "structure", "shape"),
    each_once([np.float32, np.float64], list(BUILDERS), [(600, 2), (SHORT, 2), (61, 3), (1, 1), (64, 4)]),
    ids=name_of,
)
def test_every_scan_equals_the_textbook(structure: type[Matrix], shape: tuple[int, int], dtype: Any) -> None:
    steps, dim = shape
    for seed in range(3):
        arguments = system(structure, steps, dim, dtype, seed)
        solved = [solve(*arguments, scan=scan) for scan in scans_of(structure)]
        assert all(states.dtype == dtype for states in solved)
        expected = textbook(*arguments)
        worst = max(np.abs(np.asarray(states, np.float64) - expected).max() for states in solved)
        assert worst <= SUM(dtype)["atol"] + SUM(dtype)["rtol"] * np.abs(expected).max()


# The basis of a subspace is fixed, and what a derivative in it would be differs between the scans.
@pytest.mark.parametrize("structure", [cls for cls in BUILDERS if cls is not Subspace], ids=name_of)
@pytest.mark.usefixtures("x64")
def test_every_scan_has_the_textbook_gradient(structure: type[Matrix]) -> None:
    steps, dim = 20, 3
    matrices, offsets, initial_state = system(structure, steps, dim, np.float64)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(steps, dim)))
    # The adjoint runs backwards: y[t] = w[t] + A[t+1]^T y[t+1], and then db = y, dA = y x^T, dx0 = A[0]^T y[0].
    dense = written_out(matrices, (steps,), dim)
    states = textbook(matrices, offsets, initial_state)
    adjoint = np.array(weights)
    for step in range(steps - 2, -1, -1):
        adjoint[step] += dense[step + 1].T @ adjoint[step + 1]
    before = np.concatenate([np.asarray(initial_state)[None], states[:-1]])

    def dense_loss(dense: Any) -> Any:
        return jnp.sum(dense * (adjoint[:, :, None] * before[:, None, :]))

    expected_matrices = jax.grad(lambda matrices: dense_loss(matrices.dense(dim)), allow_int=True)(matrices)
    for scan in scans_of(structure):

        def loss(*arguments, scan=scan):
            return jnp.sum(weights * solve_lds(*arguments, scan=scan))

        gradient = jax.jit(jax.grad(loss, (0, 1, 2), allow_int=True))
        to_matrices, to_offsets, to_initial = gradient(matrices, offsets, initial_state)
        SAME_COMPUTATION.check(to_offsets, adjoint)
        SAME_COMPUTATION.check(to_initial, dense[0].T @ adjoint[0])
        floating = lambda tree: eqx.filter(tree, eqx.is_inexact_array)  # noqa: E731
        jax.tree.map(SAME_COMPUTATION.check, floating(to_matrices), floating(expected_matrices))


@pytest.mark.slow
@given(
    st.sampled_from([(structure, scan) for structure in BUILDERS for scan in scans_of(structure)]),
    st.integers(0, 1000),
)
def test_the_solution_is_linear_in_offsets_and_initial_state(solved: tuple[type[Matrix], str], seed: int) -> None:
    structure, scan = solved
    matrices, offsets, initial_state = system(structure, *BATCHED, np.float32, seed)
    _, more_offsets, more_initial = system(structure, *BATCHED, np.float32, seed + 1)
    together = solve(matrices, 2 * offsets - more_offsets, 2 * initial_state - more_initial, scan=scan)
    apart = 2 * solve(matrices, offsets, initial_state, scan=scan)
    apart = apart - solve(matrices, more_offsets, more_initial, scan=scan)
    np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-4)


def test_zero_matrices_return_the_offsets() -> None:
    offsets = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(solve_lds(Zero(), offsets, jnp.full(2, jnp.nan)), offsets)


@pytest.mark.parametrize("structure", BUILDERS, ids=name_of)
def test_a_batch_of_systems_equals_a_loop_over_them(structure: type[Matrix]) -> None:
    systems = [system(structure, *BATCHED, np.float32, seed) for seed in range(3)]
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *systems)
    for scan in scans_of(structure):

        def one(*arguments, scan=scan):
            return solve(*arguments, scan=scan)

        SAME_COMPUTATION.check(jax.vmap(one)(*batch), np.stack([one(*arguments) for arguments in systems]))


@pytest.mark.parametrize(
    ("steps", "platform", "loops"),
    [(200, "cpu", True), (200, "cuda", False), (200, "tpu", False), (SHORT, "cpu", True), (SHORT, "cuda", True)],
)
def test_the_scan_is_chosen_by_backend_and_size(steps: int, platform: str, loops: bool) -> None:
    for structure in (Dense, Diagonal):
        arguments = system(structure, steps, 2, np.float32)
        program = jax.jit(solve_lds).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
        assert ("stablehlo.while" in program) == loops


@pytest.mark.parametrize(
    ("structure", "scan"),
    [(ScaledIdentity, "blocked"), (Diagonal, "blocked"), (Block, "associative"), (Dense, "associative")],
    ids=name_of,
)
def test_an_accelerator_gets_the_scan_that_suits_the_structure(structure: type[Matrix], scan: str) -> None:
    arguments = system(structure, 200, 2, np.float32)

    def operations(name: str | None) -> int:
        traced = jax.jit(solve_lds, static_argnames="scan").trace(*arguments, scan=name)
        return traced.lower(lowering_platforms=("cuda",)).as_text().count("stablehlo.concatenate")

    other = {"blocked": "associative", "associative": "blocked"}[scan]
    assert operations(None) == operations(scan) != operations(other)


def test_other_numbers_of_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="matrices hold 4 steps and offsets 3, expected the same number"):
        solve_lds(ScaledIdentity(jnp.ones(4)), jnp.ones((3, 2)), jnp.ones(2))


def test_an_unknown_scan_is_refused() -> None:
    with pytest.raises(ValueError, match="scan is 'parallel', expected 'loop', 'associative', 'blocked', 'pallas'"):
        solve_lds(ScaledIdentity(jnp.ones(3)), jnp.ones((3, 2)), jnp.ones(2), scan="parallel")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("structure", "shape", "dtype"),
    [
        *each_once(
            KERNELS,
            [(1, 3), (LENGTH, LARGEST_DENSE), (LENGTH + 1, 1), (LENGTH * (LENGTH + 1) + 1, 3), (1000, LARGEST_DENSE)],
            [np.float32, np.float64],
        ),
        *((structure, (LENGTH + 1, 2 * LANES + 3), np.float32) for structure in KERNELS[:3]),
    ],
    ids=name_of,
)
def test_the_kernels_equal_the_loop(structure: type[Matrix], shape: tuple[int, int], dtype: Any) -> None:
    arguments = system(structure, *shape, dtype)
    states, expected = (np.asarray(solve(*arguments, scan=scan)) for scan in ("pallas", "loop"))
    assert states.dtype == dtype
    np.testing.assert_allclose(states, expected, **SUM(dtype))


@pytest.mark.parametrize("structure", KERNELS, ids=name_of)
def test_the_kernels_are_finite_where_the_loop_is(structure: type[Matrix]) -> None:
    # Of three dimensions the second has no partner in blocks, and a dense matrix is filled up to four.
    matrices, offsets, initial_state = system(structure, 2 * LENGTH + 3, 3, np.float32)
    offsets = offsets.at[LENGTH + 2, 1].set(np.inf)
    states, expected = (np.asarray(solve(matrices, offsets, initial_state, scan=scan)) for scan in ("pallas", "loop"))
    assert not np.isfinite(expected).all()
    np.testing.assert_array_equal(np.isfinite(states), np.isfinite(expected))
    np.testing.assert_array_equal(np.isnan(states), np.isnan(expected))


@pytest.mark.usefixtures("x64")
def test_the_kernels_have_derivatives_of_second_order() -> None:
    arguments = system(Block, LENGTH + 1, 3, np.float64)
    curvatures = []
    for scan in ("pallas", "loop"):

        def loss(*arguments, scan=scan):
            return jnp.sum(solve_lds(*arguments, scan=scan) ** 3)

        along = jax.jit(lambda given, loss=loss: jax.jvp(jax.grad(loss, (0, 1, 2)), given, given)[1])
        curvatures.append(along(arguments))
    jax.tree.map(SAME_COMPUTATION.check, *curvatures)


# JAX 0.12 announces that it will drop the backend that compiles these kernels. Before 0.10.2 lowering compiled them,
# too, which takes a GPU.
@pytest.mark.skipif(jax.__version_info__ < (0, 10, 2), reason="needs a GPU with this JAX")
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("structure", "dim"),
    [
        (Diagonal, 2 * LANES + 3),
        *(
            pytest.param(*row, marks=pytest.mark.slow)
            for row in ((ScaledIdentity, 3), (Block, 3), (Dense, 3), (Dense, LARGEST_DENSE))
        ),
    ],
    ids=name_of,
)
def test_the_kernels_are_lowered_for_cuda(structure: type[Matrix], dim: int) -> None:
    systems = [system(structure, LENGTH * (LENGTH + 1) + 1, dim, np.float32, seed) for seed in range(2)]
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *systems)

    def loss(*arguments):
        return jnp.sum(jax.vmap(lambda *one: solve_lds(*one, scan="pallas"))(*arguments) ** 2)

    # JAX 0.12 wants the device named.
    device = jax.sharding.AbstractDevice("NVIDIA H100 80GB HBM3", None, "gpu")
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=device)):
        program = jax.jit(jax.grad(loss)).trace(*batch).lower(lowering_platforms=("cuda",)).as_text()
    # Two kernels each for the steps and for the ends of 17 chunks, and one for the end of one; as many backwards.
    assert program.count("stablehlo.custom_call @__gpu$xla.gpu.triton") == 2 * 5
    assert "stablehlo.while" not in program


@pytest.mark.parametrize("structure", [cls for cls in BUILDERS if cls not in [Zero, *KERNELS]], ids=name_of)
def test_a_structure_without_kernels_is_refused(structure: type[Matrix]) -> None:
    arguments = system(structure, 4, 2, np.float32)
    with pytest.raises(
        ValueError, match=f"'pallas' for matrices of type {structure.__name__} in 2 dimensions, expected"
    ):
        solve_lds(*arguments, scan="pallas")


def test_large_dense_matrices_are_refused_by_the_kernels() -> None:
    dim = LARGEST_DENSE + 1
    with pytest.raises(ValueError, match="Dense in 17 dimensions, expected"):
        solve_lds(Dense(jnp.ones((2, dim, dim))), jnp.ones((2, dim)), jnp.ones(dim), scan="pallas")
