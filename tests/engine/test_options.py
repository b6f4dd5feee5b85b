"""Every option that does not fit gets one clear sentence, before anything is computed."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine import methods, options
from parsample.engine.evaluate import evaluate, evaluate_sequential
from parsample.engine.rules import Conditioning, Stopping
from tests.engine.recursions import tanh_problem


def check(window: int | None, max_iterations: int | None = None, **changed: Any) -> options.Options:
    """Check options for ten steps; what is not changed is as `evaluate` has it by default."""
    keywords: dict[str, Any] = {"method": methods.QuasiNewton(), "steps": 10, **changed}
    return options.check(window=window, max_iterations=max_iterations, **keywords)


def test_the_defaults_are_filled_in() -> None:
    assert check(None) == options.Options(10, 10, False, None, Stopping(), Conditioning(projection=True))
    assert check(None, method=methods.ELK()).conditioning == Conditioning(projection=False)
    projected = Conditioning(projection=True)
    assert check(None, method=methods.ELK(), conditioning=projected).conditioning == projected


def test_a_wrapper_has_the_projection_of_the_method_inside() -> None:
    for inner in (methods.ELK(), methods.Permutation(), methods.QuasiNewton()):
        conditioning = Conditioning(projection=inner.projects)
        assert check(None, method=methods.Anderson(inner)).conditioning == conditioning
    assert not check(None, method=methods.Anderson(methods.Lagged(methods.Permutation()))).conditioning.projection


@pytest.mark.parametrize(("window", "expected"), [(1, 1), (9, 9), (10, 10), (11, 10)])
def test_a_window_is_at_most_the_chain(window: int, expected: int) -> None:
    rules: dict[str, Any] = {"stopping": Stopping(norm="rms"), "conditioning": Conditioning(projection=False, clip=2.0)}
    chosen = check(window, 5, history=True, **rules)
    assert chosen == options.Options(expected, 5, True, None, **rules)


@pytest.mark.parametrize(
    ("active_set", "window", "expected"),
    [(False, 64, None), (True, 64, 4), (True, 65, 5), (True, 3, 1), (7, 64, 7), (100, 64, 64)],
)
def test_active_steps_are_gathered_in_batches(active_set: bool | int, window: int, expected: int | None) -> None:
    assert check(window, steps=1000, active_set=active_set).capacity == expected


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"window": 0}, "window is 0, expected a whole number of at least 1; None solves all steps at once"),
        ({"window": -3}, "window is -3, expected a whole number of at least 1"),
        ({"max_iterations": 0}, "max_iterations is 0, expected a whole number of at least 1; None allows"),
        ({"history": "step"}, "history is 'step', expected True, False, 'steps' or 'states'"),
        ({"atol": -1e-3}, "atol is -0.001, expected a finite number of at least 0"),
        ({"rtol": -1e-3}, "rtol is -0.001, expected a finite number of at least 0"),
        ({"atol": float("nan")}, "atol is nan, expected a finite number of at least 0"),
        ({"rtol": float("inf")}, "rtol is inf, expected a finite number of at least 0"),
        ({"atol": 0.0, "rtol": 0.0}, "atol is 0.0 and rtol is 0.0, both below 1.2e-07, the rounding error of float32"),
        ({"atol": 1e-9, "rtol": 1e-8}, "both below 1.2e-07, the rounding error of float32"),
        ({"active_set": 0}, "active_set is 0, expected a whole number of at least 1; it is how many active steps"),
        ({"active_set": True, "method": "elk"}, "active_set is True, but the method ELK evaluates a whole window"),
        (
            {"active_set": True, "method": methods.Anderson(methods.Secant())},
            "active_set is True, but the method Anderson evaluates a whole window",
        ),
        (
            {"conditioning": Conditioning(clip=1.0), "method": methods.Anderson(methods.MeritDescent())},
            "conditioning has damping, projection or clip, but the method MeritDescent has no matrices",
        ),
        (
            {"conditioning": Conditioning(damping=0.5), "method": "merit_descent"},
            "the method MeritDescent has no matrices for them to work on",
        ),
        (
            {"conditioning": Conditioning(projection=True), "method": "parareal"},
            "the method Parareal has no matrices for them to work on",
        ),
        ({"method": "newtn"}, "method is 'newtn', expected one of .*Did you mean 'newton'"),
    ],
)
def test_an_option_out_of_range_is_refused(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(*tanh_problem(), **keywords)


@pytest.mark.parametrize(
    ("group", "keywords", "message"),
    [
        (Conditioning, {"damping": -0.1}, r"damping is -0.1, expected a number in \[0, 1\]"),
        (Conditioning, {"damping": 1.1}, r"damping is 1.1, expected a number in \[0, 1\]"),
        (Conditioning, {"damping": float("nan")}, r"damping is nan, expected a number in \[0, 1\]"),
        (Conditioning, {"clip": 0.0}, "clip is 0.0, expected a positive number, or None"),
        (Conditioning, {"clip": -1.0}, "clip is -1.0, expected a positive number, or None"),
        (Conditioning, {"clip": float("nan")}, "clip is nan, expected a positive number, or None"),
        (Conditioning, {"clip": float("inf")}, "clip is inf, expected a positive number, or None"),
        (Stopping, {"norm": "l1"}, "norm is 'l1', expected one of 'max', 'rms'"),
        *(
            (Stopping, {"accept_early": share}, rf"accept_early is {share!r}, expected a share of the tolerance in")
            for share in (-0.1, 1.5, True, "all")
        ),
    ],
)
def test_a_group_of_options_refuses_what_is_out_of_range(group: type, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        group(**keywords)


@pytest.mark.parametrize("value", [0.5, None, {"damping": 0.5}, Stopping()])
def test_a_group_is_expected_where_there_is_one(value: Any) -> None:
    with pytest.raises(ValueError, match=r"conditioning is .*, expected a group of options: parsample.Conditioning\("):
        check(None, conditioning=value)
    with pytest.raises(ValueError, match=r"stopping is .*, expected a group of options: parsample.Stopping\("):
        check(None, stopping=Conditioning() if isinstance(value, Stopping) else value)


@pytest.mark.parametrize("value", [2.0, "7", True, None, np.float32(3)])
def test_only_whole_numbers_are_whole(value: object) -> None:
    with pytest.raises(ValueError, match=r"window is .*, expected a whole number of at least 1; a remedy"):
        options.whole("window", value, "a remedy")


def test_numpy_integers_are_whole() -> None:
    assert options.whole("window", np.int64(3), "a remedy") == 3
    assert type(options.whole("window", np.int64(3), "a remedy")) is int


def test_the_loop_refuses_what_the_others_refuse() -> None:
    with pytest.raises(ValueError, match="window is 0"):
        evaluate_sequential(*tanh_problem(), window=0)


@pytest.mark.usefixtures("x64")
def test_double_precision_reaches_smaller_tolerances() -> None:
    options.check_tolerances(1e-14, 0.0, jnp.dtype("float64"))
    with pytest.raises(ValueError, match=r"both below 2.2e-16, the rounding error of float64"):
        options.check_tolerances(1e-17, 1e-17, jnp.dtype("float64"))


GUESSES = {
    "too short": (lambda states: states[:-1], r"guess has the shapes \(22, 3\), expected \(23, 3\)"),
    "too narrow": (lambda states: states[:, :2], r"guess has the shapes \(23, 2\), expected \(23, 3\)"),
    "another tree": (lambda states: {"x": states}, "guess has the shapes .*'x'.*, expected"),
    "nan": (lambda states: states.at[4, 1].set(jnp.nan), "guess holds values that are not finite"),
    "inf": (lambda states: states.at[4, 1].set(jnp.inf), "guess holds values that are not finite"),
}


@pytest.mark.parametrize("case", GUESSES)
def test_a_guess_that_does_not_fit_is_refused(case: str) -> None:
    spoil, message = GUESSES[case]
    with pytest.raises(ValueError, match=message):
        evaluate(*tanh_problem(), guess=spoil(jnp.zeros((23, 3))))


def test_a_guess_takes_the_dtype_of_the_state() -> None:
    flat = options.check_guess({"a": np.zeros((4, 2), int)}, {"a": jnp.zeros(2, jnp.float32)}, 4)
    assert flat.dtype == jnp.float32
    assert flat.shape == (4, 2)


def test_a_solution_is_a_guess() -> None:
    problem = tanh_problem()
    begun = evaluate(*problem, method="newton", max_iterations=2, throw=False)
    from_it, from_states = (evaluate(*problem, method="jacobi", guess=guess) for guess in (begun, begun.states))
    assert from_it.iterations == from_states.iterations
    assert from_it.iterations < evaluate(*problem, method="jacobi").iterations
    with pytest.raises(ValueError, match="guess has the shapes"):
        evaluate(problem.transition, problem.initial_state, problem.inputs[:-1], guess=begun)


@pytest.mark.parametrize("value", ["half", True, None, [0.5]])
def test_only_numbers_are_numbers(value: object) -> None:
    # The run-time type checks of the tests stand before `evaluate`; users have none.
    assert not options.is_number(value)
    assert options.is_number(np.float32(0.5))


@pytest.mark.parametrize(("history", "size"), [("states", 3_200_240_000), ("steps", 1_600_240_000)])
def test_a_record_of_all_iterations_is_refused_where_it_is_too_large(history: str, size: int) -> None:
    """Before anything is spent; a number of iterations that is given is meant."""
    problem: Any = (lambda state, input: 0.5 * state + input, jnp.zeros(2), jnp.zeros((20_000, 2)))
    message = (
        f"history is {history!r} and max_iterations is None, so that 20,000 iterations would be recorded, "
        f"which takes {size:,} bytes; give the max_iterations that you expect"
    )
    with pytest.raises(ValueError, match=message):
        evaluate(*problem, history=history)
    assert evaluate(*problem, method="sequential", history=history).converged


def test_a_record_is_measured_over_all_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    transition, start, inputs = tanh_problem()
    chains: Any = (transition, jnp.stack([start] * 3), jnp.stack([inputs] * 3))
    one = 23 * (3 + 23 * 3) * 4
    monkeypatch.setattr(options, "LARGEST_HISTORY", one)
    evaluate(transition, start, inputs, history="states")
    with pytest.raises(ValueError, match=f"23 iterations would be recorded, which takes {3 * one:,} bytes"):
        evaluate(*chains, chains=True, history="states")
    assert evaluate(*chains, chains=True, history=True).history is not None
    recorded = evaluate(*chains, chains=True, history="states", max_iterations=23).history
    assert recorded is not None
    assert jnp.shape(recorded.states) == (3, 23, 23, 3)
