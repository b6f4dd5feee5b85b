"""The derivative of accept/reject, against derivatives written by hand."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine.transition import GATES
from parsample.samplers import MALA, ULA
from parsample.samplers.gate import choose
from parsample.samplers.metropolis import MetropolisInput
from parsample.samplers.ula import ULAInput
from tests.samplers import textbook
from tests.tolerances import SAME_COMPUTATION

STEP_SIZE = 0.3


class Steps(NamedTuple):
    """Steps of which half are accepted: position, noise and log uniform number of each."""

    positions: np.ndarray
    noises: np.ndarray
    log_uniforms: np.ndarray

    def inputs(self, sampler):
        """The same for a sampler, as JAX's arrays."""
        fields = [jnp.asarray(field) for field in (self.noises, self.log_uniforms)]
        return MetropolisInput(*fields) if sampler is MALA else ULAInput(fields[0])


def decided_steps(rng, inverse_mass, number=6):
    """Draw steps, and give each a log uniform number on the one or the other side of its log ratio."""
    positions, noises = rng.standard_normal((2, number, textbook.DIM))
    proposals = [
        textbook.propose(x, noise, STEP_SIZE, inverse_mass) for x, noise in zip(positions, noises, strict=True)
    ]
    ratios = [textbook.log_ratio(x, y, STEP_SIZE, inverse_mass) for x, y in zip(positions, proposals, strict=True)]
    return Steps(positions, noises, np.array(ratios) + np.where(np.arange(number) % 2, 0.7, -0.4))


def log_odds(x, noise, log_uniform, inverse_mass):
    proposal = textbook.propose(x, noise, STEP_SIZE, inverse_mass)
    return textbook.log_ratio(x, proposal, STEP_SIZE, inverse_mass) - log_uniform


def difference(function, x, width=1e-5):
    """The gradient by central differences."""
    return np.array([(function(x + width * e) - function(x - width * e)) / (2 * width) for e in np.eye(len(x))])


def derivatives_by_hand(x, noise, log_uniform, inverse_mass):
    """The Jacobians of a step with the frozen gate and with the straight-through one."""
    odds = log_odds(x, noise, log_uniform, inverse_mass)
    # Frozen: the derivative of the branch that was taken.
    of_proposal = np.eye(textbook.DIM) + STEP_SIZE * inverse_mass @ textbook.hessian(x)
    frozen = of_proposal if odds > 0 else np.eye(textbook.DIM)
    # Straight through: beside it that of sigmoid(log odds) (proposal - position) through the odds alone.
    slope = 1 / (2 + np.exp(odds) + np.exp(-odds))
    jump = textbook.propose(x, noise, STEP_SIZE, inverse_mass) - x
    through_odds = difference(lambda x: log_odds(x, noise, log_uniform, inverse_mass), x)
    return frozen, frozen + slope * np.outer(jump, through_odds)


@pytest.mark.parametrize("mass", textbook.MASSES)
@pytest.mark.usefixtures("x64")
def test_the_derivative_of_a_step(mass, rng):
    given, inverse_mass = textbook.MASSES[mass]
    steps = decided_steps(rng, inverse_mass)
    by_hand = [
        derivatives_by_hand(x, noise, log_uniform, inverse_mass) for x, noise, log_uniform in zip(*steps, strict=True)
    ]
    frozen, relaxed = (np.stack(jacobians) for jacobians in zip(*by_hand, strict=True))
    assert np.all(np.abs(relaxed - frozen).max((1, 2)) > 1e-2)

    transition = MALA(textbook.Quartic(), STEP_SIZE, given).transition

    @jax.jit
    @jax.vmap
    def jacobians(*step):
        gated = [transition.with_gate(gate) for gate in ("frozen", "straight_through")]
        return [[derivative(step_of)(*step) for step_of in gated] for derivative in (jax.jacfwd, jax.jacrev)]

    for of_frozen, of_relaxed in jacobians(jnp.asarray(steps.positions), steps.inputs(MALA)):
        SAME_COMPUTATION.check(of_frozen, frozen)
        np.testing.assert_allclose(of_relaxed, relaxed, rtol=1e-6, atol=1e-7)


def test_the_gate_does_not_touch_the_value(rng):
    transition = MALA(textbook.Quartic(), STEP_SIZE).transition
    steps = Steps(*(field.astype(np.float32) for field in decided_steps(rng, np.eye(textbook.DIM))))
    values = [
        jax.jit(jax.vmap(transition.with_gate(gate)))(jnp.asarray(steps.positions), steps.inputs(MALA))
        for gate in GATES
    ]
    np.testing.assert_array_equal(values[0], values[1])


@pytest.mark.parametrize("is_accepted", [True, False])
@pytest.mark.parametrize("gate", GATES)
def test_a_choice_is_exact_where_the_two_are_far_apart(gate, is_accepted):
    # `old + 1 * (new - old)` would lose the small one beside the large one.
    new, old = {"x": jnp.asarray([1.0, 1e-12])}, {"x": jnp.asarray([1e12, 1.0])}
    chosen = choose(gate, jnp.asarray(is_accepted), jnp.asarray(0.3), new, old)
    np.testing.assert_array_equal(chosen["x"], (new if is_accepted else old)["x"])


def test_an_unknown_gate():
    numbers = jnp.zeros(2)
    with pytest.raises(
        ValueError, match=r"gate is 'froze', expected one of frozen, straight_through\. Did you mean 'frozen'\?"
    ):
        choose("froze", jnp.asarray(True), jnp.asarray(0.0), numbers, numbers)


# --- the analytic diagonal


@pytest.mark.parametrize("mass", ["identity", "diagonal"])
@pytest.mark.parametrize("sampler", [MALA, ULA])
@pytest.mark.usefixtures("x64")
def test_the_diagonal_is_that_of_the_jacobian(sampler, mass, rng):
    given, inverse_mass = textbook.MASSES[mass]
    transition = sampler(textbook.Quartic(), STEP_SIZE, given).transition
    steps = decided_steps(rng, inverse_mass)
    positions, inputs = jnp.asarray(steps.positions), steps.inputs(sampler)
    (state, _), diagonals = jax.jit(jax.vmap(transition.with_diagonal))(positions, inputs)
    expected, jacobians = jax.jit(jax.vmap(lambda *step: (transition(*step), jax.jacfwd(transition)(*step))))(
        positions, inputs
    )
    SAME_COMPUTATION.check(state.position, expected)
    SAME_COMPUTATION.check(diagonals, np.diagonal(jacobians, axis1=1, axis2=2))
    assert np.all(np.asarray(diagonals) == 1, axis=1).sum() == (0 if sampler is ULA else 3)


@pytest.mark.parametrize("sampler", [MALA, ULA])
def test_the_diagonal_of_a_pytree_is_one_like_it(sampler):
    class Separate:
        def __call__(self, position):
            return -0.5 * position["a"] ** 2 - jnp.sum(position["b"] ** 4) / 4

        def hessian_diagonal(self, position):
            return {"a": -jnp.ones(()), "b": -3 * position["b"] ** 2}

    position = {"a": jnp.asarray(0.5), "b": jnp.asarray([1.0, -0.7])}
    transition = sampler(Separate(), 0.1, np.array([1.0, 2.0, 0.5], np.float32)).transition
    noise = jnp.zeros(3)
    input = MetropolisInput(noise, jnp.asarray(-20.0)) if sampler is MALA else ULAInput(noise)
    (state, _), diagonal = jax.jit(lambda *step: transition.with_diagonal(*step))(position, input)
    trees = [str(jax.tree.structure(tree)) for tree in (diagonal, position, state.position)]
    assert trees[0] == trees[1] == trees[2]
    SAME_COMPUTATION.check(diagonal["a"], np.float32(1 - 0.1))
    SAME_COMPUTATION.check(diagonal["b"], np.asarray([1 - 0.1 * 2 * 3, 1 - 0.1 * 0.5 * 3 * 0.49], np.float32))


@pytest.mark.parametrize("sampler", [MALA, ULA])
def test_where_no_diagonal_is_known(sampler):
    class Unsure:
        hessian_diagonal = None

        def __call__(self, x):
            return -0.5 * jnp.sum(x**2)

    position = jnp.zeros(textbook.DIM)
    dense = textbook.DENSE.astype(np.float32)
    for transition in (
        sampler(lambda x: -0.5 * jnp.sum(x**2)).transition,
        sampler(Unsure()).transition,
        sampler(textbook.Quartic(), 0.1, dense).transition,
    ):
        input = MetropolisInput(position, jnp.asarray(-1.0)) if sampler is MALA else ULAInput(position)
        assert transition.with_diagonal(position, input) is None
