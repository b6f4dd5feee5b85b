"""The driver: chains as an axis, blocks that stream, and one evaluation a step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine import block
from parsample.engine.evaluate import evaluate
from parsample.engine.rules import Stopping
from parsample.engine.solution import Solution
from parsample.engine.transition import Transition
from tests.covering import each_once
from tests.engine.recursions import KINDS, STEPS, map_trees, scan, tanh_problem, tanh_step
from tests.tolerances import CONVERGED, SAME_COMPUTATION

TIGHT: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}


def chains(steps: int, count: int = 3) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    sizes = np.linspace(0.1, 2, count)[:, None, None]
    return jnp.asarray(rng.normal(size=(count, 3)), jnp.float32), jnp.asarray(
        sizes * rng.normal(size=(count, steps, 3)), jnp.float32
    )


def loops(starts: jax.Array, inputs: jax.Array) -> np.ndarray:
    return np.stack([scan(tanh_step, *chain) for chain in zip(starts, inputs, strict=True)])


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """All chains in one batch, as on an accelerator."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


# Shorter and longer than a block, with and without a rest, and one step more than a block.
LENGTHS = [block.SHORTEST + 9, block.SHORTEST + 10, 2 * block.SHORTEST + 9, 700]


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize(("steps", "method"), each_once(LENGTHS, KINDS))
def test_blocks_stream(method: str, steps: int) -> None:
    """Chains of different speed wait for each other at the ends of blocks; nothing of that is seen."""
    starts, inputs = chains(steps)
    fresh = lambda *step: tanh_step(*step)  # noqa: E731, nothing compiled one by one is found
    found = evaluate(fresh, starts, inputs, method=method, window=9, chains=True, **TIGHT)
    CONVERGED.check(found.states, loops(starts, inputs))
    assert found.converged.all()
    before = jnp.concatenate([starts[:, None], found.states[:, :-1]], 1)
    residual = np.abs(found.states - jax.vmap(jax.vmap(tanh_step))(before, inputs)).max(-1)
    np.testing.assert_allclose(found.residual, residual, atol=1e-6)


@pytest.mark.usefixtures("together", "x64")
@pytest.mark.parametrize("guessed", [False, True])
def test_chains_together_are_those_one_by_one(guessed: bool) -> None:
    """In double precision, where no step hangs on the rounding in which the two programs differ."""
    starts, inputs = (leaf.astype(jnp.float64) for leaf in chains(700))
    guess = loops(starts, inputs) + 0.01 if guessed else None
    options: dict[str, Any] = {"method": "newton", "window": 9, "history": True, **TIGHT}
    fresh = lambda *step: tanh_step(*step)  # noqa: E731
    found = evaluate(fresh, starts, inputs, guess=guess, chains=True, **options)
    for chain in range(3):
        one = evaluate(fresh, starts[chain], inputs[chain], guess=None if guess is None else guess[chain], **options)
        of_chain: Solution = jax.tree.map(lambda leaf, chain=chain: leaf[chain], found)
        assert of_chain.iterations == one.iterations
        SAME_COMPUTATION.check(of_chain.states, one.states)
        map_trees(SAME_COMPUTATION.check, of_chain.history, one.history)


class Counted(Transition):
    """A recursion that tells the host of every call, and the trace the number that it drew."""

    calls: Any

    def __call__(self, state: Any, input: Any) -> Any:
        return self.advance(state, input)[0]

    def advance(self, carry: Any, input: Any) -> Any:
        where = jax.lax.stop_gradient(carry[0])
        zero = jax.pure_callback(self.calls, jax.ShapeDtypeStruct((), np.float32), where, vmap_method="sequential")
        return tanh_step(carry, input) + zero, {"drawn": input[0], "before": where}

    def with_gate(self, gate: str) -> "Counted":
        return self

    def with_diagonal(self, state: Any, input: Any) -> None:
        return None

    def surrogate(self) -> None:
        return None

    def start(self, state: Any) -> Any:
        return state

    def state_of(self, carry: Any) -> Any:
        return carry


CASES: dict[str, dict[str, Any]] = {
    "converged": {},
    "finished": {"max_iterations": 3, "stopping": Stopping(finish=True)},
    "stopped": {"max_iterations": 3},
    "active": {"active_set": 2},
}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("case", "method"), each_once(list(CASES), [*KINDS, "sequential"]))
def test_evaluations_are_the_calls(count: int, method: str, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if count > 1:
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    if case == "active" and method not in ("newton", "quasi_newton", "jacobi", "picard"):
        method = "quasi_newton"
    calls = 0

    def call(_: Any) -> Any:
        nonlocal calls
        calls += 1
        return np.float32(0)

    starts, inputs = chains(STEPS, count)
    found = evaluate(
        Counted(call), starts, inputs, method=method, window=7, chains=True, throw=False, details=True, **CASES[case]
    )
    jax.block_until_ready(found)
    jax.effects_barrier()
    assert int(found.evaluations.sum()) == calls


@pytest.mark.parametrize("method", [*KINDS, "sequential"])
def test_details_are_those_of_the_accepting_evaluation(method: str) -> None:
    """Of every step, for whatever evaluates it: where it began is the state before it, to the bit."""
    problem = tanh_problem()
    counted = Counted(lambda _: np.float32(0))
    found = evaluate(counted, *problem[1:], method=method, window=7, details=True, **TIGHT)
    np.testing.assert_array_equal(found.details["drawn"], problem.inputs[:, 0])
    before = np.concatenate([problem.initial_state[None], found.states[:-1]])
    np.testing.assert_array_equal(found.details["before"], before[:, 0])
    assert evaluate(tanh_step, *problem[1:], method=method).details is None


@pytest.mark.usefixtures("together")
def test_memory_grows_with_the_chain_by_its_states_alone() -> None:
    """Windows and blocks are as long in a long chain as in a short one."""

    @jax.jit
    def solve(starts: Any, inputs: Any) -> Any:
        return evaluate(tanh_step, starts, inputs, window=8, chains=True, throw=False, method="newton").iterations

    def temporaries(steps: int) -> int:
        analysis: Any = solve.lower(*chains(steps)).compile().memory_analysis()
        return analysis.temp_size_in_bytes

    # Three numbers and a residual for each step of each chain, once more where they are joined.
    assert temporaries(4096) - temporaries(2048) <= 2 * 4 * (3 + 1) * 3 * 2048


@pytest.mark.parametrize(
    ("start", "inputs"), [(jnp.zeros(3), jnp.zeros((2, 5, 3))), (jnp.zeros((2, 3)), jnp.zeros((3, 5, 3)))]
)
def test_chains_that_are_no_batch_are_refused(start: Any, inputs: Any) -> None:
    with pytest.raises(ValueError, match=r"chains is True, but initial_state and inputs .* same leading axis"):
        evaluate(tanh_step, start, inputs, chains=True)
