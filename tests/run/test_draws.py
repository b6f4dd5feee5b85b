"""Variables of draws in batches: the same values, within bounded memory."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsample as ps
from parsample.run import checks, draws
from parsample.run.draws import BUDGET, batch_of, bytes_between, map_draws
from parsample.targets.density import LogDensity
from tests.tolerances import SAME_COMPUTATION

POINTS = 200


def process(noise: Any) -> dict[str, Any]:
    """The values of a Gaussian process, and one number."""
    x = jnp.arange(noise.size) / noise.size
    covariance = jnp.exp(-0.5 * (x[:, None] - x) ** 2 - jnp.sum(noise**2)) + jnp.eye(noise.size)
    return {"values": jnp.linalg.cholesky(covariance) @ noise, "first": noise[0]}


@pytest.mark.parametrize("batch", [1, 4, 14, 100])
def test_batches_make_no_difference(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 5)), jnp.float32)
    monkeypatch.setattr(draws, "BUDGET", batch * bytes_between(process, rows[0, 0]))
    assert batch_of(process, rows[0, 0]) == batch
    expected = jax.vmap(jax.vmap(process))(rows)
    jax.tree.map(SAME_COMPUTATION.check, map_draws(process, rows), expected)


def test_bytes_between_counts_what_is_inside_of_loops_and_calls() -> None:
    def looped(x: Any) -> Any:
        return jax.lax.scan(lambda carry, _: (jax.jit(lambda y: jnp.outer(y, y)[0])(carry), None), x, None, length=3)[0]

    assert bytes_between(looped, jnp.zeros(100, jnp.float32)) >= 100 * 100 * 4
    assert bytes_between(lambda x: x, jnp.zeros(100)) == 0


def test_memory_does_not_grow_with_the_number_of_draws() -> None:
    """A segment of four chains needs 0.6 GiB for the covariances alone."""

    def temporaries(steps: int) -> int:
        rows = jax.ShapeDtypeStruct((4, steps, POINTS), jnp.float32)
        compiled: Any = jax.jit(lambda rows: map_draws(process, rows)).lower(rows).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert 4 * 1024 * POINTS**2 * 4 > 9 * BUDGET
    assert temporaries(1024) < 2 * BUDGET


def test_what_a_draw_takes_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One draw that needs 1 GiB for its variables, on a machine that has half of it left."""
    target = LogDensity(lambda x: -jnp.sum(x**2), jnp.zeros(2))
    wide: Any = lambda draw: {"x": jnp.sum(jnp.outer(jnp.ones(2**14), jnp.ones(2**14)) * draw["x"][0])}  # noqa: E731
    monkeypatch.setattr(checks, "_host_bytes", lambda: 2**29)
    with pytest.raises(ValueError, match=r"num_chains is 1, which takes at least .* GiB .* has 512 MiB left; no"):
        ps.sample(target, transform=wide, num_chains=1, num_samples=10, progress=False)
