"""The trust region of ELK: the merit of what it goes on from never rises, where Newton's iterates leave every range."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine import methods
from parsample.engine.evaluate import evaluate
from parsample.engine.iteration import Around, Conditioning
from parsample.engine.transition import as_transition, flatten
from tests.covering import each_once
from tests.engine import recursions
from tests.engine.recursions import STEPS, TIGHT, Problem, scan
from tests.tolerances import CONVERGED

FLOAT64 = TIGHT[np.dtype(np.float64)]


def expanding_step(state: Any, input: Any) -> Any:
    """A recursion whose slopes are up to 1.3, so that products of many of them leave every range."""
    return jnp.sin(1.3 * state) + input


def expanding_problem() -> Problem:
    noise = np.random.default_rng(0).normal(size=(100, 2))
    return Problem(expanding_step, jnp.zeros(2), jnp.asarray(noise))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("method", "newton"), [("elk", "newton"), ("quasi_elk", "quasi_newton")])
def test_it_converges_where_newton_unprojected_blows_up(method: str, newton: str) -> None:
    problem = expanding_problem()
    keywords: dict[str, Any] = {"projection": False, "history": True, **FLOAT64}
    plain = evaluate(*problem, method=newton, **keywords)
    trusted = evaluate(*problem, method=method, **keywords)
    assert plain.history is not None
    assert trusted.history is not None
    assert np.nanmax(plain.history.merit) > 1e10 * plain.history.merit[0]
    # Candidates that are dropped may be worse, and are soon better: the penalty grows tenfold.
    assert np.nanmax(trusted.history.merit) < 10 * trusted.history.merit[0]
    assert trusted.iterations < 0.8 * plain.iterations
    CONVERGED.check(trusted.states, scan(*problem))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", ["elk", "quasi_elk"])
def test_the_merit_it_goes_on_from_never_rises(method: str) -> None:
    """Iterated by hand on a window over the whole chain, where nothing is accepted; the merit is NumPy's."""
    problem = expanding_problem()
    flat, initial, steps = flatten(as_transition(expanding_step), *problem[1:])
    around = Around(
        boundary=initial,
        guesses=jnp.zeros((steps, 2)),
        open=jnp.ones(steps, bool),
        latest=initial,
        inputs=problem.inputs,
        prepared=None,
        tolerance=jnp.zeros((steps, 2)),
        rng_key=jax.random.key(0),
        conditioning=Conditioning(projection=False),
        capacity=None,
    )
    trusted = methods.find(method)
    iterate = jax.jit(lambda guesses, memory: trusted.iterate(flat, around._replace(guesses=guesses), memory))
    guesses, memory, merits, dropped = around.guesses, trusted.start(flat, around), [], 0
    for _ in range(25):
        candidate = merit_of(guesses, problem.inputs)
        update = iterate(guesses, memory)
        guesses, memory = update.guesses, update.memory
        merits.append(merit_of(memory.rows[0], problem.inputs))
        dropped += candidate > merits[-1]
    assert np.all(np.diff(merits) <= 0)
    assert merits[-1] < 0.1 * merits[0]
    assert dropped > 0, "nothing would have risen anyway"


def merit_of(states: Any, inputs: Any) -> float:
    states, inputs = np.asarray(states), np.asarray(inputs)
    before = np.concatenate([np.zeros((1, 2)), states[:-1]])
    return 0.5 * float(np.sum((states - np.sin(1.3 * before) - inputs) ** 2))


@pytest.mark.parametrize(("window", "method"), each_once([None, 1, 7], ["elk", "quasi_elk"]))
def test_windows_give_the_same_chain(method: str, window: int | None) -> None:
    problem = recursions.tanh_problem()
    solution = evaluate(*problem, method=method, window=window, **TIGHT[np.dtype(np.float32)])
    CONVERGED.check(solution.states, scan(*problem))
    assert solution.iterations <= STEPS


@pytest.mark.usefixtures("x64")
def test_near_the_chain_it_is_newton() -> None:
    """The penalty falls to its smallest value, so that the last iterations converge as fast as Newton's."""
    problem = recursions.tanh_problem(np.float64)
    elk = evaluate(*problem, method="elk", **FLOAT64)
    newton = evaluate(*problem, method="newton", projection=False, **FLOAT64)
    assert elk.iterations <= newton.iterations + 4
