"""What is traced, compiled and called back: a model once, one program for all step sizes, no callback without need."""

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsample as ps
from parsample.engine.arrays import to_jax
from tests.engine.recursions import STEPS, scan
from tests.tolerances import CONVERGED

START, NOISE = jnp.asarray([0.4, -0.2]), jnp.asarray(np.random.default_rng(0).normal(size=(STEPS, 2)), jnp.float32)
TIGHT: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}
COMPILED = "/jax/core/compile/backend_compile_duration"


class Counted:
    """A function that counts how often JAX looks at it."""

    def __init__(self, function: Callable) -> None:
        self.traces = 0

        def counted(*args: Any) -> Any:
            self.traces += 1
            return function(*args)

        self.function = counted


@pytest.fixture
def compiled() -> Iterator[list[str]]:
    """The programs that are compiled, or read from JAX's cache on disk."""
    names: list[str] = []

    def listen(event: str, duration_secs: float, **more: Any) -> None:
        if event == COMPILED:
            names.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


def bend(state: Any, input: Any) -> Any:
    return jnp.tanh(0.9 * state) + input


def logdensity(position: Any) -> Any:
    return -0.5 * jnp.sum(position**2) - 0.1 * jnp.sum(position**4)


@pytest.mark.parametrize(
    "options", [{}, {"method": "newton", "window": 7}, {"method": "sequential"}, {"history": "steps"}]
)
def test_a_model_is_traced_at_the_first_call_alone(options: dict[str, Any], compiled: list[str]) -> None:
    model, other = Counted(bend), (START + 0.1, 2 * NOISE)
    first = ps.evaluate(model.function, START, NOISE, **options)
    assert model.traces > 0
    traces, programs = model.traces, len(compiled)
    again = ps.evaluate(model.function, *other, **options)
    assert model.traces == traces
    assert len(compiled) == programs
    assert not np.allclose(first.states, again.states)
    CONVERGED.check(again.states, scan(bend, *other))


@pytest.mark.parametrize("chains", [False, True])
@pytest.mark.parametrize("method", ["newton", "sequential"])
def test_an_evaluation_compiles_one_program_and_none_for_what_is_around_it(
    method: str, chains: bool, compiled: list[str]
) -> None:
    axes = (3,) if chains else ()
    start = {"x": to_jax(np.zeros((*axes, 5)), np.float32), "y": to_jax(np.ones(axes), np.float32)}
    noise = to_jax(np.random.default_rng(0).normal(size=(*axes, 37, 5)), np.float32)

    def step(state: Any, input: Any) -> Any:
        return {"x": jnp.tanh(0.5 * state["x"]) + input, "y": jnp.sin(state["y"]) + input.sum()}

    solution = ps.evaluate(step, start, noise, method=method, window=8, atol=1e-5, rtol=1e-5, chains=chains)
    assert len(compiled) == 1
    assert solution.states["x"].shape == noise.shape


class Moved(eqx.Module):
    """A module that holds a table, as the position of a NumPyro model is."""

    by: dict[str, Any]

    def __call__(self, state: Any, input: Any) -> Any:
        return bend(state, input) + self.by["ahead"]


def test_one_program_serves_for_all_arrays_of_a_module(compiled: list[str]) -> None:
    ahead = jnp.asarray([0.1, 0.2]), np.asarray([0.3, 0.4], np.float32)
    ps.evaluate(Moved({"ahead": ahead[0], "name": "a"}), START, NOISE)
    programs = len(compiled)
    found = ps.evaluate(Moved({"ahead": ahead[1], "name": "a"}), START, NOISE)
    assert len(compiled) == programs
    CONVERGED.check(found.states, scan(lambda state, input: bend(state, input) + ahead[1], START, NOISE))


def test_a_model_that_has_changed_is_traced_again() -> None:
    ahead = [0.0]
    model = lambda state, input: bend(state, input) + ahead[0]  # noqa: E731
    ps.evaluate(model, START, NOISE)
    ahead[0] = 1.0
    CONVERGED.check(ps.evaluate(model, START, NOISE).states, scan(model, START, NOISE))


SAMPLERS = {
    "mala": lambda density, number: ps.samplers.MALA(density, number),
    "underdamped_langevin": lambda density, number: ps.samplers.UnderdampedLangevin(density, number, friction=number),
    "ghmc": lambda density, number: ps.samplers.GHMC(density, number, alpha=number),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_program_serves_for_every_step_size(name: str, compiled: list[str]) -> None:
    density = Counted(logdensity)
    sampler = SAMPLERS[name](density.function, 0.1)
    start, inputs = sampler.unknowns(sampler.init(START)), sampler.draw_inputs(jax.random.key(0), STEPS, START)
    found = []
    for number in (0.1, 0.2):
        sampler = SAMPLERS[name](density.function, number)
        traces, programs = density.traces, len(compiled)
        found.append(ps.evaluate(sampler.transition, start, inputs, **TIGHT).states)
    assert density.traces == traces
    assert len(compiled) == programs
    expected = scan(SAMPLERS[name](logdensity, 0.2).transition, start, inputs)
    jax.tree.map(CONVERGED.check, found[1], expected)
    assert not np.allclose(*(jax.tree.leaves(states)[0] for states in found))


@pytest.mark.parametrize("wrapped", [False, True])
def test_one_program_serves_for_every_scale_of_a_method(wrapped: bool, compiled: list[str]) -> None:
    expected = scan(bend, START, NOISE)
    for scale in (0.1, 0.2):
        programs = len(compiled)
        method: Any = ps.methods.ScaledIdentity(scale)
        found = ps.evaluate(bend, START, NOISE, method=ps.methods.Anderson(method) if wrapped else method, **TIGHT)
    assert len(compiled) == programs
    CONVERGED.check(found.states, expected)


def test_a_second_diagnosis_compiles_nothing(compiled: list[str]) -> None:
    model = Counted(bend)
    ps.diagnose(model.function, START, NOISE)
    traces, programs = model.traces, len(compiled)
    ps.diagnose(model.function, START, NOISE)
    assert model.traces == traces
    assert len(compiled) == programs


@pytest.mark.parametrize(("throw", "callbacks"), [(True, 1), (False, 0)])
def test_callbacks_of_a_compiled_program(throw: bool, callbacks: int) -> None:
    solve = jax.jit(lambda inputs: ps.evaluate(bend, START, inputs, throw=throw).states)
    assert solve.lower(NOISE).as_text().count("custom_call @xla_ffi_python") == callbacks


def test_a_chain_of_a_batch_that_fails_is_named_and_no_other_is_called_back(capfd: pytest.CaptureFixture) -> None:
    solve = jax.jit(jax.vmap(lambda inputs: ps.evaluate(bend, START, inputs).states))
    good = jnp.stack([NOISE, 2 * NOISE])
    CONVERGED.check(solve(good)[1], scan(bend, START, 2 * NOISE))
    with pytest.raises(RuntimeError, match=r"ConvergenceError: the state after 10 of 23 steps is not finite"):
        jax.block_until_ready(solve(good.at[1, 9].set(jnp.nan)))


@pytest.mark.parametrize(("method", "finish", "copies"), [("newton", False, 2), ("newton", True, 2), ("mix", True, 3)])
def test_how_often_a_program_holds_the_model(method: str, finish: bool, copies: int) -> None:
    """Once for the iterations, and once for what did not converge: a measurement, or the loop, after which none is due.

    Only the loop of an approximation is measured all the same.
    """
    solver = ps.methods.Picard(mismatch=0.5) if method == "mix" else method
    options: dict[str, Any] = {"method": solver, "stopping": ps.Stopping(finish=finish), "throw": False}
    solve = jax.jit(lambda inputs: ps.evaluate(bend, START, inputs, **options).states)
    assert solve.lower(NOISE).as_text().count("stablehlo.tanh") == copies
