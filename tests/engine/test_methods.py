"""What each method puts in A, and the contract that every row of the table keeps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, PyTree

from parsample.engine import methods
from parsample.engine.iteration import Around, Steps
from parsample.engine.matrices import Matrix
from parsample.engine.methods import METHODS, Method
from parsample.engine.methods.base import Prepared, draw_signs
from parsample.engine.rules import Conditioning
from parsample.engine.transition import FlatTransition, Transition, as_transition, flatten
from tests.covering import each_once
from tests.engine import recursions
from tests.engine.recursions import ITERATIVE, Problem, tanh_problem
from tests.tolerances import SAME_COMPUTATION, check_mean


class Threshold(Transition):
    """Accept or reject, as a sampler does it: go to tanh(x + u) where that lowers |x|, otherwise stay.

    Its straight-through derivative is made up: that of the proposal plus 10.
    """

    gate: str = "frozen"
    knows_diagonal: bool = True

    def __call__(self, state: Array, input: Array) -> Array:
        proposal = jnp.tanh(state + input)
        accepted = jnp.where(jnp.abs(proposal) < jnp.abs(state), proposal, state)
        if self.gate == "frozen":
            return accepted
        return (
            jax.lax.stop_gradient(accepted)
            + jnp.tanh(state + input)
            + 10 * state
            - jax.lax.stop_gradient(jnp.tanh(state + input) + 10 * state)
        )

    def with_gate(self, gate: str) -> "Threshold":
        return Threshold(gate, self.knows_diagonal)

    def with_diagonal(self, state: Array, input: Array) -> tuple[tuple[Array, None], Array] | None:
        if not self.knows_diagonal:
            return None
        proposal = jnp.tanh(state + input)
        return (self(state, input), None), jnp.where(jnp.abs(proposal) < jnp.abs(state), 1 - proposal**2, 1)

    def surrogate(self) -> None:
        return None

    def start(self, state: Array) -> Array:
        return state

    def advance(self, carry: Array, input: Array) -> tuple[Array, None]:
        return self(carry, input), None

    def state_of(self, carry: Array) -> Array:
        return carry


def linearise(
    method: Method, transition: Transition, states: Array, inputs: PyTree, seed: int = 0
) -> tuple[Array, Any]:
    assert isinstance(method, methods.PreparedMethod)
    flat = FlatTransition(transition, lambda vector: vector)

    def linearised(states: Array, inputs: PyTree) -> tuple[Array, Any]:
        known = method.prepare(flat, states[0], inputs)
        return method.linearise(flat, Steps(states, inputs, known.per_step, jax.random.key(seed), known.common))[:2]

    return jax.jit(linearised)(states, inputs)


def jacobians(transition: Any, states: Array, inputs: PyTree) -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(jax.jacfwd(transition)))(states, inputs))


def points(problem: Problem) -> Array:
    """States away from the trajectory, one a step."""
    return jnp.asarray(np.random.default_rng(3).normal(size=problem.inputs.shape), jnp.float32)


def written_out(matrix: Matrix, steps: int, dim: int) -> np.ndarray:
    return np.broadcast_to(matrix.dense(dim), (steps, dim, dim))


@pytest.mark.parametrize("name", METHODS)
def test_every_row_is_found_by_name_and_works_with_its_defaults(name: str) -> None:
    method = methods.find(name)
    assert type(method) is METHODS[name]
    assert methods.find(method) is method
    assert method.__doc__
    assert METHODS[name].__name__ in methods.__all__


PREPARED = [name for name in ITERATIVE if issubclass(METHODS[name], methods.PreparedMethod)]


@pytest.mark.parametrize(("name", "which"), each_once(PREPARED, list(recursions.PROBLEMS)))
def test_every_method_returns_the_values_and_finite_matrices(name: str, which: str) -> None:
    transition, initial_state, inputs = recursions.PROBLEMS[which]()
    flat, vector, steps = flatten(as_transition(transition), initial_state, inputs)
    states = jnp.asarray(np.random.default_rng(3).normal(size=(steps, vector.size)), jnp.float32)
    method: Any = methods.find(name)
    known = method.prepare(flat, vector, inputs)
    steps_here = lambda states: Steps(states, inputs, known.per_step, jax.random.key(0), known.common)  # noqa: E731
    values, matrix, _ = jax.jit(lambda states: method.linearise(flat, steps_here(states)))(states)
    SAME_COMPUTATION.check(values, jax.jit(jax.vmap(flat))(states, inputs))
    assert np.all(matrix.isfinite())
    applied = matrix.apply(states)
    assert applied.shape == states.shape
    assert applied.dtype == states.dtype


def test_the_matrices_of_the_exact_methods() -> None:
    problem = tanh_problem()
    states, identity = points(problem), np.eye(3, dtype=np.float32)
    true = jacobians(problem.transition, states, problem.inputs)
    expected = {
        methods.Jacobi(): 0 * true,
        methods.Picard(): np.broadcast_to(identity, true.shape),
        methods.ScaledIdentity(0.5): np.broadcast_to(0.5 * identity, true.shape),
        methods.ScaledIdentity(-0.25): np.broadcast_to(-0.25 * identity, true.shape),
        methods.QuasiNewton(estimator="exact"): true * identity,
        methods.Newton(): true,
    }
    for method, matrices in expected.items():
        _, matrix = linearise(method, as_transition(problem.transition), states, problem.inputs)
        SAME_COMPUTATION.check(written_out(matrix, len(states), 3), matrices)


@pytest.mark.parametrize("num_probes", [1, 2, 5])
def test_the_mean_of_the_hutchinson_estimates_is_the_diagonal(num_probes: int) -> None:
    problem = tanh_problem(steps=4000)
    # The same step many times over: every row has its own probes.
    state, input = jnp.asarray([0.3, -0.2, 0.5]), problem.inputs[0]
    states, inputs = jnp.tile(state, (4000, 1)), jnp.tile(input, (4000, 1))
    method = methods.QuasiNewton(estimator="hutchinson", num_probes=num_probes)
    _, matrix = linearise(method, as_transition(problem.transition), states, inputs)
    estimates = np.asarray(matrix.entries)
    diagonal = np.diagonal(jacobians(problem.transition, state[None], input[None])[0])
    check_mean(estimates.mean(0), diagonal, estimates.std(0) / np.sqrt(4000))
    # Row i of one probe is off by sum_j v_i v_j J_ij, j != i, of variance sum_j J_ij^2; more probes divide it.
    true = jacobians(problem.transition, state[None], input[None])[0]
    variance = (true**2).sum(1) - diagonal**2
    np.testing.assert_allclose(estimates.var(0) * num_probes, variance, rtol=0.15)


def test_one_probe_finds_a_diagonal_jacobian() -> None:
    transition = as_transition(lambda state, input: jnp.sin(state) * input)
    states, inputs = points(tanh_problem()), jnp.linspace(0.5, 1.0, recursions.STEPS)
    _, matrix = linearise(methods.QuasiNewton(estimator="hutchinson"), transition, states, inputs)
    SAME_COMPUTATION.check(matrix.entries, jnp.cos(states) * inputs[:, None])


def test_the_probes_change_with_every_iteration() -> None:
    problem = tanh_problem()
    method, transition = methods.QuasiNewton(estimator="hutchinson"), as_transition(problem.transition)
    one, other = (linearise(method, transition, points(problem), problem.inputs, seed)[1].entries for seed in (0, 1))
    assert not np.allclose(one, other)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 31, 3), (4, 100, 25)])
def test_probes_are_signs_of_the_dtype_asked_for(shape: tuple[int, ...], dtype: Any) -> None:
    signs = np.asarray(draw_signs(jax.random.key(0), shape, jnp.dtype(dtype)))
    assert signs.shape == shape
    assert signs.dtype == dtype
    np.testing.assert_array_equal(np.abs(signs), 1)
    if signs.size > 1000:
        # No sign repeats its neighbour more often than by chance, along any axis or from one random word to the next.
        for neighbour in (np.roll(signs, 1, axis) for axis in range(3)):
            check_mean((signs * neighbour).mean(), 0, 1 / np.sqrt(signs.size))
        check_mean(signs.mean(), 0, 1 / np.sqrt(signs.size))


def test_the_analytic_diagonal_is_used_where_it_is_known() -> None:
    problem = tanh_problem()
    states = points(problem)
    known = jax.jacfwd(lambda state: jax.vmap(Threshold())(state, problem.inputs).sum(0))(states)
    known = jnp.einsum("iti->ti", known)
    for estimator in ("auto", "analytic"):
        values, matrix = linearise(methods.QuasiNewton(estimator), Threshold(), states, problem.inputs)
        SAME_COMPUTATION.check(values, jax.vmap(Threshold())(states, problem.inputs))
        SAME_COMPUTATION.check(matrix.entries, known)


def test_a_wrong_analytic_diagonal_would_be_seen() -> None:
    class Wrong(Threshold):
        def with_diagonal(self, state: Array, input: Array) -> tuple[tuple[Array, None], Array]:
            return (self(state, input), None), jnp.full_like(state, 0.125)

    problem = tanh_problem()
    _, matrix = linearise(methods.QuasiNewton(), Wrong(), points(problem), problem.inputs)
    np.testing.assert_array_equal(matrix.entries, 0.125)
    _, matrix = linearise(methods.QuasiNewton(estimator="exact"), Wrong(), points(problem), problem.inputs)
    assert not np.any(np.asarray(matrix.entries) == 0.125)


def test_without_an_analytic_diagonal_auto_estimates_it() -> None:
    problem = tanh_problem()
    transition = Threshold(knows_diagonal=False)
    _, auto = linearise(methods.QuasiNewton(), transition, points(problem), problem.inputs)
    hutchinson = methods.QuasiNewton(estimator="hutchinson")
    SAME_COMPUTATION.check(auto.entries, linearise(hutchinson, transition, points(problem), problem.inputs)[1].entries)


@pytest.mark.parametrize(
    "method",
    [
        methods.Newton(gate="straight_through"),
        methods.QuasiNewton(gate="straight_through"),
        methods.QuasiNewton(estimator="exact", gate="straight_through"),
    ],
    ids=["newton", "auto", "exact"],
)
def test_the_straight_through_gate_reaches_the_derivative_and_not_the_value(method: Method) -> None:
    problem = tanh_problem()
    states = points(problem)
    values, matrix = linearise(method, Threshold(), states, problem.inputs)
    SAME_COMPUTATION.check(values, jax.vmap(Threshold())(states, problem.inputs))
    slope = 11 - jnp.tanh(states + problem.inputs) ** 2
    SAME_COMPUTATION.check(np.diagonal(matrix.dense(3), axis1=1, axis2=2), slope)


@pytest.mark.parametrize("method", [methods.Newton, methods.QuasiNewton])
def test_a_plain_function_has_no_straight_through_gate(method: type[Method]) -> None:
    problem = tanh_problem()
    with pytest.raises(ValueError, match=r"gate is 'straight_through', but a plain function has no accept/reject"):
        linearise(method(gate="straight_through"), as_transition(problem.transition), points(problem), problem.inputs)


@pytest.mark.parametrize("transition", [as_transition(recursions.tanh_step), Threshold(knows_diagonal=False)])
def test_the_analytic_diagonal_must_be_known(transition: Transition) -> None:
    problem = tanh_problem()
    with pytest.raises(ValueError, match="estimator is 'analytic', but the transition gives no diagonal"):
        linearise(methods.QuasiNewton("analytic"), transition, points(problem), problem.inputs)


def test_the_analytic_diagonal_is_that_of_the_frozen_gate() -> None:
    problem = tanh_problem()
    with pytest.raises(ValueError, match="no diagonal of its Jacobian for gate='straight_through'"):
        linearise(
            methods.QuasiNewton("analytic", gate="straight_through"), Threshold(), points(problem), problem.inputs
        )


def test_the_names_of_papers() -> None:
    assert isinstance(methods.find("deer"), methods.Newton)
    assert isinstance(methods.find("quasi_deer"), methods.QuasiNewton)
    assert isinstance(methods.find("paradigms"), methods.Picard)
    assert not set(methods.ALIASES) & set(METHODS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: methods.find("quasi_newtn"),
            r"method is 'quasi_newtn', expected one of .*Did you mean 'quasi_newton'",
        ),
        (lambda: methods.find("zzz"), "method is 'zzz', expected one of .*, or a Method instance"),
        (lambda: methods.QuasiNewton(estimator="finite"), "estimator is 'finite', expected one of 'auto', 'analytic'"),
        (
            lambda: methods.QuasiNewton(num_probes=0),
            "num_probes is 0, expected a whole number of at least 1; .*method='jacobi'",
        ),
        (lambda: methods.QuasiNewton(gate="soft"), "gate is 'soft', expected one of 'frozen', 'straight_through'"),
        (lambda: methods.Newton(gate="soft"), "gate is 'soft', expected one of 'frozen', 'straight_through'"),
        (lambda: methods.ScaledIdentity(1.5), r"scale is 1.5, expected a number in \[-1, 1\]"),
        (lambda: methods.ScaledIdentity(float("nan")), r"scale is nan, expected a number in \[-1, 1\]"),
    ],
)
def test_bad_options_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_sequential_loop_does_not_iterate() -> None:
    problem = tanh_problem()
    flat, vector, _ = flatten(as_transition(problem.transition), problem.initial_state, problem.inputs)
    method = methods.Sequential()
    assert method.prepare(flat, vector, problem.inputs) == Prepared()
    rows = jnp.zeros((2, 3))
    around = Around(vector, rows, jnp.ones(2, bool), vector, rows, None, rows, jax.random.key(0), Conditioning(), None)
    with pytest.raises(TypeError, match="does not iterate"):
        method.iterate(flat, around, method.start(flat, around))
