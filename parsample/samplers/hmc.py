"""Hamiltonian Monte Carlo with trajectories of a given number of leapfrog steps."""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from parsample.engine import methods, options
from parsample.samplers import metropolis
from parsample.samplers.base import PositionSampler, check_step_size
from parsample.samplers.langevin import LangevinState, state_at
from parsample.samplers.leapfrog import integrate, positions
from parsample.samplers.mass import Mass

LENGTHS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
# A trajectory lasts at least this share of what it should: one that is too long by half costs half as much again, one
# that is too short by half several times as much.
SHORT = 0.8
# What it chooses them from where the length of a trajectory is given, which may be short or long.
ALL_LENGTHS = (1, *LENGTHS, 96, 128, 192, 256, 384, 512, 768, 1024)


class HMCInput(NamedTuple):
    """What a step is given.

    Attributes:
        noise: the momentum w of `leapfrog.py`, standard normal, shape (dim,).
        log_uniform: the logarithm of a uniform number; the end is accepted if its log ratio is above it.
        jitter: uniform on (-1, 1), for the step size; None where that is fixed.
        num_integration_steps: of the trajectory; None where it is fixed.
    """

    noise: Float[Array, " dim"]
    log_uniform: Float[Array, ""]
    jitter: Float[Array, ""] | None = None
    num_integration_steps: Int[Array, ""] | None = None


class HMCInfo(NamedTuple):
    """Diagnostics of a step.

    Attributes:
        acceptance_rate: the probability with which the end of the trajectory was to be accepted.
        is_accepted: whether it was.
        is_divergent: whether the energy rose by more than 1000 along the trajectory, or is not a number at its end.
        energy: of the point of phase space in which the step ends.
        num_integration_steps: leapfrog steps of the trajectory.

    Of a step of several trajectories: the mean, whether all were, whether any is, of the last, and of all together.
    """

    acceptance_rate: Float[Array, ""]
    is_accepted: Bool[Array, ""]
    is_divergent: Bool[Array, ""]
    energy: Float[Array, ""]
    num_integration_steps: Int[Array, ""]


class HMC(PositionSampler):
    """Hamiltonian Monte Carlo: a fresh momentum, a leapfrog trajectory, and its end accepted or rejected.

    With the position x, p ~ N(0, M) and the energy E = p^T M^-1 p / 2 - log p(x), the end (x', p') of a trajectory is
    accepted with probability min(1, exp(E - E')). An end that is not finite is rejected.

    There are two axes to evaluate in parallel: the chain, a draw at a time (what the engine does with any sampler),
    and inside each draw its trajectory, a leapfrog step at a time, with `leapfrog`. The draws are the same.

    Args:
        logdensity_fn: position -> log density, up to a constant.
        step_size: of the leapfrog integrator, BlackJAX's: x moves by step_size M^-1 p, in units of the position where
            the mass matrix is the identity.
        inverse_mass_matrix: None (identity), (dim,) or (dim, dim), in the order of the ravelled position.
        num_integration_steps: leapfrog steps of a trajectory, 8 where neither these nor `trajectory_length` are given.
            `parsample.sample` then chooses them in warm-up: as many as make a trajectory of `trajectory_time`, and two
            to eight times as many where the draws of warm-up depend on each other all the same.
        num_trajectories: of which a step is made, one after the other, each with a momentum of its own and accepted or
            rejected by itself. `parsample.sample` chooses up to four, with the leapfrog steps, where longer
            trajectories would not help: where it is the energy that changes little from one to the next, or, in
            hundreds of dimensions, where so little is missing that twice the length would only turn other directions
            about their means.
        trajectory_length: the time of a trajectory in place of its steps, NumPyro's: the number of leapfrog steps is
            this by the step size, rounded, and in warm-up the nearest of 1, 2, 3, 4, 6, 8, 12, 16, ... Jitter and
            `min_integration_steps` shorten and lengthen a trajectory around it.
        step_size_jitter: in [0, 1): the step size of a trajectory is step_size (1 + step_size_jitter u), u uniform on
            (-1, 1), against trajectories that come back to where they began, and chains that are stuck at any one step
            size: they leave by a smaller one.
        min_integration_steps: the number of leapfrog steps is drawn uniformly from this to `num_integration_steps`;
            None for always `num_integration_steps`. All of them are computed, whatever number was drawn.
        leapfrog: the method by which the engine evaluates the leapfrog steps of a trajectory in parallel, a name or an
            instance; None for a loop. For states (position, momentum): "block_quasi_newton".

    Raises:
        ValueError: an argument is out of its range, or the matrix not positive definite.

    Cost: num_trajectories num_integration_steps gradients a sequential step, one more where only the position is known.

    Source: Neal 2011, section 3.2, whose figure 2 is the step; Zoltowski et al. 2025, section 4, for the two axes.
    Ours: a trajectory in parallel solves the leapfrog steps with half kicks merged, one gradient each, in coordinates
    in which the mass matrix is the identity. The step size is tuned to an acceptance of 0.8, as in Stan, not to the
    0.651 that is best in the limit of many dimensions (Beskos et al. 2013): over the package's targets it yields a
    fifth more effective draws a gradient, and half the divergent draws or fewer on most. Trajectories of a given time
    are Stan's static HMC, 2 pi long there; ours are 2: 1 and 1.5 yield a fifth and a tenth more, but less on breast
    cancer (1) and the funnel (1.5), 3 a fifth less, 4 half. Of powers of two alone, which makes many trajectories half
    as long again, an eighth less. A jitter of 0.2 does as well, 0.9 a third worse
    (benchmarks/results/hmc_defaults.md).
    """

    target_acceptance: ClassVar[float] = 0.8
    power_of_length: ClassVar[float] = 1
    holds_gradient: ClassVar[bool] = True
    # How long a trajectory is whose leapfrog steps warm-up chooses: the time in which a momentum of 1 moves a position
    # by as many posterior standard deviations.
    trajectory_time: ClassVar[float] = 2.0
    # What warm-up chooses the leapfrog steps from: not all numbers, as each may need a program of its own. One would be
    # MALA.
    lengths: ClassVar[tuple[int, ...]] = LENGTHS

    logdensity_fn: Callable
    step_size: Float[Array, ""] | float
    mass: Mass
    num_integration_steps: int | Int[Array, ""]
    step_size_jitter: float = eqx.field(static=True)
    min_integration_steps: int | None = eqx.field(static=True)
    num_trajectories: int = eqx.field(static=True)
    leapfrog: methods.Method | None

    def __init__(
        self,
        logdensity_fn: Callable,
        step_size: Any = 0.1,
        inverse_mass_matrix: Any = None,
        num_integration_steps: Any = None,
        *,
        trajectory_length: Any = None,
        step_size_jitter: Any = 0.5,
        min_integration_steps: Any = None,
        num_trajectories: Any = 1,
        leapfrog: str | methods.Method | None = None,
    ):
        """Check the arguments and factor the mass matrix."""
        check_step_size(step_size)
        self.logdensity_fn, self.step_size, self.mass = logdensity_fn, step_size, Mass.of(inverse_mass_matrix)
        if num_integration_steps is None:
            num_integration_steps = 8 if trajectory_length is None else _steps_of(trajectory_length, step_size)
        elif trajectory_length is not None:
            raise ValueError(
                f"num_integration_steps is {num_integration_steps} and trajectory_length {trajectory_length}, expected "
                "one of the two, for the step size makes the one of the other; leave one out."
            )
        remedy = "a trajectory is that many leapfrog steps"
        self.num_integration_steps = options.whole("num_integration_steps", num_integration_steps, remedy)
        self.step_size_jitter = metropolis.check_jitter(step_size_jitter)
        if min_integration_steps is not None:
            remedy = "None makes every trajectory num_integration_steps long"
            min_integration_steps = options.whole("min_integration_steps", min_integration_steps, remedy)
            if min_integration_steps > self.num_integration_steps:
                raise ValueError(
                    f"min_integration_steps is {min_integration_steps}, expected at most num_integration_steps, "
                    f"{self.num_integration_steps}; raise that, or lower this."
                )
        self.min_integration_steps = min_integration_steps
        remedy = "1 makes a step of one trajectory"
        self.num_trajectories = options.whole("num_trajectories", num_trajectories, remedy)
        self.leapfrog = None if leapfrog is None else methods.find(leapfrog)

    @classmethod
    def options_at(
        cls, options: Mapping[str, Any], step_size: float, longer: int = 1, more: int = 1
    ) -> dict[str, Any] | None:
        """Choose the leapfrog steps of a trajectory, where they are not given; where its length is, that is kept."""
        if "num_integration_steps" in options:
            return None
        kept = {name: value for name, value in options.items() if name != "trajectory_length"}
        wanted = options.get("trajectory_length")
        if wanted is None:
            enough = (length for length in cls.lengths if length * step_size >= SHORT * cls.trajectory_time)
            length = longer * next(enough, cls.lengths[-1])
            kept = ({"num_trajectories": more} if more > 1 else {}) | kept
        else:
            length = min(ALL_LENGTHS, key=lambda length: abs(math.log(length * step_size / float(wanted))))
        return {**kept, "num_integration_steps": max(length, options.get("min_integration_steps") or 1)}

    def for_loop(self) -> "HMC":
        """Return the same sampler with the number of leapfrog steps left open: one program serves for all.

        Not on an accelerator: it would ask the host after every leapfrog step whether there is another.
        """
        if self.leapfrog is not None or jax.default_backend() != "cpu":
            return self
        return eqx.tree_at(lambda hmc: hmc.num_integration_steps, self, np.int32(self.num_integration_steps))

    def init(self, position: PyTree, rng_key: Key[Array, ""] | None = None) -> LangevinState:
        """Return the state at a position, with its log density and gradient."""
        return state_at(self.logdensity_fn, position)

    def draw_block(self, rng_key: Key[Array, ""], num_steps: int, dim: int, dtype: jnp.dtype) -> HMCInput:
        """Draw the noise and the uniform numbers of `num_steps` steps, and what is jittered."""
        count = num_steps * self.num_trajectories
        length = None
        if self.min_integration_steps is not None:
            rng_key, key_length = jax.random.split(rng_key)
            bounds = self.min_integration_steps, self.num_integration_steps + 1
            length = jax.random.randint(key_length, (count,), *bounds, jnp.int32)
        drawn, jitter = metropolis.draw_jittered(rng_key, count, dim, dtype, self.step_size_jitter > 0)
        found = HMCInput(drawn.noise, drawn.log_uniform, jitter, length)
        if self.num_trajectories == 1:
            return found
        return jax.tree.map(lambda leaf: leaf.reshape(num_steps, self.num_trajectories, *leaf.shape[1:]), found)

    def step(self, state: LangevinState, input: HMCInput, gate: str = "frozen") -> tuple[LangevinState, HMCInfo]:
        """Follow a trajectory, then accept or reject its end; and so on."""
        if self.num_trajectories == 1:
            return self._follow(state, input, gate)
        state, (infos, _) = self._follow_all(state, input, gate)
        return state, HMCInfo(
            acceptance_rate=infos.acceptance_rate.mean(),
            is_accepted=infos.is_accepted.all(),
            is_divergent=infos.is_divergent.any(),
            energy=infos.energy[-1],
            num_integration_steps=infos.num_integration_steps.sum(dtype=jnp.int32),
        )

    def _follow_all(
        self, state: LangevinState, input: HMCInput, gate: str
    ) -> tuple[LangevinState, tuple[HMCInfo, LangevinState]]:
        """Return where the last trajectory led, and the diagnostics of each and where it began."""

        def follow(here: LangevinState, given: tuple[HMCInput, Array]) -> tuple[LangevinState, Any]:
            there, info = self._follow(here, given[0], gate, given[1])
            return there, (info, here)

        return jax.lax.scan(follow, state, (input, self._numbers))

    @property
    def _numbers(self) -> Int[Array, " num_trajectories"]:
        """How many leapfrog steps of a step of the chain come before each of its trajectories."""
        return self.num_integration_steps * jnp.arange(self.num_trajectories)

    def _follow(
        self, state: LangevinState, input: HMCInput, gate: str, number: int | Array = 0
    ) -> tuple[LangevinState, HMCInfo]:
        """Follow one trajectory, then accept or reject its end; `number` of leapfrog steps came before in the step."""
        length = input.num_integration_steps
        trajectory = integrate(*self._trajectory(state, input), length=length, method=self.leapfrog, number=number)
        before = jnp.vdot(input.noise, input.noise) / 2 - state.logdensity
        state, info = metropolis.decide(gate, input.log_uniform, trajectory.log_ratio, trajectory.state, state)
        return state, HMCInfo(
            acceptance_rate=info.acceptance_rate,
            is_accepted=info.is_accepted,
            is_divergent=trajectory.is_divergent,
            energy=jnp.where(info.is_accepted, before - trajectory.log_ratio, before),
            num_integration_steps=jnp.asarray(self.num_integration_steps, jnp.int32) if length is None else length,
        )

    def _trajectory(self, state: LangevinState, input: HMCInput) -> tuple[Any, ...]:
        """Return the first arguments of `integrate`, and those of `positions`."""
        jitter = input.jitter
        step_size = self.step_size if jitter is None else self.step_size * (1 + self.step_size_jitter * jitter)
        return self.logdensity_fn, self.mass, state, input.noise, step_size, self.num_integration_steps

    @property
    def points(self) -> Callable[[LangevinState, HMCInput], Float[Array, "points dim"]] | None:
        """The positions after the leapfrog steps; None where their number is open, or `leapfrog` solves for them."""
        if self.leapfrog is not None or not isinstance(self.num_integration_steps, int):
            return None
        return self._points

    def _points(self, state: LangevinState, input: HMCInput) -> Float[Array, "points dim"]:
        if self.num_trajectories == 1:
            return positions(*self._trajectory(state, input))
        _, (_, begins) = self._follow_all(state, input, "frozen")
        several = jax.vmap(lambda here, given, number: positions(*self._trajectory(here, given), number=number))
        return several(begins, input, self._numbers).reshape(-1, input.noise.shape[-1])

    def with_diagonal(self, unknowns: PyTree, input: HMCInput) -> None:
        """Return None: the diagonal of the Jacobian of a trajectory is left to the method's estimator."""
        return None


def _steps_of(trajectory_length: Any, step_size: Any) -> int:
    """Return the leapfrog steps of a trajectory of a given time."""
    if not (options.is_number(trajectory_length) and 0 < trajectory_length < math.inf):
        raise ValueError(f"trajectory_length is {trajectory_length!r}, expected a number above 0, such as 2.0.")
    if isinstance(step_size, jax.core.Tracer):
        raise ValueError(
            "trajectory_length needs a step size that is known when the sampler is made; give num_integration_steps."
        )
    return max(1, round(float(trajectory_length) / float(step_size)))
