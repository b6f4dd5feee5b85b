"""Leapfrog steps in parallel: the same trajectories, whatever is evaluated in parallel with what."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsample
from parsample.engine.methods import BlockQuasiNewton
from parsample.samplers import HMC
from parsample.samplers.hmc import HMCInput
from parsample.samplers.leapfrog import Leapfrog
from parsample.samplers.mass import Mass
from tests.samplers import textbook
from tests.tolerances import CONVERGED, SAME_COMPUTATION

STEPS = 60
TIGHT: dict[str, Any] = {"atol": 1e-9, "rtol": 1e-9}


def separable(x: Any) -> Any:
    return -jnp.sum(jnp.cosh(x) + x**4 / 4)


def chain(leapfrog: Any, outer: str, num_steps: int = 8, **keywords: Any) -> tuple[Any, parsample.Solution]:
    """Evaluate a chain of HMC, its draws by `outer` and the steps of its trajectories by `leapfrog`."""
    hmc = HMC(textbook.Quartic(), 0.25, textbook.DENSE, num_steps, leapfrog=leapfrog, **keywords)
    start = jnp.asarray([0.3, -0.2, 0.5])
    inputs = hmc.draw_inputs(jax.random.key(0), STEPS, start)

    @jax.jit
    def run(start, inputs):
        solution = parsample.evaluate(hmc.transition, start, inputs, method=outer, throw=False, **TIGHT)
        before = jnp.concatenate([start[None], solution.states[:-1]])
        return jax.vmap(hmc.transition.step)(before, inputs)[1].is_accepted, solution

    return run(start, inputs)


@pytest.mark.usefixtures("x64")
@pytest.mark.slow
def test_both_axes_in_parallel_are_the_same_chain() -> None:
    """With the step size and the length of the trajectories jittered."""
    accepted, loop = chain(None, "sequential", min_integration_steps=1)
    assert len(np.unique(np.asarray(loop.states)[:, 0])) > 40
    for leapfrog, outer in [(None, "newton"), ("block_quasi_newton", "sequential"), ("block_quasi_newton", "newton")]:
        decisions, found = chain(leapfrog, outer, min_integration_steps=1)
        assert found.converged
        np.testing.assert_array_equal(decisions, accepted)
        CONVERGED.check(found.states, loop.states)
        assert outer == "sequential" or int(found.iterations) < STEPS // 2


@pytest.mark.slow
@pytest.mark.parametrize("leapfrog", ["jacobi", "quasi_newton", "newton", BlockQuasiNewton("exact")])
@pytest.mark.usefixtures("x64")
def test_any_method_may_evaluate_the_leapfrog_steps(leapfrog: Any) -> None:
    """Those too that need an iteration for every step."""
    accepted, loop = chain(None, "sequential")
    decisions, found = chain(leapfrog, "sequential")
    np.testing.assert_array_equal(decisions, accepted)
    CONVERGED.check(found.states, loop.states)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_derivative_of_a_trajectory_in_parallel_is_that_of_the_loop(rng_key: Any) -> None:
    start = jnp.asarray([0.3, -0.2, 0.5])

    def jacobians(leapfrog: Any) -> Any:
        def move(start, scale):
            hmc = HMC(lambda x: scale * separable(x), 0.2, None, 8, leapfrog=leapfrog)
            input = jax.tree.map(lambda leaf: leaf[0], hmc.draw_inputs(rng_key, 1, start))
            return hmc.transition(start, input)

        return jax.jit(lambda *given: [jax.jacfwd(move, (0, 1))(*given), jax.jacrev(move, (0, 1))(*given)])(start, 1.2)

    loop, parallel = jacobians(None), jacobians("block_quasi_newton")
    assert np.abs(np.asarray(loop[0][0]) - np.eye(3)).max() > 0.5
    for one, other in zip(jax.tree.leaves(parallel), jax.tree.leaves(loop), strict=True):
        CONVERGED.check(one, other)


@pytest.mark.parametrize("mass", textbook.MASSES)
@pytest.mark.usefixtures("x64")
def test_merged_kicks_are_the_leapfrog_integrator(mass: str, rng: np.random.Generator) -> None:
    given, inverse_mass = textbook.MASSES[mass]
    x, noise = rng.standard_normal((2, textbook.DIM))
    root = np.linalg.cholesky(inverse_mass)
    momentum = np.linalg.solve(root.T, noise)
    leapfrog = Leapfrog(textbook.Quartic(), Mass.of(given), jnp.asarray(x), lambda x: x, jnp.asarray(0.3))
    phase = jnp.zeros(textbook.DIM), leapfrog.kick(jnp.asarray(noise), jnp.asarray(textbook.gradient(x)), 0.5)
    for number in range(1, 6):
        phase = leapfrog(phase, 0)
        expected, p = textbook.leapfrog(x, momentum, 0.3, inverse_mass, number)
        SAME_COMPUTATION.check(leapfrog.position(phase[0]), expected)
        last = leapfrog.kick(phase[1], jnp.asarray(textbook.gradient(expected)), -0.5)
        SAME_COMPUTATION.check(last, root.T @ p)


@pytest.mark.parametrize("mass", ["identity", "diagonal"])
@pytest.mark.usefixtures("x64")
def test_the_blocks_of_a_separable_target_are_the_whole_jacobian(mass: str, rng: np.random.Generator) -> None:
    """So block quasi-Newton is Newton, by one probe."""
    start, momentum = jnp.asarray(rng.standard_normal((2, textbook.DIM)))
    given = textbook.MASSES[mass][0]
    leapfrog = Leapfrog(separable, Mass.of(given), start, lambda x: x, jnp.asarray(0.1))
    phase = jnp.zeros(textbook.DIM), momentum
    methods = ("block_quasi_newton", "newton", "quasi_newton")
    counts = [
        int(
            parsample.evaluate(
                leapfrog,
                phase,
                jnp.arange(32),
                method=method,
                conditioning=parsample.Conditioning(projection=False),
                **TIGHT,
            ).iterations
        )
        for method in methods
    ]
    assert counts[0] == counts[1]
    assert counts[0] <= 8
    assert counts[2] > 2 * counts[0]


@pytest.mark.parametrize("length", [2, 8])
@pytest.mark.usefixtures("x64")
def test_only_the_steps_that_count_can_end_a_trajectory(length: int) -> None:
    """The density ends at -1, where its gradient is not a number: after three steps."""
    density = lambda x: 1e-6 * jnp.sqrt(x[0] + 1) - 0.5 * x @ x  # noqa: E731
    start, number = jnp.zeros(2), jnp.asarray(length, jnp.int32)
    input = HMCInput(jnp.asarray([-2.0, 0.3]), jnp.asarray(-20.0), None, number)
    for leapfrog in (None, "block_quasi_newton", "newton"):
        hmc = HMC(density, 0.25, None, 8, min_integration_steps=1, leapfrog=leapfrog)
        state, info = jax.jit(lambda start, hmc=hmc: hmc.step(hmc.init(start), input))(start)
        assert bool(info.is_accepted) is (length == 2)
        assert bool(info.is_divergent) is (length == 8)
        assert all(np.isfinite(leaf).all() for leaf in state)
