"""Lagged Jacobians: how often they are refreshed, and that one refresh an iteration is the method itself."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine import methods
from parsample.engine.evaluate import evaluate
from tests.engine import recursions
from tests.engine.recursions import STEPS, TIGHT, UNPROJECTED, Problem, scan, tanh_step
from tests.tolerances import CONVERGED, SAME_COMPUTATION


class Counter:
    """A transition that counts, when the program runs, the steps at which its derivative was taken."""

    def __init__(self) -> None:
        self.derivatives = 0

        def count(tangent: Any) -> Any:
            # All columns of a Jacobian share what does not depend on the direction.
            self.derivatives += 1
            return np.float32(1)

        @jax.custom_jvp
        def marked(state: Any) -> Any:
            return state

        @marked.defjvp
        def _(primals: Any, tangents: Any) -> Any:
            one = jax.pure_callback(count, jax.ShapeDtypeStruct((), np.float32), primals[0], vmap_method="sequential")
            return primals[0], one * tangents[0]

        self.marked = marked

    def __call__(self, state: Any, input: Any) -> Any:
        return tanh_step(self.marked(state), input)


@pytest.mark.parametrize("inner", [methods.Newton(), methods.QuasiNewton(estimator="exact")])
def test_refreshed_always_it_is_the_method_itself(inner: methods.PreparedMethod) -> None:
    problem = recursions.tanh_problem()
    lagged = evaluate(*problem, method=methods.Lagged(inner, every=1), window=7)
    plain = evaluate(*problem, method=inner, window=7)
    assert (lagged.iterations, lagged.evaluations) == (plain.iterations, plain.evaluations)
    SAME_COMPUTATION.check(lagged.states, plain.states)


@pytest.mark.parametrize("window", [None, 7])
def test_old_matrices_give_the_same_chain(window: int | None) -> None:
    problem = recursions.tanh_problem()
    method = methods.Lagged(methods.Newton(), every=3)
    solution = evaluate(*problem, method=method, window=window, **TIGHT[np.dtype(np.float32)])
    CONVERGED.check(solution.states, scan(*problem))


@pytest.mark.parametrize("every", [1, 2, 100])
def test_the_derivative_is_taken_once_in_so_many_iterations(every: int) -> None:
    counter = Counter()
    problem = recursions.tanh_problem()._replace(transition=counter)
    # Small noise: the corrections fall tenfold an iteration, so that nothing but the age asks for a refresh.
    problem = problem._replace(initial_state=0.1 * problem.initial_state, inputs=0.1 * problem.inputs)
    method = methods.Lagged(methods.Newton(), every=every, enough=1.0)
    solution = evaluate(*problem, method=method, conditioning=UNPROJECTED, **TIGHT[np.dtype(np.float32)])
    jax.effects_barrier()
    iterations = int(solution.iterations)
    assert iterations >= 3
    # `evaluate` counts no derivative; one refresh is one at each step of the window.
    assert counter.derivatives == STEPS * -(-iterations // every)


def test_a_stall_asks_for_a_refresh() -> None:
    """Matrices of the guess that are useless along the chain: kept for good, the iteration gains a step at a time."""
    problem = Problem(
        lambda state, input: jnp.where(state < 1, 0.0, 0.9) * state + input, jnp.zeros(1), jnp.ones(60) * 2
    )
    solution = evaluate(*problem, method=methods.Lagged(methods.Newton(), every=1000), atol=1e-5, rtol=0.0)
    kept = evaluate(*problem, method=methods.Lagged(methods.Newton(), every=1000, enough=1.0), atol=1e-5, rtol=0.0)
    assert solution.iterations < kept.iterations


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"every": 0}, "every is 0, expected a whole number of at least 1; 1 refreshes always"),
        ({"every": True}, "every is True, expected a whole number"),
        ({"enough": 0.0}, r"enough is 0.0, expected a number in \(0, 1\]"),
        ({"enough": 1.5}, r"enough is 1.5, expected a number in \(0, 1\]"),
    ],
)
def test_bad_options_are_refused(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.Lagged(**keywords)


@pytest.mark.parametrize("method", [methods.Sequential(), methods.Secant()], ids=["sequential", "secant"])
def test_a_method_without_matrices_of_its_own_is_refused(method: Any) -> None:
    with pytest.raises(ValueError, match=r"method is .*, expected one that chooses matrices step by step, such as Qua"):
        methods.Lagged(method)
