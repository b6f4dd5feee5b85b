"""One step of generalised HMC against the textbook and BlackJAX, and where the density ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsample
from parsample.engine.transition import GATES
from parsample.samplers import GHMC
from parsample.samplers.metropolis import MetropolisInput
from parsample.samplers.momentum import Phase, PhaseState
from tests.samplers import textbook
from tests.samplers.densities import counted
from tests.tolerances import SAME_COMPUTATION

STEP_SIZE, ALPHA = 0.6, 0.4


def textbook_step(x, w, noise, log_uniform, root, num_steps):
    """Horowitz: partial refreshment, leapfrog, accept or turn round."""
    w = np.sqrt(1 - ALPHA) * w + np.sqrt(ALPHA) * noise
    end, momentum = x, w
    for _ in range(num_steps):
        momentum = momentum + STEP_SIZE / 2 * root.T @ textbook.gradient(end)
        end = end + STEP_SIZE * root @ momentum
        momentum = momentum + STEP_SIZE / 2 * root.T @ textbook.gradient(end)
    log_ratio = textbook.logdensity(end) - momentum @ momentum / 2 - textbook.logdensity(x) + w @ w / 2
    return (end, momentum, log_ratio, True) if log_uniform < log_ratio else (x, -w, log_ratio, False)


@pytest.mark.parametrize(("mass", "num_steps"), [("identity", 1), ("diagonal", 3), ("dense", 1)])
@pytest.mark.usefixtures("x64")
def test_a_step_is_the_textbooks(mass, num_steps, rng):
    given, written_out = textbook.MASSES[mass]
    ghmc = GHMC(textbook.Quartic(), STEP_SIZE, given, ALPHA, num_steps)
    positions, momenta, noises = rng.standard_normal((3, 60, textbook.DIM))
    log_uniforms = np.log(rng.uniform(size=60))
    step = lambda x, w, *input: ghmc.transition.step(Phase(x, w), MetropolisInput(*input))  # noqa: E731
    states, infos = jax.jit(jax.vmap(step))(positions, momenta, noises, log_uniforms)

    root = np.linalg.cholesky(written_out)
    rows = [textbook_step(*row, root, num_steps) for row in zip(positions, momenta, noises, log_uniforms, strict=True)]
    x, w, log_ratios, accepted = (np.array(column) for column in zip(*rows, strict=True))
    assert 10 < accepted.sum() < 55
    np.testing.assert_array_equal(infos.is_accepted, accepted)
    np.testing.assert_allclose(infos.acceptance_rate, np.exp(np.minimum(log_ratios, 0)), rtol=1e-10)
    SAME_COMPUTATION.check(states.position, x)
    SAME_COMPUTATION.check(states.momentum, w)
    SAME_COMPUTATION.check(states.gradient, np.array([textbook.gradient(at) for at in x]))
    energies = [p @ p / 2 - textbook.logdensity(at) for at, p in zip(x, w, strict=True)]
    np.testing.assert_allclose(infos.energy, energies, rtol=1e-10, atol=1e-10)
    assert np.all(infos.num_integration_steps == num_steps)


@pytest.mark.usefixtures("x64")
def test_a_step_is_blackjaxs(rng):
    """Theirs decides by a slice variable; the moves of both are compared decision by decision."""
    import blackjax

    density = textbook.Quartic()
    theirs = blackjax.ghmc(density, STEP_SIZE, jnp.ones(textbook.DIM), ALPHA, 0.3)
    ours = GHMC(density, STEP_SIZE, None, ALPHA)
    keys = jax.random.split(jax.random.key(0), 100)
    starts = jnp.asarray(rng.standard_normal((100, textbook.DIM)))

    def both(key, start):
        state = theirs.init(start, key)
        key_step = jax.random.fold_in(key, 1)
        after, info = theirs.step(key_step, state)
        # With a metric of ones BlackJAX's momentum is the standard normal noise of its first key.
        noise = jax.random.normal(jax.random.split(key_step)[0], start.shape, start.dtype)
        log_uniform = jnp.where(info.is_accepted, -jnp.inf, jnp.inf)
        mine, _ = ours.transition.step(Phase(start, state.momentum), MetropolisInput(noise, log_uniform))
        return after, mine, info.is_accepted

    after, mine, accepted = jax.jit(jax.vmap(both))(keys, starts)
    assert 20 < accepted.sum() < 98
    SAME_COMPUTATION.check(mine.position, after.position)
    SAME_COMPUTATION.check(mine.momentum, after.momentum)


@pytest.mark.parametrize("gate", GATES)
def test_a_proposal_without_a_density_turns_the_chain_round(gate):
    ghmc = GHMC(lambda x: jnp.where(x[0] < -0.5, jnp.nan, -0.5 * x @ x), 0.5, None, 1.0)
    input = MetropolisInput(jnp.asarray([-10.0, 0.0]), jnp.asarray(-80.0))
    step = jax.jit(lambda phase: ghmc.transition.with_gate(gate).step(phase, input))
    state, info = step(Phase(jnp.zeros(2), jnp.ones(2)))
    assert not info.is_accepted
    assert info.acceptance_rate == 0
    assert info.is_divergent
    np.testing.assert_array_equal(state.position, [0, 0])
    np.testing.assert_array_equal(state.momentum, [10, 0])
    jacobian = jax.jacfwd(lambda phase: ghmc.transition.with_gate(gate)(phase, input))(Phase(jnp.zeros(2), jnp.ones(2)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jacobian))
    np.testing.assert_array_equal(jacobian.position.position, np.eye(2))


def test_a_sequential_step_costs_one_gradient(rng_key):
    density, calls = counted(textbook.Quartic())
    ghmc = GHMC(density, STEP_SIZE)
    start = jnp.zeros(textbook.DIM)
    state = PhaseState(start, start, textbook.Quartic()(start), jax.grad(textbook.Quartic())(start))
    inputs = ghmc.draw_inputs(rng_key, 20, start)
    solution = parsample.evaluate_sequential(ghmc.transition, ghmc.unknowns(state), inputs)
    jax.block_until_ready(solution.states)
    jax.effects_barrier()
    # One to resume from the unknowns, and one for every step.
    assert len(calls) == 21


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.1, np.nan, "1", True])
def test_an_alpha_out_of_range(alpha):
    with pytest.raises(ValueError, match=r"alpha is .*, expected a number in \(0, 1\]"):
        GHMC(textbook.Quartic(), alpha=alpha)


def test_a_trajectory_without_steps():
    with pytest.raises(ValueError, match="num_integration_steps is 0, expected"):
        GHMC(textbook.Quartic(), num_integration_steps=0)
