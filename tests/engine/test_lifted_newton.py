"""Lifted Newton: the models of the log density, where steps read it, and chains against the loop."""

import dataclasses
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsample.engine.evaluate import evaluate
from parsample.engine.iteration import Around
from parsample.engine.lifted import Expansion, Quadratic, Quadratics, expand
from parsample.engine.methods import LiftedNewton, LiftedQuasiNewton
from parsample.engine.rules import Conditioning
from parsample.engine.solution import Solution
from parsample.engine.transition import flatten
from parsample.samplers import HMC, MALA, SAMPLERS, Sampler, metropolis
from parsample.targets import TARGETS
from parsample.warmup.coordinates import Standardised, StandardNormal, plain
from tests.contract import problems
from tests.covering import each_once
from tests.engine import recursions
from tests.samplers import textbook
from tests.tolerances import CONVERGED, SAME_COMPUTATION, check_mean

STEPS, LEAPFROG_STEPS = 200, 5
TOLERANCE: dict[str, Any] = {"atol": 1e-9, "rtol": 1e-9}
# Where trajectories part.
TIGHT: dict[str, Any] = {"atol": 1e-12, "rtol": 1e-12}


def models(rng: np.random.Generator, points: int, dim: int = textbook.DIM, radius: float = 1e9) -> Quadratics:
    """Any models, one for each point, that have nothing to do with each other."""
    roots = rng.standard_normal((points, dim, dim)) / 3
    hessians = -np.einsum("pij,pkj->pik", roots, roots) - 0.3 * np.eye(dim)
    at, gradients = 0.5 * rng.standard_normal((2, points, dim))
    about = Expansion(*map(jnp.asarray, (at, rng.standard_normal(points), gradients, hessians)))
    return Quadratics(about, -jnp.eye(dim), radius)


def read(quadratics: Quadratics, number: int, position: np.ndarray) -> tuple[float, np.ndarray]:
    """The value and gradient of a model, by NumPy."""
    point, value, gradient, hessian = (np.asarray(leaf[number]) for leaf in quadratics.about)
    away = position - point
    return value + gradient @ away + away @ hessian @ away / 2, gradient + hessian @ away


@pytest.mark.usefixtures("x64")
def test_an_expansion_is_taylors(rng):
    position = rng.standard_normal(textbook.DIM)
    found = expand(textbook.Quartic(), jnp.asarray(position))
    SAME_COMPUTATION.check(found.value, textbook.logdensity(position))
    SAME_COMPUTATION.check(found.gradient, textbook.gradient(position))
    differences = [
        (textbook.gradient(position + 1e-6 * unit) - textbook.gradient(position - 1e-6 * unit)) / 2e-6
        for unit in np.eye(textbook.DIM)
    ]
    np.testing.assert_allclose(found.hessian, differences, rtol=1e-6, atol=1e-7)


@pytest.mark.usefixtures("x64")
def test_probes_estimate_the_diagonal(rng):
    """Exactly, where the Hessian has no more; in the mean, where it has."""
    position = jnp.asarray(rng.standard_normal(textbook.DIM))
    probes = jnp.asarray(rng.choice([-1.0, 1.0], (4000, textbook.DIM)))
    separable = lambda x: -jnp.sum(x**4) / 12  # noqa: E731
    SAME_COMPUTATION.check(expand(separable, position, probes[:1]).hessian, -(position**2))
    whole = np.asarray(expand(textbook.Quartic(), position).hessian)
    beside = whole - np.diag(np.diag(whole))
    assert np.abs(beside).max() > 0.1
    found = expand(textbook.Quartic(), position, probes).hessian
    check_mean(found, np.diag(whole), np.sqrt(np.sum(beside**2, 1) / len(probes)))


@pytest.mark.usefixtures("x64")
def test_a_model_bends_to_the_base_beyond_its_radius(rng):
    quadratics = models(rng, 2, radius=0.5)
    model = quadratics.numbered(1)
    point, _, gradient, hessian = (np.asarray(leaf[1]) for leaf in quadratics.about)
    direction = rng.standard_normal(textbook.DIM)
    direction *= np.sqrt(textbook.DIM) / np.linalg.norm(direction)  # of length 1 as it is measured
    for length in (0.0, 0.3, 0.5, 2.0, 40.0):
        away = length * direction
        share = min(1.0, 0.5 / length) if length else 1.0
        curvature = -np.eye(textbook.DIM) + share * (hessian + np.eye(textbook.DIM))
        value, slope = jax.value_and_grad(model)(jnp.asarray(point + away))
        SAME_COMPUTATION.check(slope, gradient + curvature @ away)
        SAME_COMPUTATION.check(value - model(jnp.asarray(point)), gradient @ away + away @ curvature @ away / 2)
        # With diagonals alone the same holds of them.
        diagonal = dataclasses.replace(
            model, about=model.about._replace(hessian=jnp.diag(model.about.hessian)), base=-jnp.ones(textbook.DIM)
        )
        curvature = -1 + share * (np.diag(hessian) + 1)
        SAME_COMPUTATION.check(jax.grad(diagonal)(jnp.asarray(point + away)), gradient + curvature * away)
        # What the model differs from the base's by grows no further.
        assert (
            np.linalg.norm(slope - gradient + away)
            <= 0.5 * np.linalg.norm((hessian + np.eye(len(away))) @ direction) + 1e-9
        )
    assert isinstance(model, Quadratic)


@pytest.mark.parametrize("sampler_class", [HMC, MALA])
@pytest.mark.parametrize("mass", textbook.MASSES)
@pytest.mark.usefixtures("x64")
def test_a_step_reads_at_its_points_in_turn(sampler_class, mass, rng):
    """On models that differ from point to point, against NumPy."""
    given, written_out = textbook.MASSES[mass]
    root = np.linalg.cholesky(written_out)
    size = 0.3
    options = {"num_integration_steps": LEAPFROG_STEPS, "step_size_jitter": 0} if sampler_class is HMC else {}
    quadratics = models(rng, 1 + LEAPFROG_STEPS)
    sampler = sampler_class(quadratics, size, given, **options)
    start = rng.standard_normal(textbook.DIM)
    input = jax.tree.map(lambda leaf: leaf[0], sampler.draw_inputs(jax.random.key(1), 1, jnp.asarray(start)))
    input = input._replace(log_uniform=jnp.asarray(-1e9))  # accepted
    noise = np.asarray(input.noise)
    positions = []
    value, gradient = read(quadratics, 0, start)
    if sampler_class is HMC:
        position, momentum = start, noise
        for number in range(1, 1 + LEAPFROG_STEPS):
            momentum = momentum + size / 2 * root.T @ gradient
            position = position + size * root @ momentum
            last, gradient = read(quadratics, number, position)
            momentum = momentum + size / 2 * root.T @ gradient
            positions.append(position)
        ratio = last - value - (momentum @ momentum - noise @ noise) / 2
    else:
        position = start + size * written_out @ gradient + np.sqrt(2 * size) * root @ noise
        last, there = read(quadratics, 1, position)
        positions.append(position)
        back = np.linalg.solve(root, start - position - size * written_out @ there) / np.sqrt(2 * size)
        ratio = last - value + (noise @ noise - back @ back) / 2
    state, info = sampler.step(sampler.init(jnp.asarray(start)), input)
    SAME_COMPUTATION.check(sampler.points(sampler.init(jnp.asarray(start)), input), positions)
    SAME_COMPUTATION.check(state.position, position)
    SAME_COMPUTATION.check(info.acceptance_rate, np.exp(min(ratio, 0)))


@pytest.mark.parametrize("accepts", list(itertools.product([True, False], repeat=3)))
@pytest.mark.usefixtures("x64")
def test_several_trajectories_read_at_the_points_of_one_after_the_other(accepts, rng):
    several, one = 3, 2
    quadratics = models(rng, 1 + several * one)
    sampler = HMC(quadratics, 0.3, None, one, step_size_jitter=0, num_trajectories=several)
    start = jnp.asarray(rng.standard_normal(textbook.DIM))
    input = jax.tree.map(lambda leaf: leaf[0], sampler.draw_inputs(jax.random.key(1), 1, start))
    input = input._replace(log_uniform=jnp.where(jnp.asarray(accepts), -1e9, 1e9))
    state, points = sampler.init(start), []
    for number, accept in enumerate(accepts):
        # The models of this trajectory are those of a step of one, behind that of where it begins.
        here = [0, *range(1 + number * one, 1 + (number + 1) * one)]
        about = jax.tree.map(lambda leaf, here=here: leaf[jnp.asarray(here)], quadratics.about)
        single = HMC(dataclasses.replace(quadratics, about=about), 0.3, None, one, step_size_jitter=0)
        given = jax.tree.map(lambda leaf, number=number: leaf[number], input)
        assert single.points is not None
        points.append(single.points(state, given))
        state, info = single.step(state, given)
        assert info.is_accepted == accept
    found, info = sampler.step(sampler.init(start), input)
    SAME_COMPUTATION.check(found.position, state.position)
    SAME_COMPUTATION.check(found.gradient, state.gradient)
    assert sampler.points is not None
    SAME_COMPUTATION.check(sampler.points(sampler.init(start), input), np.concatenate(points))
    assert info.is_accepted == all(accepts)


def chain(target: Any, sampler: Sampler, steps: int = STEPS) -> tuple[Sampler, Any, Any, np.ndarray, np.ndarray]:
    """A chain from a draw of the prior, and the loop's account of it."""
    density: Any = sampler.logdensity_fn
    start = jax.random.normal(jax.random.key(3), density.center.shape, density.center.dtype)
    inputs = sampler.draw_inputs(jax.random.key(4), steps, start)
    return sampler, start, inputs, *problems.run_loop(sampler, start, inputs)


def standardised(name: str, surrogate: bool) -> Standardised:
    """A target in its own coordinates, which are said to be standardised or not."""
    density = plain(TARGETS[name]())
    return dataclasses.replace(density, surrogate=StandardNormal() if surrogate else None)


def check_chain(solution: Solution, states: np.ndarray, is_accepted: np.ndarray) -> None:
    assert solution.converged, solution.explain()
    np.testing.assert_array_equal(solution.details.info["is_accepted"], is_accepted)
    CONVERGED.check(solution.states, states)
    CONVERGED.check(solution.details.position, states)


WAYS = [
    ("lifted_newton", True, None),
    ("lifted_newton", False, 17),
    ("lifted_newton", True, 1),
    ("lifted_newton", False, None),
    ("lifted_quasi_newton", True, 17),
    ("lifted_quasi_newton", False, None),
]
CHAINS: list[tuple[str, float, dict[str, Any]]] = [
    ("log_gamma", 0.25, {"num_integration_steps": 4}),
    ("log_gamma", 0.2, {"num_integration_steps": 6, "min_integration_steps": 2, "step_size_jitter": 0}),
    ("banana", 0.4, {"num_integration_steps": 3}),
    ("banana", 0.4, {"num_integration_steps": 2, "num_trajectories": 3}),
    ("eight_schools", 0.3, {"num_integration_steps": 3, "inverse_mass_matrix": np.linspace(0.5, 1.5, 10)}),
]


@pytest.mark.parametrize(("way", "of"), each_once(WAYS, CHAINS))
@pytest.mark.usefixtures("x64")
def test_a_chain_is_that_of_the_loop(way, of):
    (method, surrogate, window), (name, step_size, options) = way, of
    sampler, start, inputs, states, is_accepted = chain(name, HMC(standardised(name, surrogate), step_size, **options))
    assert 0 < is_accepted.mean() < 1
    chosen = {"method": method, "window": window, **TIGHT}
    solution = evaluate(sampler.transition, start, inputs, details=True, **chosen)
    check_chain(solution, states, is_accepted)
    assert solution.evaluations == solution.iterations * (window or STEPS)
    lp = jax.vmap(sampler.logdensity_fn)(states)
    CONVERGED.check(solution.details.lp, lp)
    if window is None and method == "lifted_newton":
        assert solution.iterations < STEPS // 2


@pytest.mark.parametrize("method", [LiftedNewton(), LiftedQuasiNewton()])
@pytest.mark.usefixtures("x64")
def test_the_guess_is_the_surrogates_chain(method):
    density = standardised("log_gamma", True)
    sampler, other = (HMC(density, 0.3, num_integration_steps=4) for density in (density, StandardNormal()))
    start = jax.random.normal(jax.random.key(3), density.center.shape)
    inputs = sampler.draw_inputs(jax.random.key(4), STEPS, start)
    flat, initial, _ = flatten(sampler.transition, start, inputs)
    states, is_accepted = problems.run_loop(other, start, inputs)
    assert 0.5 < is_accepted.mean() < 1
    CONVERGED.check(method.prepare(flat, initial, inputs).guess, states)
    plain_density = HMC(standardised("log_gamma", False), 0.3)
    assert method.prepare(flatten(plain_density.transition, start, inputs)[0], initial, inputs).guess is None


def beyond_a_wall(position: jax.Array) -> jax.Array:
    """A gamma variable beside a normal one: nothing below 0, where even the gradient is no number."""
    return 2 * jnp.log(position[0]) - position[0] - position[1] ** 2 / 2


def two_walls(position: jax.Array) -> jax.Array:
    """The same, minus infinity below 0."""
    return jnp.where(position[0] > 0, beyond_a_wall(jnp.where(position[0] > 0, position, 1.0)), -jnp.inf)


def quartic(position: jax.Array) -> jax.Array:
    """From far out, a step leaves all numbers that there are."""
    return -jnp.sum(position**4)


@pytest.mark.parametrize(("density", "step_size"), [(beyond_a_wall, 0.6), (two_walls, 0.6), (quartic, 0.7)])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("x64")
def test_trajectories_that_leave_the_numbers_or_the_support(density, step_size, seed):
    sampler = HMC(density, step_size, num_integration_steps=4)
    start = jnp.asarray([0.8, 0.3])
    inputs = sampler.draw_inputs(jax.random.key(seed), STEPS, start)
    states, is_accepted = problems.run_loop(sampler, start, inputs)
    assert 0.2 < is_accepted.mean() < 0.99
    solution = evaluate(sampler.transition, start, inputs, method="lifted_newton", details=True, **TIGHT)
    check_chain(solution, states, is_accepted)


@pytest.mark.usefixtures("x64")
def test_points_that_are_no_numbers_are_what_they_should_be():
    """Every trajectory leaves the numbers, at once: there is nothing to wait for."""
    sampler = HMC(quartic, 60.0, num_integration_steps=6)
    start = jnp.asarray([0.8, 0.3])
    inputs = sampler.draw_inputs(jax.random.key(0), STEPS, start)
    states, is_accepted = problems.run_loop(sampler, start, inputs)
    assert not is_accepted.any()
    solution = evaluate(sampler.transition, start, inputs, method="lifted_newton", details=True, **TIGHT)
    check_chain(solution, states, is_accepted)
    assert solution.iterations <= 7


def test_a_step_waits_no_longer_than_its_points_take():
    """Where rounding keeps the tolerance out of reach: after an iteration for each gradient the points are exact."""
    steps, points = 6, 3
    sampler = HMC(quartic, 0.2, num_integration_steps=points)
    start = jnp.asarray([0.8, 0.3])
    inputs = sampler.draw_inputs(jax.random.key(0), steps, start)
    flat, initial, _ = flatten(sampler.transition, start, inputs)
    guesses, key = jnp.broadcast_to(initial, (steps, 2)), jax.random.key(0)
    is_open = jnp.arange(steps) >= 2  # the state before step 2 is known, and none after it
    fixed = inputs, None, jnp.zeros_like(guesses), key, Conditioning(), None
    around = Around(initial, guesses, is_open, initial, *fixed)
    method, iterate = LiftedNewton(), eqx.filter_jit(LiftedNewton.iterate)
    waited = []
    memory = method.start(flat, around)
    for _ in range(points + 2):
        turns, at = memory.rows
        # As if rounding came between every two iterations.
        update = iterate(method, flat, around, memory._replace(rows=(turns, at + 1e-3)))
        waited.append(np.asarray(update.waiting))
        memory = update.memory
    assert not np.any([row[:2] for row in waited]), "they are final"
    np.testing.assert_array_equal([row[2] for row in waited], [True] * points + [False] * 2)
    assert np.all([row[3:] for row in waited])


@pytest.mark.slow
@settings(max_examples=20)
@given(
    st.integers(0, 10_000),
    st.sampled_from([0.3, 0.8, 1.5]),
    st.sampled_from([1, 2, 5]),
    st.sampled_from(["funnel", "banana"]),
)
@pytest.mark.usefixtures("x64")
def test_a_step_takes_no_more_iterations_than_it_has_gradients(seed, step_size, length, name):
    """What holds however bad the models are: the first point that is wrong is right after the next iteration."""
    steps = 40  # and a tolerance that rounding keeps out of reach
    sampler = HMC(standardised(name, True), step_size, num_integration_steps=length)
    start = jax.random.normal(jax.random.key(seed), (2 if name == "banana" else 10,))
    inputs = sampler.draw_inputs(jax.random.key(seed + 1), steps, start)
    states, _ = problems.run_loop(sampler, start, inputs)
    solution = evaluate(sampler.transition, start, inputs, method="lifted_newton", atol=0, rtol=3e-16)
    assert solution.converged
    assert solution.iterations <= steps * (length + 1)
    CONVERGED.check(solution.states[:5], states[:5])  # later on rounding may have grown


def test_a_transition_that_says_nothing_of_a_log_density_is_solved_by_newton():
    problem = recursions.tanh_problem()
    for name in ("newton", "quasi_newton"):
        found, other = (evaluate(*problem, method=method) for method in (f"lifted_{name}", name))
        assert found.iterations == other.iterations
        np.testing.assert_array_equal(found.states, other.states)
    quadratic = lambda x: -jnp.sum(x**2) / 2  # noqa: E731
    in_parallel = HMC(quadratic, num_integration_steps=2, leapfrog="block_quasi_newton")
    for sampler in (SAMPLERS["ula"](quadratic), SAMPLERS["rwm"](quadratic), in_parallel, HMC(quadratic).for_loop()):
        assert sampler.transition.lifted() is None


def test_one_iteration_reads_at_every_point_once():
    calls: list[int] = []

    def note(position: np.ndarray) -> np.ndarray:
        calls.append(int(np.prod(position.shape[:-1])))
        return np.zeros(position.shape[:-1], np.float32)

    def density(position: jax.Array) -> jax.Array:
        like = jax.ShapeDtypeStruct(position.shape[:-1], position.dtype)
        nothing = jax.pure_callback(note, like, jax.lax.stop_gradient(position), vmap_method="expand_dims")
        return -jnp.sum(position**4, -1) + nothing

    sampler = HMC(density, 0.3, num_integration_steps=LEAPFROG_STEPS)
    start = jnp.asarray([0.4, -0.2])
    inputs = sampler.draw_inputs(jax.random.key(0), 32, start)
    solution = evaluate(sampler.transition, start, inputs, method="lifted_newton", atol=1e-4, rtol=1e-4)
    assert solution.iterations > 2
    assert calls == [32 * (1 + LEAPFROG_STEPS)] * int(solution.iterations)


class Otherwise(MALA):
    """A user's sampler, whose steps read where MALA's do not."""

    def step(self, state, input, gate="frozen"):
        """Propose without the gradient."""
        proposal = self.init(state.position + 0.5 * input.noise)
        return metropolis.decide(gate, input.log_uniform, proposal.logdensity - state.logdensity, proposal, state)


@pytest.mark.usefixtures("x64")
def test_a_sampler_that_overrides_a_step_has_to_say_anew_where_it_reads():
    own: Any = Otherwise
    sampler = own(lambda x: -jnp.sum(x**4), 0.1)
    assert sampler.transition.lifted() is None
    assert MALA(sampler.logdensity_fn, 0.1).transition.lifted() is not None
    start = jnp.asarray([0.4, -0.2])
    inputs = sampler.draw_inputs(jax.random.key(0), STEPS, start)
    states, is_accepted = problems.run_loop(sampler, start, inputs)
    check_chain(evaluate(sampler.transition, start, inputs, method="lifted_newton", details=True), states, is_accepted)


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        (LiftedNewton, {"radius": 0.0}, "radius is 0.0"),
        (LiftedNewton, {"gate": "ajar"}, "gate is 'ajar'"),
        (LiftedQuasiNewton, {"radius": np.nan}, "radius is nan"),
        (LiftedQuasiNewton, {"num_probes": 0}, "num_probes is 0"),
    ],
)
def test_bad_options_are_refused(method, options, words):
    with pytest.raises(ValueError, match=words):
        method(**options)
