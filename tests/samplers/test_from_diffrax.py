"""diffrax's solvers by parallel methods: the states are those of `diffeqsolve` at the same steps."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest

import parsample as ps
from parsample.samplers import from_diffrax
from parsample.samplers.from_diffrax import Remembering

TIMES = jnp.linspace(0, 2, 65)


def by_diffrax(solver: Any, terms: Any, times: Any, y0: Any, args: Any = None) -> Any:
    """The reference: every step of the sequential solver."""
    times = jnp.asarray(times)
    return diffrax.diffeqsolve(
        terms, solver, times[0], times[-1], None, y0, args,
        saveat=diffrax.SaveAt(steps=True), stepsize_controller=diffrax.StepTo(times), max_steps=times.size - 1,
    ).ys  # fmt: skip


def pendulum(t: Any, y: Any, args: Any) -> Any:
    """A damped pendulum that is pushed."""
    return jnp.stack([y[1], -jnp.sin(y[0]) - 0.5 * y[1] + 0.3 * jnp.cos(t)])


def langevin(levy_area: Any = diffrax.BrownianIncrement, dim: int = 2) -> Any:
    """Overdamped Langevin dynamics in a double well, with noise in every direction."""
    path = diffrax.VirtualBrownianTree(0.0, 2.0, 2**-7, (dim,), jax.random.key(3), levy_area)
    drift = diffrax.ODETerm(lambda t, x, args: x - x**3)
    return diffrax.MultiTerm(drift, diffrax.ControlTerm(lambda t, x, args: 0.7 * jnp.eye(dim), path))


slow = pytest.mark.slow
CHORD = diffrax.VeryChord(1e-6, 1e-6, norm=optimistix.max_norm)
ODES = [
    diffrax.Euler(),
    diffrax.Tsit5(),
    diffrax.ReversibleHeun(),
    pytest.param(diffrax.Heun(), marks=slow),
    pytest.param(diffrax.HalfSolver(diffrax.Euler()), marks=slow),
    pytest.param(diffrax.LeapfrogMidpoint(), marks=slow),
    pytest.param(diffrax.Kvaerno3(root_finder=CHORD), marks=slow),
]
SDES = [
    (diffrax.Euler(), diffrax.BrownianIncrement),
    pytest.param(diffrax.Heun(), diffrax.BrownianIncrement, marks=slow),
    pytest.param(diffrax.ShARK(), diffrax.SpaceTimeLevyArea, marks=slow),
]


def check(solver: Any, terms: Any, y0: Any, bound: float) -> None:
    times = (TIMES + 0.01 * jnp.sin(3 * TIMES)).at[-1].set(2.0)  # uneven
    equation = from_diffrax(solver, terms, times)

    @jax.jit
    def solve() -> Any:
        state = equation.init(y0)
        loop = ps.evaluate_sequential(equation.transition, state, equation.inputs, throw=False)
        # A matrix of y and of what the solver remembers has a large norm, though its powers are small.
        options: dict[str, Any] = {
            "conditioning": ps.Conditioning(projection=not isinstance(state, Remembering)),
            "throw": False,
        }
        options |= {"method": "newton", "atol": 1e-5, "rtol": 1e-5}
        found = ps.evaluate(equation.transition, state, equation.inputs, **options)
        return loop, found, by_diffrax(solver, terms, times, y0)

    loop, found, expected = solve()
    assert found.converged
    assert found.iterations < bound
    np.testing.assert_allclose(equation.values(loop.states), expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(equation.values(found.states), expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("solver", ODES, ids=lambda x: type(x).__name__)
def test_the_states_of_an_ode_are_those_of_diffeqsolve(solver: Any) -> None:
    check(solver, diffrax.ODETerm(pendulum), jnp.array([1.0, 0.0]), 15)


@pytest.mark.parametrize(("solver", "levy_area"), SDES, ids=lambda x: getattr(x, "__name__", type(x).__name__))
def test_the_states_of_a_langevin_sde_are_those_of_diffeqsolve(solver: Any, levy_area: Any) -> None:
    check(solver, langevin(levy_area), jnp.array([0.1, -1.5]), 25)


def test_what_a_solver_remembers_is_part_of_the_state() -> None:
    y0 = jnp.array([1.0, 0.0])
    plain = from_diffrax(diffrax.Tsit5(), diffrax.ODETerm(pendulum), TIMES)
    reversible = from_diffrax(diffrax.ReversibleHeun(), diffrax.ODETerm(pendulum), TIMES)
    assert len(jax.tree.leaves(plain.init(y0))) == 1
    assert len(jax.tree.leaves(reversible.init(y0))) == 3


@pytest.mark.slow
def test_a_neural_ode_and_the_derivative_in_its_weights() -> None:
    field = eqx.nn.MLP(16, 16, 32, 2, activation=jax.nn.tanh, key=jax.random.key(0))
    y0, times = jax.random.normal(jax.random.key(1), (16,)), jnp.linspace(0, 1, 33)

    def loss(field: Any, parallel: bool) -> Any:
        terms = diffrax.ODETerm(lambda t, y, field: field(y))
        if not parallel:
            return jnp.sum(by_diffrax(diffrax.Heun(), terms, times, y0, field)[-1] ** 2)
        equation = from_diffrax(diffrax.Heun(), terms, times, field)
        found = ps.evaluate(equation.transition, y0, equation.inputs, method="picard", atol=1e-6, rtol=1e-6)
        return jnp.sum(found.states[-1] ** 2), found.iterations

    (value, iterations), gradient = eqx.filter_jit(eqx.filter_value_and_grad(loss, has_aux=True))(field, True)
    expected, reference = eqx.filter_jit(eqx.filter_value_and_grad(loss))(field, False)
    assert iterations < 12
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for found, right in zip(jax.tree.leaves(gradient), jax.tree.leaves(reference), strict=True):
        if eqx.is_array(found):
            np.testing.assert_allclose(found, right, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_derivative_past_a_brownian_tree() -> None:
    def last(scale: Any, parallel: bool) -> Any:
        drift = diffrax.ODETerm(lambda t, x, args: -args * x)
        terms: Any = diffrax.MultiTerm(drift, langevin().terms[1])
        y0 = jnp.ones(2)
        if not parallel:
            return by_diffrax(diffrax.Euler(), terms, TIMES, y0, scale)[-1].sum()
        equation = from_diffrax(diffrax.Euler(), terms, TIMES, scale)
        return ps.evaluate(equation.transition, y0, equation.inputs, atol=1e-6, rtol=1e-6).states[-1].sum()

    found, expected = (jax.jit(jax.grad(last), static_argnums=1)(1.3, parallel) for parallel in (True, False))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.slow
def test_a_stiff_equation_beyond_the_solvers_stability_is_foreseen() -> None:
    """Growth to a capacity at rate 28: Euler's steps of 0.01 are the logistic map at 1.28, those of 0.1 at 3.8."""
    terms: Any = diffrax.ODETerm(lambda t, y, args: 28 * y * (1 - y))
    y0 = jnp.array([0.3, 0.4])
    right, stiff = (from_diffrax(diffrax.Euler(), terms, step * jnp.arange(129)) for step in (0.01, 0.1))
    advice = [ps.diagnose(equation.transition, y0, equation.inputs) for equation in (right, stiff)]
    assert advice[0].method != "sequential"
    assert advice[1].method == "sequential"
    # The exponent of the logistic map at 3.8 is 0.43.
    assert advice[0].exponent < 0 < advice[1].exponent


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "heun"}, r"solver is a str, expected a diffrax solver such as diffrax.Heun\(\)"),
        ({"terms": pendulum}, r"terms holds a function, expected diffrax terms"),
        ({"times": 0.1}, r"times has shape \(\), expected one row of at least two times"),
        ({"times": [0.0, 1.0, 0.5]}, r"times do not rise"),
        ({"solver": diffrax.Kvaerno3()}, r"solver is Kvaerno3 without tolerances for its root finder"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    arguments = {"solver": diffrax.Heun(), "terms": diffrax.ODETerm(pendulum), "times": TIMES, **options}
    with pytest.raises(ValueError, match=message):
        from_diffrax(**arguments)


def test_an_implicit_step_without_a_root_is_not_finite() -> None:
    solver = diffrax.ImplicitEuler(root_finder=CHORD)
    equation = from_diffrax(solver, diffrax.ODETerm(lambda t, y, args: y**2), jnp.linspace(0, 100, 3))
    found = ps.evaluate(equation.transition, jnp.array([1.0]), equation.inputs, throw=False)
    assert found.status == ps.Status.NOT_FINITE
    assert found.first_bad_step == 0
