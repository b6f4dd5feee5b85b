"""One step of HMC, against the textbook, against BlackJAX, and where a trajectory leaves the numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import parsample
from parsample.engine.transition import GATES
from parsample.samplers import HMC
from parsample.samplers.hmc import HMCInput
from tests.contract import problems
from tests.samplers import textbook
from tests.samplers.densities import counted
from tests.tolerances import SAME_COMPUTATION

STEP_SIZE, NUM_STEPS = 0.5, 5


def random_steps(rng, number, dim=textbook.DIM):
    """Positions, and inputs that accept some proposals and reject others."""
    positions = 0.7 * rng.standard_normal((number, dim))
    return positions, rng.standard_normal((number, dim)), np.log(rng.uniform(size=number))


def by_the_textbook(x, noise, step_size, inverse_mass, num_steps):
    """The end of a trajectory, minus the change of its energy, and the energy before."""
    momentum = np.linalg.solve(np.linalg.cholesky(inverse_mass).T, noise)
    end, last = textbook.leapfrog(x, momentum, step_size, inverse_mass, num_steps)
    before = textbook.energy(x, momentum, inverse_mass)
    return end, before - textbook.energy(end, last, inverse_mass), before


def check_steps(states, infos, positions, ends, log_ratios, energies, log_uniforms):
    """Compare steps with the textbook's; some are accepted and some are not."""
    accepted = log_uniforms < log_ratios
    assert 0.3 < accepted.mean() < 0.9
    expected = np.where(accepted[:, None], ends, positions)
    np.testing.assert_array_equal(infos.is_accepted, accepted)
    SAME_COMPUTATION.check(infos.acceptance_rate, np.exp(np.minimum(log_ratios, 0)))
    SAME_COMPUTATION.check(infos.energy, np.where(accepted, energies - log_ratios, energies))
    np.testing.assert_array_equal(infos.is_divergent, log_ratios < -1000)
    SAME_COMPUTATION.check(states.position, expected)
    SAME_COMPUTATION.check(states.logdensity, np.array([textbook.logdensity(x) for x in expected]))
    SAME_COMPUTATION.check(states.gradient, np.array([textbook.gradient(x) for x in expected]))


@pytest.mark.parametrize("mass", textbook.MASSES)
@pytest.mark.usefixtures("x64")
def test_a_step_is_the_textbooks(mass, rng):
    given, written_out = textbook.MASSES[mass]
    hmc = HMC(textbook.Quartic(), STEP_SIZE, given, NUM_STEPS, step_size_jitter=0)
    positions, noises, log_uniforms = random_steps(rng, 60)
    step = lambda x, *input: hmc.step(hmc.init(x), HMCInput(*input))  # noqa: E731
    states, infos = jax.jit(jax.vmap(step))(positions, noises, log_uniforms)
    ends, log_ratios, energies = (
        np.array(parts)
        for parts in zip(
            *(by_the_textbook(x, n, STEP_SIZE, written_out, NUM_STEPS) for x, n in zip(positions, noises, strict=True)),
            strict=True,
        )
    )
    check_steps(states, infos, positions, ends, log_ratios, energies, log_uniforms)
    np.testing.assert_array_equal(infos.num_integration_steps, np.full(60, NUM_STEPS))


@pytest.mark.parametrize("leapfrog", [None, "block_quasi_newton"])
@pytest.mark.usefixtures("x64")
def test_a_step_with_jitter_is_the_textbooks(leapfrog, rng):
    jitter, lengths = rng.uniform(-1, 1, 60), rng.integers(2, NUM_STEPS + 1, 60)
    positions, noises, log_uniforms = random_steps(rng, 60)
    keywords = {"step_size_jitter": 0.4, "min_integration_steps": 2, "leapfrog": leapfrog}
    hmc = HMC(textbook.Quartic(), STEP_SIZE, textbook.DENSE, NUM_STEPS, **keywords)
    step = lambda x, *input: hmc.step(hmc.init(x), HMCInput(*input))  # noqa: E731
    states, infos = jax.jit(jax.vmap(step))(positions, noises, log_uniforms, jitter, lengths)
    rows = [
        by_the_textbook(x, n, STEP_SIZE * (1 + 0.4 * u), textbook.DENSE, length)
        for x, n, u, length in zip(positions, noises, jitter, lengths, strict=True)
    ]
    ends, log_ratios, energies = (np.array(parts) for parts in zip(*rows, strict=True))
    check_steps(states, infos, positions, ends, log_ratios, energies, log_uniforms)
    np.testing.assert_array_equal(infos.num_integration_steps, lengths)


@pytest.mark.parametrize("leapfrog", [None, "block_quasi_newton"])
@pytest.mark.usefixtures("x64")
def test_several_trajectories_are_as_many_steps(leapfrog, rng):
    keywords = {"step_size_jitter": 0.4, "min_integration_steps": 2, "leapfrog": leapfrog}
    several, one = (HMC(textbook.Quartic(), 0.7, None, 4, num_trajectories=k, **keywords) for k in (3, 1))
    starts = jnp.asarray(rng.standard_normal((60, textbook.DIM)))
    inputs = several.draw_inputs(jax.random.key(5), 60, starts[0])
    assert inputs.noise.shape == (60, 3, textbook.DIM)
    assert inputs.log_uniform.shape == inputs.jitter.shape == inputs.num_integration_steps.shape == (60, 3)
    states, infos = jax.jit(jax.vmap(several.step))(jax.vmap(several.init)(starts), inputs)
    step = jax.jit(jax.vmap(one.step))
    expected, parts = jax.vmap(one.init)(starts), []
    for trajectory in range(3):
        given = jax.tree.map(lambda leaf, trajectory=trajectory: leaf[:, trajectory], inputs)
        expected, part = step(expected, given)
        parts.append(part)
    accepted, divergent = (
        np.array([getattr(part, name) for part in parts]) for name in ("is_accepted", "is_divergent")
    )
    assert 0.2 < accepted.mean() < 0.95
    for found, wanted in zip(states, expected, strict=True):
        SAME_COMPUTATION.check(found, wanted)
    SAME_COMPUTATION.check(infos.acceptance_rate, np.mean([part.acceptance_rate for part in parts], 0))
    SAME_COMPUTATION.check(infos.energy, parts[-1].energy)
    np.testing.assert_array_equal(infos.is_accepted, accepted.all(0))
    np.testing.assert_array_equal(infos.is_divergent, divergent.any(0))
    np.testing.assert_array_equal(infos.num_integration_steps, inputs.num_integration_steps.sum(1))


@pytest.mark.parametrize("method", ["newton", "quasi_newton", "lifted_newton"])
@pytest.mark.usefixtures("x64")
def test_a_chain_of_several_trajectories_is_the_loops(method, rng_key):
    hmc = HMC(textbook.Quartic(), 0.4, None, 3, num_trajectories=2)
    start = jnp.full(textbook.DIM, 0.3)
    inputs = hmc.draw_inputs(rng_key, 64, start)
    states, accepted = problems.run_loop(hmc, start, inputs)
    assert 0.2 < accepted.mean() < 1
    options = {"method": method, "atol": 1e-9, "rtol": 1e-9, "details": True, "max_iterations": 200}
    solution = parsample.evaluate(hmc.transition, start, inputs, **options)
    assert solution.converged, solution.explain()
    np.testing.assert_array_equal(solution.details.info["is_accepted"], accepted)
    np.testing.assert_allclose(solution.states, states, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("mass", ["diagonal", "dense"])
@pytest.mark.usefixtures("x64")
def test_a_step_is_blackjaxs(mass, rng):
    import blackjax

    given, inverse_mass = textbook.MASSES[mass]
    kernel, density = blackjax.hmc.build_kernel(), textbook.Quartic()
    starts = jnp.asarray(rng.standard_normal((200, textbook.DIM)))
    states = jax.vmap(lambda x: blackjax.hmc.init(x, density))(starts)
    keys = jax.random.split(jax.random.key(0), 200)
    step = lambda key, state: kernel(key, state, density, STEP_SIZE, jnp.asarray(given), NUM_STEPS)  # noqa: E731
    after, theirs = jax.jit(jax.vmap(step))(keys, states)
    # BlackJAX accepts where a uniform number drawn from the second half of its key is below the probability.
    halves = jax.vmap(jax.random.split)(keys)
    uniforms = jax.vmap(jax.random.uniform)(halves[:, 1])
    noises = theirs.momentum @ np.linalg.cholesky(inverse_mass)

    hmc = HMC(density, STEP_SIZE, given, NUM_STEPS, step_size_jitter=0)
    ours = lambda x, *input: hmc.step(hmc.init(x), HMCInput(*input))  # noqa: E731
    found, infos = jax.jit(jax.vmap(ours))(starts, noises, jnp.log(uniforms))
    accepted = np.asarray(theirs.is_accepted)
    assert 20 < accepted.sum() < 180
    np.testing.assert_array_equal(infos.is_accepted, accepted)
    SAME_COMPUTATION.check(infos.acceptance_rate, theirs.acceptance_rate)
    np.testing.assert_array_equal(infos.is_divergent, theirs.is_divergent)
    # Theirs is the energy of the end, ours that of where the step stays.
    SAME_COMPUTATION.check(infos.energy[accepted], theirs.energy[accepted])
    SAME_COMPUTATION.check(found.position, after.position)
    SAME_COMPUTATION.check(found.logdensity, after.logdensity)
    SAME_COMPUTATION.check(found.gradient, after.logdensity_grad)


@pytest.mark.usefixtures("x64")
def test_divergences_are_blackjaxs(rng):
    import blackjax

    kernel, density = blackjax.hmc.build_kernel(), textbook.Quartic()
    starts = jnp.asarray(rng.standard_normal((100, textbook.DIM)))
    states = jax.vmap(lambda x: blackjax.hmc.init(x, density))(starts)
    step = lambda key, state: kernel(key, state, density, 0.7, jnp.ones(textbook.DIM), 7)  # noqa: E731
    _, theirs = jax.jit(jax.vmap(step))(jax.random.split(jax.random.key(0), 100), states)
    hmc = HMC(density, 0.7, None, 7, step_size_jitter=0)
    ours = lambda x, n: hmc.step(hmc.init(x), HMCInput(n, jnp.asarray(-1.0)))[1]  # noqa: E731
    infos = jax.jit(jax.vmap(ours))(starts, theirs.momentum)
    assert 10 < np.sum(theirs.is_divergent) < 90
    np.testing.assert_array_equal(infos.is_divergent, theirs.is_divergent)
    # Some of them have left the finite numbers.
    assert not np.isfinite(theirs.energy).all()
    np.testing.assert_array_equal(infos.acceptance_rate[~np.isfinite(theirs.energy)], 0)
    assert np.isfinite(infos.energy).all()


# Densities whose value or gradient is not a finite number at -0.5 and below, and is one at 0, where the chain stands.
HOLES = {
    "value nan": lambda x: jnp.where(x[0] < -0.5, jnp.nan, -0.5 * x @ x),
    "value -inf": lambda x: jnp.where(x[0] < -0.5, -jnp.inf, -0.5 * x @ x),
    "value +inf": lambda x: jnp.where(x[0] < -0.5, jnp.inf, -0.5 * x @ x),
    "gradient nan": lambda x: jnp.sqrt(jnp.maximum(x[0] + 0.5, 0)) - 0.5 * x @ x,
    "log of a negative number": lambda x: jnp.log(x[0] + 0.5) - 0.5 * x @ x,
    "overflow": lambda x: -jnp.where(x[0] < -0.5, 1e30 * x[0] ** 4, 0) - 0.5 * x @ x,
}


@pytest.mark.parametrize("leapfrog", [None, pytest.param("block_quasi_newton", marks=pytest.mark.slow)])
@pytest.mark.parametrize("density", HOLES)
def test_an_end_without_a_density_is_rejected(density, leapfrog):
    hmc = HMC(HOLES[density], 0.4, None, 4, step_size_jitter=0, leapfrog=leapfrog)
    start = jnp.zeros(2)
    # With numbers this small every proposal that has any chance is accepted.
    inputs = HMCInput(jnp.asarray([[-2.0, 0.0], [0.1, 0.0]]), jnp.asarray([-80.0, -80.0]))

    @jax.jit
    def chain(start, inputs):
        def step(state, input):
            state, info = hmc.step(state, input)
            return state, (state, info)

        first = jax.tree.map(lambda leaf: leaf[0], inputs)
        jacobians = [jax.jacfwd(hmc.transition.with_gate(gate))(start, first) for gate in GATES]
        return jax.lax.scan(step, hmc.init(start), inputs)[1], jacobians

    (states, infos), jacobians = chain(start, inputs)
    np.testing.assert_array_equal(infos.is_accepted, [False, True])
    assert infos.acceptance_rate[0] == 0
    assert infos.is_divergent[0]
    np.testing.assert_array_equal(states.position[0], start)
    assert all(np.isfinite(leaf).all() for leaf in (*states, *infos))
    # The derivative is that of staying.
    for jacobian in jacobians:
        np.testing.assert_array_equal(jacobian, np.eye(2))


@pytest.mark.parametrize("keywords", [{}, {"min_integration_steps": 1}, {"num_trajectories": 2}])
@pytest.mark.usefixtures("x64")
def test_the_frozen_gate_has_the_derivative_of_what_was_chosen(keywords, rng):
    hmc = HMC(textbook.Quartic(), STEP_SIZE, textbook.DENSE, NUM_STEPS, **keywords)
    positions = jnp.asarray(rng.standard_normal((12, textbook.DIM)))
    inputs = hmc.draw_inputs(jax.random.key(0), 12, positions[0])

    @jax.jit
    @jax.vmap
    def derivative(x, input):
        return jax.jacfwd(hmc.transition)(x, input), hmc.transition.step(x, input)[1].is_accepted

    jacobians, accepted = derivative(positions, inputs)
    assert 2 < accepted.sum() < 12
    width = 1e-6
    move = jax.jit(jax.vmap(hmc.transition))
    columns = [
        (move(positions + width * e, inputs) - move(positions - width * e, inputs)) / (2 * width)
        for e in np.eye(textbook.DIM)
    ]
    np.testing.assert_allclose(jacobians, np.stack(columns, -1), rtol=1e-6, atol=1e-7)


def test_jitter_is_drawn_where_it_is_asked_for(rng_key):
    position, density = jnp.zeros(2), textbook.Quartic()
    neither = HMC(density, step_size_jitter=0).draw_inputs(rng_key, 5, position)
    assert neither.jitter is None
    assert neither.num_integration_steps is None
    both = HMC(density, num_integration_steps=7, min_integration_steps=3).draw_inputs(rng_key, 4000, position)
    assert stats.kstest(np.asarray(both.noise, np.float64).ravel(), "norm").pvalue > 1e-3
    assert stats.kstest(np.asarray(both.jitter, np.float64), "uniform", (-1, 2)).pvalue > 1e-3
    counts = np.bincount(np.asarray(both.num_integration_steps), minlength=8)
    assert counts[:3].sum() == 0
    assert stats.chisquare(counts[3:]).pvalue > 1e-3
    # Numbers of their own, not functions of each other.
    for one, other in [(both.jitter, both.log_uniform), (both.jitter, both.num_integration_steps)]:
        assert stats.spearmanr(one, other).pvalue > 1e-3


@pytest.mark.parametrize("num_trajectories", [1, 3])
def test_a_sequential_step_costs_a_gradient_for_every_leapfrog_step(num_trajectories, rng_key):
    density, calls = counted(textbook.Quartic())
    hmc = HMC(density, STEP_SIZE, None, NUM_STEPS, num_trajectories=num_trajectories)
    start = jnp.zeros(textbook.DIM)
    inputs = hmc.draw_inputs(rng_key, 20, start)
    jax.block_until_ready(parsample.evaluate_sequential(hmc.transition, start, inputs).states)
    jax.effects_barrier()
    # One for the start, and those of the trajectories.
    assert len(calls) == 1 + 20 * num_trajectories * NUM_STEPS


def test_a_cached_state_is_the_one_at_its_position(rng_key):
    hmc = HMC(textbook.Quartic(), STEP_SIZE, textbook.DENSE.astype(np.float32))

    @jax.jit
    def both(start):
        def step(state, input):
            state, info = hmc.step(state, input)
            return state, (state, info.is_accepted)

        _, (states, accepted) = jax.lax.scan(step, hmc.init(start), hmc.draw_inputs(rng_key, 50, start))
        return states, jax.vmap(hmc.init)(states.position), accepted

    states, fresh, accepted = both(jnp.zeros(textbook.DIM))
    assert 5 < accepted.sum() < 50
    for one, other in zip(states, fresh, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("leapfrog", [None, "block_quasi_newton"])
@pytest.mark.usefixtures("x64")
def test_single_precision_positions_stay_single(leapfrog, rng_key):
    keywords = {"min_integration_steps": 1, "leapfrog": leapfrog}
    hmc = HMC(lambda x: -0.5 * jnp.sum(x**2), jnp.asarray(0.3), np.full(4, 2.0), 4, **keywords)

    def step(position):
        inputs = hmc.draw_inputs(rng_key, 5, position)
        return inputs, hmc.step(hmc.init(position), jax.tree.map(lambda leaf: leaf[0], inputs))

    shapes = jax.eval_shape(step, jnp.zeros(4, jnp.float32))
    floating = {leaf.dtype for leaf in jax.tree.leaves(shapes) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    assert floating == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"num_integration_steps": 0}, "num_integration_steps is 0, expected a whole number of at least 1"),
        ({"num_integration_steps": 2.5}, r"num_integration_steps is 2\.5, expected a whole number"),
        ({"step_size_jitter": 1}, r"step_size_jitter is 1, expected a number in \[0, 1\); 0 is none"),
        ({"step_size_jitter": -0.1}, r"step_size_jitter is -0\.1, expected a number in \[0, 1\)"),
        ({"min_integration_steps": 0}, "min_integration_steps is 0, expected a whole number of at least 1; None makes"),
        ({"min_integration_steps": 9}, "min_integration_steps is 9, expected at most num_integration_steps, 8"),
        (
            {"num_trajectories": 0},
            "num_trajectories is 0, expected a whole number of at least 1; 1 makes a step of one",
        ),
        ({"leapfrog": "newtn"}, "method is 'newtn', expected one of .* Did you mean 'newton'"),
    ],
)
def test_bad_options_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        HMC(textbook.Quartic(), **keywords)
