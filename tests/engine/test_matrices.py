"""The laws of the matrix structures: a structured matrix is the same linear map as its dense form, whatever is done."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Array

from parsample.engine.matrices import Block, Dense, Diagonal, Matrix, Permutation, ScaledIdentity, Zero
from parsample.engine.parts import Parts
from parsample.engine.subspace import Subspace
from tests.covering import each_once
from tests.tolerances import SAME_COMPUTATION, Tolerance


def random_blocks(rng: np.random.Generator, axes: tuple[int, ...], dim: int) -> Array:
    entries = rng.normal(size=(*axes, 2, 2, -(-dim // 2)))
    if dim % 2:
        # The partner of the last coordinate of the first half is no coordinate: nothing comes from it or goes to it.
        entries[..., 0, 1, -1] = entries[..., 1, :, -1] = 0
    return jnp.asarray(entries)


def parts_of(dim: int) -> int:
    """The parts of a state of so many numbers."""
    return next(count for count in (2, 3, 1) if dim % count == 0)


def random_subspace(rng: np.random.Generator, axes: tuple[int, ...], dim: int) -> Subspace:
    # One basis for all matrices of a size: those that are composed share it.
    rank = -(-dim // 2)
    basis = np.linalg.qr(np.random.default_rng(dim).normal(size=(dim, rank)))[0].T
    basis = np.broadcast_to(basis, (*axes, rank, dim))
    rest = ScaledIdentity(jnp.asarray(rng.normal(size=axes)))
    return Subspace(rest, jnp.asarray(basis), jnp.asarray(rng.normal(size=basis.shape)))


# Structure -> how to make one from random numbers; in the order of how much they can hold.
BUILDERS: dict[type[Matrix], Callable[[np.random.Generator, tuple[int, ...], int], Matrix]] = {
    Zero: lambda rng, axes, dim: Zero(),
    ScaledIdentity: lambda rng, axes, dim: ScaledIdentity(jnp.asarray(rng.normal(size=axes))),
    Diagonal: lambda rng, axes, dim: Diagonal(jnp.asarray(rng.normal(size=(*axes, dim)))),
    Block: lambda rng, axes, dim: Block(random_blocks(rng, axes, dim)),
    Permutation: lambda rng, axes, dim: Permutation(
        jnp.asarray(rng.permuted(np.broadcast_to(np.arange(dim), (*axes, dim)), axis=-1)),
        jnp.asarray(rng.normal(size=(*axes, dim))),
    ),
    Parts: lambda rng, axes, dim: Parts(jnp.asarray(rng.normal(size=(*axes, parts_of(dim), parts_of(dim))))),
    Subspace: random_subspace,
    Dense: lambda rng, axes, dim: Dense(jnp.asarray(rng.normal(size=(*axes, dim, dim)))),
}
RANK = list(BUILDERS)
# Neither knows the size of the vectors, so that it cannot be written out.
NO_PRODUCT = [(Block, Parts), (Parts, Block)]
PAIRS = [pair for pair in itertools.product(BUILDERS, repeat=2) if pair not in NO_PRODUCT]

# Sums of a few terms of size up to about 10, whose value may be near zero.
SUM_OF_TERMS = Tolerance(float32=(2e-5, 6e-5), float64=(1e-11, 1e-12))

structures = st.sampled_from(RANK)
leading_axes = st.sampled_from([(), (4,), (2, 3)])
dims = st.sampled_from([1, 3, 4])
chains = st.lists(structures, min_size=3, max_size=3).filter(lambda chain: not {Block, Parts} <= set(chain))
seeds = st.integers(0, 10_000)


def name_of(value: Any) -> str | None:
    return value.__name__ if isinstance(value, type) else None


def draw(structure: type[Matrix], seed: int, axes: tuple[int, ...], dim: int) -> Matrix:
    return BUILDERS[structure](np.random.default_rng(seed), axes, dim)


# One program each, and not one for every operation in it.
dense = jax.jit(lambda matrix, dim: matrix.dense(dim), static_argnums=1)
product = jax.jit(lambda later, earlier: later @ earlier)
projected_product = jax.jit(lambda later, earlier: (later @ earlier).project())
apply = jax.jit(lambda matrix, vector: matrix.apply(vector))
project = jax.jit(lambda matrix: matrix.project())
is_finite = jax.jit(lambda matrix: matrix.isfinite())
where = jax.jit(lambda matrix, keep: matrix.where(keep))


def written_out(matrix: Matrix, axes: tuple[int, ...], dim: int) -> np.ndarray:
    return np.broadcast_to(np.asarray(dense(matrix, dim)), (*axes, dim, dim))


def test_every_structure_is_tested() -> None:
    def below(cls: type) -> set[type]:
        return set(cls.__subclasses__()).union(*map(below, cls.__subclasses__()))

    assert {cls for cls in below(Matrix) if cls.__module__.startswith("parsample.")} == {*BUILDERS}


def simplest(later: type[Matrix], earlier: type[Matrix]) -> type[Matrix]:
    """The structure of a product: that of both, or of the one that is more than a scale; else dense."""
    if Zero in (later, earlier):
        return Zero
    less, more = sorted((later, earlier), key=RANK.index)
    return more if less in (more, ScaledIdentity) else Dense


@pytest.mark.parametrize(("later", "earlier"), PAIRS, ids=name_of)
def test_every_pair_composes_into_its_structure_or_is_written_out(later: type[Matrix], earlier: type[Matrix]) -> None:
    composed = jax.eval_shape(lambda: draw(later, 0, (4,), 3) @ draw(earlier, 1, (4,), 3))
    assert type(composed) is simplest(later, earlier)


@given(st.sampled_from(PAIRS), leading_axes, st.booleans(), st.booleans(), dims, seeds)
def test_composition_is_the_product_of_the_dense_forms(
    pair: tuple[type[Matrix], type[Matrix]],
    axes: tuple[int, ...],
    stack_later: bool,
    stack_earlier: bool,
    dim: int,
    seed: int,
) -> None:
    later, earlier = pair
    second = draw(later, seed, axes if stack_later else (), dim)
    first = draw(earlier, seed + 1, axes if stack_earlier else (), dim)
    expected = np.asarray(dense(second, dim)) @ np.asarray(dense(first, dim))
    vector = np.random.default_rng(seed + 2).normal(size=(*axes, dim)).astype(np.float32)
    composed = product(second, first)
    SUM_OF_TERMS.check(written_out(composed, expected.shape[:-2], dim), expected)
    SUM_OF_TERMS.check(apply(composed, vector), apply(second, apply(first, vector)))


@given(chains, leading_axes, dims, seeds)
def test_composition_is_associative(chain: list[type[Matrix]], axes: tuple[int, ...], dim: int, seed: int) -> None:
    a, b, c = (draw(cls, seed + place, axes, dim) for place, cls in enumerate(chain))
    left, right = product(product(a, b), c), product(a, product(b, c))
    assert type(left) is type(right)
    SUM_OF_TERMS.check(dense(left, dim), dense(right, dim))


def identity_in_subspace(axes: tuple[int, ...]) -> Subspace:
    basis = random_subspace(np.random.default_rng(0), axes, 3).basis
    return Subspace(ScaledIdentity(jnp.ones(axes)), basis, jnp.zeros_like(basis))


@pytest.mark.parametrize("structure", BUILDERS, ids=name_of)
@pytest.mark.parametrize("axes", [(), (4,)])
def test_every_structure_but_zero_holds_the_identity(structure: type[Matrix], axes: tuple[int, ...]) -> None:
    identities = {
        ScaledIdentity: ScaledIdentity(jnp.ones(axes)),
        Diagonal: Diagonal(jnp.ones((*axes, 3))),
        Block: Block(jnp.broadcast_to(jnp.eye(2)[:, :, None], (*axes, 2, 2, 2))),
        Permutation: Permutation(jnp.broadcast_to(jnp.arange(3), (*axes, 3)), jnp.ones((*axes, 3))),
        Parts: Parts(jnp.broadcast_to(jnp.eye(3), (*axes, 3, 3))),
        Subspace: identity_in_subspace(axes),
        Dense: Dense(jnp.broadcast_to(jnp.eye(3), (*axes, 3, 3))),
    }
    matrix = draw(structure, 0, axes, 3)
    for kind, identity in identities.items():
        if (kind, structure) in NO_PRODUCT:
            continue
        SAME_COMPUTATION.check(dense(identity, 3), np.broadcast_to(np.eye(3, dtype=np.float32), (*axes, 3, 3)))
        for found in (product(identity, matrix), product(matrix, identity)):
            SUM_OF_TERMS.check(written_out(found, axes, 3), written_out(matrix, axes, 3))


def clipped(matrix: Matrix, written: np.ndarray) -> np.ndarray:
    if not isinstance(matrix, Subspace):
        return np.clip(written, -0.4, 0.4)
    # What is stored is clipped, not what is written out.
    factor, basis, excess = (np.asarray(leaf) for leaf in jax.tree.leaves(matrix))
    rest = np.clip(factor, -0.4, 0.4)[..., None, None] * np.eye(basis.shape[-1])
    return rest + np.swapaxes(np.clip(excess, -0.4, 0.4), -1, -2) @ basis


@jax.jit
def changed(matrix: Matrix, keep: Array) -> dict[str, Matrix]:
    return {
        "scale": matrix.scale(0.3),
        "scale by an array": matrix.scale(jnp.asarray(-2.0)),
        "clip": matrix.clip(0.4),
        "where": matrix.where(keep),
    }


@given(structures, leading_axes, dims, seeds)
def test_apply_scale_clip_and_where_equal_the_dense_form(
    structure: type[Matrix], axes: tuple[int, ...], dim: int, seed: int
) -> None:
    rng = np.random.default_rng(seed + 1)
    matrix, keep = draw(structure, seed, axes, dim), rng.random(axes) < 0.5
    vector = rng.normal(size=(*axes, dim)).astype(np.float32)
    written = written_out(matrix, axes, dim)
    SUM_OF_TERMS.check(apply(matrix, vector), np.einsum("...ij,...j->...i", written, vector))
    expected = {
        "scale": 0.3 * written,
        "scale by an array": -2 * written,
        "clip": clipped(matrix, written),
        "where": np.where(keep[..., None, None], written, 0),
    }
    for what, found in changed(matrix, keep).items():
        assert type(found) is structure, what
        SUM_OF_TERMS.check(written_out(found, axes, dim), expected[what])


@pytest.mark.slow
@given(structures, leading_axes, dims, st.sampled_from([0.1, 1.0, 30.0]), seeds)
def test_projection_has_norm_at_most_one_and_keeps_contractions(
    structure: type[Matrix], axes: tuple[int, ...], dim: int, size: float, seed: int
) -> None:
    matrix = draw(structure, seed, axes, dim).scale(size)
    projected = project(matrix)
    assert type(projected) is structure
    before, after = written_out(matrix, axes, dim), written_out(projected, axes, dim)
    norms = np.linalg.norm(before, ord=2, axis=(-2, -1))
    assert np.all(np.linalg.norm(after, ord=2, axis=(-2, -1)) <= 1 + 1e-5)
    # By how much the bound of a norm may be above it: for 4 x 4 by the 64th root of (1 + sqrt(4)) / 2.
    bounds: dict[type, float] = {Dense: 1.0065, Parts: 1.0065, Subspace: 1.43}
    loose = bounds.get(structure, 1.0)
    contraction = norms * loose < 1 - 1e-5
    np.testing.assert_array_equal(after[contraction], before[contraction])
    if structure in (Dense, Parts, Subspace):
        factors = np.einsum("...ij,...ij->...", after, before) / np.maximum((before**2).sum((-2, -1)), 1e-30)
        SUM_OF_TERMS.check(after, factors[..., None, None] * before)
        # What is projected as a whole is divided by 1 + 2 (norm - 1).
        assert np.all(1 / factors <= (1 + 2 * np.maximum(loose * norms - 1, 0)) * (1 + 1e-5))
        assert np.all(1 / factors >= (1 + 2 * np.maximum(norms - 1, 0)) * (1 - 1e-5))
    elif structure is Block:
        half = -(-dim // 2)
        for first, other in zip(range(half), range(half, dim), strict=False):
            rows, columns = np.ix_([first, other], [first, other])
            block = before[..., rows, columns]
            norm = np.linalg.norm(block, ord=2, axis=(-2, -1))[..., None, None]
            SAME_COMPUTATION.check(after[..., rows, columns], block / np.maximum(norm, 1))
    else:
        np.testing.assert_array_equal(after, np.clip(before, -1, 1))


def spoilt(structure: type[Matrix], value: float) -> Matrix:
    """A stack of three, the middle one with one entry that is not finite."""

    def spoil(leaf: Array) -> Array:
        spoilt = np.array(leaf)
        spoilt[(1, *(0 for _ in leaf.shape[1:]))] = value
        return jnp.asarray(spoilt)

    matrix: Any = draw(structure, 0, (3,), 2)
    # Neither the indices of a permutation nor a basis.
    name = "factor" if structure in (ScaledIdentity, Permutation) else "excess" if structure is Subspace else "entries"
    return dataclasses.replace(matrix, **{name: spoil(getattr(matrix, name))})


@pytest.mark.parametrize("structure", [cls for cls in BUILDERS if cls is not Zero], ids=name_of)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_matrix_that_is_not_finite_is_found_and_spoils_no_other(structure: type[Matrix], value: float) -> None:
    matrix, clean = spoilt(structure, value), draw(structure, 0, (3,), 2)
    np.testing.assert_array_equal(is_finite(matrix), [True, False, True])
    others = np.array([0, 2])
    of = lambda matrix: written_out(matrix, (3,), 2)  # noqa: E731
    np.testing.assert_array_equal(of(project(matrix))[others], of(project(clean))[others])
    cleaned = where(matrix, is_finite(matrix))
    assert np.isfinite(of(cleaned)).all()
    np.testing.assert_array_equal(of(cleaned)[1], np.zeros((2, 2)))
    np.testing.assert_array_equal(of(cleaned)[others], of(clean)[others])
    if np.isnan(value):
        assert not np.asarray(is_finite(project(matrix)))[1], "projection hides a NaN"


@pytest.mark.parametrize("structure", BUILDERS, ids=name_of)
def test_a_finite_matrix_is_finite(structure: type[Matrix]) -> None:
    assert np.all(is_finite(draw(structure, 0, (3,), 2)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("pair", "dtype"), each_once(PAIRS, [np.float32, np.float64]), ids=name_of)
def test_the_dtype_is_kept(pair: tuple[type[Matrix], type[Matrix]], dtype: Any) -> None:
    later, earlier = pair

    def cast(structure: type[Matrix]) -> Matrix:
        floating = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)  # noqa: E731
        drawn = draw(structure, 0, (4,), 3)
        return jax.tree.map(lambda leaf: leaf.astype(dtype) if floating(leaf) else leaf, drawn)

    def through_all() -> Array:
        matrix = (cast(later) @ cast(earlier)).clip(0.5).scale(0.5).project().where(jnp.ones(4, bool))
        return matrix.apply(jnp.ones((4, 3), dtype))

    assert jax.eval_shape(through_all).dtype == dtype


# Every structure comes first once and last once; which product it is has a test above.
NEIGHBOURS = [(RANK[place - 1], structure) for place, structure in enumerate(RANK)]


@pytest.mark.parametrize(
    ("later", "earlier"),
    [pytest.param(*pair, marks=() if pair in NEIGHBOURS else pytest.mark.grid) for pair in PAIRS],
    ids=name_of,
)
def test_composition_under_vmap_equals_the_stack(later: type[Matrix], earlier: type[Matrix]) -> None:
    second, first = draw(later, 0, (4,), 3), draw(earlier, 1, (4,), 3)
    mapped = jax.jit(jax.vmap(lambda a, b: (a @ b).project(), axis_size=4))(second, first)
    SAME_COMPUTATION.check(written_out(mapped, (4,), 3), written_out(projected_product(second, first), (4,), 3))


@pytest.mark.parametrize(("later", "earlier"), NO_PRODUCT, ids=name_of)
def test_a_pair_without_a_product_that_cannot_be_written_out_is_refused(
    later: type[Matrix], earlier: type[Matrix]
) -> None:
    message = f"no product is registered for {later.__name__} after {earlier.__name__}, and neither knows the size"
    with pytest.raises(TypeError, match=message):
        draw(later, 0, (4,), 4) @ draw(earlier, 1, (4,), 4)


@pytest.mark.slow
def test_a_permutation_moves_and_signs_coordinates() -> None:
    matrix = Permutation(jnp.array([2, 0, 1]), jnp.array([1.0, -1.0, 0.5]))
    np.testing.assert_array_equal(matrix.apply(jnp.array([10.0, 20.0, 30.0])), [30.0, -10.0, 10.0])
    np.testing.assert_array_equal(matrix.dense(3), [[0, 0, 1], [-1, 0, 0], [0, 0.5 * 1, 0]])
