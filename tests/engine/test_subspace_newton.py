"""Newton in a subspace: what Newton is, where the Jacobian is more than a number there only."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import parsample as ps
from parsample.engine.methods import Newton, ScaledIdentity, SubspaceNewton
from tests.tolerances import SAME_COMPUTATION

STEPS, DIM, RANK = 60, 12, 3


@pytest.fixture
def basis(rng: np.random.Generator) -> Array:
    return jnp.asarray(np.linalg.qr(rng.normal(size=(DIM, RANK)))[0], jnp.float32)


@pytest.fixture
def problem(basis: Array, rng: np.random.Generator) -> tuple[Any, Array, Array]:
    """A recursion that is not linear inside a subspace, and multiplies by 0.6 outside."""
    drawn = rng.normal(size=(RANK, RANK))
    # It stretches a little near 0, so that the decisions take a few iterations, and forgets on the whole.
    mixing = jnp.asarray(1.2 * drawn / np.linalg.norm(drawn, 2), jnp.float32)

    def transition(state: Array, noise: Array) -> Array:
        inside = basis.T @ state
        return 0.6 * (state - basis @ inside) + basis @ jnp.tanh(mixing @ inside) + noise

    return transition, jnp.zeros(DIM), jnp.asarray(0.3 * rng.normal(size=(STEPS, DIM)), jnp.float32)


@pytest.mark.parametrize("scale", [0.6, "trace", jnp.full(STEPS, 0.6), lambda step: 0.6 + 0 * step])
@pytest.mark.parametrize("projection", [True, False])
def test_it_iterates_as_newton_does(
    problem: tuple[Any, Array, Array], basis: Array, scale: Any, projection: bool
) -> None:
    options: dict[str, Any] = {"conditioning": ps.Conditioning(projection=projection), "atol": 1e-5, "rtol": 0.0}
    newton = ps.evaluate(*problem, method=Newton(), **options)
    ours = ps.evaluate(*problem, method=SubspaceNewton(basis, scale=scale), **options)
    simple = ps.evaluate(*problem, method=ScaledIdentity(0.6), **options)
    assert newton.converged
    assert ours.converged
    assert int(ours.iterations) == int(newton.iterations) < int(simple.iterations)
    loop = ps.evaluate_sequential(*problem)
    np.testing.assert_allclose(ours.states, loop.states, atol=1e-4)


def test_a_rank_of_the_whole_state_is_newton(problem: tuple[Any, Array, Array]) -> None:
    newton = ps.evaluate(*problem, method=Newton(), conditioning=ps.Conditioning(projection=False))
    ours = ps.evaluate(*problem, method=SubspaceNewton(rank=DIM), conditioning=ps.Conditioning(projection=False))
    assert int(ours.iterations) == int(newton.iterations)
    SAME_COMPUTATION.check(ours.states, newton.states)


def test_the_basis_is_what_the_jacobian_shrinks_least(basis: Array, rng: np.random.Generator) -> None:
    """A recursion that forgets fast but in a few directions: a basis of that many is found, and is enough."""

    def transition(state: Array, noise: Array) -> Array:
        return 0.9 * (basis @ (basis.T @ state)) + 0.01 * jnp.tanh(state) + noise

    problem = transition, jnp.zeros(DIM), jnp.asarray(rng.normal(size=(STEPS, DIM)), jnp.float32)
    found = ps.evaluate(*problem, method=SubspaceNewton(rank=RANK))
    fewer = ps.evaluate(*problem, method=SubspaceNewton(rank=RANK - 1))
    given = ps.evaluate(*problem, method=SubspaceNewton(basis))
    assert found.converged
    assert int(found.iterations) == int(given.iterations) < int(fewer.iterations)


def test_a_basis_that_is_found_is_not_repeated_for_every_step(problem: tuple[Any, Array, Array], basis: Array) -> None:
    transition, start, inputs = problem

    def temporary(method: SubspaceNewton, window: int | None) -> int:
        run = lambda inputs: ps.evaluate(transition, start, inputs, method=method, window=window, throw=False).states  # noqa: E731
        found = jax.jit(run).lower(inputs).compile().memory_analysis()
        assert found is not None
        return found.temp_size_in_bytes

    for window in (None, 20):
        more = temporary(SubspaceNewton(rank=RANK, scale=0.6), window) - temporary(
            SubspaceNewton(basis, scale=0.6), window
        )
        # Numbers of four bytes: the basis, its columns while they are looked for, and little else.
        assert more < 4 * (6 * RANK * DIM + 64), more


def test_a_basis_of_one_part_serves_all(basis: Array, rng: np.random.Generator) -> None:
    """A state that remembers the one before: inside the subspace the Jacobian of both parts, outside given numbers."""

    def transition(state: tuple[Array, Array], noise: Array) -> tuple[Array, Array]:
        now, before = state
        inside = basis.T @ now
        next = 0.5 * (now - basis @ inside) + basis @ jnp.tanh(1.4 * inside) - 0.3 * before + noise
        return next, now

    start = jnp.zeros(DIM), jnp.zeros(DIM)
    problem = transition, start, jnp.asarray(0.3 * rng.normal(size=(STEPS, DIM)), jnp.float32)
    outside = jnp.broadcast_to(jnp.array([[0.5, -0.3], [1.0, 0.0]]), (STEPS, 2, 2))
    options: dict[str, Any] = {"conditioning": ps.Conditioning(projection=False), "atol": 1e-5, "rtol": 0.0}
    newton = ps.evaluate(*problem, method=Newton(), **options)
    method = SubspaceNewton(basis, scale=outside)
    ours = ps.evaluate(*problem, method=method, **options)
    assert ours.converged
    assert int(ours.iterations) == int(newton.iterations)
    assert method.tangents(2 * DIM) == 2 * RANK


@pytest.mark.slow
def test_a_window_an_active_set_and_other_wrappers(problem: tuple[Any, Array, Array], basis: Array) -> None:
    loop = ps.evaluate_sequential(*problem)
    method = SubspaceNewton(basis)
    ways: list[dict[str, Any]] = [
        {"method": method, "window": 16},
        {"method": method, "active_set": True},
        {"method": ps.methods.Anderson(method, memory=2)},
        {"method": ps.methods.Lagged(method)},
    ]
    for options in ways:
        found = ps.evaluate(*problem, atol=1e-5, rtol=0.0, **options)
        assert found.converged
        np.testing.assert_allclose(found.states, loop.states, atol=1e-4)


@pytest.mark.slow
def test_the_associative_scan_solves_the_same_system(basis: Array, rng: np.random.Generator) -> None:
    from parsample.engine.matrices import ScaledIdentity as Scaled
    from parsample.engine.scan import solve_lds
    from parsample.engine.subspace import written_out_in

    rows = jnp.broadcast_to(basis.T, (STEPS, RANK, DIM))
    images = jnp.asarray(0.3 * rng.normal(size=rows.shape), jnp.float32)
    matrices = written_out_in(Scaled(jnp.full(STEPS, 0.6)), rows, images)
    offsets, start = jnp.asarray(rng.normal(size=(STEPS, DIM)), jnp.float32), jnp.ones(DIM)
    loop, associative = (solve_lds(matrices, offsets, start, scan=scan) for scan in ("loop", "associative"))
    np.testing.assert_allclose(associative, loop, rtol=1e-4, atol=1e-4)


def test_what_it_costs(basis: Array) -> None:
    assert SubspaceNewton(basis).tangents(DIM) == RANK + 1
    assert SubspaceNewton(basis, scale=0.5).tangents(DIM) == RANK
    assert SubspaceNewton(rank=5).tangents(DIM) == 6
    assert SubspaceNewton(rank=50, scale=0.5).tangents(DIM) == DIM


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, r"rank is 0, expected a whole number of at least 1"),
        ({"rank": True}, r"rank is True, expected a whole number"),
        ({"basis": "images"}, r"basis is a str, expected an array of shape \(dim, rank\)"),
        ({"basis": jnp.ones(3)}, r"basis has shape \(3,\), expected \(dim, rank\)"),
        ({"basis": jnp.ones((2, 3))}, r"basis has shape \(2, 3\), expected \(dim, rank\), rank from 1 to dim"),
        ({"basis": 2 * jnp.eye(3)}, r"basis has columns whose products differ by up to 3 .* numpy.linalg.qr"),
        ({"basis": jnp.full((3, 1), jnp.nan)}, r"basis has columns whose products differ by up to nan"),
        ({"scale": 2.0}, r"scale is 2.0, expected a number in \[-1, 1\]"),
        ({"gate": "open"}, r"gate is 'open', expected one of"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SubspaceNewton(**options)


def test_a_basis_for_another_state_is_refused(problem: tuple[Any, Array, Array]) -> None:
    with pytest.raises(ValueError, match=r"basis has shape \(5, 5\), but the state has 12 numbers"):
        ps.evaluate(*problem, method=SubspaceNewton(jnp.eye(5)))
