"""What a diffusion process is: a discretised reverse equation as a transition, with its schedule among the inputs."""

import abc
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from parsample._former import former_attribute, takes_former
from parsample.engine.names import unknown
from parsample.engine.options import is_number
from parsample.engine.transition import Transition
from parsample.samplers.diffusion.denoisers import Denoiser, GaussianDenoiser
from parsample.samplers.diffusion.model import call_model, check_model
from parsample.samplers.diffusion.predictions import DIVIDED_BY_SIGNAL, TO_X0, check_prediction
from parsample.samplers.diffusion.schedules import Level, LinearBetas, Schedule, check_times


class StepInput(NamedTuple):
    """What a step is given.

    Attributes:
        now: the level that the state has.
        next: the level that it gets; sigma is 0 where it is to be clean.
        noise: standard normal, one array of the sample's shape for each that the process reads, or none.
        coefficients: what else the process works out from the schedule, a tuple of numbers.
    """

    now: Level
    next: Level
    noise: tuple[Array, ...]
    coefficients: tuple[Any, ...]


class Process(eqx.Module):
    """A way to go from noise to a sample in `num_steps` steps.

    Args:
        predict: the model: `predict(x, t)`, or `predict(x, t, condition)` where there is a condition. One sample and
            one time, as the schedule has it: training step, noise level or continuous time.
        schedule: how much noise there is when.
        num_steps: of the sampler.
        prediction: what the model predicts: "noise", "x0", "v", "score" or "velocity".
        spacing: which times: "leading", "linspace" or "trailing" for training steps, "linspace" for continuous time, or
            "karras"; None for what the process is best with.
        times: the times themselves, falling, in place of `num_steps` and `spacing`.
        condition: any pytree, handed to the model as it is.
        known: for inpainting, the pixels that are given, an array like a sample; what it holds elsewhere is not looked
            at. Every denoised sample gets them, so that the final one has them exactly.
        mask: truth values like `known`: where it is known.
        sigma_data: standard deviation of the data around its nearest neighbours, in its units. It changes no sample:
            methods take the scale of the Jacobian from it, and the guess where there is no `surrogate`.
        surrogate: what is put in the model's place where none may be called, as for guesses: a `Denoiser`
            such as `NormalDenoiser.fit(images)`, which saves a round or more and knows the directions that
            "subspace_newton" needs; None for `GaussianDenoiser(sigma_data)`. It changes no sample either.
        options: of the process.

    Raises:
        ValueError: an argument is not what it should be; the sentence says which and how to mend it.
    """

    # Calls of the model a step, one after the other, and arrays of noise a step.
    evaluations_per_step: ClassVar[int] = 1
    noises: ClassVar[int] = 0
    # The options of the process: (name, default, least, largest).
    option_rows: ClassVar[tuple[tuple[str, float, float, float], ...]] = ()

    predict: Callable
    schedule: Schedule
    prediction: str = eqx.field(static=True)
    visited: tuple[Any, ...] = eqx.field(static=True)
    condition: PyTree
    known: Array | None
    mask: Array | None
    sigma_data: float = eqx.field(static=True)
    surrogate: Denoiser | None
    options: tuple[float, ...] = eqx.field(static=True)

    @takes_former(stand_in="surrogate")
    def __init__(
        self,
        predict: Any,
        schedule: Any = None,
        num_steps: int | None = None,
        prediction: str = "noise",
        *,
        spacing: str | None = None,
        times: Any = None,
        condition: PyTree = None,
        known: Any = None,
        mask: Any = None,
        sigma_data: Any = 1.0,
        surrogate: Any = None,
        **options: Any,
    ):
        """Check the arguments and choose the times."""
        check_model(predict, condition)
        check_prediction(prediction)
        if not (is_number(sigma_data) and 0 < sigma_data < math.inf):
            raise ValueError(f"sigma_data is {sigma_data!r}, expected a finite number above 0, such as 0.5 for images.")
        if not (surrogate is None or isinstance(surrogate, Denoiser)):
            raise ValueError(
                f"surrogate is a {type(surrogate).__name__}, expected a Denoiser such as NormalDenoiser.fit(images), "
                "or None."
            )
        schedule = self.default_schedule() if schedule is None else schedule
        if not isinstance(schedule, Schedule):
            raise ValueError(f"schedule is a {type(schedule).__name__}, expected one such as LinearBetas() or VP().")
        if times is None:
            num_steps = self.default_steps() if num_steps is None else num_steps
            spacing = self.default_spacing(schedule) if spacing is None else spacing
            times = schedule.times(self._count(num_steps), spacing)
        elif num_steps is not None or spacing is not None:
            raise ValueError("times was given beside num_steps or spacing, expected one or the other; leave one out.")
        self.predict, self.schedule, self.prediction, self.condition = predict, schedule, prediction, condition
        self.known, self.mask = _check_known(known, mask)
        self.visited = check_times(times, schedule)
        self.sigma_data, self.surrogate = float(sigma_data), surrogate
        self.options = self._check_options(options)
        self._check_levels()

    stand_in, gaussian = former_attribute("stand_in", "surrogate"), former_attribute("gaussian", "with_surrogate")

    # What a process says of itself.

    @abc.abstractmethod
    def step(self, state: PyTree, input: StepInput) -> PyTree:
        """Make one step."""

    @abc.abstractmethod
    def coefficients(self, levels: Level) -> tuple[np.ndarray, ...]:
        """Return what a step needs beside its two levels, arrays with leading axis `steps`, from `steps + 1` levels.

        For a process with noise the last of them is a factor of it: where it is 0 in every step none is drawn.
        """

    def default_schedule(self) -> Schedule:
        """Return the schedule to use where none is given."""
        return LinearBetas()

    def default_steps(self) -> int:
        """Return the number of steps to make where none is given."""
        return 100

    def default_spacing(self, schedule: Schedule) -> str:
        """Return the spacing to use where none is given."""
        return "leading" if schedule.discrete else "linspace"

    def start(self, x: Array) -> PyTree:
        """Return the state at the beginning."""
        return x

    def sample(self, state: PyTree) -> Array:
        """Return the sample in a state."""
        return state

    # What is the same for all.

    @property
    def num_steps(self) -> int:
        """How many steps there are."""
        return len(self.visited)

    @property
    def levels(self) -> Level:
        """The level before every step, and after the last: `num_steps + 1` of each, in double precision.

        The last step goes to a clean sample, beyond the last of the times: its result is the denoised sample.
        """
        return cleaned(self.schedule.level(np.asarray(self.visited)))

    @property
    def noise_levels(self) -> np.ndarray:
        """The scale of an error after every step, in the units of the data: sqrt(sigma^2 + alpha^2 sigma_data^2).

        The noise that is left, and below it the data's own spread. On normal data the ODE keeps the ratio of an error
        to this scale, so that a tolerance relative to it is as strict at the beginning as at the end, where no noise is
        left.
        """
        return self._scale(split(self.levels)[1])

    def _scale(self, levels: Level) -> np.ndarray:
        return np.sqrt(levels.sigma**2 + (levels.alpha * self.sigma_data) ** 2)

    @property
    def transition(self) -> "ProcessTransition":
        """What the engine solves: `transition(state, input) -> state`."""
        return ProcessTransition(self)

    def init(self, rng_key: Key[Array, ""], shape: tuple[int, ...], dtype: Any = None) -> PyTree:
        """Return the state that sampling starts from: normal noise at the first level."""
        scale = self.schedule.prior_scale(self.visited[0])
        return self.start(scale * jax.random.normal(rng_key, shape, jnp.result_type(float) if dtype is None else dtype))

    def draw_inputs(self, rng_key: Key[Array, ""], shape: tuple[int, ...], dtype: Any = None) -> StepInput:
        """Return the schedule values and the noise of all steps, leading axis `steps`."""
        dtype = jnp.result_type(float) if dtype is None else dtype
        steps, levels = self.num_steps, self.levels

        def cut(first: int) -> Level:
            time = jnp.asarray(levels.time[first : first + steps], jnp.int32 if self.schedule.discrete else dtype)
            return Level(time, *(jnp.asarray(row[first : first + steps], dtype) for row in levels[1:]))

        size, coefficients = math.prod(shape), self.coefficients(levels)
        keys = jax.random.split(rng_key, self.noises) if self.noises and np.any(coefficients[-1] != 0) else ()
        noise = tuple(
            # Drawn flat: for a short last axis XLA takes long to compile the generator.
            jax.random.normal(key, (steps * size,), dtype).reshape(steps, *shape)
            for key in keys
        )
        return StepInput(cut(0), cut(1), noise, tuple(jnp.asarray(row, dtype) for row in coefficients))

    def denoise(self, x: Array, level: Level) -> Array:
        """Return the model's clean sample at a level, with the pixels that are known put in."""
        x0 = self._denoise(x, level)
        if self.known is None or self.mask is None:
            return x0
        if self.known.shape != x.shape:
            raise ValueError(f"known has shape {self.known.shape}, expected {x.shape}, the shape of a sample.")
        return jnp.where(self.mask, self.known.astype(x.dtype), x0)

    def _denoise(self, x: Array, level: Level) -> Array:
        if isinstance(self.predict, Denoiser):
            return self.predict(x, level.alpha, level.sigma)
        output = call_model(self.predict, x, level.time, self.condition)
        return TO_X0[self.prediction](x, output, level.alpha, level.sigma)

    def noise_of(self, x: Array, x0: Array, level: Level) -> Array:
        """Return the noise in x, given its clean sample."""
        return (x - level.alpha * x0) / level.sigma

    def with_surrogate(self) -> "Process":
        """Return the same process with its surrogate, or normal data of deviation `sigma_data`: it calls no model."""
        return self.with_denoiser(GaussianDenoiser(self.sigma_data) if self.surrogate is None else self.surrogate)

    def with_denoiser(self, denoiser: Denoiser) -> "Process":
        """Return the same process with something else in the place of its model."""
        return eqx.tree_at(lambda p: (p.predict, p.condition), self, (denoiser, None), is_leaf=lambda x: x is None)

    def jacobians(self, deviation: float | None = None) -> Float[Array, "steps parts parts"]:
        """Return the Jacobian of every step for normal data of a standard deviation, by default `sigma_data`.

        There each part of the next state is a number times each part of the last, the same number for every pixel.
        """
        nothing_known = lambda leaf: leaf is None  # noqa: E731
        normal = self.with_denoiser(GaussianDenoiser(self.sigma_data if deviation is None else deviation))
        simple = eqx.tree_at(lambda p: (p.known, p.mask), normal, (None, None), is_leaf=nothing_known)
        state = self.start(jnp.ones(()))
        inputs = self.draw_inputs(jax.random.key(0), ())
        inputs = inputs._replace(noise=tuple(jnp.zeros_like(noise) for noise in inputs.noise))
        flat, tree = jax.tree.flatten(state)

        def step(parts: Array, input: StepInput) -> Array:
            return jnp.stack(jax.tree.leaves(simple.step(jax.tree.unflatten(tree, list(parts)), input)))

        return jax.vmap(lambda input: jax.jacfwd(step)(jnp.stack(flat), input))(inputs)

    def _count(self, num_steps: Any) -> int:
        """Return the number of steps, checked."""
        if isinstance(num_steps, bool) or not hasattr(num_steps, "__index__") or num_steps.__index__() < 1:
            raise ValueError(f"num_steps is {num_steps!r}, expected a whole number of at least 1.")
        return num_steps.__index__()

    def _check_options(self, options: dict[str, Any]) -> tuple[float, ...]:
        known = [name for name, *_ in self.option_rows]
        for name in options:
            if name not in known:
                raise unknown(f"an option of {type(self).__name__}", name, known or ["none"])
        found = []
        for name, default, least, largest in self.option_rows:
            value = options.get(name, default)
            if not (is_number(value) and least <= value <= largest):
                raise ValueError(f"{name} is {value!r}, expected a number in [{least:g}, {largest:g}].")
            found.append(float(value))
        return tuple(found)

    def _check_levels(self) -> None:
        _, alpha, sigma = self.schedule.level(np.asarray(self.visited))
        if (sigma <= 0).any():
            raise ValueError("times reach a level without noise before the last step; leave out time 0.")
        if self.needs_signal() and (alpha <= 0).any():
            raise ValueError(self._no_signal())

    def _no_signal(self) -> str:
        """Say why sampling cannot start at a level without signal: because of the model, or of the process."""
        remedy = "spacing='leading' or times=" if self.schedule.discrete else "a smaller largest_time, or times="
        found = f"the schedule has no signal at time {self.visited[0]:g} (zero terminal SNR), "
        begin = f"or begin below that time, by {remedy}"
        if self.prediction in DIVIDED_BY_SIGNAL:
            return (
                f"{found}where prediction={self.prediction!r} says nothing of the clean sample, whatever the process; "
                f"use a model that predicts 'v' or 'x0', {begin}."
            )
        return f"{found}by which {type(self).__name__} divides; use DDIM with eta=0, which does not, {begin}."

    def needs_signal(self) -> bool:
        """Whether alpha must not be 0: whenever it is divided by."""
        return self.prediction in DIVIDED_BY_SIGNAL


def _check_known(known: Any, mask: Any) -> tuple[Array | None, Array | None]:
    if known is None and mask is None:
        return None, None
    if known is None or mask is None or np.shape(known) != np.shape(mask):
        found = [None if value is None else np.shape(value) for value in (known, mask)]
        raise ValueError(f"known and mask have the shapes {found}, expected the same: pixels and where they are known.")
    return jnp.asarray(known), jnp.asarray(mask, bool)


def fresh_noise(deviation: Any, input: StepInput) -> Array | float:
    """Return the noise that a step adds, of a standard deviation; 0 where none was drawn."""
    return deviation * input.noise[0] if input.noise else 0.0


def cleaned(levels: Level) -> Level:
    """Return the levels and after them that of a clean sample."""
    return Level(*(np.append(row, end) for row, end in zip(levels, (0, 1.0, 0.0), strict=True)))


def split(levels: Level) -> tuple[Level, Level]:
    """Return the levels before and after every step."""
    return Level(*(row[:-1] for row in levels)), Level(*(row[1:] for row in levels))


class ProcessTransition(Transition):
    """A process's step as a transition. Its surrogate is the same process with a surrogate of the model."""

    process: Process

    def __call__(self, state: PyTree, input: StepInput) -> PyTree:
        """Return the next state."""
        return self.process.step(state, input)

    def with_gate(self, gate: str) -> "ProcessTransition":
        """Return itself: there is no decision."""
        return self

    def with_diagonal(self, state: PyTree, input: StepInput) -> None:
        """Return None: the model's Jacobian is not known."""
        return None

    def surrogate(self) -> "ProcessTransition":
        """Return the transition that calls no model."""
        return ProcessTransition(self.process.with_surrogate())

    def start(self, state: PyTree) -> PyTree:
        """Return the state itself."""
        return state

    def advance(self, carry: PyTree, input: StepInput) -> tuple[PyTree, None]:
        """Return the next state and no diagnostics."""
        return self.process.step(carry, input), None

    def state_of(self, carry: PyTree) -> PyTree:
        """Return the carry, which is the state."""
        return carry
