"""What every sampler gets from the base: inputs keyed by absolute step, the mass matrix, and clear messages."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from parsample import samplers
from parsample.samplers import HMC, MALA, SAMPLERS, ULA
from parsample.samplers.base import BLOCK
from parsample.samplers.hmc import HMCInput
from parsample.samplers.mass import Mass
from parsample.samplers.metropolis import MetropolisInput
from parsample.samplers.ula import ULAInput
from tests.covering import each_once
from tests.samplers import textbook
from tests.tolerances import SAME_COMPUTATION


def density(x):
    return -0.5 * jnp.sum(x**2)


@functools.partial(jax.jit, static_argnums=(0, 2, 4))
def _draw(sampler, rng_key, num_steps, position, start):
    return SAMPLERS[sampler](density).draw_inputs(rng_key, num_steps, position, start)


def draw(sampler, rng_key, num_steps, position, start=0):
    """The arrays of a sampler's inputs, as NumPy's."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(_draw(sampler, rng_key, num_steps, position, start))]


def draw_reals(sampler, rng_key, num_steps, position, start=0):
    """Those that are floating-point numbers: integers come twice by chance."""
    drawn = draw(sampler, rng_key, num_steps, position, start)
    return [leaf for leaf in drawn if np.issubdtype(leaf.dtype, np.floating)]


# --- the inputs of a step depend on the key and on its number, on nothing else


@pytest.mark.parametrize(
    ("sampler", "segment"),
    each_once(list(SAMPLERS), [(1, 5), (BLOCK - 1, 2), (BLOCK, BLOCK + 1), (BLOCK + 1, BLOCK), (200, 184)]),
)
def test_inputs_do_not_depend_on_where_a_segment_begins(sampler, segment, rng_key):
    start, num_steps = segment
    position = jnp.zeros(2)
    whole = draw(sampler, rng_key, 3 * BLOCK, position)
    for one, other in zip(draw(sampler, rng_key, num_steps, position, start), whole, strict=True):
        np.testing.assert_array_equal(one, other[start : start + num_steps])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_inputs_may_be_drawn_where_the_start_is_traced(sampler, rng_key):
    position = jnp.zeros(2)
    traced = jax.jit(lambda start: SAMPLERS[sampler](density).draw_inputs(rng_key, 150, position, start))
    whole = draw(sampler, rng_key, 4 * BLOCK, position)
    for start in (0, 1, 105, 106, 107, BLOCK - 1, BLOCK, BLOCK + 1, 300):
        for one, other in zip(jax.tree.leaves(traced(start)), whole, strict=True):
            # Two programs may round the last bit of a normal number differently.
            SAME_COMPUTATION.check(one, other[start : start + 150])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_two_numbers_of_a_chain_are_the_same(sampler, rng_key):
    for leaf in draw_reals(sampler, rng_key, 5 * BLOCK, jnp.zeros(3)):
        # Single precision has so few normal numbers that a handful come twice by chance.
        assert len(np.unique(leaf)) > 0.99 * leaf.size


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_inputs_depend_on_the_key_but_not_on_the_values_of_the_position(sampler):
    here, there = jnp.zeros(2), jnp.ones(2)
    keys = jax.random.key(0), jax.random.key(1)
    drawn = [draw_reals(sampler, *given) for given in ((keys[0], 20, here), (keys[0], 20, there), (keys[1], 20, here))]
    for one, same, other in zip(*drawn, strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.any(one == other)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.usefixtures("x64")
def test_inputs_have_the_dtype_of_the_position(sampler, rng_key):
    for dtype in (np.float32, np.float64):
        inputs = draw_reals(sampler, rng_key, 200, jnp.zeros(2, dtype))
        # The inputs of NUTS are keys.
        assert {leaf.dtype for leaf in inputs} == (set() if sampler == "nuts" else {np.dtype(dtype)})
    # Numbers of double precision are not single ones in disguise.
    assert all(np.any(leaf != leaf.astype(np.float32)) for leaf in inputs)


@pytest.mark.parametrize("sampler", ["mala", "ula", "hmc"])
def test_noise_is_standard_normal(sampler, rng_key):
    noise = draw(sampler, rng_key, 4000, jnp.zeros(3))[0].astype(np.float64)
    assert noise.shape == (4000, 3)
    for column in noise.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
        assert stats.spearmanr(column[1:], column[:-1]).pvalue > 1e-3
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        assert stats.spearmanr(noise[:, i], noise[:, j]).pvalue > 1e-3


def test_log_uniform_is_the_logarithm_of_a_uniform_number(rng_key):
    noise, log_uniform = draw("mala", rng_key, 4000, jnp.zeros(1))
    log_uniform = log_uniform.astype(np.float64)
    assert log_uniform.shape == (4000,)
    assert np.isfinite(log_uniform).all()
    assert stats.kstest(np.exp(log_uniform), "uniform").pvalue > 1e-3
    # One number a step each, so that a key used twice would make them functions of each other.
    assert stats.spearmanr(log_uniform, noise[:, 0]).pvalue > 1e-3
    assert stats.spearmanr(log_uniform, np.abs(noise[:, 0])).pvalue > 1e-3


@pytest.mark.parametrize("num_steps", [0, -3])
def test_too_few_steps(num_steps, rng_key):
    with pytest.raises(ValueError, match=f"num_steps is {num_steps}, expected at least 1"):
        MALA(density).draw_inputs(rng_key, num_steps, jnp.zeros(2))


# --- the mass matrix


@pytest.mark.parametrize("mass", textbook.MASSES)
@pytest.mark.usefixtures("x64")
def test_the_root_of_the_mass_matrix(mass, rng):
    given, written_out = textbook.MASSES[mass]
    factored = Mass.of(given)
    vector = jnp.asarray(rng.standard_normal(textbook.DIM))
    SAME_COMPUTATION.check(factored.root_times(factored.root_transpose_times(vector)), written_out @ vector)
    root = jax.vmap(factored.root_times, out_axes=1)(jnp.eye(textbook.DIM))
    SAME_COMPUTATION.check(jax.vmap(factored.root_transpose_times, out_axes=1)(jnp.eye(textbook.DIM)), root.T)


def test_step_size_and_mass_matrix_may_be_traced():
    def moved(step_size, scale):
        ula = ULA(density, step_size, scale * jnp.ones(2))
        return ula.transition(jnp.ones(2), ULAInput(jnp.ones(2)))[0]

    # x - h m x + sqrt(2 h m) n at x = n = 1, h = 0.5 and m = 4.
    by_step_size, by_scale = jax.jit(jax.grad(moved, (0, 1)))(0.5, 4.0)
    np.testing.assert_allclose(by_step_size, -4 + np.sqrt(2 * 4 / 0.5) / 2, rtol=1e-6)
    np.testing.assert_allclose(by_scale, -0.5 + np.sqrt(2 * 0.5 / 4) / 2, rtol=1e-6)


ASYMMETRIC = np.array([[1.0, 0.5], [0.3, 1.0]], np.float32)


@pytest.mark.parametrize("sampler", [MALA, ULA, HMC])
def test_a_mass_matrix_that_is_not_symmetric(sampler):
    with pytest.raises(ValueError, match=r"inverse_mass_matrix is not symmetric: .* differ by 0\.2; pass"):
        sampler(density, 0.1, ASYMMETRIC)


SINGULAR = np.array([[1.0, 1.0], [1.0, 1.0]], np.float32)


@pytest.mark.parametrize("sampler", [MALA, ULA, HMC])
@pytest.mark.parametrize(
    "matrix",
    [[1.0, -1.0], [1.0, 0.0], [1.0, np.nan], [1.0, np.inf], -np.eye(2), SINGULAR, np.full((2, 2), np.nan)],
)
def test_a_mass_matrix_that_is_not_positive_definite(sampler, matrix):
    with pytest.raises(ValueError, match="inverse_mass_matrix is not positive definite, expected variances above 0"):
        sampler(density, 0.1, np.asarray(matrix, np.float32))


@pytest.mark.parametrize("sampler", [MALA, ULA, HMC])
@pytest.mark.parametrize(("shape", "shown"), [((), r"\(\)"), ((2, 3), r"\(2, 3\)"), ((2, 2, 2), r"\(2, 2, 2\)")])
def test_a_mass_matrix_of_the_wrong_shape(sampler, shape, shown):
    with pytest.raises(ValueError, match=rf"inverse_mass_matrix has shape {shown}, expected \(dim,\) for a diagonal"):
        sampler(density, 0.1, np.ones(shape))


@pytest.mark.parametrize("sampler", [MALA, ULA, HMC])
@pytest.mark.parametrize("matrix", [np.ones(3), np.eye(3)])
def test_a_mass_matrix_for_another_dimension(sampler, matrix):
    sampler = sampler(density, 0.1, matrix)
    position = jnp.zeros(2)
    given = HMCInput if isinstance(sampler, HMC) else MetropolisInput
    input = ULAInput(position) if isinstance(sampler, ULA) else given(position, jnp.asarray(-1.0))
    with pytest.raises(ValueError, match="inverse_mass_matrix is for 3 dimensions, but the position holds 2 numbers"):
        sampler.transition(position, input)


# --- step sizes and names


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("step_size", [0, 0.0, -0.1, np.nan, np.inf, True, np.array([0.1, 0.2])])
def test_a_step_size_that_is_no_positive_number(sampler, step_size):
    with pytest.raises(ValueError, match=r"step_size is .*, expected one finite number above 0, such as 0\.1"):
        SAMPLERS[sampler](density, step_size)


def test_samplers_are_found_by_name_or_class():
    for name, row in SAMPLERS.items():
        assert samplers.find(name) is row
        assert samplers.find(row) is row


def test_an_unknown_sampler():
    with pytest.raises(ValueError, match=r"sampler is 'malla', expected one of ula, mala.* Did you mean 'mala'\?"):
        samplers.find("malla")
